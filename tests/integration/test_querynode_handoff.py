"""Hand-offs, damage and recovery of a query node over a real store."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.catalog import ChannelCheckpoint
from core.errors import (
    Corrupted,
    LogTruncated,
    SnapshotExpired,
    Timeout,
)
from core.ids import Channel, CollectionId, Position
from storage import keys
from tests.integration.querynode_rig import Rig, vector
from tests.integration.querynode_steps import opened, rows, wait_for


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
