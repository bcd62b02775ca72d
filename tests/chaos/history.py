"""What clients asked and were told, with the times of both: all that the checker knows."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar


class Outcome(Enum):
    OK = "ok"
    FAILED = "failed"  # surely: it had no effect and will have none
    UNKNOWN = "unknown"  # it may have happened, may still happen, may never


@dataclass(slots=True, eq=False)
class Operation:
    """One request. Times in seconds of one monotonic clock; ``end`` is infinite until an answer is there."""

    client: str
    start: float
    end: float = field(default=math.inf, kw_only=True)
    outcome: Outcome = field(default=Outcome.UNKNOWN, kw_only=True)


@dataclass(slots=True, eq=False)
class Write(Operation):
    """values: by key; None deletes it. A value is written to a key at most once in a history."""

    values: Mapping[int, int | None]


@dataclass(slots=True, eq=False)
class Read(Operation):
    """A strong read. keys: which were asked for, None = all. rows: (key, value) as they came, doubled ones too."""

    keys: Sequence[int] | None
    rows: Sequence[tuple[int, int]] = ()


@dataclass(slots=True, eq=False)
class Count(Operation):
    """A strong count of all keys."""

    count: int = 0


Began = TypeVar("Began", bound=Operation)


class History:
    """Filled by many threads at once. An operation is in it from before it is sent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._operations: list[Operation] = []

    def write(self, client: str, values: Mapping[int, int | None]) -> Write:
        return self._began(Write(client, self._clock(), dict(values)))

    def read(self, client: str, keys: Iterable[int] | None) -> Read:
        return self._began(Read(client, self._clock(), None if keys is None else tuple(keys)))

    def count(self, client: str) -> Count:
        return self._began(Count(client, self._clock()))

    def ended(self, operation: Operation, outcome: Outcome) -> None:
        """An answer is put into its operation before this is called."""
        operation.end = self._clock()
        operation.outcome = outcome

    def operations(self) -> list[Operation]:
        """In the order of their starts, give or take threads; those that still run are ``UNKNOWN``."""
        return list(self._operations)

    def _began(self, operation: Began) -> Began:
        self._operations.append(operation)
        return operation
