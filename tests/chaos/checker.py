"""Judges a history: was every read what a single, correct, durable copy of the data could have answered?

Each key is a register. A write takes effect at one moment between its start and its end; one with an
unknown outcome at one moment after its start, however late, or never; one that failed, never. So

- a write is *settled* once it was acknowledged, or once a read that saw its value returned;
- a settled write is *over* at time t when a write that started after it was settled is itself settled by t;
- a strong read may see a write that started before the read ended and was not over when the read started;
- one that may lag behind, also one that was not over so long before the read started.

For unique values and one writer per key at a time (which ``workload`` keeps to) and no unknown outcomes that
is linearizability, no less (Gibbons and Korach's zones); unknown outcomes, and writes that look alike (deletes; a
definition that is repeated), are given the benefit of the doubt. Everything said is wrong is wrong: no correct
store answers like that.

Definitions are held to the same rules: what they make is a key, the same value is written to it each time it is
made, and dropping a collection writes None to all that is in it.

A count is held to the number of keys that must have been there, and of those that can have been.
"""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.chaos.history import Answer, Count, Key, Operation, Outcome, Read, Write

MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """kind: "lost" (an acknowledged write is gone, and stays so), "resurrected" (an acknowledged delete is
    undone, and stays so), "stale" (an answer without what was acknowledged before it was asked, which later
    answers have), "partial" (the same, of keys that an answer for all keys left out), "doubled" (a key
    more than once), "phantom" (a value that nobody wrote, or not yet, or not successfully)."""

    kind: str
    text: str


def check(operations: Iterable[Operation], most: int = MOST_SHOWN) -> list[Violation]:
    """The first ``most`` violations in order of their answers, one per kind and answer; empty for a right history."""
    operations = list(operations)
    registers = _registers(operations)
    found: list[Violation] = []
    answered = [o for o in operations if isinstance(o, Answer) and o.outcome is Outcome.OK]
    for answer in sorted(answered, key=lambda o: o.end):
        if isinstance(answer, Count):
            found += _check_count(answer, registers)
        else:
            found += _check_read(answer, registers)
        if len(found) >= most:
            break
    return found[:most]


class _Spans:
    """(settled, started) of some writes, in that order; asked by bisection."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        spans = list(spans)
        self._settled = [settled for settled, _ in spans]
        self._earliest_from = list(accumulate((start for _, start in reversed(spans)), min))[::-1]

    def any(self, *, settled_after: float, started_before: float) -> bool:
        first = bisect_right(self._settled, settled_after)
        return first < len(self._settled) and self._earliest_from[first] < started_before


# --- one key ---------------------------------------------------------------------------------------
class _Register:
    """What was written to one key and when each write was settled; ``seal`` before asking anything."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.writes: list[Write] = []
        self._by_value: dict[int, list[Write]] = defaultdict(list)
        self.reads: list[Read] = []
        self._settled: dict[int, float] = {}

    def add(self, write: Write) -> None:
        if write.outcome is Outcome.FAILED:
            return
        self.writes.append(write)
        if (value := write.values[self.key]) is not None:
            self._by_value[value].append(write)

    def sources(self, value: int | None, answer: Answer) -> list[Write]:
        """Writes that an answer with this value can come from, as far as their starts tell."""
        return [w for w in self._by_value.get(value, ()) if w.start < answer.end] if value is not None else []

    def seen(self, value: int | None, read: Read) -> None:
        self.reads.append(read)
        match self.sources(value, read):
            case [write]:
                self._settled[id(write)] = min(self.settled(write), read.end)

    def settled(self, write: Write) -> float:
        ended = write.end if write.outcome is Outcome.OK else math.inf
        return min(self._settled.get(id(write), math.inf), ended)

    def seal(self) -> None:
        """Orders writes by when they were settled, so that a question costs a bisection."""
        ordered = sorted(self.writes, key=self.settled)
        self._times = [self.settled(w) for w in ordered]
        self._latest_start = list(accumulate((w.start for w in ordered), max, initial=-math.inf))
        self._puts = _Spans((self.settled(w), w.start) for w in ordered if w.values[self.key] is not None)
        self._deletes = _Spans((self.settled(w), w.start) for w in ordered if w.values[self.key] is None)

    def over_before(self, time: float) -> float:
        """Writes settled at or before the returned time were over at ``time``."""
        return self._latest_start[bisect_right(self._times, time)]

    def may_see(self, value: int, answer: Answer) -> bool:
        over = self.over_before(answer.known)
        return any(self.settled(write) > over for write in self.sources(value, answer))

    def may_miss(self, answer: Answer) -> bool:
        """Whether the key may be absent."""
        over = self.over_before(answer.known)
        # A key starts out absent, until something is settled.
        return over == -math.inf or self._deletes.any(settled_after=over, started_before=answer.end)

    def may_exist(self, answer: Answer) -> bool:
        over = self.over_before(answer.known)
        return self._puts.any(settled_after=over, started_before=answer.end)

    def newest(self, time: float) -> Write:
        """The last write to start of those settled at ``time``."""
        return max((w for w in self.writes if self.settled(w) <= time), key=lambda w: w.start)


def _registers(operations: Sequence[Operation]) -> dict[Key, _Register]:
    registers: dict[Key, _Register] = {}
    for operation in operations:
        if isinstance(operation, Write):
            for key in operation.values:
                registers.setdefault(key, _Register(key)).add(operation)
    for operation in operations:
        if isinstance(operation, Read) and operation.outcome is Outcome.OK:
            values = dict(operation.rows)
            for key in registers.keys() if operation.keys is None else operation.keys:
                registers.setdefault(key, _Register(key)).seen(values.get(key), operation)
    for register in registers.values():
        register.seal()
    return registers


# --- one answer ------------------------------------------------------------------------------------
def _check_read(read: Read, registers: dict[Key, _Register]) -> Iterator[Violation]:
    wrong: dict[str, list[str]] = defaultdict(list)
    times = Counter(key for key, _ in read.rows)
    for key, n in times.items():
        if n > 1:
            wrong["doubled"].append(f"key {key} is there {n} times")
    for key, value in read.rows:
        register = registers.get(key)
        if read.keys is not None and key not in read.keys:
            wrong["phantom"].append(f"key {key} was not asked for")
        elif register is None or not register.may_see(value, read):
            kind, text = _explain(key, value, read, register)
            wrong[kind].append(text)
    for key in registers.keys() - times.keys() if read.keys is None else set(read.keys) - times.keys():
        if not registers[key].may_miss(read):
            kind, text = _explain(key, None, read, registers[key])
            wrong[kind].append(text)
    asked = "all keys" if read.keys is None else f"{len(read.keys)} keys"
    for kind, texts in wrong.items():
        more = f", and {len(texts) - 3} more" if len(texts) > 3 else ""
        yield Violation(kind, f"{_who(read)} read {asked}: {'; '.join(texts[:3])}{more}")


def _explain(key: Key, value: int | None, read: Read, register: _Register | None) -> tuple[str, str]:
    if register is None or (value is not None and not register.sources(value, read)):
        return "phantom", f"key {key} has value {value}, which nobody had written"
    newest = register.newest(read.known)
    expected = newest.values[key]
    text = (
        f"key {key} is {_name(value)}, but {_who(newest)} made it {_name(expected)} "
        f"({newest.outcome.value} at {newest.end:.3f}, settled at {register.settled(newest):.3f})"
    )
    if _came_back(register, read, newest):
        return "partial" if value is None and read.keys is None else "stale", text
    return "resurrected" if expected is None else "lost", text


def _came_back(register: _Register, read: Read, newest: Write) -> bool:
    """Whether an answer to a later question shows the write that this one lacks, or a later one."""
    later = (r for r in register.reads if r.start >= read.end)
    for other in later:
        value = dict(other.rows).get(register.key)
        if value is None:
            if newest.values[register.key] is None and register.may_miss(other):
                return True
        elif any(write.start >= newest.start for write in register.sources(value, other)):
            return True
    return False


def _check_count(count: Count, registers: dict[Key, _Register]) -> Iterator[Violation]:
    least = sum(not register.may_miss(count) for register in registers.values())
    if count.count < least:
        yield Violation("partial", f"{_who(count)} counted {count.count}, but {least} keys must have been there")
        return
    most = sum(register.may_exist(count) for register in registers.values())
    if count.count > most:
        yield Violation("doubled", f"{_who(count)} counted {count.count}, but at most {most} keys can have been there")


def _who(operation: Operation) -> str:
    return f"{operation.client} (from {operation.start:.3f} to {operation.end:.3f})"


def _name(value: int | None) -> str:
    return "absent" if value is None else str(value)
