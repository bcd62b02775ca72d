"""The checker itself: planted errors of every kind are found, and nothing a correct store can answer is blamed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.checker import check
from tests.chaos.definitions import MADE
from tests.chaos.history import Count, History, Operation, Outcome, Read, Write

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN
ALL = None


def put(start: float, end: float, value: int | None, outcome: Outcome = OK, key: int = 1) -> Write:
    return Write("writer", start, {key: value}, end=end, outcome=outcome)


def read(
    start: float, end: float, *rows: tuple[int, int], keys: tuple[int, ...] | None = (1,), behind: float = 0
) -> Read:
    return Read("reader", start, keys, rows, end=end, outcome=OK, behind=behind)


def counted(start: float, end: float, n: int) -> Count:
    return Count("reader", start, n, end=end, outcome=OK)


def kinds(*operations: Operation) -> list[str]:
    return [v.kind for v in check(operations)]


PUT_10 = put(0, 1, 10)


# --- errors, one by one ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("lost", [PUT_10, read(2, 3)]),
        ("lost", [PUT_10, put(2, 3, 11), read(4, 5, (1, 10))]),
        ("lost", [PUT_10, read(2, 3), read(4, 5)]),
        ("lost", [PUT_10, read(2, 3, keys=ALL)]),
        ("resurrected", [PUT_10, put(2, 3, None), read(4, 5, (1, 10))]),
        ("resurrected", [PUT_10, put(2, 3, None), read(4, 5), read(6, 7, (1, 10))]),
        ("stale", [PUT_10, read(2, 3), read(4, 5, (1, 10))]),
        ("stale", [PUT_10, put(2, 3, 11), read(4, 5, (1, 10)), read(6, 7, (1, 11))]),
        ("stale", [PUT_10, put(2, 3, None), read(4, 5, (1, 10)), read(6, 7)]),
        ("partial", [PUT_10, read(2, 3, keys=ALL), read(4, 5, (1, 10), keys=ALL)]),
        ("partial", [PUT_10, read(2, 3, keys=ALL), read(4, 5, (1, 10))]),
        ("partial", [PUT_10, counted(2, 3, 0)]),
        ("lost", [PUT_10, read(4, 5, behind=2)]),
        ("lost", [PUT_10, put(2, 3, 11), read(6, 7, (1, 10), behind=2)]),
        ("partial", [PUT_10, read(4, 5, keys=ALL, behind=2), read(6, 7, (1, 10))]),
        ("resurrected", [PUT_10, put(2, 3, None), read(6, 7, (1, 10), behind=2)]),
        ("phantom", [PUT_10, read(2, 3, (1, 99), behind=9)]),
        ("doubled", [PUT_10, read(2, 3, (1, 10), (1, 10), behind=9)]),
        ("lost", [put(0, 9, 10, UNKNOWN), read(2, 3, (1, 10), behind=9), read(4, 5)]),
        ("doubled", [PUT_10, read(2, 3, (1, 10), (1, 10))]),
        ("doubled", [PUT_10, put(2, 3, 11), read(4, 5, (1, 11), (1, 10), keys=ALL)]),
        ("doubled", [PUT_10, counted(2, 3, 2)]),
        ("phantom", [PUT_10, read(2, 3, (1, 99))]),
        ("phantom", [PUT_10, read(2, 3, (1, 10), (2, 10), keys=ALL)]),
        ("phantom", [read(0, 1, (1, 10)), put(2, 3, 10)]),
        ("phantom", [put(0, 1, 10, FAILED), read(2, 3, (1, 10))]),
        ("phantom", [PUT_10, put(0, 1, 20, key=2), read(2, 3, (1, 10), (2, 20), keys=(1,))]),
    ],
)
def test_a_planted_error_is_found_and_named(kind: str, operations: list[Operation]) -> None:
    assert kind in kinds(*operations)


def test_a_write_with_unknown_outcome_that_was_seen_stays() -> None:
    maybe = put(2, 9, 11, UNKNOWN)
    assert kinds(PUT_10, maybe, read(3, 4, (1, 11)), read(5, 6, (1, 10))) == ["lost"]
    # The same between two reads that ran side by side: either may have come first.
    assert not kinds(PUT_10, maybe, read(3, 5, (1, 11)), read(4, 6, (1, 10)))


def test_what_was_seen_of_a_running_write_is_not_taken_back() -> None:
    assert kinds(PUT_10, put(2, 9, 11), read(3, 4, (1, 11)), read(5, 6, (1, 10))) == ["lost"]
    assert kinds(PUT_10, put(2, 9, 11), read(3, 4, (1, 11)), read(5, 6, (1, 10)), read(10, 11, (1, 11))) == ["stale"]


def test_a_late_write_of_unknown_outcome_happens_once() -> None:
    late = put(2, 3, 11, UNKNOWN)
    rewritten = [PUT_10, late, put(4, 5, 12), read(6, 7, (1, 12)), read(8, 9, (1, 11))]
    assert not kinds(*rewritten)
    assert kinds(*rewritten, put(10, 11, 13), read(12, 13, (1, 11))) == ["lost"]


def defined(start: float, end: float, made: bool, *keys: str, outcome: Outcome = OK) -> Write:
    return Write("definer", start, dict.fromkeys(keys, MADE if made else None), end=end, outcome=outcome)


def found(start: float, end: float, *there: str, keys: tuple[str, ...] = ("c",)) -> Read:
    return Read("definer", start, keys, [(key, MADE) for key in there], end=end, outcome=OK)


CREATED = defined(0, 1, True, "c", "c/1")


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("lost", [CREATED, found(2, 3)]),
        ("stale", [CREATED, found(2, 3), found(4, 5, "c")]),
        ("lost", [CREATED, found(2, 3, "c", keys=("c", "c/1"))]),  # half of it
        ("resurrected", [CREATED, defined(2, 3, False, "c"), found(4, 5, "c")]),
        ("resurrected", [CREATED, defined(2, 3, False, "c", "c/1"), found(4, 5, "c/1", keys=("c", "c/1"))]),
        ("doubled", [CREATED, found(2, 3, "c", "c")]),
        ("phantom", [found(0, 1, "c"), defined(2, 3, True, "c")]),
        # Repeated: what either attempt made is undone.
        ("resurrected", [CREATED, defined(2, 3, True, "c"), defined(4, 5, False, "c"), found(6, 7, "c")]),
        # Undone and made again: what is there is the second one.
        ("lost", [CREATED, defined(2, 3, False, "c"), defined(4, 5, True, "c"), found(6, 7)]),
    ],
)
def test_a_definition_that_does_not_hold_is_found_and_named(kind: str, operations: list[Operation]) -> None:
    assert kinds(*operations) == [kind]


MAYBE = defined(0, 1, True, "c", outcome=UNKNOWN)


@pytest.mark.parametrize(
    "operations",
    [
        [MAYBE, found(2, 3), found(4, 5, "c"), found(6, 7, "c")],
        [MAYBE, defined(2, 3, True, "c"), found(4, 5, "c")],
        [MAYBE, defined(2, 3, False, "c"), found(4, 5)],
        [MAYBE, defined(2, 3, False, "c"), found(4, 5, "c")],  # it came late
        [CREATED, defined(2, 3, False, "c", "c/1", outcome=UNKNOWN), found(4, 5, "c", "c/1", keys=("c", "c/1"))],
        [CREATED, defined(2, 3, False, "c"), defined(4, 5, True, "c"), found(6, 7, "c")],
    ],
)
def test_a_definition_of_unknown_outcome_holds_or_does_not(operations: list[Operation]) -> None:
    assert not kinds(*operations)


# --- right answers, one by one ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "operations",
    [
        [read(0, 1), counted(0, 1, 0), read(0, 1, keys=ALL)],
        [PUT_10, read(0.5, 0.6), read(0.7, 0.8, (1, 10))],  # while it was written
        [PUT_10, put(2, 3, 11, UNKNOWN), read(4, 5, (1, 10))],
        [PUT_10, put(2, 3, 11, UNKNOWN), read(4, 5, (1, 11))],
        [PUT_10, put(2, 3, 11, UNKNOWN), read(4, 5, (1, 10)), read(6, 7, (1, 11))],  # it came late
        [PUT_10, put(2, 3, None, UNKNOWN), read(4, 5), read(4, 5, keys=ALL)],
        [PUT_10, put(2, 3, None, UNKNOWN), counted(4, 5, 0), counted(4, 5, 1)],
        [PUT_10, put(2, 3, None, FAILED), read(4, 5, (1, 10))],
        [PUT_10, put(2, 3, None), put(4, 5, 12), read(6, 7, (1, 12), keys=ALL), counted(6, 7, 1)],
        [PUT_10, Read("reader", 2, (1,))],  # no answer yet
        [PUT_10, put(2, 3, 11), read(4, 5, (1, 10), behind=2)],
        [PUT_10, put(2, 3, 11), read(4, 5, (1, 11), behind=2)],
        [PUT_10, put(2, 3, None), read(4, 5, (1, 10), behind=2), read(4, 5, behind=2)],
        [PUT_10, read(2, 3, keys=ALL, behind=2)],
    ],
)
def test_a_right_answer_is_accepted(operations: list[Operation]) -> None:
    assert not kinds(*operations)


def test_violations_are_told_once_per_answer_with_their_extent() -> None:
    writes = [put(0, 1, 10, key=key) for key in range(50)]
    (violation,) = check([*writes, read(2, 3, keys=ALL)])
    assert violation.kind == "lost"
    assert violation.text.startswith("reader (from 2.000 to 3.000) read all keys: ")
    assert violation.text.endswith(", and 47 more")


# --- a simulated store ------------------------------------------------------------------------------
@dataclass
class Simulation:
    """A correct store and clients whose requests start, take effect and end at moments drawn at random.

    Answers get lost (unknown outcome), writes too; some take effect long after nobody waits for them.
    Each key belongs to one client."""

    random: Random
    clients: int
    keys: int
    now: int = 0
    rows: dict[Any, int] = field(default_factory=dict)
    past: list[tuple[int, dict[Any, int]]] = field(default_factory=lambda: [(0, {})])
    """(since when, rows) of each state."""

    def __post_init__(self) -> None:
        self.history = History(clock=self._tick)
        self.values = count(1)
        self.busy: dict[str, Operation] = {}
        self.applied: set[int] = set()
        self.late: list[Write] = []

    def _tick(self) -> float:
        self.now += 1
        return float(self.now)

    def step(self) -> None:
        client = f"client-{self.random.randrange(self.clients)}"
        operation = self.busy.get(client)
        if operation is None:
            self.busy[client] = self._begin(client)
        elif id(operation) not in self.applied and self.random.random() < 0.85:
            self._apply(operation)
        else:
            self._end(client, operation)
        if self.late and self.random.random() < 0.02:
            self._apply(self.late.pop(self.random.randrange(len(self.late))))

    def _begin(self, client: str) -> Operation:
        mine = [key for key in range(self.keys) if key % self.clients == int(client.rpartition("-")[2])]
        some = self.random.sample(mine, self.random.randint(1, len(mine)))
        match self.random.randrange(6):
            case 0 | 1:
                return self.history.write(client, {key: next(self.values) for key in some})
            case 2:
                return self.history.write(client, dict.fromkeys(some))
            case 3:
                return self.history.read(client, some, behind=self._behind())
            case 4:
                return self.history.read(client, None, behind=self._behind())
            case _:
                return self.history.count(client)

    def _behind(self) -> float:
        return self.random.choice([0.0, 0.0, 3.0, 30.0])

    def _seen(self, operation: Read) -> dict[Any, int]:
        """Rows at some moment that the answer may show."""
        moment = self.random.uniform(max(operation.known, 0), self.now) if operation.behind else self.now
        return next(rows for since, rows in reversed(self.past) if since <= moment)

    def _apply(self, operation: Operation) -> None:
        self.applied.add(id(operation))
        match operation:
            case Write():
                for key, value in operation.values.items():
                    self.rows.pop(key, None)
                    if value is not None:
                        self.rows[key] = value
                self.past.append((self.now, dict(self.rows)))
            case Read():
                rows = self._seen(operation).items()
                operation.rows = [(k, v) for k, v in rows if operation.keys is None or k in operation.keys]
            case Count():
                operation.count = len(self.rows)

    def _end(self, client: str, operation: Operation) -> None:
        del self.busy[client]
        applied = id(operation) in self.applied
        if applied and self.random.random() < 0.8:
            self.history.ended(operation, OK)
        elif not applied and self.random.random() < 0.3:
            self.history.ended(operation, FAILED)
        else:
            self.history.ended(operation, UNKNOWN)
            if not applied and isinstance(operation, Write) and self.random.random() < 0.7:
                self.late.append(operation)


def simulate(seed: int) -> Simulation:
    random = Random(seed)
    clients = random.randint(1, 5)
    simulation = Simulation(random, clients, clients * random.randint(1, 4))
    for _ in range(random.randint(0, 400)):
        simulation.step()
    return simulation


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_whatever_a_correct_store_answers_is_accepted(seed: int) -> None:
    assert check(simulate(seed).history.operations()) == []


def test_the_simulation_has_all_that_makes_it_hard() -> None:
    seen: Counter[str] = Counter()
    for seed in range(50):
        simulation = simulate(seed)
        operations = simulation.history.operations()
        seen.update(f"{type(o).__name__} {o.outcome.value}" for o in operations)
        seen["late"] += len(simulation.late)
        seen["lagging"] += sum(isinstance(o, Read) and o.behind > 0 and o.outcome is OK for o in operations)
    for name in ("Write", "Read", "Count"):
        assert min(seen[f"{name} {outcome.value}"] for outcome in Outcome) > 20, seen
    assert min(seen["late"], seen["lagging"]) > 20


# --- the same with one error in it ------------------------------------------------------------------
KEPT, DELETED = 1000, 1001
"""Keys of one more client, whose every write is acknowledged."""


def with_mutation(seed: int, mutate) -> list[str]:
    """Kinds found in a simulated history during which one answer was falsified: it held ``KEPT`` with its newest
    value and not ``DELETED``. ``mutate`` takes and returns its rows; the rest goes on for a while."""
    simulation = simulate(seed)
    history, rows = simulation.history, simulation.rows
    old, new, gone = (next(simulation.values) for _ in range(3))
    values: Mapping[Any, int | None]
    for values in ({KEPT: old, DELETED: gone}, {KEPT: new, DELETED: None}):
        write = history.write("owner", values)
        simulation._apply(write)
        history.ended(write, OK)
    answer = history.read("owner", None)
    answer.rows = mutate(list(rows.items()), old, new, gone)
    history.ended(answer, OK)
    for _ in range(simulation.random.randint(0, 100)):
        simulation.step()
    return kinds(*history.operations())


def _without(rows: list, old: int, new: int, gone: int) -> list:
    return [(k, v) for k, v in rows if k != KEPT]


def _older(rows: list, old: int, new: int, gone: int) -> list:
    return [(k, old if k == KEPT else v) for k, v in rows]


def _risen(rows: list, old: int, new: int, gone: int) -> list:
    return [*rows, (DELETED, gone)]


def _twice(rows: list, old: int, new: int, gone: int) -> list:
    return [*rows, (KEPT, new)]


def _invented(rows: list, old: int, new: int, gone: int) -> list:
    return [(k, 10**9 if k == KEPT else v) for k, v in rows]


@pytest.mark.parametrize(
    ("mutate", "expected"),
    [
        (_without, {"lost", "partial"}),
        (_older, {"lost", "stale"}),
        (_risen, {"resurrected", "stale"}),
        (_twice, {"doubled"}),
        (_invented, {"phantom"}),
    ],
)
@given(seed=SEEDS)
def test_one_false_answer_among_right_ones_is_found(mutate, expected: set[str], seed: int) -> None:
    (kind,) = with_mutation(seed, mutate)
    assert kind in expected


@given(SEEDS)
def test_a_falsified_count_is_found(seed: int) -> None:
    simulation = simulate(seed)
    for extra, kind in ((len(simulation.rows) + 10_000, "doubled"), (-1, "partial")):
        answer = simulation.history.count("owner")
        answer.count = extra
        simulation.history.ended(answer, OK)
        assert check(simulation.history.operations())[-1].kind == kind
        answer.outcome = UNKNOWN
