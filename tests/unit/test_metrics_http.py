import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import StartRefused
from sheafdb import metrics_http
from sheafdb.metrics_http import MetricsServer


class Served:
    def __init__(self, server: MetricsServer) -> None:
        self.server = server
        self.reason = ""

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """(head, body) of the reply."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(request)
        reply = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        head, _, body = reply.partition(b"\r\n\r\n")
        return head, body


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served(await MetricsServer.start("127.0.0.1", 0, lambda: served.reason))
    yield served
    await served.server.close()


async def test_metrics_are_prometheus_text(served: Served) -> None:
    head, body = await served.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/plain; version=" in head
    assert b"process_resident_memory_bytes" in body
    assert f"Content-Length: {len(body)}".encode() in head


async def test_ready_says_why_not(served: Served) -> None:
    assert (await served.ask(b"GET /readyz HTTP/1.1\r\n\r\n"))[0].startswith(b"HTTP/1.1 200 ")
    served.reason = "starting"
    head, body = await served.ask(b"GET /readyz HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert body == b"starting\n"
    assert (await served.ask(b"GET /healthz HTTP/1.1\r\n\r\n"))[1] == b"ok\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /healthz?x=1 HTTP/1.0\r\n\r\n", b"200"),
        (b"\xff\xfe\r\n\r\n", b"405"),
    ],
)
async def test_anything_else_gets_its_status(served: Served, request_: bytes, status: bytes) -> None:
    assert (await served.ask(request_))[0].split()[1] == status


async def test_a_request_without_end_is_dropped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await served.ask(b"x" * (4 * metrics_http.REQUEST_BYTES_MAX)) == (b"", b"")
    monkeypatch.setattr(metrics_http, "REQUEST_DEADLINE_S", 0.05)
    assert await served.ask(b"GET /metrics") == (b"", b"")


async def test_a_taken_port_names_the_setting(served: Served) -> None:
    with pytest.raises(
        StartRefused,
        match=r"127\.0\.0\.1:\d+: Address already in use \(settings server.host and server\.metrics_port\)",
    ):
        await MetricsServer.start("127.0.0.1", served.server.port, lambda: "")
