"""Schedules by the thousand: the same process plays one after the other, several processes side by side."""

import gc
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

from querynode.links import RemoteSegment
from tests.simulation.cluster.schedule import Result, play

SLICE = 40
"""Schedules that a process plays at a time."""
COLLECT = 40
"""Schedules between collections of garbage: one after each would take a tenth of the time."""


class Played(NamedTuple):
    """Some schedules. last: the last one; it alone may have a violation. cpu_s: what they took."""

    schedules: int
    steps: int
    virtual_s: float
    healed_s: float
    cpu_s: float
    last: Result


def play_many(seeds: range, seconds: float, jobs: int) -> Iterator[Played]:
    """Schedules of these seeds, slice by slice, until the time is over or one has a violation."""
    end_s = time.monotonic() + seconds
    slices = (seeds[n : n + SLICE] for n in range(0, len(seeds), SLICE))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running = {pool.submit(_slice, some) for some in islice(slices, jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
                if each.result().last.violation:
                    return
                if time.monotonic() < end_s:
                    running |= {pool.submit(_slice, some) for some in islice(slices, 1)}


def _slice(seeds: range) -> Played:
    """Up to the first violation. In a process that does nothing else."""
    results: list[Result] = []
    cpu_s = time.process_time()
    for result in schedules(seeds):
        results.append(result)
        if result.violation:
            break
    return Played(
        len(results),
        sum(r.steps for r in results),
        sum(r.virtual_s for r in results),
        max(r.healed_s for r in results),
        time.process_time() - cpu_s,
        results[-1],
    )


def schedules(seeds: Iterable[int]) -> Iterator[Result]:
    gc.disable()
    if not gc.get_freeze_count():
        gc.freeze()  # the modules are not looked at again and again
    for n, seed in enumerate(seeds):
        yield play(seed)
        if n % COLLECT == 0:
            _forget_remote_segments()
            gc.collect()


def _forget_remote_segments() -> None:
    """Their finalizers would keep each schedule's world: a process of the product has one, for its whole life."""
    for finalizer in list(weakref.finalize._registry):
        held = finalizer.peek()
        if held and isinstance(held[0], RemoteSegment):
            finalizer.detach()
