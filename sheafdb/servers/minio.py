"""MinIO over one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sheafdb.servers.install import folder_of
from sheafdb.servers.process import HOST, LocalServer, free_port, http

ACCESS_KEY = "sheafdb"
SECRET_KEY = "sheafdb-on-loopback"  # noqa: S105  # a server for development that listens on loopback only


class Minio(LocalServer):
    """The S3 endpoint is ``http://`` + ``address``; path-style addressing, any region."""

    name = "minio"
    access_key = ACCESS_KEY
    secret_key = SECRET_KEY

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self._console_port = free_port()

    def _ports(self) -> Sequence[int]:
        return self.port, self._console_port

    def _command(self) -> Sequence[str]:
        listen = ("--address", self.address, "--console-address", f"{HOST}:{self._console_port}")
        return str(folder_of(self.name) / "minio"), "server", "--quiet", *listen, str(self.folder / "data")

    def _environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_UPDATE": "off",
            "MINIO_BROWSER": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        }

    async def _answers(self) -> bool:
        status, _ = await http(self.port, "GET", "/minio/health/ready")
        return status == 200
