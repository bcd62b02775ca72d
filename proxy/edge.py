"""The edge: bytes in, bytes out. Around every handler: parsing, deadline, request id, metrics, and
the one translation of errors into a ``Status``.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message

from core.errors import InvalidArgument, NotYet, SheafError, TooLarge, Unavailable
from core.errors import Timeout as DeadlinePassed
from core.limits import MESSAGE_BYTES_MAX
from core.settings import ProxySettings
from proxy.call import Call, Handler, Handlers
from proxy.metrics import RpcMetrics
from proxy.status import failure, status_of
from proxy.wire import METHODS, input_class, output_class

Method = Callable[[bytes, Any], Awaitable[bytes]]
"""What a listener calls: request bytes and the gRPC context in, reply bytes out."""

LONGEST_S = 86_400.0
"""Longest deadline taken from a client; "none" arrives as a huge number."""

log = structlog.get_logger()
_request_ids = map("{}-{}".format, itertools.repeat(secrets.token_hex(4)), itertools.count(1))


def methods(handlers: Handlers, settings: ProxySettings) -> dict[str, Method]:
    """One method per RPC: those with a handler, and "not yet" for the rest.

    Streams and the few replies that have no place for a Status are left to gRPC's UNIMPLEMENTED.
    """
    unknown = handlers.keys() - METHODS.keys()
    assert not unknown, f"no such RPC: {unknown}"
    return {
        name: _method(name, handlers.get(name) or _not_yet(name), settings)
        for name, method in METHODS.items()
        if not (method.client_streaming or method.server_streaming) and failure(output_class(name)) is not None
    }


def _not_yet(rpc: str) -> Handler:
    async def handle(_request: Message, _call: Call) -> Message:
        raise NotYet(f"{rpc} is not served by this version of SheafDB yet")

    return handle


def _method(rpc: str, handler: Handler, settings: ProxySettings) -> Method:
    parse = input_class(rpc).FromString
    fail = failure(output_class(rpc))
    assert fail is not None
    metrics = RpcMetrics(rpc)

    async def serve(data: bytes, context: Any) -> bytes:
        started = time.monotonic()
        call = _call(context, len(data), started, settings.request_timeout_s)
        structlog.contextvars.bind_contextvars(rpc=rpc, request_id=call.request_id)
        code = 0
        try:
            reply = (await _answer(handler, parse(data), call)).SerializeToString()
            if len(reply) > MESSAGE_BYTES_MAX:
                raise TooLarge(
                    f"the answer has {len(reply)} bytes, at most {MESSAGE_BYTES_MAX} can be sent: ask for less"
                )
        except (Exception, asyncio.CancelledError) as e:
            status = status_of(_translate(e, rpc))
            reply, code = fail(status).SerializeToString(), status.code
        seconds = time.monotonic() - started
        metrics.answered(code, seconds)
        if seconds > settings.slow_request_s:
            log.warning("slow request", seconds=round(seconds, 3), code=code)
        return reply

    return serve


async def _answer(handler: Handler, request: Message, call: Call) -> Message:
    limit = asyncio.timeout(call.deadline - time.monotonic())
    try:
        async with limit:
            return await handler(request, call)
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


def _call(context: Any, bytes: int, now: float, timeout_s: float) -> Call:
    request_id = database = ""
    for key, value in context.invocation_metadata() or ():
        if key == "client-request-id":
            request_id = value
        elif key == "dbname":
            database = value
    left = context.time_remaining()
    seconds = timeout_s if left is None or left > LONGEST_S else left
    return Call(request_id or next(_request_ids), database, now + seconds, bytes)
