"""etcd as a single member."""

from collections.abc import Sequence
from pathlib import Path

from sheafdb.servers.install import folder_of
from sheafdb.servers.process import HOST, LocalServer, free_port, http


class Etcd(LocalServer):
    name = "etcd"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self._peer_port = free_port()

    def _ports(self) -> Sequence[int]:
        return self.port, self._peer_port

    def _command(self) -> Sequence[str]:
        client, peer = f"http://{self.address}", f"http://{HOST}:{self._peer_port}"
        return (
            str(folder_of(self.name) / "etcd"),
            *("--name", "one", "--data-dir", str(self.folder / "data"), "--log-level", "warn"),
            # Nobody else forgets the history of keys; a watch that was away for longer lists again.
            *("--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"),
        )

    async def _answers(self) -> bool:
        status, body = await http(self.port, "GET", "/health")
        return status == 200 and '"true"' in body
