"""What a run found, for people."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.checker import Violation
from tests.chaos.history import Operation, Outcome

NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)?")
TOLD_MOST = 10
"""Errors that are shown."""


@dataclass(slots=True)
class Verdict:
    seed: int
    violations: list[Violation] = field(default_factory=list)
    stuck: str = ""
    """What did not come back in time; "" when all did."""
    left: str = ""
    """What was wrong or left behind when everything had been dropped; "" when nothing was."""
    struck: list[tuple[str, float]] = field(default_factory=list)
    """(fault, seconds from its end until every client was served again)."""
    rounds: int = 0
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """Operations by what was asked for and what came of it."""
    longest: dict[str, float] = field(default_factory=dict)
    """Seconds that a client was without what it asked for, at most: see ``waits``."""
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Errors that came instead of an answer, by what was asked for; numbers in them are left out."""

    @property
    def right(self) -> bool:
        return not (self.violations or self.stuck or self.left)

    def count(self, operations: Sequence[Operation]) -> None:
        """Adds a round's."""
        self.outcomes.update((o.call, o.outcome) for o in operations)
        self.told.update((o.call, NUMBERS.sub("N", o.told)) for o in operations if o.told)
        for call, waited in waits(operations).items():
            self.longest[call] = max(self.longest.get(call, 0.0), waited)

    def acknowledged(self, call: str) -> int:
        return self.outcomes[call, Outcome.OK]

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {len(self.struck)} faults in {self.rounds} rounds",
            *self._calls(),
            *self._faults(),
        ]
        lines += [f"  {n} times, {call}: {text}" for (call, text), n in self.told.most_common(TOLD_MOST)]
        lines += [f"  {v.kind}: {v.text}" for v in self.violations]
        lines += [f"  stuck: {self.stuck}"] if self.stuck else []
        lines += [f"  left behind: {self.left}"] if self.left else []
        lines.append("RIGHT: every answer was one that a single correct copy could give" if self.right else "WRONG")
        return "\n".join(lines)

    def _calls(self) -> Iterable[str]:
        yield f"  {'operation':22}{'acknowledged':>14}{'unknown':>9}{'refused':>9}{'longest wait':>14}"
        for call in sorted({call for call, _ in self.outcomes}):
            told = "".join(
                f"{self.outcomes[call, outcome]:{width}}"
                for outcome, width in ((Outcome.OK, 14), (Outcome.UNKNOWN, 9), (Outcome.FAILED, 9))
            )
            yield f"  {call:22}{told}{self.longest.get(call, 0.0):12.1f} s"

    def _faults(self) -> Iterable[str]:
        times: dict[str, list[float]] = defaultdict(list)
        for name, took in self.struck:
            times[name].append(took)
        yield f"  {'fault':34}{'times':>6}{'served again, at the latest':>30}"
        for name, took in sorted(times.items()):
            yield f"  {name:34}{len(took):6}{max(took):28.1f} s"


def waits(operations: Iterable[Operation]) -> dict[str, float]:
    """By call: the longest time from when a client asked for it until it was answered, over all its attempts since
    the last answer it had; of those that never were, until the last attempt's end."""
    asked: dict[tuple[str, str], float] = {}
    longest: dict[str, float] = defaultdict(float)
    for operation in sorted((o for o in operations if o.end < math.inf), key=lambda o: o.end):
        key = (operation.client, operation.call)
        since = asked.setdefault(key, operation.start)
        longest[operation.call] = max(longest[operation.call], operation.end - since)
        if operation.outcome is Outcome.OK:
            del asked[key]
    return dict(longest)
