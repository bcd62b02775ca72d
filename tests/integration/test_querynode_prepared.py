"""Searches prepared over a view: the same answers, by any thread, for as long as the view is the newest."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.catalog import Consistency
from core.settings import QueryNodeSettings
from querynode.reader import PREPARED_MAX
from rpc.reads import SearchRequest
from tests.integration.querynode_rig import PARTITIONS, VECTOR, Rig, collection, vector

QUERIES = np.stack([vector(n) for n in range(3)])


@pytest.fixture(params=["L2", "COSINE", "IP"])
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    rig = await Rig.open(tmp_path, collection(metric=request.param), QueryNodeSettings(inline_cost=10**9))
    yield rig
    await rig.close()


def bounded(rig: Rig, k: int = 5) -> SearchRequest:
    return SearchRequest(
        rig.collection.id,
        0,
        PARTITIONS,
        output=("n",),
        consistency=Consistency.BOUNDED,
        field_id=VECTOR,
        queries=QUERIES,
        metric=rig.collection.indexes[0].metric,
        k=k,
    )


async def test_same_answers_over_growing_sealed_and_indexed_rows(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(300)], PARTITIONS[0])
    await rig.upsert([(n, n) for n in range(300, 500)], PARTITIONS[1])
    reply = await rig.search(QUERIES, 10)
    assert rig.check_prepared(bounded(rig, 10), reply)
    await rig.seal()
    await rig.index()
    await rig.settled()
    await rig.upsert([(n, n + 1000) for n in range(0, 300, 3)], PARTITIONS[0])
    await rig.delete(list(range(300, 500, 7)))
    reply = await rig.search(QUERIES, 10)
    assert rig.check_prepared(bounded(rig, 10), reply)
    found = await asyncio.to_thread(rig.check_prepared, bounded(rig, 10), reply)
    assert found, "any thread gets the same"


async def test_it_holds_until_something_changes(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(20)])
    await rig.search(QUERIES, 5)
    prepared = rig.node.prepare(bounded(rig))
    assert prepared
    assert prepared.holds
    await rig.upsert([(100, 0)])
    assert 100 in (await rig.search(QUERIES[:1], 5)).rows.pks.to_pylist()
    assert not prepared.holds
    assert 100 not in prepared.start(QUERIES[:1])().rows.pks.to_pylist(), "its view never changes"
    again = rig.node.prepare(bounded(rig))
    assert again
    await rig.describe(loaded=())
    deadline = asyncio.get_running_loop().time() + 10
    while again.holds:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)


async def test_nothing_is_prepared_for_what_must_wait_or_takes_long(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(20)])
    assert rig.node.prepare(bounded(rig)) is None, "no read has made a view yet"
    await rig.search(QUERIES, 5)
    assert rig.node.prepare(bounded(rig))
    for changed in (
        {"consistency": Consistency.STRONG},
        {"consistency": Consistency.SESSION},
        {"filter": "n > 3"},
        {"filter": "n > {least}", "filter_params": {"least": 3}},
        {"group_by": "n"},
        {"snapshot_ts": 7},
        {"shard": 1},
    ):
        assert rig.node.prepare(replace(bounded(rig), **changed)) is None, changed


@pytest.mark.parametrize("filter", ["n % 3 == 0", "n < 40", "n > 100000", "n >= 0"])
async def test_with_a_filter_once_that_was_asked(rig: Rig, filter: str) -> None:
    request = replace(bounded(rig, 10), filter=filter)
    await rig.upsert([(n, n) for n in range(300)], PARTITIONS[0])
    await rig.seal()
    await rig.index()
    await rig.settled()
    await rig.upsert([(n, n + 1000) for n in range(0, 300, 5)], PARTITIONS[0])
    await rig.upsert([(n, n) for n in range(300, 500)], PARTITIONS[1])
    await rig.delete(list(range(0, 300, 7)))
    await rig.search(QUERIES, 10)
    assert rig.node.prepare(request) is None, "only the event loop prepares it"
    reply = await rig.search(QUERIES, 10, filter=filter)
    assert await asyncio.to_thread(rig.check_prepared, request, reply)


async def test_filters_asked_once_do_not_pile_up(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(20)])
    for n in range(PREPARED_MAX + 1):
        await rig.search(QUERIES[:1], 5, filter=f"n > {n - PREPARED_MAX}")
    first, last = (replace(bounded(rig), filter=f"n > {n}") for n in (-PREPARED_MAX, 0))
    assert rig.node.prepare(first) is None
    assert rig.node.prepare(last)


async def test_a_filter_that_names_keys_is_looked_up_each_time(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(20)])
    await rig.seal()
    filter = f"{rig.collection.schema.primary.name} in [3, 4]"
    reply = await rig.search(QUERIES[:1], 5, filter=filter)
    assert sorted(reply.rows.pks.to_pylist()) == [3, 4]
    assert rig.node.prepare(replace(bounded(rig), filter=filter)) is None


async def test_only_the_view_keeps_it(rig: Rig) -> None:
    await rig.upsert([(n, n) for n in range(20)])
    await rig.search(QUERIES, 5)
    prepared = rig.node.prepare(bounded(rig))
    assert prepared
    prepared.keep()
    reference = weakref.ref(prepared)
    del prepared
    gc.collect()
    assert reference() is not None
    await rig.upsert([(100, 0)])
    await rig.search(QUERIES, 5)
    gc.collect()
    assert reference() is None, "an outdated view is not kept alive"
