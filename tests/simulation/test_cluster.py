"""Schedules of faults on virtual time keep every invariant, and find each bug that is planted.

They run in a process of their own: Python's clocks and the order of its sets are part of a schedule.
``SHEAFDB_SIMULATION_S`` sets how long they go on.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.cluster.plants import PLANTS

SECONDS = os.environ.get("SHEAFDB_SIMULATION_S", "20")
SCHEDULES_MAX = 400
"""In which each planted bug is found; most are in the first twenty."""
DEADLINE_S = 240.0


def simulate(*options: str, deadline_s: float = DEADLINE_S) -> tuple[int, str]:
    """(exit code, all that was printed) of a run."""
    command = [sys.executable, "-m", "tests.simulation.cluster", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)
    return done.returncode, done.stdout + done.stderr


def test_random_schedules_keep_every_invariant() -> None:
    code, printed = simulate("--seconds", SECONDS, deadline_s=float(SECONDS) + DEADLINE_S)
    assert code == 0, printed
    schedules = re.search(r"^(\d+) schedules, .* no violation$", printed, re.MULTILINE)
    assert schedules is not None, printed
    print(printed)


def test_a_seed_replays_exactly() -> None:
    code, course = simulate("--seed", "7")
    assert code == 0, course
    assert simulate("--seed", "7") == (code, course)


@pytest.fixture(scope="module")
def found() -> str:
    """What the run with all plants printed, one line for each."""
    return simulate("--plant", "all", "--schedules", str(SCHEDULES_MAX))[1]


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_bug_is_found(plant: str, found: str) -> None:
    assert re.search(rf"^{plant}: found in schedule \d+ ", found, re.MULTILINE), found
