"""A channel of which nothing is left: its first position is its end, and whoever begins there has reached it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.ids import Position
from querynode.channel_tail import ChannelTails
from querynode.shard import ShardState
from tests.simulation.rig import QUIET, Rig, until

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
