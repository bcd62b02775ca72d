"""Connections to other nodes: one per address, for calls of their own and for a shared line."""

import asyncio
import time
from functools import partial
from typing import Any, TypeVar

from grpc import aio

from core.errors import Unavailable
from core.limits import MESSAGE_BYTES_MAX
from rpc.batching import LONGEST_S, MESSAGE_BYTES, Line, Read, request_id
from rpc.direct import DirectCalls
from rpc.errors import TRAILER_BYTES_MAX, failure

LINE = "/sheafdb.v1.Line/Converse"
REQUEST_ID = "x-request-id"

SILENCE_S = 2.0
"""A connection on which nothing is heard for this long is asked for a sign of life; as long again, and
it is lost with all that runs on it."""

ENVELOPE_BYTES = 64 * 1024
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX + ENVELOPE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX + ENVELOPE_BYTES),
    ("grpc.max_metadata_size", TRAILER_BYTES_MAX + 4096),
    ("grpc.absolute_max_metadata_size", 2 * TRAILER_BYTES_MAX),
    ("grpc.keepalive_time_ms", int(1000 * SILENCE_S)),
    ("grpc.keepalive_timeout_ms", int(1000 * SILENCE_S)),
    # Without it the sign of life is waited for a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", int(1000 * SILENCE_S)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Of both ends. Nothing is compressed: vectors do not shrink."""

CLIENT_OPTIONS = (
    *OPTIONS,
    # A node that comes back is used at once; the first of these also bounds an attempt to connect.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


T = TypeVar("T")


class Peer:
    """A node at an address. Connects when first needed, and again after the connection was lost.

    Calls raise what the handler at the other end raised, ``Unavailable`` when the node is lost,
    ``Timeout``.
    """

    def __init__(self, address: str, direct_port: int = 0) -> None:
        """direct_port: as of ``answers_directly_at``."""
        self.address = address
        self.direct: DirectCalls | None = None
        """None = the node answers no direct calls."""
        self.answers_directly_at(direct_port)
        self._channel = aio.insecure_channel(address, options=CLIENT_OPTIONS)
        self._calls: dict[str, Any] = {}
        self._left = False
        self._line = Line(partial(self._channel.stream_stream(LINE)), address)

    def answers_directly_at(self, port: int) -> None:
        """The node answers direct calls at this port of its host; 0 = it does not."""
        if self.direct and self.direct.port == port:
            return
        if self.direct:
            self.direct.close()
        self.direct = DirectCalls(self.address.rpartition(":")[0].strip("[]"), port) if port else None

    async def call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """A call of its own: for what is rare, long or large."""
        self._check_open()
        if method not in self._calls:
            self._calls[method] = self._channel.unary_unary(method)
        id = request_id()
        metadata = ((REQUEST_ID, id),) if id.isascii() and id.isprintable() and id else ()
        try:
            return await self._calls[method](request, timeout=min(timeout_s, LONGEST_S), metadata=metadata)
        except aio.AioRpcError as e:
            raise failure(e, self.address) from None

    def ask(self, method: str, request: bytes, deadline: float, read: Read[T]) -> asyncio.Future[T]:
        """The same on the line that requests to this node share, on its way when this returns; large ones go
        alone, so that nobody waits behind them. deadline: ``time.monotonic()`` value."""
        if self._left or len(request) > MESSAGE_BYTES:
            return asyncio.ensure_future(self._ask_alone(method, request, deadline, read))
        return self._line.ask(method, request, deadline, read)

    async def _ask_alone(self, method: str, request: bytes, deadline: float, read: Read[T]) -> T:
        return read(await self.call(method, request, max(deadline - time.monotonic(), 0.0)))

    async def close(self, grace_s: float = 0.0) -> None:
        """Takes nothing more; lets what is running finish for up to ``grace_s``, then fails it."""
        self._left = True
        if self.direct:
            self.direct.close()
        if grace_s:
            await asyncio.wait({asyncio.ensure_future(self._line.finish())}, timeout=grace_s)
        await self._line.close()
        await self._channel.close(grace_s or None)

    def _check_open(self) -> None:
        if self._left:
            raise Unavailable(f"{self.address}: the node has left")
