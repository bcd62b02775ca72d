"""A cluster whose every process reaches Kafka, etcd and MinIO by ways of its own, and is reached by the others by
another one; all of them can be made bad."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sheafdb.cluster import Cluster, Endpoints, Size
from sheafdb.cluster.cluster import ROLES
from sheafdb.servers import Detour, Etcd, Kafka, LocalServer, Minio, Toxiproxy
from sheafdb.servers.process import HOST, free_port

SERVERS = ("kafka", "etcd", "minio")
OTHERS = "others"
"""Whose way leads to a role: that of all other roles."""


@dataclass(frozen=True, slots=True)
class Stage:
    """detours: by who goes and where to: from a process to a server, from ``OTHERS`` to a process. The cluster's own
    servers and processes are in ``cluster``."""

    cluster: Cluster
    detours: Mapping[tuple[str, str], Detour]
    toxiproxy: Toxiproxy

    @classmethod
    async def start(
        cls, folder: Path, *, size: Size, settings: Mapping[str, Any], of_process: Mapping[str, Mapping[str, Any]]
    ) -> "Stage":
        """As ``Cluster.start``, with servers of its own. Raises as it does; ends all then."""
        names = [f"{role}-{i + 1}" for role in ROLES for i in range(getattr(size, role))]
        started: dict[str, LocalServer] = {}
        try:
            toxiproxy = started["toxiproxy"] = await Toxiproxy.start(folder / "toxiproxy")
            detours = await _start_servers(folder, names, toxiproxy, started)
            addresses = {name: await _addresses(name, detours, toxiproxy) for name in names}
            cluster = await Cluster.start(
                folder,
                size=size,
                endpoints=Endpoints(
                    started["kafka"].address, started["etcd"].address, f"http://{started['minio'].address}"
                ),
                settings=settings,
                of_process={name: {**of_process.get(name, {}), **addresses[name]} for name in names},
            )
        except BaseException:
            for server in started.values():
                server.kill()
            raise
        cluster.servers.update((name, started[name]) for name in SERVERS)
        return cls(cluster, detours, toxiproxy)

    def to(self, server: str) -> list[Detour]:
        """The ways of all processes to one server."""
        return [detour for (_, target), detour in self.detours.items() if target == server]

    def between_roles(self) -> list[Detour]:
        return [detour for (who, _), detour in self.detours.items() if who == OTHERS]

    def kill(self) -> None:
        self.cluster.kill()
        self.toxiproxy.kill()


async def _start_servers(
    folder: Path, names: Sequence[str], toxiproxy: Toxiproxy, started: dict[str, LocalServer]
) -> dict[tuple[str, str], Detour]:
    detours: dict[tuple[str, str], Detour] = {}
    behind: dict[int, str] = {}
    for name in names:  # Kafka has a port for each, as it tells clients where to connect to
        port = free_port()
        detours[name, "kafka"] = await toxiproxy.detour(f"{name}-kafka", f"{HOST}:{port}")
        behind[port] = detours[name, "kafka"].address
    started["kafka"] = await Kafka.start(folder / "kafka", detours=behind)
    for server in (Etcd, Minio):
        started[server.name] = await server.start(folder / server.name)
        for name in names:
            address = started[server.name].address
            detours[name, server.name] = await toxiproxy.detour(f"{name}-{server.name}", address)
    return detours


async def _addresses(
    process: str, detours: dict[tuple[str, str], Detour], toxiproxy: Toxiproxy
) -> dict[str, str | int]:
    """Settings of a process. Adds the way to it, if it is one that others call."""
    settings: dict[str, str | int] = {
        "kafka.servers": detours[process, "kafka"].address,
        "etcd.endpoints": detours[process, "etcd"].address,
        "s3.endpoint": f"http://{detours[process, 'minio'].address}",
    }
    if not process.startswith("proxy"):
        port = free_port()
        way = detours[OTHERS, process] = await toxiproxy.detour(f"{OTHERS}-{process}", f"{HOST}:{port}")
        settings |= {"node.port": port, "node.advertise": way.address}
    return settings
