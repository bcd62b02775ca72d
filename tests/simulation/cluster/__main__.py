"""Runs schedules; a violated invariant is printed with its seed and what led to it, and ends with code 1."""

import argparse
import os
import random
import sys
import time

from tests.simulation.cluster.many import play_many, schedules
from tests.simulation.cluster.plants import PLANTS, planted
from tests.simulation.cluster.schedule import Result, play


def main() -> int:
    options = _options()
    if options.plant:
        return sum(not _finds(name, options.seed or 1, options.schedules) for name in planted(options.plant))
    if options.seed:
        return _report(play(options.seed), trace=True)
    seeds = range(first := random.SystemRandom().randrange(1, 1 << 32), first + options.schedules)
    print(f"schedules from seed {first} on, for {options.seconds:g} s, {options.jobs} at a time", flush=True)
    began_s, played = time.monotonic(), []
    for some in play_many(seeds, options.seconds, options.jobs):
        if _report(some.last):
            return 1
        played.append(some)
    number, cpu_s = sum(p.schedules for p in played), sum(p.cpu_s for p in played)
    print(
        f"{number} schedules, {sum(p.steps for p in played)} steps, {sum(p.virtual_s for p in played):.0f} virtual s; "
        f"{60 * number / (time.monotonic() - began_s):.0f} schedules a minute, {60 * number / cpu_s:.0f} of one core; "
        f"whole again within {max(p.healed_s for p in played):.1f} virtual s; no violation"
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this schedule alone and show its course")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on with random seeds")
    parser.add_argument("--schedules", type=int, default=1 << 30, help="at most so many")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes that play them; default: cores"
    )
    parser.add_argument("--plant", choices=[*PLANTS, "all"], help="plant a bug, and say how soon it is found")
    return parser.parse_args()


def _finds(name: str, first: int, most: int) -> bool:
    with PLANTS[name]():
        for n, result in enumerate(schedules(range(first, first + most)), 1):
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
