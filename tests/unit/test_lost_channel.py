"""A flush that waits on an owner which loses its channel is told at once: the next owner can do it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.catalog import ChannelOwner
from core.errors import Fenced
from core.ids import Channel, NodeId, Position
from storage import keys
from storage.meta.port import Put
from tests.simulation.rig import QUIET, Rig

PATIENCE_S = 10


async def test_a_waiting_flush_ends_with_its_ownership(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await Rig.open(tmp_path, QUIET)
    c = await rig.create()
    await rig.write(c, {1: 1})
    asked = asyncio.Event()
    end = rig.store.log.end

    async def ahead(channels: Sequence[Channel]) -> list[Position]:
        """The log's end before records that the owner does not get: it is cut off from the log."""
        asked.set()
        return [Position(e + 1) for e in await end(channels)]

    monkeypatch.setattr(rig.store.log, "end", ahead)
    flush = asyncio.create_task(rig.data_node.flush(list(c.shard_ids), 1))
    async with asyncio.timeout(PATIENCE_S):
        await asked.wait()
        await asyncio.sleep(0)
        other = ChannelOwner(NodeId("another"))
        await rig.store.meta.commit((), [Put(keys.owner(c.shards[0].channel), keys.encode(other))])
        with pytest.raises(Fenced):
            await flush
    await rig.close()
