"""A channel of which nothing is left: its first position is its end, and whoever begins there has reached it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from core.catalog import ChannelCheckpoint
from core.ids import Position
from datanode.service import DataNodeService
from querynode.channel_tail import ChannelTails
from querynode.shard import ShardState
from storage import keys
from storage.meta.port import Item, MetaStore
from tests.simulation.rig import NODE, QUIET, Rig
from tests.waiting import until

PATIENCE_S = 20


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await Rig.open(tmp_path, replace(QUIET, trim_interval_s=0.02))
    yield rig
    await rig.close()


async def trimmed(rig: Rig) -> Position:
    """Writes, seals and waits for the trim; the channel's end."""
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.write(c, {2: 2})
    await rig.flush(c)
    channel = c.shards[0].channel
    [end] = await rig.store.log.end([channel])

    async def empty() -> bool:
        return await rig.store.log.start(channel) == end

    await until(empty, "the log to be trimmed to its end")
    return end


async def test_an_owner_that_begins_there_flushes_and_seals(rig: Rig) -> None:
    assert await trimmed(rig) == 2
    await rig.restart()
    c = await rig.collection()
    async with asyncio.timeout(PATIENCE_S):
        await rig.flush(c)
    await rig.write(c, {2: 3})
    async with asyncio.timeout(PATIENCE_S):
        await rig.flush(c)
    assert await rig.state(c) == {1: 1, 2: 3}


async def test_a_reader_that_begins_there_waits_for_nothing(rig: Rig) -> None:
    end = await trimmed(rig)
    c = await rig.collection()
    tails = ChannelTails(rig.store.log, lambda _: None)
    shard = ShardState(c, 0, 60)
    shard.reset(end)
    tails.join(shard, end)
    assert shard.frontier == end
    await rig.write(c, {3: 3})
    async with asyncio.timeout(PATIENCE_S):
        while shard.frontier == end:  # noqa: ASYNC110  # moves without telling this test
            await asyncio.sleep(0.001)
    await tails.close()


class AskedEarlier:
    """The metadata store, but for the first question after a checkpoint: that one was answered before the
    last trim."""

    def __init__(self, meta: MetaStore) -> None:
        self._meta, self.asked = meta, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meta, name)

    async def get(self, key: str) -> Item | None:
        item = await self._meta.get(key)
        if item is not None and key.startswith(keys.CHECKPOINTS):
            self.asked += 1
            if self.asked == 1:
                return replace(item, value=keys.encode(ChannelCheckpoint(1)))
        return item


async def test_a_trim_while_an_owner_begins_is_no_error(rig: Rig, tmp_path: Path) -> None:
    assert await trimmed(rig) == 2
    await rig.data_node.close()
    meta: Any = AskedEarlier(rig.store.meta)
    with structlog.testing.capture_logs() as lines:
        rig.data_node = rig.nodes.data = DataNodeService(
            QUIET, 0.0, NODE, meta, rig.store.log, rig.store.objects, rig.coordinator, tmp_path / "scratch"
        )
        await rig.data_node.start()
        c = await rig.collection()
        await rig.write(c, {3: 3})
        async with asyncio.timeout(PATIENCE_S):
            await rig.flush(c)
    assert meta.asked > 1
    assert not [line for line in lines if line["log_level"] == "error"]
    assert await rig.state(c) == {1: 1, 2: 2, 3: 3}
