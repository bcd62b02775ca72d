"""One run: a cluster, clients, faults one after another, and what the checker says after each round."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from sheafdb.cluster import Size
from tests.chaos.aftermath import left_behind
from tests.chaos.bounded import BEHIND_S
from tests.chaos.checker import check
from tests.chaos.deaths import death_faults
from tests.chaos.faults import Fault, process_faults, schedule, start_dead
from tests.chaos.stage import Stage
from tests.chaos.verdict import Verdict
from tests.chaos.ways import connection_faults
from tests.chaos.workload import Shape, Workload
from tests.server import TINY

SETTINGS: dict[str, Any] = {
    **{k: v for k, v in TINY.items() if not k.startswith("data_node.trim")},
    # Longer than anything a fault can put between a stored object and the commit that names it.
    "coordinator.orphan_grace_s": 60,
    "coordinator.audit_interval_s": 5,
    "cache.bytes_max": 256 * 1024 * 1024,
    "query_node.bounded_staleness_s": BEHIND_S,
}
SPREAD = {"query_node.spread_bytes": 4096}
"""Of all query nodes but the first: shards are spread over workers, or not, as their leader has it."""
BACK_S = 60.0
"""Until every client is served again after a fault; what takes longer is reported as a failure."""
CALM_S = 2.0
ROUND_S = 120.0
POLL_S = 0.1
LOG_BYTES_MOST = 16 * 1024 * 1024
"""Of a process, after a round; the lines of earlier rounds, which were right, are forgotten."""


def all_faults() -> list[Fault]:
    return [*process_faults(), *connection_faults(), *death_faults()]


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
    """Rounds of faults for so many seconds (the last fault is seen through), then everything ended. A round has
    collections and histories of its own: what is kept and checked stays small however long the run. The histories
    of one that was not right are left in ``folder``.

    Raises what a cluster's start raises, and what ended a client that no fault explains."""
    verdict = Verdict(seed)
    upcoming = drawn(faults, seed)
    spread = {f"querynode-{i + 1}": SPREAD for i in range(1, size.querynode)}
    stage = await Stage.start(folder, size=size, settings=SETTINGS, of_process=spread)
    began = time.monotonic()

    def timed(line: str) -> None:
        say(f"{time.monotonic() - began:8.1f} s  {line}")

    try:
        while verdict.right and (left := began + seconds - time.monotonic()) > 0:
            verdict.rounds += 1
            await _Round(stage, verdict, upcoming, clients, timed).run(min(left, ROUND_S), folder)
            _shorten_logs(folder)
        if verdict.right:
            verdict.left = await left_behind(stage.cluster)
    finally:
        stage.kill()
    return verdict


def drawn(faults: Sequence[Fault], seed: int) -> Iterator[tuple[Fault, Random]]:
    """Each with what it draws from: the same for a seed, whatever happened meanwhile."""
    for n, fault in zip(count(), schedule(faults, Random(f"{seed} faults")), strict=False):
        yield fault, Random(f"{seed} fault {n}")


def _shorten_logs(folder: Path) -> None:
    for file in folder.glob("*/*.log"):
        if file.stat().st_size > LOG_BYTES_MOST:
            os.truncate(file, 0)  # whoever writes it appends


class _Round:
    """The life of one collection of rows, and of many that come and go, and the faults in it."""

    def __init__(
        self,
        stage: Stage,
        verdict: Verdict,
        upcoming: Iterator[tuple[Fault, Random]],
        clients: int,
        say: Callable[[str], None],
    ) -> None:
        self._stage, self._verdict, self._upcoming, self._say = stage, verdict, upcoming, say
        self._name = f"round_{verdict.rounds}"
        seed = f"{verdict.seed} {self._name}"
        replicas_most = min(2, len(stage.cluster.of("querynode")))
        self._shape = Shape.draw(Random(seed), replicas_most)
        self._workload = Workload(
            stage.cluster.proxies,
            name=self._name,
            shape=self._shape,
            clients=clients,
            replicas_most=replicas_most,
            seed=seed,
        )

    async def run(self, seconds: float, folder: Path) -> None:
        try:
            await self._load_and_strike(seconds)
        except BaseException:
            self._save(folder)
            raise
        verdict, workload = self._verdict, self._workload
        for history in (workload.rows, workload.definitions):
            operations = history.operations()
            verdict.count(operations)
            verdict.violations += check(operations)
        self._say(f"{self._name} ({self._shape}) ended, {len(verdict.violations)} violations")
        if verdict.right:
            await asyncio.to_thread(workload.drop)
        else:
            self._save(folder)

    async def _load_and_strike(self, seconds: float) -> None:
        verdict, workload = self._verdict, self._workload
        await asyncio.to_thread(workload.start)
        began = time.monotonic()
        try:
            if not await self._serves(began):
                verdict.stuck = f"at the start of {self._name}: {workload.waiting_since(began)}"
            while verdict.right and workload.alive() and time.monotonic() < began + seconds:
                await self._strike(*next(self._upcoming))
        finally:
            await asyncio.to_thread(workload.stop)

    async def _strike(self, fault: Fault, random: Random) -> None:
        await asyncio.sleep(random.uniform(0, CALM_S))
        await fault.strike(self._stage, random, self._say)
        over = time.monotonic()
        if await self._serves(over):
            took = time.monotonic() - over
            self._say(f"all clients are served again {took:.1f} s after {fault.name!r}")
            self._verdict.struck.append((fault.name, took))
        else:
            waiting = self._workload.waiting_since(over)
            self._verdict.stuck = f"not served {BACK_S:g} s after the fault {fault.name!r}: {waiting}"

    async def _serves(self, since: float) -> bool:
        """Starts what is dead until nothing is and every client was served after ``since``; False when that takes
        longer than ``BACK_S``."""
        cluster = self._stage.cluster
        processes = [*cluster.servers.values(), *cluster.roles.values()]
        while self._workload.alive():
            await start_dead(self._stage, self._say)
            if all(p.alive for p in processes) and not self._workload.waiting_since(since):
                break
            if time.monotonic() > since + BACK_S:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _save(self, folder: Path) -> None:
        self._workload.rows.save(folder / f"{self._name}-rows.jsonl")
        self._workload.definitions.save(folder / f"{self._name}-definitions.jsonl")
