"""The query node over a real store: what a proxy sees while the other roles work."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.catalog import ChannelCheckpoint, Collection, Consistency, Placement
from core.errors import (
    CollectionNotLoaded,
    Corrupted,
    FieldNotFound,
    LogTruncated,
    PartitionNotLoaded,
    SnapshotExpired,
    Timeout,
)
from core.ids import Channel, CollectionId, NodeId, PartitionId, Position
from core.settings import QueryNodeSettings
from core.types import DataType
from querynode.block import BLOCK_ROWS
from rpc.reads import ShardPhase
from storage import keys
from tests.integration.querynode_rig import NODE, PARTITIONS, VECTOR, Rig, collection, vector

FIRST, SECOND = PARTITIONS


async def opened(folder: Path, of: Collection | None = None, **settings: Any) -> Rig:
    return await Rig.open(folder, of or collection(), QueryNodeSettings(**settings))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await opened(tmp_path)
    yield rig
    await rig.close()


def rows(*numbers: int) -> list[tuple[int, int]]:
    return [(n, n) for n in numbers]


async def wait_for(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


# --- freshness --------------------------------------------------------------------------------------
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


# --- loading and releasing ----------------------------------------------------------------------------
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
    await rig.put(keys.placement(rig.collection.id), Placement(rig.collection.id, (NodeId("other"),)))

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
    await rig.put(keys.placement(later.id), Placement(later.id, (NODE,)))

    async def placed() -> bool:
        return len(await rig.node.shards()) == 2

    await wait_for(placed)
    assert set(await rig.rows()) == {8, 9}
    rig.collection = first
    await rig.upsert(rows(5))
    assert set(await rig.rows()) == set(range(6))


# --- hand-offs ------------------------------------------------------------------------------------------
async def test_deletes_reach_sealed_rows_before_and_after_a_restart(rig: Rig) -> None:
    await rig.upsert(rows(*range(10)))
    await rig.seal()
    await rig.settled()
    await rig.delete([3, 4])
    await rig.upsert([(5, 55)])
    expected = {n: n for n in (0, 1, 2, 6, 7, 8, 9)} | {5: 55}
    assert await rig.rows() == expected
    await rig.seal()
    await rig.settled()
    assert await rig.rows() == expected
    await rig.restart()
    assert await rig.rows() == expected
    await rig.compact()
    await rig.settled()
    assert await rig.rows() == expected
    assert (await rig.node.shards())[0].sealed_rows == len(expected)


async def test_reads_during_hand_offs_are_always_whole(rig: Rig) -> None:
    await rig.upsert(rows(*range(100)))

    async def reshape() -> None:
        for n in range(5):
            await rig.upsert([(k, 1000 * n + k) for k in range(n, 100, 7)])
            await rig.seal()
            await rig.index()
            await rig.compact()

    working = asyncio.create_task(reshape())
    while not working.done():
        assert (await rig.query(count_only=True)).count == 100
        reply = await rig.search(vector(1)[None], 100)
        assert sorted(reply.rows.pks.to_pylist()) == list(range(100))
    await working


async def test_a_running_read_and_an_iterator_keep_what_was_compacted_and_deleted(rig: Rig) -> None:
    await rig.upsert(rows(*range(20)))
    await rig.seal()
    await rig.settled()
    timestamp = await rig.barrier()
    assert len(await rig.rows(snapshot_ts=timestamp)) == 20
    await rig.delete(list(range(10)))
    await rig.seal()
    for name in await rig.compact():
        await rig.store.objects.delete(name)
    await rig.settled()
    assert set(await rig.rows()) == set(range(10, 20))
    assert await rig.rows(snapshot_ts=timestamp) == {n: n for n in range(20)}


async def test_a_barrier_still_in_the_log_is_found_after_a_restart(rig: Rig) -> None:
    await rig.upsert(rows(1, 2))
    await rig.seal()
    await rig.upsert(rows(3))
    timestamp = await rig.barrier()
    await rig.delete([1, 3])
    await rig.restart()
    assert set(await rig.rows(snapshot_ts=timestamp)) == {1, 2, 3}
    assert set(await rig.rows()) == {2}


async def test_an_unknown_or_outlived_snapshot_is_refused(tmp_path: Path) -> None:
    rig = await opened(tmp_path, session_ttl_s=0.05)
    with pytest.raises(SnapshotExpired):
        await rig.query(snapshot_ts=12345)
    timestamp = await rig.barrier()
    await rig.query(snapshot_ts=timestamp)

    async def expired() -> bool:
        try:
            await asyncio.sleep(0.2)  # each use renews it
            await rig.query(snapshot_ts=timestamp)
        except SnapshotExpired:
            return True
        return False

    await wait_for(expired)
    await rig.close()


# --- damage -------------------------------------------------------------------------------------------
async def damage(rig: Rig, name: str) -> None:
    path = await rig.store.objects.fetch(name)
    data = bytearray(await asyncio.to_thread(path.read_bytes))
    data[len(data) // 2] ^= 0xFF
    await rig.store.objects.delete(name)
    await rig.store.objects.put(name, bytes(data))


@pytest.mark.parametrize("loss", ["damaged", "missing"])
async def test_an_index_that_cannot_be_opened_is_reported_and_done_without(rig: Rig, loss: str) -> None:
    await rig.upsert(rows(*range(50)))
    await rig.seal()
    await rig.index()
    await rig.settled()
    name = rig.manifest.segments[0].indexes[0].object.name
    if loss == "damaged":
        await damage(rig, name)
    else:
        await rig.store.objects.delete(name)
    await rig.restart()
    reply = await rig.search(vector(7)[None], 3)
    assert reply.rows.pks.to_pylist()[0] == 7
    assert rig.bad_indexes == [name]


async def test_a_damaged_segment_is_named_and_never_answered_around(rig: Rig) -> None:
    await rig.upsert(rows(1))
    await rig.seal()
    name = rig.manifest.segments[0].object.name
    await rig.settled()
    await damage(rig, name)
    assert set(await rig.rows()) == {1}, "what is open stays readable"
    await rig.restart()
    with pytest.raises(Corrupted, match=name):
        await rig.query(count_only=True)


class TruncatingLog:
    """A log whose next batch is trimmed away before the reader gets it."""

    def __init__(self, log: Any) -> None:
        self._log, self.armed = log, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, channel: Channel, start: Position) -> AsyncIterator[Any]:
        async with aclosing(self._log.read(channel, start)) as batches:
            async for batch in batches:
                if self.armed:
                    self.armed = False
                    raise LogTruncated(channel, batch[0].position, batch[-1].position + 1)
                yield batch


async def test_a_reader_overtaken_by_a_trim_loads_again(rig: Rig) -> None:
    log = TruncatingLog(rig.store.log)
    rig.store = replace(rig.store, log=log)  # type: ignore[arg-type]  # it is a log
    await rig.restart()
    await rig.upsert(rows(1, 2, 3))
    timestamp = await rig.barrier()
    assert len(await rig.rows(snapshot_ts=timestamp)) == 3
    await rig.delete([2])
    await rig.seal()
    log.armed = True
    await rig.upsert(rows(4))
    assert set(await rig.rows()) == {1, 3, 4}
    assert not log.armed
    assert set(await rig.rows(snapshot_ts=timestamp)) == {1, 2, 3}, "a pinned view outlives it"
    await rig.upsert(rows(5))
    assert set(await rig.rows()) == {1, 3, 4, 5}


async def test_a_node_that_was_away_starts_from_the_manifest(rig: Rig) -> None:
    """The channel's checkpoint moves while the node is away, and the log below it is gone."""
    await rig.upsert(rows(1, 2))
    await rig.seal()
    await rig.upsert(rows(3))
    await rig.node.close()
    await rig.seal()
    await rig.trim()
    await rig.upsert(rows(4))
    await rig.restart()
    assert set(await rig.rows()) == {1, 2, 3, 4}


async def test_a_quiet_shard_starts_at_its_channels_checkpoint(rig: Rig) -> None:
    await rig.upsert(rows(1))
    await rig.seal()
    other = replace(rig.collection, id=CollectionId(77))
    mine, rig.collection = rig.collection, other
    await rig.upsert(rows(1, 2, 3))
    rig.collection = mine
    (end,) = await rig.store.log.end([rig.channel])
    await rig.put(keys.checkpoint(rig.channel), ChannelCheckpoint(end))
    await rig.store.log.trim(rig.channel, end)
    await rig.restart()
    assert set(await rig.rows()) == {1}


async def test_a_wait_that_cannot_end_ends_with_the_deadline(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.upsert(rows(1))
    await rig.query(count_only=True)

    async def far(channels: Any) -> Any:
        return [10**6 for _ in channels]

    monkeypatch.setattr(rig.store.log, "end", far)
    with pytest.raises(Timeout, match="channel 1 to be consumed"):
        await rig.query(deadline=time.monotonic() + 0.05)


# --- searches -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("inline_cost", [0, 10**9])
async def test_growing_sealed_and_indexed_rows_in_one_answer(tmp_path: Path, metric: str, inline_cost: int) -> None:
    rig = await opened(tmp_path, collection(metric=metric), inline_cost=inline_cost)
    await rig.upsert(rows(*range(100)))
    await rig.seal()
    await rig.index()
    await rig.upsert(rows(*range(100, 150)), SECOND)
    await rig.seal()
    await rig.settled()
    await rig.upsert(rows(*range(150, 200)))
    await rig.delete(list(range(0, 200, 5)))
    queries = np.stack([vector(10_000 + i) for i in range(7)])
    reply = await rig.search(queries, 10, output=("v", "n"))
    alive = np.array([n for n in range(200) if n % 5])
    vectors = np.stack([vector(n) for n in alive])
    if metric == "L2":
        scores = np.square(queries[:, None] - vectors).sum(2)
    else:
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        scores = queries @ vectors.T / (lengths if metric == "COSINE" else 1)
    best = np.argsort(scores if metric == "L2" else -scores, axis=1)[:, :10]
    assert reply.counts.tolist() == [10] * 7
    found = reply.rows.pks.to_numpy().reshape(7, 10)
    overlap = [len(set(f) & set(alive[b])) for f, b in zip(found.tolist(), best, strict=True)]
    assert sum(overlap) >= 69
    assert list(reply.rows.columns) == ["v", "n"]
    assert reply.rows.columns["n"].to_pylist() == reply.rows.pks.to_pylist()
    flat = np.array(reply.rows.columns["v"].to_pylist(), np.float32)
    assert np.array_equal(flat, np.stack([vector(n) for n in reply.rows.pks.to_pylist()]))
    await rig.close()


async def test_a_search_by_groups(rig: Rig) -> None:
    """n is the group: five rows of each, at the same place."""
    await rig.upsert([(10 * n + i, n) for n in range(30) for i in range(5)])
    await rig.seal()
    await rig.settled()
    await rig.upsert([(10 * n + i, n) for n in range(30, 40) for i in range(5)])
    order = np.argsort([np.square(vector(n) - vector(999)).sum() for n in range(40)])
    reply = await rig.search(vector(999)[None], 6, group_by="n")
    assert reply.groups is not None
    assert reply.groups.to_pylist() == order[:6].tolist()
    reply = await rig.search(vector(999)[None], 6, group_by="n", group_size=2, output=())
    assert reply.groups is not None
    assert reply.groups.to_pylist() == np.repeat(order[:3], 2).tolist()
    assert reply.rows.columns == {}
    reply = await rig.search(vector(999)[None], 100, group_by="n", filter="n < 3")
    assert reply.counts.tolist() == [3]


async def test_a_search_between_scores(rig: Rig) -> None:
    await rig.upsert(rows(*range(60)))
    await rig.seal()
    await rig.settled()
    await rig.upsert(rows(*range(60, 80)))
    distances = sorted(float(np.square(vector(n) - vector(500)).sum()) for n in range(80))
    reply = await rig.search(vector(500)[None], 50, radius=distances[30], range_filter=distances[10] - 1e-4)
    np.testing.assert_allclose(reply.scores, distances[10:30], rtol=1e-4)


async def test_an_empty_shard(rig: Rig) -> None:
    reply = await rig.search(np.stack([vector(1), vector(2)]), 5, group_by="n")
    assert reply.counts.tolist() == [0, 0]
    assert len(reply.scores) == len(reply.rows.pks) == 0
    assert reply.rows.columns["n"].to_pylist() == []
    assert await rig.rows("n > 1", limit=3) == {}
    assert (await rig.query("n > 1", count_only=True)).count == 0


async def test_an_unknown_output_field(rig: Rig) -> None:
    with pytest.raises(FieldNotFound, match="nope"):
        await rig.query(output=("nope",))
    with pytest.raises(FieldNotFound, match="nope"):
        await rig.search(vector(1)[None], 1, output=("nope",))


async def test_indexed_segments_hold_no_full_vectors(rig: Rig) -> None:
    await rig.upsert(rows(*range(500)))
    await rig.seal()
    await rig.settled()
    await rig.search(vector(1)[None], 1)
    (segment,) = rig.node._placed.all()[0].shard.sealed.values()
    assert segment._vectors
    await rig.index()
    await rig.settled()
    await rig.search(vector(1)[None], 1, output=("v",))
    assert not segment._vectors
    assert segment.index(rig.collection.schema.by_id[VECTOR]) is not None


async def test_many_growing_rows_get_an_interim_index(tmp_path: Path) -> None:
    rig = await opened(tmp_path, interim_rows=2 * BLOCK_ROWS)
    total = 3 * BLOCK_ROWS + 100
    for start in range(0, total, 5000):
        await rig.upsert(rows(*range(start, min(start + 5000, total))))

    shard = rig.node._placed.all()[0].shard

    async def frozen() -> bool:
        return FIRST in shard.growing.frozen and shard.growing.frozen[FIRST].rows == 3 * BLOCK_ROWS

    await wait_for(frozen)
    await rig.delete([5, 20_000])
    wanted = [5, 17, 9_000, 20_000, total - 1]
    reply = await rig.search(np.stack([vector(n) for n in wanted]), 1, params={"ef": 200})
    found = reply.rows.pks.to_pylist()
    assert (found[1], found[2], found[4]) == (17, 9_000, total - 1)
    assert not {5, 20_000} & set(found)
    assert (await rig.query(count_only=True)).count == total - 2
    await rig.seal()
    await rig.settled()
    assert not shard.growing.frozen
    assert (await rig.query(count_only=True)).count == total - 2
    await rig.close()


async def test_string_keys(tmp_path: Path) -> None:
    rig = await opened(tmp_path, collection(DataType.VARCHAR))
    names = ["zoë", "", "a", "aa", "Ω", "𝄞", "a b"]
    await rig.upsert([(k, n) for n, k in enumerate(names)])
    await rig.seal()
    await rig.settled()
    await rig.upsert([("Ω", 50), ("b", 51)])
    await rig.delete(["a", "never"])
    expected = {k: n for n, k in enumerate(names) if k != "a"} | {"Ω": 50, "b": 51}
    assert await rig.rows() == expected
    assert await rig.rows('id in ["Ω", "𝄞", "a", "nobody"]') == {"Ω": 50, "𝄞": 5}
    assert list(await rig.rows(limit=2)) == ["", "a b"]
    await rig.close()
