"""The query node over a real store: what a proxy sees while shards are sealed, compacted, restarted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.types import DataType
from tests.integration.querynode_rig import Rig, collection


@pytest.fixture(params=[DataType.INT64, DataType.VARCHAR], ids=["int64", "varchar"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await Rig.open(tmp_path, collection(request.param))
    yield rig
    await rig.close()


def key(rig: Rig, n: int) -> int | str:
    return n if rig.collection.schema.primary.type is DataType.INT64 else f"key-{n:04d}"


async def test_a_write_is_read_at_once_and_survives_sealing(rig: Rig) -> None:
    rows = {key(rig, n): n for n in range(50)}
    await rig.upsert(list(rows.items()))
    assert await rig.rows() == rows
    await rig.seal()
    await rig.settled()
    assert await rig.rows() == rows
    assert (await rig.node.shards())[0].growing_rows == 0
