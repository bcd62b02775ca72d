"""Reads of a query node over a real store: how fresh they are, what is loaded and released."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.catalog import Consistency
from core.errors import (
    CollectionNotLoaded,
    PartitionNotLoaded,
)
from core.ids import CollectionId, NodeId, PartitionId
from rpc.reads import ShardPhase
from storage import keys
from storage.meta.port import Put
from tests.fakes import led_by
from tests.integration.querynode_rig import NODE, PARTITIONS, Rig
from tests.integration.querynode_steps import FIRST, SECOND, opened, rows, wait_for


async def test_strong_reads_see_every_acknowledged_write(rig: Rig) -> None:
    for n in range(100):
        await rig.upsert(rows(n))
        assert (await rig.query(count_only=True)).count == n + 1


@pytest.mark.parametrize("level", [Consistency.BOUNDED, Consistency.EVENTUALLY, Consistency.SESSION])
async def test_weaker_reads_come_to_see_a_write(rig: Rig, level: Consistency) -> None:
    await rig.upsert(rows(1))

    async def seen() -> bool:
        return (await rig.query(consistency=level, count_only=True)).count == 1

    await wait_for(seen)


async def test_no_read_sees_half_of_what_was_appended_together(rig: Rig) -> None:
    async def write() -> None:
        for n in range(40):
            await rig.append(rig.upserting(rows(2 * n)), rig.upserting(rows(2 * n + 1), SECOND))

    writing = asyncio.create_task(write())
    counts = set()
    while not writing.done():
        counts.add((await rig.query(consistency=Consistency.EVENTUALLY, count_only=True)).count)
        await asyncio.sleep(0)
    assert {c % 2 for c in counts} == {0}


async def test_many_strong_reads_share_the_questions_to_the_log(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.upsert(rows(1))
    calls = 0
    end = rig.store.log.end

    async def counted(channels: Any) -> Any:
        nonlocal calls
        calls += 1
        return await end(channels)

    monkeypatch.setattr(rig.store.log, "end", counted)
    await asyncio.gather(*(rig.query(count_only=True) for _ in range(50)))
    assert calls <= 2


async def test_reads_wait_until_the_shard_is_loaded(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    await rig.upsert(rows(*range(20)))
    await rig.seal()
    await rig.upsert(rows(20))
    await rig.restart()
    assert len(await rig.rows()) == 21
    (status,) = await rig.node.shards()
    assert (status.phase, status.sealed_rows, status.growing_rows) == (ShardPhase.READY, 20, 1)
    assert status.bytes > 0
    await rig.close()


async def test_a_shard_placed_elsewhere_is_not_answered_for(rig: Rig) -> None:
    await rig.query(count_only=True)
    await rig.put(keys.placement(rig.collection.id), led_by(rig.collection.id, (NodeId("other"),)))

    async def gone() -> bool:
        return not await rig.node.shards()

    await wait_for(gone)
    with pytest.raises(CollectionNotLoaded, match="things"):
        await rig.query(count_only=True)


async def test_a_release_drops_the_shard_and_a_load_brings_it_back(rig: Rig) -> None:
    await rig.upsert(rows(1, 2))
    await rig.seal()
    await rig.settled()
    await rig.describe(loaded=())

    async def gone() -> bool:
        return not await rig.node.shards()

    await wait_for(gone)
    await rig.describe(loaded=PARTITIONS)

    async def back() -> bool:
        return bool(await rig.node.shards())

    await wait_for(back)
    assert set(await rig.rows()) == {1, 2}


async def test_partitions(rig: Rig) -> None:
    await rig.upsert(rows(1, 2), FIRST)
    await rig.upsert(rows(2, 3), SECOND)
    assert set(await rig.rows(partitions=(FIRST,))) == {1}
    await rig.seal()
    await rig.settled()
    assert set(await rig.rows(partitions=(SECOND,))) == {2, 3}
    await rig.describe(loaded=(FIRST,))
    await rig.seen()
    with pytest.raises(PartitionNotLoaded):
        await rig.query(partitions=(SECOND,), count_only=True)
    assert set(await rig.rows()) == {1}


async def test_a_partition_that_is_loaded_again_is_not_left_out_by_a_node_that_has_not_heard_of_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.upsert(rows(1), FIRST)
    await rig.upsert(rows(2), SECOND)
    await rig.describe(loaded=(FIRST,))
    meta, looked = rig.store.meta, asyncio.Event()
    get, watch = meta.get, meta.watch

    async def looking(key: str) -> Any:
        if key == keys.DEFINED:
            looked.set()
        return await get(key)

    async def late(prefix: str, after: Any) -> Any:
        async for events in watch(prefix, after):
            if prefix == keys.COLLECTIONS:
                await looked.wait()
            yield events

    monkeypatch.setattr(meta, "get", looking)
    monkeypatch.setattr(meta, "watch", late)
    await rig.restart()
    assert set(await rig.rows(partitions=(FIRST,))) == {1}
    again = replace(rig.collection, loaded=PARTITIONS)
    await meta.commit((), [Put(keys.collection(again.id), keys.encode(again)), Put(keys.DEFINED, b"")])
    assert set(await rig.rows()) == {1, 2}


async def test_a_partition_newer_than_the_catalog_seen_here_is_read(rig: Rig) -> None:
    new = PartitionId(99)
    await rig.upsert(rows(7), new)
    assert set(await rig.rows(partitions=(new,))) == {7}


async def test_a_collection_loaded_later_on_the_same_channel(rig: Rig) -> None:
    await rig.upsert(rows(*range(5)))
    later = replace(rig.collection, id=CollectionId(2), name="later")
    first = rig.collection
    rig.collection = later
    await rig.upsert(rows(8, 9))
    await rig.put(keys.collection(later.id), later)
    await rig.put(keys.placement(later.id), led_by(later.id, (NODE,)))

    async def placed() -> bool:
        return len(await rig.node.shards()) == 2

    await wait_for(placed)
    assert set(await rig.rows()) == {8, 9}
    rig.collection = first
    await rig.upsert(rows(5))
    assert set(await rig.rows()) == set(range(6))
