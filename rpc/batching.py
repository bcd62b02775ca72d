"""A line: one long-lived stream to a node on which requests that wait together share a message.

An idle line sends at once. While a message is being handed over, the requests that come gather and
go as the next one; the busier the two ends, the more share a message. Each keeps its own deadline
and gets its own answer or error as soon as it is there, whatever else was in its message: a slow one
holds back nobody.

A message on an open stream costs less than half of the CPU of a call of its own, and that hardly
grows with what is in it. Holding back all requests until the last message is answered saved nothing;
searches that are alike share more than the message: ``rpc.gathering``.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from core.errors import RateLimited, SheafError, Timeout, Unavailable
from rpc.errors import failure, from_message
from rpc.pb.call_pb2 import Answers, Asks

MESSAGE_BYTES = 1 << 20
"""Size from which a message takes no further request or answer."""
WAITING_MAX = 10_000
"""Requests that may wait for one node; further ones are refused."""
LONGEST_S = 86_400.0
"""Longest deadline that is kept; "none" is infinite."""

END: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue] (not in the stubs)
"""What reading a stream gives after its last message."""


T = TypeVar("T")
Read = Callable[[bytes], T]
"""Makes of a reply message what it says."""


class _Unsent(NamedTuple):
    id: int
    method: str
    request: bytes
    deadline: float
    request_id: str


class Line:
    """Asks one node. ``open`` makes the call of ``Line.Converse``; ``where`` names the node in errors.

    The stream is opened when first needed and again after it ended.
    """

    def __init__(self, open: Callable[[], Any], where: str) -> None:
        self._open, self._where = open, where
        self._stream: _Stream | None = None
        self._streams: set[_Stream] = set()

    def ask(self, method: str, request: bytes, deadline: float, read: Read[T]) -> asyncio.Future[T]:
        """What ``read`` makes of the reply of an RPC, which goes out in the event loop's next turn. deadline:
        ``time.monotonic()`` value.

        Raises what the RPC raises at the node, ``Unavailable`` when the node is lost, ``Timeout`` at
        the deadline, ``RateLimited`` when too many wait.
        """
        stream = self._stream
        if stream is None or not stream.open:
            self._streams = {s for s in self._streams if not s.ended}
            stream = self._stream = _Stream(self._open(), self._where)
            self._streams.add(stream)
        return stream.ask(method, request, deadline, read)

    async def finish(self) -> None:
        """Takes nothing more; returns when what is running is answered."""
        for stream in self._streams:
            stream.end()
        await asyncio.gather(*(stream.finished() for stream in self._streams))

    async def close(self) -> None:
        """Fails what is running with ``Unavailable``."""
        for stream in self._streams:
            await stream.close()
        self._streams.clear()


class _Stream:
    """The life of one stream. ``open``: takes requests."""

    def __init__(self, call: Any, where: str) -> None:
        self._call, self._where = call, where
        self.open = True
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any], Read[Any]]] = {}
        self._unsent: deque[_Unsent] = deque()
        self._cancelled: list[int] = []
        self._work = asyncio.Event()
        self._sending = asyncio.create_task(self._send(), name=f"line to {where}, sending")
        self._receiving = asyncio.create_task(self._receive(), name=f"line to {where}, receiving")

    @property
    def ended(self) -> bool:
        return self._receiving.done()

    def ask(self, method: str, request: bytes, deadline: float, read: Read[T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if len(self._waiting) >= WAITING_MAX:
            answer.set_exception(RateLimited(f"{self._where}: {WAITING_MAX} requests wait for this node already"))
            return answer
        id = next(self._ids)
        self._waiting[id] = answer, read
        self._unsent.append(_Unsent(id, method, request, deadline, request_id()))
        self._work.set()
        left_s = min(max(deadline - time.monotonic(), 0.0), LONGEST_S)
        timer = loop.call_later(left_s, self._expire, answer)
        answer.add_done_callback(partial(self._settled, id, timer))
        return answer

    def _settled(self, id: int, timer: asyncio.TimerHandle, answer: asyncio.Future[Any]) -> None:
        timer.cancel()
        if self._waiting.pop(id, None) is not None:
            # Nobody waits any more: the node may stop working on it.
            self._cancelled.append(id)
            self._work.set()
        elif not answer.cancelled():
            answer.exception()  # whoever asked may have left

    def end(self) -> None:
        """The last request has been taken: the stream ends when all are answered."""
        self.open = False
        self._work.set()

    async def finished(self) -> None:
        await asyncio.wait({self._sending, self._receiving})

    async def close(self) -> None:
        self.open = False
        self._call.cancel()
        self._sending.cancel()
        await self.finished()

    def _expire(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            answer.set_exception(Timeout(f"waited for an answer of {self._where}"))

    async def _send(self) -> None:
        # A stream that ended: whoever receives learns why.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._work.wait()
                self._work.clear()
                if self._unsent or self._cancelled:
                    await self._call.write(self._message())
                if self._unsent:
                    self._work.set()
                elif not self.open:
                    await self._call.done_writing()
                    return

    def _message(self) -> bytes:
        message = Asks(cancelled=self._cancelled)
        self._cancelled.clear()
        now, size = time.monotonic(), 0
        while self._unsent and (not size or size + len(self._unsent[0].request) <= MESSAGE_BYTES):
            ask = self._unsent.popleft()
            answer, _ = self._waiting.get(ask.id, (None, None))
            if answer is None or answer.done():
                self._waiting.pop(ask.id, None)  # who gave up in this turn of the event loop is not settled yet
                continue
            size += len(ask.request)
            message.asks.add(
                id=ask.id,
                method=ask.method,
                request=ask.request,
                timeout_s=ask.deadline - now,
                request_id=ask.request_id,
            )
        return message.SerializeToString()

    async def _receive(self) -> None:
        error: SheafError = Unavailable(f"{self._where}: the connection was closed")
        try:
            while (data := await self._call.read()) is not END:
                self._take(Answers.FromString(data))
        except grpc.aio.AioRpcError as e:
            error = failure(e, self._where)
        except DecodeError as e:
            error = Unavailable(f"{self._where}: not an answer: {e}")
            self._call.cancel()
        finally:
            self.open = False
            self._work.set()
            for answer, _ in self._waiting.values():
                if not answer.done():
                    answer.set_exception(error)
            self._waiting.clear()

    def _take(self, answers: Answers) -> None:
        if answers.closing:
            self.end()
        for item in answers.answers:
            answer, read = self._waiting.pop(item.id, (None, None))
            if answer is None or read is None or answer.done():
                continue
            if item.HasField("error"):
                answer.set_exception(from_message(item.error))
                continue
            try:
                answer.set_result(read(item.reply))
            except Exception as e:
                answer.set_exception(e)


def request_id() -> str:
    """The id of the request that is being served, "" outside of one."""
    return structlog.contextvars.get_contextvars().get("request_id", "")
