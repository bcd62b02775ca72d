"""Steps that the tests of the query node's reads share."""

import asyncio
import time
from pathlib import Path
from typing import Any

from core.catalog import Collection
from core.settings import QueryNodeSettings
from tests.integration.querynode_rig import PARTITIONS, Rig, collection

FIRST, SECOND = PARTITIONS


async def opened(folder: Path, of: Collection | None = None, **settings: Any) -> Rig:
    return await Rig.open(folder, of or collection(), QueryNodeSettings(**settings))


def rows(*numbers: int) -> list[tuple[int, int]]:
    return [(n, n) for n in numbers]


async def wait_for(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
