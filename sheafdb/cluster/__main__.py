"""``make cluster``: Kafka, etcd, MinIO and the five roles on this machine, until ctrl-C."""

import argparse
import asyncio
import fcntl
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import InvalidArgument, SheafError, StartRefused
from sheafdb import __version__
from sheafdb.cluster import docker
from sheafdb.cluster.cluster import ROLES, Cluster, Size
from sheafdb.cluster.endpoints import Endpoints
from sheafdb.cluster.keeper import Keeper
from sheafdb.config import from_flag, load
from sheafdb.servers.install import install
from sheafdb.servers.progress import shown

WRONG_USE, REFUSED = 2, 3
READY = re.compile(r" is ready: (\S+) .*metrics: ([^)]+)\)")
"""A role's ready line."""
FLAGS = {
    "proxy": "--proxies",
    "querynode": "--query-nodes",
    "datanode": "--data-nodes",
    "indexnode": "--index-nodes",
    "coordinator": "--coordinators",
}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        # Before anything is installed or started for it.
        arguments.settings = {given.name: given.text for given in map(from_flag, arguments.set)}
        load(None, {}, map(from_flag, arguments.set))
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with _held(arguments.folder):
            return asyncio.run(_run(arguments))
    except SheafError as e:
        print(f"sheafdb: {e}", file=sys.stderr)
        return WRONG_USE if isinstance(e, InvalidArgument) else REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m sheafdb.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="data, logs and cluster.yaml")
    parser.add_argument("--port", type=int, default=19530, help="of the first proxy, the others follow; 0 = free ones")
    for role in ROLES:
        parser.add_argument(FLAGS[role], type=int, default=getattr(Size(), role), metavar="N", dest=role)
    parser.add_argument("--no-roles", action="store_true", help="only the servers, for `sheafdb admin adopt`")
    parser.add_argument("--no-restart", action="store_true", help="leave a process that dies dead")
    parser.add_argument(
        "--servers",
        choices=("auto", "docker", "packages"),
        default="auto",
        help="where Kafka, etcd and MinIO come from; auto = Docker when its engine answers, else packages",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="one setting of all roles"
    )
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    serving = asyncio.create_task(_serve(arguments), name="cluster")
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        serving.cancel()
        # The second one ends this process at once, and its children with it.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    with suppress(asyncio.CancelledError):
        await serving
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    """Until it is cancelled."""
    containers = docker.DockerServers(arguments.folder) if await _by_docker(arguments.servers) else None
    endpoints: Endpoints | None = None
    if containers:
        endpoints = await containers.start(_say)
    else:
        with shown() as progress:
            install(("kafka", "etcd", "minio"), progress)
    try:
        await _serve_roles(arguments, endpoints)
    finally:
        if containers:
            await containers.stop()


async def _serve_roles(arguments: argparse.Namespace, endpoints: Endpoints | None) -> None:
    _say(f"starting; logs and data are in {arguments.folder}")
    cluster = await Cluster.start(
        arguments.folder,
        size=Size(**{role: 0 if arguments.no_roles else getattr(arguments, role) for role in ROLES}),
        port=arguments.port,
        endpoints=endpoints,
        settings=arguments.settings,
    )
    try:
        _show(cluster)
        if arguments.no_restart:
            await asyncio.Event().wait()
        await Keeper([*cluster.servers.values(), *cluster.roles.values()], _say).run()
    finally:
        _say("ending")
        await cluster.stop()


async def _by_docker(wanted: str) -> bool:
    if wanted == "packages":
        return False
    answers = await docker.available()
    if wanted == "docker" and not answers:
        raise StartRefused("--servers docker: no Docker engine answers `docker info`, or `docker compose` is missing")
    return answers


def _show(cluster: Cluster) -> None:
    at = cluster.endpoints
    for name, where in (("kafka", at.kafka), ("etcd", at.etcd), ("minio", at.s3)):
        pid = f"pid {cluster.servers[name].pid}" if cluster.servers else "a container"
        print(f"  {name:14} {where:24} {pid}")
    for process in cluster.roles.values():
        said = READY.search(process.ready_line)
        address, metrics = said.groups() if said else (process.address, "")
        print(f"  {process.name:14} {address:24} pid {process.pid:<8} {metrics}")
    what = " ".join(f"http://{address}" for address in cluster.proxies) if cluster.roles else "servers only"
    print(f"SheafDB {__version__} cluster is ready: {what} (settings: {cluster.config})", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One launcher per folder."""
    with (folder / "LOCK").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartRefused(f"another cluster runs in {folder}") from None
        yield


if __name__ == "__main__":
    sys.exit(main())
