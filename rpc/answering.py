"""The other end of calls: a handler's answer to one request, and to the many of a line."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import grpc
import structlog

from core.errors import SheafError, Timeout, TooLarge
from core.limits import MESSAGE_BYTES_MAX
from rpc.batching import END, LONGEST_S, MESSAGE_BYTES
from rpc.errors import raised, to_message
from rpc.pb.call_pb2 import Answer, Answers, Ask, Asks

Later = Coroutine[Any, Any, bytes]
Handler = Callable[[bytes, float], bytes | Later]
"""A request message and its deadline (``time.monotonic()``) in, the reply message out: at once, or
as a coroutine. It raises errors of ``core.errors``."""

Handlers = Mapping[str, Handler]
"""By full name of the RPC: ``/sheafdb.v1.QueryNode/Search``."""

SLICE_S = 0.001
"""How long requests of one message are answered at once before the event loop gets its turn, and so
the answers that are there go out."""


def begin(handle: Handler, method: str, request: bytes, deadline: float) -> bytes | Later:
    """The reply, or what to pass to ``complete``. Raises ``SheafError``s only."""
    try:
        reply = handle(request, deadline)
        return _checked(reply) if isinstance(reply, bytes) else reply
    except Exception as e:
        raise raised(e, method) from e


async def complete(later: Later, method: str, deadline: float, request_id: str) -> bytes:
    """The reply, within the deadline. Log lines of the work carry the request's id. Raises
    ``SheafError``s, and ``CancelledError`` if this task is cancelled."""
    structlog.contextvars.bind_contextvars(rpc=method, request_id=request_id)
    limit = asyncio.timeout(min(deadline - time.monotonic(), LONGEST_S))
    try:
        async with limit:
            return _checked(await later)
    except (Exception, asyncio.CancelledError) as e:
        if isinstance(e, TimeoutError) and limit.expired():
            raise Timeout(f"{method} was not done before its deadline") from e
        raise raised(e, method) from e


def _checked(reply: bytes) -> bytes:
    if len(reply) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"the answer has {len(reply)} bytes, at most {MESSAGE_BYTES_MAX} can be sent: ask for less")
    return reply


class LineEnd:
    """Answers the requests of one line, from the call's context of ``grpc.aio``."""

    def __init__(self, handlers: Handlers, context: Any) -> None:
        self._handlers, self._context = handlers, context
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unsent: deque[Answer] = deque()
        self._work = asyncio.Event()
        self._asked_all = self._closing = False

    def close_soon(self) -> None:
        """Tells the other end to take its further requests elsewhere; it ends the line then."""
        self._closing = True
        self._work.set()

    async def run(self) -> None:
        """Returns when the other end has asked all it wants and got its answers, or is gone."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._send())
                await self._receive()
        except* grpc.aio.BaseError:
            pass  # the other end is gone, and with it whoever waited
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _receive(self) -> None:
        while (data := await self._context.read()) is not END:
            await self._take(Asks.FromString(data))
        self._asked_all = True
        self._work.set()

    async def _take(self, message: Asks) -> None:
        turn_ends = time.monotonic() + SLICE_S
        for ask in message.asks:
            self._start(ask)
            if time.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + SLICE_S
        for id in message.cancelled:
            if id in self._running:
                self._running[id].cancel()

    def _start(self, ask: Ask) -> None:
        deadline = time.monotonic() + ask.timeout_s
        try:
            handle = self._handlers.get(ask.method)
            if handle is None:
                raise SheafError(f"{ask.method} is not known here: the nodes run different versions")
            reply = begin(handle, ask.method, ask.request, deadline)
        except SheafError as e:
            self._answer(Answer(id=ask.id, error=to_message(e)))
            return
        if isinstance(reply, bytes):
            self._answer(Answer(id=ask.id, reply=reply))
            return
        task = asyncio.create_task(self._finish(ask.id, reply, ask.method, deadline, ask.request_id))
        self._running[ask.id] = task
        task.add_done_callback(partial(self._ended, ask.id, reply))

    def _ended(self, id: int, later: Later, _task: asyncio.Task[None]) -> None:
        # Of a task that was cancelled before it began, nothing has run.
        later.close()
        del self._running[id]
        self._work.set()

    async def _finish(self, id: int, later: Later, method: str, deadline: float, request_id: str) -> None:
        try:
            self._answer(Answer(id=id, reply=await complete(later, method, deadline, request_id)))
        except SheafError as e:
            self._answer(Answer(id=id, error=to_message(e)))

    def _answer(self, answer: Answer) -> None:
        self._unsent.append(answer)
        self._work.set()

    async def _send(self) -> None:
        while not (self._asked_all and not self._running and not self._unsent):
            await self._work.wait()
            self._work.clear()
            while self._unsent or self._closing:
                await self._context.write(self._message())

    def _message(self) -> bytes:
        message, size = Answers(closing=self._closing), 0
        self._closing = False
        while self._unsent and (not size or size + len(self._unsent[0].reply) <= MESSAGE_BYTES):
            answer = self._unsent.popleft()
            size += len(answer.reply)
            message.answers.append(answer)
        return message.SerializeToString()
