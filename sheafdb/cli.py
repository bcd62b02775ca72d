"""The command line. Heavy imports wait until a command needs them: ``sheafdb --version`` is instant.

Exit codes: 0 done; 1 a part of the server failed while it ran; 2 wrong arguments or settings;
3 the server refused to start (folder in use, other cluster, newer format, port taken).
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import InvalidArgument, SheafError, StartRefused
from sheafdb import __version__

if TYPE_CHECKING:
    from sheafdb.config import Configuration

WRONG_USE = 2
FAILED = 1
REFUSED = 3

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="SheafDB: a vector database."
)

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="YAML file with settings.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="One setting; may be repeated.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]", show_default=False)]
Port = Annotated[int | None, typer.Option(help="Port; 0 = any free one. [default: 19530]", show_default=False)]


def main() -> None:
    """Entry point of the ``sheafdb`` command."""
    try:
        app()
    except SheafError as e:
        print(f"sheafdb: {e}", file=sys.stderr)
        sys.exit({InvalidArgument: WRONG_USE, StartRefused: REFUSED}.get(type(e), FAILED))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"sheafdb {__version__}")
        raise typer.Exit


@app.command()
def standalone(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data; made when missing.")],
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    set_: Set = None,
) -> None:
    """Serve one data folder from this process: everything included, nothing else to install."""
    settings = _load(config, host, port, set_).settings
    from sheafdb import serve  # noqa: PLC0415  # the roles take half a second to import

    sys.exit(serve.run(data, settings))


@app.command(name="config")
def show_config(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    set_: Set = None,
    output: Annotated[str, typer.Option(help="table or json")] = "table",
) -> None:
    """Print the settings in force and where each came from."""
    configuration = _load(config, host, port, set_)
    if output == "json":
        import orjson  # noqa: PLC0415

        sections = asdict(configuration.settings)
        document = {"settings": sections, "origins": dict(configuration.origins)}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    if output != "table":
        raise InvalidArgument(f"--output is table or json, not {output!r}")
    rows = [(name, str(value), origin) for name, value, origin in configuration.rows()]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")


def _load(file: Path | None, host: str | None, port: int | None, assignments: list[str] | None) -> "Configuration":
    from sheafdb.config import Given, from_flag, load  # noqa: PLC0415

    flags = [from_flag(text) for text in assignments or ()]
    if host is not None:
        flags.append(Given("server.host", host, "--host"))
    if port is not None:
        flags.append(Given("server.port", str(port), "--port"))
    return load(file, os.environ, flags)


if __name__ == "__main__":
    main()
