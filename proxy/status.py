"""From an error to the ``Status`` a client gets. Nothing else in the proxy knows legacy codes.

A failure never becomes a gRPC error: clients retry those for minutes.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from core.errors import SheafError
from proxy.wire import common

INTERNAL = 5
"""Code of an error nobody foresaw."""

REASON_MAX = 4096
"""Characters of a message; a request's own text may be quoted in it."""

Failure = Callable[[Any], Message]


def ok() -> Any:
    return common.Status()


def status_of(error: BaseException) -> Any:
    """The Status of any error. Messages of ``SheafError`` are meant for the caller; of others the
    type is told too, since the message alone may say nothing."""
    if not isinstance(error, SheafError):
        reason = _sendable(f"internal error: {type(error).__name__}: {error}")
        return common.Status(code=INTERNAL, error_code=common.UnexpectedError, reason=reason, detail=reason)
    reason = _sendable(str(error) or type(error).__name__)
    status = common.Status(
        code=error.code,
        error_code=common.ErrorCode.Name(error.legacy),
        reason=reason,
        detail=reason,
        retriable=error.retriable and not error.caller_mistake,
    )
    if error.caller_mistake:
        status.extra_info["is_input_error"] = "true"
    return status


def _sendable(text: str) -> str:
    """Valid UTF-8 of bounded length, whatever the caller's input put into the message."""
    return text[:REASON_MAX].encode("utf-8", "replace").decode()


def failure(reply: type[Message]) -> Failure | None:
    """How a reply of this type says that its RPC failed; None when it has no place for a Status."""
    if reply is common.Status:
        return lambda status: status
    for name in ("status", "alter_status"):
        field = reply.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.message_type is common.Status.DESCRIPTOR:
            return lambda status: reply(**{name: status})
    return None
