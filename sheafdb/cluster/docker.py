"""Kafka, etcd and MinIO as containers of docker-compose.yml, where a Docker engine answers."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from core.errors import StartRefused, Timeout
from sheafdb.cluster.endpoints import Endpoints
from sheafdb.servers.process import HOST, free_port

COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
SERVICES = ("kafka", "etcd", "minio")
ASK_DEADLINE_S = 10.0
UP_DEADLINE_S = 900.0
"""Images are pulled in it."""


class DockerServers:
    """A Compose project of its own per folder; its volumes stay when it is stopped."""

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
        self._project = ("docker", "compose", "--file", str(COMPOSE_FILE), "--project-name", f"sheafdb-{digest}")

    async def start(self, say: Callable[[str], None]) -> Endpoints:
        """Serving when it returns. Raises ``StartRefused``, ``Timeout``."""
        ports = {service: free_port() for service in SERVICES}
        say(f"starting {', '.join(SERVICES)} by docker compose (the first time it pulls their images)")
        env = {f"{service.upper()}_PORT": str(port) for service, port in ports.items()}
        code, output = await _run((*self._project, "up", "--detach", "--wait", *SERVICES), UP_DEADLINE_S, env)
        if code:
            raise StartRefused(f"docker compose could not start the servers: {output}")
        at = {service: f"{HOST}:{port}" for service, port in ports.items()}
        return Endpoints(kafka=at["kafka"], etcd=at["etcd"], s3=f"http://{at['minio']}")

    async def stop(self) -> None:
        """Containers end, their volumes stay."""
        await _run((*self._project, "stop"), UP_DEADLINE_S)


async def available() -> bool:
    """Whether a Docker engine answers, and Compose is there."""
    if not COMPOSE_FILE.exists():
        return False
    for command in (("docker", "info"), ("docker", "compose", "version")):
        try:
            code, _ = await _run(command, ASK_DEADLINE_S)
        except (OSError, Timeout):
            return False
        if code:
            return False
    return True


async def _run(command: tuple[str, ...], deadline_s: float, env: dict[str, str] | None = None) -> tuple[int, str]:
    """(exit code, the end of its output in one line). Raises ``Timeout``, ``OSError``."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(deadline_s):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Timeout(f"waited {deadline_s:g} s for `{' '.join(command)}`") from None
    return process.returncode or 0, " ".join(output.decode(errors="replace").split())[-600:]
