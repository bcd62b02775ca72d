"""One run: a cluster, clients, faults one after another, and what the checker says after each."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sheafdb.cluster import Cluster, Size
from tests.chaos.checker import Violation, check
from tests.chaos.faults import Fault, schedule, start_dead
from tests.chaos.history import Count, History, Operation, Outcome, Read, Write
from tests.chaos.workload import Workload
from tests.server import TINY

SETTINGS = {k: v for k, v in TINY.items() if not k.startswith("data_node.trim")}
BACK_S = 60.0
"""Until every client writes and reads again after a fault; what takes longer is reported as a failure."""
CALM_S = 2.0
ROUND_S = 120.0
POLL_S = 0.1


@dataclass(slots=True)
class Verdict:
    seed: int
    violations: list[Violation] = field(default_factory=list)
    stuck: str = ""
    """What did not come back in time; "" when all did."""
    struck: list[tuple[str, float]] = field(default_factory=list)
    """(fault, seconds from its end until every client wrote and read again)."""
    rounds: int = 0
    operations: Counter[str] = field(default_factory=Counter)

    @property
    def right(self) -> bool:
        return not self.violations and not self.stuck

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.operations.items())
        lines = [f"seed {self.seed}: {len(self.struck)} faults in {self.rounds} rounds; {counts}"]
        for name in sorted({name for name, _ in self.struck}):
            times = sorted(took for struck, took in self.struck if struck == name)
            lines.append(f"  {name}: {len(times)} times, all served again after {times[-1]:.1f} s at the latest")
        lines += [f"  {v.kind}: {v.text}" for v in self.violations]
        if self.stuck:
            lines.append(f"  stuck: {self.stuck}")
        lines.append("RIGHT: every answer was one that a single correct copy could give" if self.right else "WRONG")
        return "\n".join(lines)


async def run(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    size: Size,
    clients: int,
    faults: Sequence[Fault],
    say: Callable[[str], None],
) -> Verdict:
    """Rounds of faults for so many seconds (the last fault is seen through), then everything ended. A round has a
    collection and a history of its own: what is kept and checked stays small however long the run.

    Raises what a cluster's start raises, and what ended a client that no fault explains."""
    verdict, random = Verdict(seed), Random(seed)
    upcoming = schedule(faults, random)
    cluster = await Cluster.start(folder, size=size, settings=SETTINGS)
    began = time.monotonic()

    def timed(line: str) -> None:
        say(f"{time.monotonic() - began:8.1f} s  {line}")

    try:
        while verdict.right and (left := began + seconds - time.monotonic()) > 0:
            round_ = _Round(cluster, verdict, upcoming, random, timed)
            await round_.run(min(left, ROUND_S), clients)
    finally:
        cluster.kill()
    return verdict


class _Round:
    """One collection's life, and the faults in it."""

    def __init__(
        self,
        cluster: Cluster,
        verdict: Verdict,
        upcoming: Iterator[Fault],
        random: Random,
        say: Callable[[str], None],
    ) -> None:
        self._cluster, self._verdict, self._upcoming, self._random, self._say = cluster, verdict, upcoming, random, say
        self._history = History()

    async def run(self, seconds: float, clients: int) -> None:
        verdict = self._verdict
        verdict.rounds += 1
        workload = self._workload = Workload(
            self._cluster.proxies,
            self._history,
            collection=f"round_{verdict.rounds}",
            clients=clients,
            seed=self._random.randrange(2**32),
        )
        await asyncio.to_thread(workload.start)
        began = time.monotonic()
        try:
            if not await self._serves(began):
                verdict.stuck = "the first writes and reads of a round"
            while verdict.right and workload.alive() and time.monotonic() < began + seconds:
                await self._strike(next(self._upcoming))
        finally:
            await asyncio.to_thread(workload.stop)
        operations = self._history.operations()
        verdict.operations.update(_counted(operations))
        verdict.violations = check(operations)
        self._say(f"round {verdict.rounds}: {len(operations)} operations, {len(verdict.violations)} violations")
        if verdict.right:
            await asyncio.to_thread(workload.drop)

    async def _strike(self, fault: Fault) -> None:
        await asyncio.sleep(self._random.uniform(0, CALM_S))
        await fault.strike(self._cluster, self._random, self._say)
        over = time.monotonic()
        if await self._serves(over):
            took = time.monotonic() - over
            self._say(f"all clients write and read again {took:.1f} s after")
            self._verdict.struck.append((fault.name, took))
        else:
            self._verdict.stuck = f"not every client writes and reads {BACK_S:g} s after the fault {fault.name!r}"

    async def _serves(self, since: float) -> bool:
        """Starts what is dead until nothing is and every client was served after ``since``; False when that takes
        longer than ``BACK_S``."""
        processes = [*self._cluster.servers.values(), *self._cluster.roles.values()]
        while self._workload.alive():
            await start_dead(self._cluster, self._say)
            if all(p.alive for p in processes) and self._workload.served_since(since):
                break
            if time.monotonic() > since + BACK_S:
                return False
            await asyncio.sleep(POLL_S)
        return True


def _counted(operations: Sequence[Operation]) -> dict[str, int]:
    names = {"writes": Write, "reads": Read, "counts": Count}
    counts = {name: sum(isinstance(o, kind) for o in operations) for name, kind in names.items()}
    unknown = sum(isinstance(o, Write) and o.outcome is Outcome.UNKNOWN for o in operations)
    return {**counts, "writes of unknown outcome": unknown}
