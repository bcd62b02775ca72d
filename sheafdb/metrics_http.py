"""A very small HTTP server for those who watch a process: /metrics, /healthz, /readyz."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sheafdb.ports import refused

REQUEST_BYTES_MAX = 16 * 1024
REQUEST_DEADLINE_S = 10.0
TEXT = "text/plain; charset=utf-8"

Ready = Callable[[], str]
"""Gives "" when the process serves, else why it does not."""


class MetricsServer:
    """Listens on ``host``. ``port`` is the real one, also when any free one was asked for."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    @classmethod
    async def start(cls, host: str, port: int, ready: Ready) -> "MetricsServer":
        """Raises ``StartRefused`` when the port is taken.

        /metrics is the Prometheus text format; /healthz answers as long as the event loop runs;
        /readyz answers 200 or, with the reason, 503.
        """

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(REQUEST_DEADLINE_S):
                    writer.write(_reply(await reader.readuntil(b"\r\n\r\n"), ready))
                    await writer.drain()
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                pass  # whoever asked is gone or speaks no HTTP: nobody to tell
            finally:
                writer.close()

        try:
            server = await asyncio.start_server(answer, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as e:
            raise refused(host, port, "server.metrics_port", e) from e
        return cls(server)

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


def _reply(request: bytes, ready: Ready) -> bytes:
    method, _, rest = request.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    status, kind, body = HTTPStatus.NOT_FOUND, TEXT, b"try /metrics, /healthz or /readyz\n"
    if method not in ("GET", "HEAD"):
        status, body = HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n"
    elif path == "/metrics":
        status, kind, body = HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest()
    elif path == "/healthz":
        status, body = HTTPStatus.OK, b"ok\n"
    elif path == "/readyz":
        reason = ready()
        status, body = (HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode()) if reason else (HTTPStatus.OK, b"ok\n")
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
