"""Searches of a spread shard by a thread that waits for the workers: as the event loop answers them, or not at all."""

import asyncio
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.catalog import Consistency
from core.settings import QueryNodeSettings
from querynode import links
from rpc.reads import SearchReply, SearchRequest
from tests.integration.querynode_rig import PARTITIONS, VECTOR, collection, vector
from tests.integration.spread_rig import WORKERS, SpreadRig
from tests.waiting import until

QUERIES = np.stack([vector(10**6 + i) for i in range(3)])


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SpreadRig]:
    monkeypatch.setattr(links, "MET_S", 0.3)
    monkeypatch.setattr(links, "BEAT_S", 0.1)
    rig = await SpreadRig.open(tmp_path, collection(), QueryNodeSettings(spread_bytes=0))
    for s in range(6):
        await rig.upsert([(n, n) for n in range(20 * s, 20 * s + 20)], PARTITIONS[s % 2])
        await rig.seal()
    await rig.spread()
    yield rig
    await rig.close()


def asked(rig: SpreadRig, **more: Any) -> SearchRequest:
    of = {"partitions": PARTITIONS, "output": ("n",), "metric": rig.collection.indexes[0].metric, "k": 10}
    of |= {"consistency": Consistency.BOUNDED, "queries": QUERIES} | more
    return SearchRequest(rig.collection.id, 0, field_id=VECTOR, **of)


async def direct(rig: SpreadRig, **more: Any) -> SearchReply | None:
    request = asked(rig, **more)

    def run() -> SearchReply | None:
        prepared = rig.node.prepare_spread(replace(request, queries=QUERIES[:0]))
        return prepared.start(request.queries, ())() if prepared else None

    return await asyncio.to_thread(run)


@pytest.mark.parametrize(
    "more",
    [{}, {"output": ()}, {"partitions": PARTITIONS[1:]}, {"k": 500}, {"radius": 9.0}, {"filter": "n % 3 == 0"}],
    ids=str,
)
async def test_it_answers_as_one_node_would(rig: SpreadRig, more: dict[str, Any]) -> None:
    await rig.upsert([(1, 500), (41, 501), *((n, n) for n in range(120, 130))])
    await rig.delete([0, 21, 42, 63, 84, 105, 125])
    assert await direct(rig, **more) is None, "nobody has asked for this view yet"
    await rig.search(QUERIES, **{"k": 10, **more})  # a filter's columns are read by the first search
    expected = await rig.same_search(QUERIES, **{"k": 10, **more})
    reply = await direct(rig, **more)
    assert reply
    assert reply.counts.tolist() == expected.counts.tolist()
    assert reply.scores.tolist() == expected.scores.tolist()
    assert reply.rows == expected.rows
    for query, one in enumerate(QUERIES):
        alone = await direct(rig, queries=one[None], **more)
        assert alone
        first = int(expected.counts[:query].sum())
        assert alone.rows.pks == expected.rows.pks.slice(first, int(expected.counts[query]))


@pytest.mark.parametrize(
    "changed", [{"group_by": "n"}, {"snapshot_ts": 7}, {"consistency": Consistency.STRONG}], ids=str
)
async def test_it_leaves_the_rest_to_the_event_loop(rig: SpreadRig, changed: dict[str, Any]) -> None:
    await rig.search(QUERIES, 10)
    assert await direct(rig)
    assert await direct(rig, **changed) is None


async def test_what_was_written_is_in_the_next_answer(rig: SpreadRig) -> None:
    await rig.search(QUERIES, 10)
    prepared = rig.node.prepare_spread(asked(rig))
    before = await direct(rig)
    assert prepared
    assert before
    best = before.rows.pks[0].as_py()
    await rig.delete([best])
    await until(lambda: not prepared.holds, "the deletion")
    after = await rig.search(QUERIES, 10)
    assert best not in after.rows.pks.to_pylist()
    again = await direct(rig)
    assert again
    assert again.rows == after.rows


async def test_no_part_is_answered_for_the_whole(rig: SpreadRig) -> None:
    await rig.search(QUERIES, 10)
    assert await direct(rig)
    rig.services[WORKERS[0]].worker.close()
    assert await direct(rig) is None, "a worker has forgotten its share"


async def test_what_it_was_prepared_over_is_let_go(rig: SpreadRig) -> None:
    await rig.search(QUERIES, 10)
    prepared = rig.node.prepare_spread(asked(rig))
    served = rig.node._placed.get(rig.shard)
    assert prepared
    assert served
    assert served.shard.made_view
    view = weakref.ref(served.shard.made_view)
    await rig.upsert([(1, 1)])
    await rig.search(QUERIES, 10)
    await until(lambda: view() is None, "the old view to go, without the garbage collector")
    assert not prepared.holds
