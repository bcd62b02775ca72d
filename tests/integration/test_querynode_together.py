"""Searches asked as one are answered, bit by bit, as each alone: by one node, and by a leader and its workers."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.catalog import Consistency
from core.settings import QueryNodeSettings
from rpc.gathering import joined, split
from rpc.reads import SearchReply, SearchRequest
from tests.integration.querynode_rig import PARTITIONS, VECTOR, collection, vector
from tests.integration.spread_rig import SpreadRig

SIZES = (1, 3, 1, 2, 4)


@pytest.fixture(params=[10**9, 0], ids=["on the event loop", "in the pool"])
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SpreadRig]:
    settings = QueryNodeSettings(spread_bytes=0, inline_cost=request.param)
    rig = await SpreadRig.open(tmp_path, collection(metric="IP"), settings)
    yield rig
    await rig.close()


def requests(rig: SpreadRig, filter: str) -> list[SearchRequest]:
    return [
        SearchRequest(
            rig.collection.id,
            0,
            PARTITIONS,
            filter,
            output=("n",),
            consistency=Consistency.STRONG,
            field_id=VECTOR,
            queries=np.stack([vector(10_000 + 100 * n + q) for q in range(size)]),
            metric="IP",
            k=7,
            deadline=time.monotonic() + 20,
        )
        for n, size in enumerate(SIZES)
    ]


def same(one: SearchReply, other: SearchReply) -> bool:
    return (
        one.counts.tolist() == other.counts.tolist()
        and one.scores.tobytes() == other.scores.tobytes()
        and one.rows.pks.equals(other.rows.pks)
        and one.rows.columns["n"].equals(other.rows.columns["n"])
    )


@pytest.mark.parametrize("filter", ["", "n % 3 == 0", "n < 12", "n > 100000"])
async def test_together_as_alone(rig: SpreadRig, filter: str) -> None:
    for s in range(4):
        await rig.upsert([(n, n) for n in range(100 * s, 100 * (s + 1))], PARTITIONS[s % 2])
        await rig.seal()
        if s == 1:
            await rig.index()  # two segments with a graph, two without
    await rig.spread()
    assert sum((await rig.holders()).values()) > 0
    await rig.upsert([(n, n + 5) for n in range(0, 500, 9)])
    for node in (rig.node, rig.alone):
        alone = [await node.search(r) for r in requests(rig, filter)]
        assert any(reply.counts.any() for reply in alone) == (filter != "n > 100000")
        together = split(await node.search(joined(requests(rig, filter))), SIZES)
        for one, other in zip(alone, together, strict=True):
            assert same(one, other)
