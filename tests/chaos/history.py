"""What clients asked and were told, with the times of both: all that the checker knows."""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

Key = Any
"""Hashable: a primary key, or the name of what definitions make and undo: "d7/partition 2"."""


class Outcome(Enum):
    OK = "ok"
    FAILED = "failed"  # surely: it had no effect and will have none
    UNKNOWN = "unknown"  # it may have happened, may still happen, may never


@dataclass(slots=True, eq=False)
class Operation:
    """One request. Times in seconds of one monotonic clock; ``end`` is infinite until an answer is there.

    call, told: what was asked for, in a word or two, and the error that came instead of an answer; for readers."""

    client: str
    start: float
    end: float = field(default=math.inf, kw_only=True)
    outcome: Outcome = field(default=Outcome.UNKNOWN, kw_only=True)
    call: str = field(default="", kw_only=True)
    told: str = field(default="", kw_only=True)


@dataclass(slots=True, eq=False)
class Write(Operation):
    """values: by key; None deletes it."""

    values: Mapping[Key, int | None]


@dataclass(slots=True, eq=False)
class Answer(Operation):
    """behind: seconds that it may lag behind what was acknowledged when it was asked for; 0 = a strong one."""

    behind: float = field(default=0.0, kw_only=True)

    @property
    def known(self) -> float:
        """What was acknowledged by then, it knows."""
        return self.start - self.behind


@dataclass(slots=True, eq=False)
class Read(Answer):
    """keys: which were asked for, None = all. rows: (key, value) as they came, doubled ones too."""

    keys: Sequence[Key] | None
    rows: Sequence[tuple[Key, int]] = ()


@dataclass(slots=True, eq=False)
class Count(Answer):
    """Of all keys."""

    count: int = 0


Began = TypeVar("Began", bound=Operation)


class History:
    """Filled by many threads at once. An operation is in it from before it is sent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._operations: list[Operation] = []

    def write(self, client: str, values: Mapping[Key, int | None], call: str = "write") -> Write:
        return self._began(Write(client, self._clock(), dict(values), call=call))

    def read(self, client: str, keys: Iterable[Key] | None, call: str = "read", behind: float = 0.0) -> Read:
        keys = None if keys is None else tuple(keys)
        return self._began(Read(client, self._clock(), keys, call=call, behind=behind))

    def count(self, client: str) -> Count:
        return self._began(Count(client, self._clock(), call="count"))

    def ended(self, operation: Operation, outcome: Outcome) -> None:
        """An answer is put into its operation before this is called."""
        operation.end = self._clock()
        operation.outcome = outcome

    def operations(self) -> list[Operation]:
        """In the order of their starts, give or take threads; those that still run are ``UNKNOWN``."""
        return list(self._operations)

    def save(self, file: Path) -> None:
        """One operation a line, as JSON; an end that never came is ``Infinity``."""
        with file.open("w", encoding="utf-8") as f:
            for operation in self.operations():
                fields = {"kind": type(operation).__name__, **asdict(operation), "outcome": operation.outcome.value}
                f.write(json.dumps({k: _plain(v) for k, v in fields.items()}) + "\n")

    def _began(self, operation: Began) -> Began:
        self._operations.append(operation)
        return operation


def _plain(value: object) -> object:
    """JSON has no keys but text: a mapping becomes its pairs."""
    return list(value.items()) if isinstance(value, Mapping) else value
