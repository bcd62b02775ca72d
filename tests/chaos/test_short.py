"""A minute of ``make chaos`` on every test run: a small cluster, and what a fixed seed draws from all faults."""

from pathlib import Path

import pytest

from sheafdb.cluster import Size
from tests.chaos.run import all_faults, run

SEED = 225_585
"""Draws a killed query node, a leader that dies in the middle of a definition, a query node cut off from the other
roles, a silent server; 3 shards of one replica, so that searches go directly, and an exact index, so that what an
answer lacks is seen."""
SECONDS = 45.0
SIZE = Size(proxy=2, querynode=2, datanode=2, indexnode=1, coordinator=2)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("installed_servers")
async def test_no_fault_makes_an_answer_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = await run(tmp_path, seed=SEED, seconds=SECONDS, size=SIZE, clients=3, faults=all_faults(), say=print)
    told = capsys.readouterr().out
    assert verdict.right, f"{verdict}\n{told}"
    assert len(verdict.struck) >= 3, f"{verdict}\n{told}"
    assert verdict.acknowledged("upsert") > 50, str(verdict)
    assert verdict.acknowledged("bounded search") > 50, str(verdict)
    assert verdict.acknowledged("create collection") > 1, str(verdict)
