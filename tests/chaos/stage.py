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
OTHERS = "roles"
"""Who is at the other end of the way that leads to a process: all other roles."""


@dataclass(frozen=True, slots=True)
class Stage:
    """detours: by process and who is at the other end, a server or ``OTHERS``. The cluster's own servers and processes
    are in ``cluster``."""

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

    def all_of(self, other: str) -> list[Detour]:
        """The ways between all processes and a server, or ``OTHERS``."""
        return [detour for (_, end), detour in self.detours.items() if end == other]

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
        way = detours[process, OTHERS] = await toxiproxy.detour(f"{process}-{OTHERS}", f"{HOST}:{port}")
        settings |= {"node.port": port, "node.advertise": way.address}
    return settings
