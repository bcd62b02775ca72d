"""What the tests of coordinators and data nodes share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.failpoints import arm
from tests.simulation.rig import QUIET, Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await Rig.open(tmp_path, QUIET)
    yield rig
    arm("")
    await rig.close()
