"""Runs schedules; a violated invariant is printed with its seed and what led to it, and ends with code 1."""

import argparse
import gc
import os
import random
import sys
import time
import weakref
from collections.abc import Iterable, Iterator

from querynode.links import RemoteSegment
from tests.simulation.cluster.plants import PLANTS, planted
from tests.simulation.cluster.schedule import Result, play

COLLECT = 40
"""Schedules between collections of garbage: one after each would take a tenth of the time."""


def main() -> int:
    options = _options()
    if options.plant:
        return sum(not _finds(name, options.seed or 1, options.schedules) for name in planted(options.plant))
    if options.seed:
        return _report(play(options.seed), trace=True)
    base = random.SystemRandom().randrange(1, 1 << 32)
    print(f"schedules from seed {base} on, for {options.seconds:g} s", flush=True)
    began_s, cpu_s, results = time.monotonic(), time.process_time(), []
    for result in _schedules(range(base, base + options.schedules)):
        if _report(result):
            return 1
        results.append((result.steps, result.virtual_s, result.healed_s))
        if time.monotonic() - began_s > options.seconds:
            break
    steps, virtual_s, healed_s = (tuple(column) for column in zip(*results, strict=True))
    a_minute = 60 * len(results) / (time.process_time() - cpu_s)
    print(
        f"{len(results)} schedules, {sum(steps)} steps, {sum(virtual_s):.0f} virtual s; {a_minute:.0f} "
        f"schedules a minute of one core; whole again within {max(healed_s):.1f} virtual s; no violation"
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this schedule alone and show its course")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on with random seeds")
    parser.add_argument("--schedules", type=int, default=1 << 30, help="at most so many")
    parser.add_argument("--plant", choices=[*PLANTS, "all"], help="plant a bug, and say how soon it is found")
    return parser.parse_args()


def _schedules(seeds: Iterable[int]) -> Iterator[Result]:
    gc.disable()
    gc.freeze()  # the modules are not looked at again and again
    for n, seed in enumerate(seeds):
        yield play(seed)
        if n % COLLECT == 0:
            _forget_remote_segments()
            gc.collect()


def _forget_remote_segments() -> None:
    """Their finalizers would keep each schedule's world: a process of the product has one, for its whole life."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        held = finalizer.peek()
        if held and isinstance(held[0], RemoteSegment):
            finalizer.detach()


def _finds(name: str, first: int, most: int) -> bool:
    with PLANTS[name]():
        for n, result in enumerate(_schedules(range(first, first + most)), 1):
            if result.violation:
                print(f"{name}: found in schedule {n} (seed {result.seed}): {result.violation}", flush=True)
                return True
    print(f"{name}: not found in {most} schedules", flush=True)
    return False


def _report(result: Result, *, trace: bool = False) -> int:
    if trace or result.violation:
        print("\n".join(result.trace))
        print(f"seed {result.seed}: {result.steps} steps, {result.virtual_s:.1f} virtual s, answers {result.answered}")
    if result.violation:
        print(f"VIOLATION {result.violation}\nreplay: python -m tests.simulation.cluster --seed {result.seed}")
    return bool(result.violation)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of a schedule.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.cluster", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
