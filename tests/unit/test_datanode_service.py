"""The data node over a real embedded store: sealing, flushing, replay, compaction, trimming."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import datanode.compact
from core.catalog import ChannelCheckpoint, ChannelOwner
from core.errors import Corrupted, Fenced
from core.failpoints import arm
from core.ids import Channel, NodeId, ShardId
from datanode.compaction_plan import Policy
from datanode.service import DataNodeService
from rpc.roles import CreatePartition, DropCollection, DropPartition
from storage import keys, record
from storage.embedded import open_store
from storage.log.sqlite import SqliteLog
from storage.meta.port import Delete, Put
from tests.simulation.rig import DATA_NODE, NODE, QUIET, STRING_SCHEMA, Rig
from tests.waiting import until


async def test_a_flush_seals_what_was_written_before_it(rig: Rig) -> None:
    c = await rig.create(shards=2)
    await rig.write(c, {k: k * 10 for k in range(100)})
    assert await rig.state(c) == {k: k * 10 for k in range(100)}
    ts = rig.clock.now()
    sealed = await rig.coordinator.flush(c.id, ts)
    assert set(sealed) == set(c.shard_ids)
    manifests = await rig.manifests(c)
    assert sum(s.rows for m in manifests for s in m.segments) == 100
    assert [[s.id for s in m.segments] for m in manifests] == [sealed[s] for s in c.shard_ids]
    assert await rig.coordinator.flushed(c.id, ts)
    assert await rig.state(c) == {k: k * 10 for k in range(100)}


async def test_a_flush_of_nothing_is_noted(rig: Rig) -> None:
    c = await rig.create()
    ts = rig.clock.now()
    assert await rig.coordinator.flush(c.id, ts) == {ShardId(c.id, 0): []}
    (manifest,) = await rig.manifests(c)
    assert (manifest.flushed_ts, manifest.segments) == (ts, ())


async def test_a_flush_past_a_damaged_record_fails_at_once_naming_the_file(rig: Rig) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.close()
    with closing(sqlite3.connect(rig.folder / "log.db")) as db, db:
        assert db.execute("UPDATE record SET payload = zeroblob(9) WHERE id >= 0").rowcount == 1
    await rig.start()
    for k in range(3):
        await rig.write(c, {k: 2})  # still durable
        with pytest.raises(Corrupted, match=r"log\.db: record 0 "):
            await asyncio.wait_for(rig.flush(c), 5)


@pytest.mark.parametrize("schema", [None, STRING_SCHEMA])
async def test_newest_wins_across_segments(rig: Rig, schema) -> None:
    c = await rig.create(schema=schema) if schema else await rig.create()
    k = str if schema else int
    await rig.write(c, {k(1): 1, k(2): 1, k(3): 1})
    await rig.flush(c)
    await rig.write(c, {k(2): 2, k(4): 2})
    await rig.delete(c, [k(3), k(99)])
    await rig.flush(c)
    (manifest,) = await rig.manifests(c)
    assert [t.rows for t in manifest.tombstones] == [2], "only keys an older segment may hold"
    assert await rig.state(c) == {k(1): 1, k(2): 2, k(4): 2}


async def test_within_one_buffer_only_the_newest_row_is_sealed(rig: Rig) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1, 2: 1})
    await rig.write(c, {1: 2})
    await rig.delete(c, [2])
    await rig.flush(c)
    (manifest,) = await rig.manifests(c)
    assert [s.rows for s in manifest.segments] == [1]
    assert manifest.tombstones == ()
    assert await rig.state(c) == {1: 2}


async def test_rows_of_dropped_partitions_are_not_sealed_and_sealed_ones_go(rig: Rig) -> None:
    await rig.create()
    await rig.change(CreatePartition("", "c", "p"))
    c = await rig.collection()
    await rig.write(c, {1: 1}, partition="p")
    await rig.flush(c)
    await rig.write(c, {2: 2}, partition="p")
    await rig.write(c, {3: 3})
    await rig.change(DropPartition("", "c", "p"))
    c = await rig.collection()
    assert await rig.state(c) == {3: 3}
    await rig.flush(c)

    async def pruned() -> bool:
        (manifest,) = await rig.manifests(c)
        return [s.rows for s in manifest.segments] == [1]

    await until(pruned, "the dropped partition's segment to leave the manifest")
    assert await rig.state(c) == {3: 3}


async def test_the_log_is_trimmed_up_to_what_is_sealed(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path, replace(QUIET, trim_interval_s=0.02))
    a, b = await rig.create("a"), await rig.create("b")
    while b.shards[0].channel != a.shards[0].channel:
        await rig.change(DropCollection("", "b"))
        b = await rig.create("b")
    channel = a.shards[0].channel
    await rig.write(a, {1: 1})
    await rig.write(b, {1: 1})
    await rig.flush(a)

    async def starts_at(position: int) -> bool:
        return await rig.store.log.start(channel) == position

    await until(lambda: starts_at(1), "the log to be trimmed before the other shard's row")
    await rig.flush(b)
    await until(lambda: starts_at(2), "the log to be trimmed")
    item = await rig.store.meta.get(keys.checkpoint(channel))
    assert item is not None
    assert keys.decode(ChannelCheckpoint, item.value).position == 2
    assert await rig.state(a) == await rig.state(b) == {1: 1}
    await rig.restart()
    assert await rig.state(a) == await rig.state(b) == {1: 1}
    await rig.close()


async def test_large_buffers_seal_themselves(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path, replace(QUIET, segment_bytes=4_000))
    c = await rig.create()
    for n in range(10):
        await rig.write(c, {k: n for k in range(n * 50, n * 50 + 50)})

    async def sealed() -> bool:
        (manifest,) = await rig.manifests(c)
        return len(manifest.segments) > 1

    await until(sealed, "segments")
    await rig.close()


async def test_old_buffers_seal_themselves(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path, replace(QUIET, seal_age_s=0.1))
    c = await rig.create()
    await rig.write(c, {1: 1})

    async def sealed() -> bool:
        (manifest,) = await rig.manifests(c)
        return len(manifest.segments) == 1

    await until(sealed, "a segment")
    await rig.close()


async def test_the_memory_budget_seals_the_largest(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path, replace(QUIET, buffer_bytes=5_000))
    small, large = await rig.create("small"), await rig.create("large")
    await rig.write(small, {1: 1})
    for n in range(10):
        await rig.write(large, {k: n for k in range(n * 50, n * 50 + 50)})

    async def sealed() -> bool:
        (manifest,) = await rig.manifests(large)
        return len(manifest.segments) > 0

    await until(sealed, "a segment")
    (manifest,) = await rig.manifests(small)
    assert manifest.segments == ()
    await rig.close()


async def test_records_of_dropped_collections_hold_nothing_up(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path, replace(QUIET, trim_interval_s=0.02, seal_age_s=1.0))
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.change(DropCollection("", "c"))
    await rig.write(c, {2: 2})

    async def trimmed() -> bool:
        return await rig.store.log.start(c.shards[0].channel) == 2

    await until(trimmed, "the log to be trimmed")

    async def gone() -> bool:
        items, _ = await rig.store.meta.list(keys.COLLECTIONS)
        return not items

    await until(gone, "the collection's key to go")
    await rig.close()


async def test_a_new_owner_stops_the_old_one(rig: Rig) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.flush(c)
    channel = c.shards[0].channel
    held = rig.data_node._channels[channel]
    await rig.store.meta.commit([], [Put(keys.owner(channel), keys.encode(ChannelOwner(NodeId("other"))))])
    with pytest.raises(Fenced):
        await held.flush([ShardId(c.id, 0)], rig.clock.now())
    # The coordinator gives the channel back: "other" does not live.
    await rig.write(c, {2: 2})
    await rig.flush(c)
    assert await rig.state(c) == {1: 1, 2: 2}
    item = await rig.store.meta.get(keys.owner(channel))
    assert item is not None
    assert keys.decode(ChannelOwner, item.value).node == NODE


async def test_a_successor_under_the_same_id_gets_an_epoch_of_its_own(rig: Rig, tmp_path: Path) -> None:
    """As when a process is paused and another one is started in its place."""
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.flush(c)
    channel, store = c.shards[0].channel, rig.store
    former = rig.data_node._channels[channel]
    successor = DataNodeService(
        QUIET, 0.0, NODE, store.meta, store.log, store.objects, rig.coordinator, tmp_path / "successor"
    )
    await successor.start()
    await until(lambda: _owns(successor, channel), "the successor to own the channel")
    assert successor._channels[channel].authority.epoch > former.authority.epoch
    with pytest.raises(Fenced):
        await former.flush([ShardId(c.id, 0)], rig.clock.now())
    await rig.write(c, {2: 2})
    await successor.flush([ShardId(c.id, 0)], rig.clock.now())
    assert await rig.state(c) == {1: 1, 2: 2}
    assert not rig.data_node._channels, "it does not claim them back"
    await successor.close()


async def _owns(data_node: DataNodeService, channel: Channel) -> bool:
    return channel in data_node._channels


async def test_compaction_merges_and_drops_the_dead(rig: Rig) -> None:
    c = await rig.create()
    model: dict[int, int] = {}
    for n in range(6):
        rows = {k: n for k in range(n * 10, n * 10 + 40)}
        await rig.write(c, rows)
        model |= rows
        await rig.flush(c)
    await rig.delete(c, [0, 1, 2])
    await rig.flush(c)
    for k in (0, 1, 2):
        del model[k]
    (before,) = await rig.manifests(c)
    assert len(before.segments) == 6
    assert before.tombstones
    assert await rig.data_node.compact(ShardId(c.id, 0)) >= 1
    (after,) = await rig.manifests(c)
    assert [s.rows for s in after.segments] == [len(model)]
    assert after.tombstones == ()
    assert await rig.state(c) == model
    assert await rig.data_node.compact(ShardId(c.id, 0)) == 0, "nothing is left to gain"

    async def collected() -> bool:
        names = [o.name async for o in rig.store.objects.list("")]
        return set(names) == {o.name for o in after.objects()}

    await until(collected, "old objects to be deleted")


async def test_upserts_during_a_compaction_end_merged_rows(rig: Rig, monkeypatch) -> None:
    c = await rig.create()
    for n in range(3):
        await rig.write(c, {k: n for k in range(n * 10, n * 10 + 10)})
        await rig.flush(c)
    commit = datanode.compact._commit

    async def slow(*args):
        # Sealed after the merge has read its inputs, committed before the merge is.
        await rig.write(c, {5: 99})
        await rig.delete(c, [15])
        await rig.flush(c)
        return await commit(*args)

    monkeypatch.setattr(datanode.compact, "_commit", slow)
    expected = {k: k // 10 for k in range(30)} | {5: 99}
    del expected[15]
    channel = rig.data_node._channels[c.shards[0].channel]
    policy = Policy.thorough(rig.settings)
    assert await datanode.compact.compact_once(rig.data_node._resources, channel.authority, ShardId(c.id, 0), policy)
    (manifest,) = await rig.manifests(c)
    assert len(manifest.tombstones) == 1, "the seal's tombstones stay"
    assert await rig.state(c) == expected
    monkeypatch.setattr(datanode.compact, "_commit", commit)
    await rig.data_node.compact(ShardId(c.id, 0))
    assert await rig.state(c) == expected
    (manifest,) = await rig.manifests(c)
    assert manifest.tombstones == ()


async def test_generated_keys_kill_nothing(rig: Rig) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1}, kind=record.INSERT)
    await rig.flush(c)
    await rig.write(c, {2: 2}, kind=record.INSERT)
    await rig.flush(c)
    (manifest,) = await rig.manifests(c)
    assert manifest.tombstones == ()
    assert await rig.state(c) == {1: 1, 2: 2}


SEALING = ["seal.before_put", "seal.before_commit", "seal.committed"]
COMPACTING = ["compact.before_put", "compact.before_commit", "compact.committed"]
TRIMMING = ["trim.before", "trim.done", "gc.before_delete", "gc.deleted"]


@pytest.mark.parametrize("name", SEALING)
async def test_a_seal_that_fails_is_repeated(rig: Rig, name: str) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1, 2: 1})
    await rig.flush(c)
    await rig.write(c, {2: 2, 3: 2})
    arm(f"{name}=fail")
    with pytest.raises(OSError, match=name):
        await rig.flush(c)
    assert await rig.state(c) == {1: 1, 2: 2, 3: 2}
    await rig.write(c, {3: 3})
    await rig.flush(c)
    assert await rig.state(c) == {1: 1, 2: 2, 3: 3}
    (manifest,) = await rig.manifests(c)
    (end,) = await rig.store.log.end([c.shards[0].channel])
    assert manifest.checkpoint == end
    assert sum(s.rows for s in manifest.segments) in (4, 5)


@pytest.mark.parametrize("name", [*SEALING, *COMPACTING, *TRIMMING])
async def test_a_crash_at_any_point_loses_and_doubles_nothing(tmp_path: Path, name: str) -> None:
    rig = await Rig.open(tmp_path, DATA_NODE)
    c = await rig.create(shards=2)
    model: dict[int, int] = {}
    arm(f"{name}=fail@2")
    for n in range(12):
        rows = {k: n for k in range(n * 5, n * 5 + 60)}
        await rig.write(c, rows)
        model |= rows
        await rig.delete(c, [n * 5, n * 5 + 1])
        model.pop(n * 5), model.pop(n * 5 + 1)
        if n % 3 == 2:
            try:
                await rig.flush(c)
            except OSError:
                await rig.restart()
        if n == 7:
            await rig.restart()
        assert await rig.state(c) == model
    arm("")
    await rig.flush(c)
    assert await rig.state(c) == model
    await rig.restart()
    assert await rig.state(c) == model
    await rig.close()


async def test_replay_from_an_older_checkpoint_gives_the_same(tmp_path: Path, monkeypatch) -> None:
    async def keep(*_args) -> None:
        return None

    monkeypatch.setattr(SqliteLog, "trim", keep)
    rig = await Rig.open(tmp_path, replace(QUIET, segment_bytes=3_000))
    c = await rig.create(shards=2)
    model: dict[int, int] = {}
    for n in range(20):
        rows = {k: n for k in range(n * 3, n * 3 + 30)}
        await rig.write(c, rows)
        model |= rows
        if n == 10:
            await rig.flush(c)
    # The whole log is read again; most of it is in files already.
    await rig.close()
    store = await open_store(tmp_path, rig.log_settings)
    items, _ = await store.meta.list(keys.CHECKPOINTS)
    assert items
    await store.meta.commit([], [Delete(i.key) for i in items])
    await store.close()
    await rig.start()
    assert await rig.state(c) == model
    before = [m.segments for m in await rig.manifests(c)]
    await rig.flush(c)
    assert await rig.state(c) == model
    after = [m.segments for m in await rig.manifests(c)]
    assert all(set(b) <= set(a) and len(a) <= len(b) + 1 for a, b in zip(after, before, strict=True))
    await rig.close()


async def test_concurrent_flushes_and_writes(rig: Rig) -> None:
    c = await rig.create(shards=2)
    model: dict[int, int] = {}

    async def write() -> None:
        for n in range(30):
            rows = {k: n for k in range(n, n + 20)}
            await rig.write(c, rows)
            model.update(rows)

    async def flush() -> None:
        for _ in range(8):
            await rig.flush(c)

    await asyncio.gather(write(), flush(), flush())
    assert await rig.state(c) == model
