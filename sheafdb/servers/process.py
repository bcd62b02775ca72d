"""A server as a local process on loopback: what Kafka, etcd, MinIO and Toxiproxy have in common."""

import asyncio
import itertools
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from core.errors import StartRefused
from sheafdb.servers.child import Child

HOST = "127.0.0.1"
START_DEADLINE_S = 60.0
POLL_S = 0.05
ASK_DEADLINE_S = 2.0
PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to connections: a killed server's port stays free for its return, and
a client that keeps dialling it can't end up connected to itself."""
TRIED_MOST = 200
_drawn = itertools.cycle(random.sample(PORTS, len(PORTS)))


def free_port() -> int:
    """A port that nobody listens on now, that no outgoing connection will take, and that this process was not given
    before: those of servers that are yet to be started are told apart, too."""
    for port in itertools.islice(_drawn, TRIED_MOST):
        try:
            socket.create_server((HOST, port)).close()
        except OSError:
            continue
        return port
    raise StartRefused(f"no free port between {PORTS.start} and {PORTS.stop} on {HOST}")


def require_free(port: int, who: str) -> None:
    """Raises ``StartRefused`` when ``who`` could not listen there now."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as e:
        raise StartRefused(f"{who} cannot listen on {HOST}:{port}: {e.strerror}") from None


class LocalServer(ABC):
    """One process over one folder. Made by ``start``; the folder and the port stay its own over restarts."""

    name: ClassVar[str]

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.absolute()
        self.port = port or free_port()
        self._child: Child | None = None

    @classmethod
    async def start(cls, folder: Path, port: int = 0) -> Self:
        """Answers when it returns. ``folder`` is made when missing, its data kept; port 0 = any free one.

        Raises ``StartRefused`` when the port is taken, the server is not installed, ends by itself, or
        does not answer in time."""
        return await cls(folder, port)._up()

    @property
    def address(self) -> str:
        """host:port, as clients want it."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What it writes about itself."""
        return self.folder / f"{self.name}.log"

    @property
    def child(self) -> Child:
        assert self._child is not None, "never started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.alive

    def kill(self) -> None:
        """SIGKILL, as a power cut to the process; gone when this returns."""
        self.child.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.child.resume()

    async def stop(self) -> None:
        """SIGTERM; gone when this returns. Raises ``Timeout``, with the process killed, if it does not go."""
        await self.child.stop()

    async def start_again(self) -> None:
        """On the same folder and port, after ``kill`` or ``stop``. Raises as ``start`` does."""
        await self._up()

    async def _up(self) -> Self:
        assert self._child is None or not self._child.alive, f"{self.name} runs already"
        for port in self._ports():
            require_free(port, self.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._prepare()
            self._child = Child(self._command(), self.log, cwd=self.folder, env=self._environment())
            await self._until_it_answers()
        except BaseException:
            if self._child is not None:
                self._child.kill()
            raise
        return self

    async def _until_it_answers(self) -> None:
        end = time.monotonic() + START_DEADLINE_S
        while True:
            if not self.alive:
                raise StartRefused(f"{self.name} ended with {self.child.exit_code}: {self.child.last_words()}")
            try:
                async with asyncio.timeout(ASK_DEADLINE_S):
                    if await self._answers():
                        return
            except (OSError, TimeoutError, EOFError):
                pass
            if time.monotonic() > end:
                raise StartRefused(
                    f"{self.name} on {self.address} did not answer within {START_DEADLINE_S:.0f} s: "
                    f"{self.child.last_words()}"
                )
            await asyncio.sleep(POLL_S)

    def _ports(self) -> Sequence[int]:
        """All that it will listen on."""
        return (self.port,)

    async def _prepare(self) -> None:
        """Writes what it needs before it starts; called before every start."""
        return

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether it serves now. May raise ``OSError`` or ``EOFError`` for no."""


async def http(port: int, method: str, path: str, body: str = "") -> tuple[int, str]:
    """(status, body) of one request to a server on loopback. Raises ``OSError``, ``EOFError``."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        # 1.0: the answer ends where the connection does.
        head = f"{method} {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\nContent-Length: {len(body.encode())}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
        reply = (await reader.read()).decode(errors="replace")
    finally:
        writer.close()
    head, _, answer = reply.partition("\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[1].isdigit():
        raise EOFError("no HTTP answer")
    return int(words[1]), answer
