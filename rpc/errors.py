"""Errors of ``core.errors`` on the wire: class, text and attributes, so that the caller raises the same.

An error is put together again without its constructor, whose arguments are not the ones an exception
keeps. A class that this version does not know becomes ``SheafError`` with the same text.
"""

import asyncio
import json
from functools import cache

import grpc
import structlog

from core import errors
from core.errors import SheafError, Timeout, TooLarge, Unavailable
from rpc.pb import call_pb2

TRAILER = "sheafdb-error-bin"
"""Key of the trailing metadata that holds a serialized ``Error``."""
TRAILER_BYTES_MAX = 60 * 1024
"""Of an error's text beside a call of its own; the connection's bound on metadata is above it."""
WRITE_FAILED = "Internal error from Core"
"""What ``grpc.aio`` says about a stream that was lost while it wrote, if it did not know why yet."""

log = structlog.get_logger()


def to_message(error: SheafError) -> call_pb2.Error:
    plain = {k: v for k, v in vars(error).items() if isinstance(v, str | int | float | bool | None)}
    return call_pb2.Error(type=type(error).__name__, message=str(error), attributes=json.dumps(plain) if plain else "")


def from_message(message: call_pb2.Error) -> SheafError:
    """The error as it was raised at the other end."""
    cls = _classes().get(message.type, SheafError)
    error = cls.__new__(cls, message.message)
    if message.attributes:
        vars(error).update(json.loads(message.attributes))
    return error


@cache
def _classes() -> dict[str, type[SheafError]]:
    found = (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SheafError))
    return {cls.__name__: cls for cls in found}


def raised(error: BaseException, method: str) -> SheafError:
    """What the caller is told of something a handler raised. Logs what nobody foresaw, once and here.

    A cancellation that is meant for the task itself is raised again.
    """
    if isinstance(error, SheafError):
        return error
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        return Unavailable("the node is shutting down")
    log.error("call failed unexpectedly", method=method, exc_info=error)
    return SheafError(f"internal error: {type(error).__name__}: {error}")


def trailer(error: SheafError) -> tuple[tuple[str, bytes], ...]:
    """The metadata that carries an error beside a call of its own; a very long text is cut."""
    message = to_message(error)
    if len(message.message.encode()) > TRAILER_BYTES_MAX:
        message.message = message.message.encode()[:TRAILER_BYTES_MAX].decode(errors="ignore") + "..."
    return ((TRAILER, message.SerializeToString()),)


def failure(error: grpc.aio.AioRpcError, where: str) -> SheafError:
    """The error a failed call stands for: the one its handler raised, or what became of the
    connection. ``where`` names the node."""
    for key, value in error.trailing_metadata() or ():
        if key == TRAILER and isinstance(value, bytes):
            return from_message(call_pb2.Error.FromString(value))
    what = f"{where}: {error.details()}"
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(what)
        case grpc.StatusCode.INTERNAL if (error.details() or "").startswith(WRITE_FAILED):
            return Unavailable(what)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Timeout(f"waited for an answer of {where}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return TooLarge(what)
        case code:
            return SheafError(f"{what} ({code.name})")
