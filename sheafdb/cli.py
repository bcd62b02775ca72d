"""The command line. Heavy imports wait until a command needs them: ``sheafdb --version`` is instant.

Exit codes: 0 done; 1 a part of the server failed while it ran, or ``admin`` found something wrong;
2 wrong arguments or settings; 3 the server refused to start (folder in use, other cluster, newer format, port taken).
"""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InvalidArgument, SheafError, StartRefused
from sheafdb import __version__, process
from sheafdb.admin import arguments as admin

if TYPE_CHECKING:
    from sheafdb.config import Configuration

FAILED = 1
WRONG_USE = 2
REFUSED = 3

ROLES = {
    "proxy": "serves clients",
    "coordinator": "leads, or stands by",
    "querynode": "answers reads",
    "datanode": "seals and compacts",
    "indexnode": "builds indexes",
}


def main() -> None:
    """Entry point of the ``sheafdb`` command."""
    arguments = _parser().parse_args()
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        if arguments.run in (_standalone, _role):
            raise
        # Whoever read the output has had enough of it (``| head``). The interpreter flushes once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except SheafError as e:
        print(f"sheafdb: {e}", file=sys.stderr)
        sys.exit({InvalidArgument: WRONG_USE, StartRefused: REFUSED}.get(type(e), FAILED))


def _parser() -> argparse.ArgumentParser:
    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    settings.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    settings.add_argument(
        "--port", help="port to listen on, of the Milvus protocol where it is served; 0 = any free one"
    )
    settings.add_argument(
        "--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="one setting; may be repeated"
    )
    parser = argparse.ArgumentParser("sheafdb", description="SheafDB: a vector database.")
    parser.add_argument("--version", action="version", version=f"sheafdb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    standalone = commands.add_parser("standalone", parents=[settings], help="serve one data folder from this process")
    standalone.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder; made when missing")
    standalone.set_defaults(run=_standalone)

    for role, what in ROLES.items():
        one = commands.add_parser(role, parents=[settings], help=f"one process of a cluster: {what}")
        one.set_defaults(run=_role, role=role)

    config = commands.add_parser("config", parents=[settings], help="print the settings in force and their origins")
    config.add_argument("--output", choices=("table", "json"), default="table")
    config.set_defaults(run=_config)

    admin.add_to(commands)
    return parser


def _standalone(arguments: argparse.Namespace) -> int:
    settings = _load(arguments).settings
    _prepare()
    from sheafdb import serve  # noqa: PLC0415  # after _prepare()
    from sheafdb.standalone import Standalone  # noqa: PLC0415  # the roles: half a second

    return serve.run(lambda: Standalone.open(arguments.data, settings), settings.logging)


def _role(arguments: argparse.Namespace) -> int:
    settings = _load(arguments).settings
    _prepare()
    from sheafdb import serve  # noqa: PLC0415  # after _prepare()
    from sheafdb.node import Node  # noqa: PLC0415  # after _prepare()

    return serve.run(lambda: Node.open(arguments.role, settings), settings.logging)


def _prepare() -> None:
    process.prepare()
    # gRPC writes lines of its own, in its own form, about connections that end; their users say so too.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # What imports make stays for good; looking for garbage among it takes a sixth of the start-up time.
    gc.disable()


def _config(arguments: argparse.Namespace) -> int:
    configuration = _load(arguments)
    rows = [(name, value, origin) for name, value, origin in configuration.rows()]
    if arguments.output == "json":
        import json  # noqa: PLC0415  # only here

        print(json.dumps({name: {"value": value, "from": origin} for name, value, origin in rows}, indent=2))
        return 0
    widths = [max(len(str(row[i])) for row in rows) for i in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value!s:{widths[1]}}  {origin}")
    return 0


def _load(arguments: argparse.Namespace) -> "Configuration":
    from sheafdb.config import Given, from_flag, load  # noqa: PLC0415  # --version needs none of it

    flags = [from_flag(text) for text in arguments.set]
    # The roles behind the proxy listen for each other only.
    section = "server" if getattr(arguments, "role", "proxy") == "proxy" else "node"
    for name in ("host", "port"):
        value = getattr(arguments, name)
        if value is not None:
            flags.append(Given(f"{section}.{name}", value, f"--{name}"))
    return load(arguments.config, os.environ, flags)


if __name__ == "__main__":
    main()
