"""The processes of a cluster on loopback: its servers, if they are its own, and its roles."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from core.errors import Timeout
from core.settings import EtcdSettings
from sheafdb.cluster.endpoints import Endpoints, write_config
from sheafdb.cluster.role_process import RoleProcess
from sheafdb.servers.etcd import Etcd
from sheafdb.servers.kafka import Kafka
from sheafdb.servers.minio import Minio
from sheafdb.servers.process import HOST, LocalServer, free_port, require_free
from storage import keys
from storage.meta.etcd import EtcdMeta


@dataclass(frozen=True, slots=True)
class Size:
    """Processes of each role. The fields are the names of the roles; in the order in which they end."""

    proxy: int = 2
    querynode: int = 3
    datanode: int = 2
    indexnode: int = 2
    coordinator: int = 2


ROLES = tuple(f.name for f in fields(Size))


class Cluster:
    """Made by ``start``. ``servers``: its own Kafka, etcd and MinIO by name, empty when it was given some.
    ``roles``: its processes by name ("querynode-1"). Nothing is started again by itself: see ``keeper``."""

    def __init__(self, folder: Path, endpoints: Endpoints, settings: Mapping[str, Any]) -> None:
        self.folder = folder.absolute()
        self.endpoints = endpoints
        self.config = self.folder / "cluster.yaml"
        self.servers: dict[str, LocalServer] = {}
        self.roles: dict[str, RoleProcess] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(
            self.config,
            {
                **endpoints.settings(),
                "cache.dir": str(self.folder / "cache"),
                "server.metrics_port": 0,
                "logging.format": "json",
                **settings,
            },
        )

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        size: Size | None = None,
        port: int = 0,
        endpoints: Endpoints | None = None,
        settings: Mapping[str, Any] | None = None,
        of_process: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        """Serves when it returns. Data of an earlier cluster in ``folder`` are kept.

        port: of the first proxy, the others follow; 0 = any free ones. endpoints: servers to use instead
        of its own. settings: dotted names to values, for all processes; of_process: for some, by name.
        Raises ``StartRefused`` (with the last words of what did not start) or ``Timeout``; ends all then."""
        size = size or Size()
        for wanted in range(port, port + size.proxy) if port else ():
            require_free(wanted, "a proxy")
        servers: dict[str, LocalServer] = {}
        try:
            if endpoints is None:
                endpoints = await start_servers(folder, servers)
            cluster = cls(folder, endpoints, settings or {})
        except BaseException:
            _kill(servers.values())
            raise
        cluster.servers = servers
        try:
            await cluster._start_roles(size, port, of_process or {})
        except BaseException:
            cluster.kill()
            raise
        return cluster

    @property
    def proxies(self) -> list[str]:
        """host:port of every proxy, dead ones too."""
        return [p.address for p in self.of("proxy")]

    def of(self, role: str) -> list[RoleProcess]:
        """The processes of a role, oldest first, dead ones too."""
        return [p for p in self.roles.values() if p.role == role]

    def add(self, role: str, *, port: int = 0, settings: Mapping[str, Any] | None = None) -> RoleProcess:
        """One more process of a role; it is not started yet."""
        number = len(self.of(role)) + 1
        name, address = f"{role}-{number}", ""
        options: list[str] = []
        if role == "proxy":
            port = port or free_port()
            address = f"{HOST}:{port}"
            options += ["--port", str(port), "--set", "server.port_use=shared"]
        for key, value in (settings or {}).items():
            options += ["--set", f"{key}={value}"]
        process = RoleProcess(role, name, self.folder / name, config=self.config, options=options, address=address)
        self.roles[name] = process
        return process

    async def leader(self) -> RoleProcess | None:
        """The coordinator that leads, dead if its lease has not ended yet; None while none does."""
        meta = await EtcdMeta.open(EtcdSettings(endpoints=self.endpoints.etcd, prefix=self.endpoints.name))
        try:
            item = await meta.get(keys.LEADER)
        finally:
            await meta.close()
        return self.roles[item.value.decode()] if item else None

    async def stop(self) -> None:
        """SIGTERM to role after role, proxies first; then its servers. Whoever does not go in time is killed."""
        for role in ROLES:
            await _stop_all(self.of(role))
        await _stop_all([s for s in self.servers.values() if s.alive])

    def kill(self) -> None:
        """SIGKILL to all, its servers included."""
        _kill(self.roles.values())
        _kill(self.servers.values())

    async def _start_roles(self, size: Size, port: int, of_process: Mapping[str, Mapping[str, Any]]) -> None:
        for role in ROLES:
            for i in range(getattr(size, role)):
                self.add(role, port=port + i if port else 0, settings=of_process.get(f"{role}-{i + 1}"))
        # All at once, as after a power cut: each waits for those it needs.
        for process in self.roles.values():
            process.spawn()
        for process in self.roles.values():
            await process.ready()


async def start_servers(folder: Path, started: dict[str, LocalServer]) -> Endpoints:
    """Starts Kafka, etcd and MinIO side by side, each over its folder in ``folder``; puts them into ``started``."""

    async def start(server: type[LocalServer]) -> None:
        started[server.name] = await server.start(folder / server.name)

    for outcome in await asyncio.gather(*map(start, (Kafka, Etcd, Minio)), return_exceptions=True):
        if outcome is not None:
            raise outcome
    return Endpoints(
        kafka=started["kafka"].address, etcd=started["etcd"].address, s3=f"http://{started['minio'].address}"
    )


async def _stop_all(processes: list[Any]) -> None:
    async def stop(process: RoleProcess | LocalServer) -> None:
        with suppress(Timeout):  # it is killed then
            await process.stop()

    await asyncio.gather(*map(stop, processes))


def _kill(processes: Any) -> None:
    for process in processes:
        process.kill()
