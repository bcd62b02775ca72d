"""What travels beside a request, and the shape of a handler."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import Message

from core.catalog import DEFAULT_DATABASE


@dataclass(frozen=True, slots=True)
class Call:
    """request_id: the client's, or one made here. named_database: the one named beside the message, "" =
    none. deadline: ``time.monotonic()`` value. message: the request as it came."""

    request_id: str
    named_database: str
    deadline: float
    message: bytes = b""

    def database(self, request: Any) -> str:
        """The database a request is about: clients name it in the metadata, older ones in the request."""
        return self.named_database or request.db_name or DEFAULT_DATABASE

    def remaining_s(self, most: float) -> float:
        """Seconds left until the deadline, at most ``most``."""
        return max(0.0, min(most, self.deadline - time.monotonic()))


Handler = Callable[[Any, Call], Awaitable[Message]]
"""Answers one RPC: the parsed request and its ``Call`` in, the reply message out; failures are raised."""

Handlers = dict[str, Handler]
"""By the RPC's name."""

PromptHandler = Callable[[Sequence[Call]], Sequence["bytes | Message | None"]]
"""Answers requests that arrived together, in the thread that calls it and without waiting: to each a
reply, or None: then the ``Handler`` is asked."""

PromptHandlers = dict[str, PromptHandler]


class Group(NamedTuple):
    """Calls that are answered together. numbers: which ones, of those that arrived together. answer: gives the
    replies in that order. What it raises is everyone's answer; but ``InvalidArgument`` and ``TooLarge`` may be
    of one of them, or of all together only: each is answered by itself then."""

    numbers: Sequence[int]
    answer: Callable[[], Awaitable[Sequence["bytes | Message"]]]


GroupHandler = Callable[[Sequence[Call]], Sequence[Group]]
"""Finds those among calls that arrived together which are better answered together; each of the others has
its ``Handler``."""

GroupHandlers = dict[str, GroupHandler]

Metadata = Sequence[tuple[str, Any]]
"""What a gRPC call carries beside its message: (key, text, or bytes where the key ends in ``-bin``)."""

Arrival = tuple[bytes, Metadata, float | None]
"""A call as a listener has it: the message, the metadata, seconds until the client's deadline (None = none)."""
