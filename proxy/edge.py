"""The edge: bytes in, bytes out. Around every handler: parsing, deadline, request id, metrics, and
the one translation of errors into a ``Status``.

A request that needs no waiting and little work is answered by the thread that received it; every
other one by a task on the event loop. For a single search the way there and back costs as much as
the search (docs/decisions/0020).
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from core.errors import InvalidArgument, NotYet, SheafError, TooLarge, Unavailable
from core.errors import Timeout as DeadlinePassed
from core.limits import MESSAGE_BYTES_MAX
from core.settings import ProxySettings
from proxy.call import (
    Arrival,
    Call,
    Group,
    GroupHandler,
    GroupHandlers,
    Handler,
    Handlers,
    PromptHandler,
    PromptHandlers,
)
from proxy.metrics import RpcMetrics
from proxy.status import failure, status_of
from proxy.wire import METHODS, input_class, output_class

LONGEST_S = 86_400.0
"""Longest deadline taken from a client; "none" arrives as a huge number."""

T = TypeVar("T")

log = structlog.get_logger()
_request_ids = map("{}-{}".format, itertools.repeat(secrets.token_hex(4)), itertools.count(1))


def methods(
    handlers: Handlers,
    settings: ProxySettings,
    prompt: PromptHandlers | None = None,
    groups: GroupHandlers | None = None,
) -> dict[str, "Method"]:
    """One method per RPC: those with a handler, and "not yet" for the rest.

    prompt: for some of them also a way to answer at once; groups: a way to answer several together. Streams
    and the few replies that have no place for a Status are left to gRPC's UNIMPLEMENTED.
    """
    prompt, groups = prompt or {}, groups or {}
    unknown = (handlers.keys() | prompt.keys() | groups.keys()) - METHODS.keys()
    assert not unknown, f"no such RPC: {unknown}"
    return {
        name: Method(name, handlers.get(name) or _not_yet(name), settings, prompt.get(name), groups.get(name))
        for name, method in METHODS.items()
        if not (method.client_streaming or method.server_streaming) and failure(output_class(name)) is not None
    }


def _not_yet(rpc: str) -> Handler:
    async def handle(_request: Message, _call: Call) -> Message:
        raise NotYet(f"{rpc} is not served by this version of SheafDB yet")

    return handle


Replies = Coroutine[Any, Any, Sequence[bytes]]


class Answers(NamedTuple):
    """numbers: of the calls answered. replies: gives those to them, in that order."""

    numbers: Sequence[int]
    replies: Replies


class Method:
    """One RPC: request bytes in, reply bytes out."""

    def __init__(
        self,
        rpc: str,
        handler: Handler,
        settings: ProxySettings,
        prompt: PromptHandler | None = None,
        groups: GroupHandler | None = None,
    ) -> None:
        self._rpc, self._handler, self._at_once, self._groups = rpc, handler, prompt, groups
        self._settings = settings
        self._parse = input_class(rpc).FromString
        fail = failure(output_class(rpc))
        assert fail is not None
        self._fail = fail
        self._metrics = RpcMetrics(rpc)

    def at_once(self, arrived: Sequence[Arrival]) -> Sequence[bytes | None]:
        """The replies to calls that arrived together; None for one that must wait or takes long: then
        ``answer`` has it. Any thread may call."""
        if self._at_once is None:
            return [None] * len(arrived)
        started = time.monotonic()
        calls = [self._call(arrival, started) for arrival in arrived]
        try:
            return [self._finish(a, call, started) for a, call in zip(self._at_once(calls), calls, strict=True)]
        except Exception as e:
            if not isinstance(e, SheafError):
                log.error("could not answer at once", rpc=self._rpc, exc_info=e)
            return [None] * len(arrived)

    def _finish(self, answer: bytes | Message | None, call: Call, started: float) -> bytes | None:
        if answer is None:
            return None
        reply = _serialized(answer)
        self._answered(call, 0, time.monotonic() - started)
        return reply

    def answers(self, arrived: Sequence[Arrival]) -> Iterator[Answers]:
        """What answers calls that arrived together; some of them share an answer. Run each in a task of its own,
        on the event loop."""
        started = time.monotonic()
        together: set[int] = set()
        if self._groups is not None:
            calls = [self._call(arrival, started) for arrival in arrived]
            for group in self._groups(calls):
                together.update(group.numbers)
                yield Answers(group.numbers, self._answer_group([calls[n] for n in group.numbers], group, started))
        for number, arrival in enumerate(arrived):
            if number not in together:
                yield Answers((number,), self._answer_one(arrival))

    async def _answer_group(self, calls: Sequence[Call], group: Group, started: float) -> Sequence[bytes]:
        longest = max(calls, key=lambda call: call.deadline)
        structlog.contextvars.bind_contextvars(rpc=self._rpc, request_id=longest.request_id)
        try:
            replies, code = [_serialized(a) for a in await _within(longest.deadline, group.answer())], 0
        except (InvalidArgument, TooLarge):
            return await asyncio.gather(*map(self._answer_call, calls))
        except (Exception, asyncio.CancelledError) as e:
            failed, code = self._failed(e)
            replies = [failed] * len(calls)
        for call in calls:
            self._answered(call, code, time.monotonic() - started)
        return replies

    async def _answer_one(self, arrival: Arrival) -> Sequence[bytes]:
        return (await self.answer(arrival),)

    async def answer(self, arrival: Arrival) -> bytes:
        """The reply. Call it in a task of its own, on the event loop."""
        return await self._answer_call(self._call(arrival, time.monotonic()))

    async def _answer_call(self, call: Call) -> bytes:
        started = time.monotonic()
        structlog.contextvars.bind_contextvars(rpc=self._rpc, request_id=call.request_id)
        try:
            work = self._handler(self._parse(call.message), call)
            reply, code = _serialized(await _within(call.deadline, work)), 0
        except (Exception, asyncio.CancelledError) as e:
            reply, code = self._failed(e)
        self._answered(call, code, time.monotonic() - started)
        return reply

    def _call(self, arrival: Arrival, now: float) -> Call:
        message, metadata, left_s = arrival
        request_id = database = ""
        for key, value in metadata:
            if key == "client-request-id":
                request_id = value
            elif key == "dbname":
                database = value
        seconds = self._settings.request_timeout_s if left_s is None or left_s > LONGEST_S else left_s
        return Call(request_id or next(_request_ids), database, now + seconds, message)

    def _failed(self, error: BaseException) -> tuple[bytes, int]:
        status = status_of(_translate(error, self._rpc))
        return self._fail(status).SerializeToString(), status.code

    def _answered(self, call: Call, code: int, seconds: float) -> None:
        self._metrics.answered(code, seconds)
        if seconds > self._settings.slow_request_s:
            log.warning("slow request", rpc=self._rpc, request_id=call.request_id, seconds=round(seconds, 3), code=code)


def _serialized(answer: bytes | Message) -> bytes:
    reply = answer if isinstance(answer, bytes) else answer.SerializeToString()
    if len(reply) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"the answer has {len(reply)} bytes, at most {MESSAGE_BYTES_MAX} can be sent: ask for less")
    return reply


async def _within(deadline: float, work: Awaitable[T]) -> T:
    limit = asyncio.timeout(deadline - time.monotonic())
    try:
        async with limit:
            return await work
    except TimeoutError as e:
        if not limit.expired():
            raise
        raise DeadlinePassed("the request was not answered before its deadline") from e


def _translate(error: BaseException, rpc: str) -> BaseException:
    """Decides what a failure is. Logs the ones that nobody foresaw, once and here."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error  # the client left or the server stops: nobody reads the answer
        return Unavailable("the server is shutting down")
    if isinstance(error, DecodeError):
        return InvalidArgument(f"the {rpc} request is not a valid message (are all strings UTF-8?)")
    if not isinstance(error, SheafError):
        log.error("request failed unexpectedly", exc_info=error)
    return error
