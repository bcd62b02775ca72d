"""What is told of compactions that run in the background."""

import asyncio

import structlog

from coordinator.compactions import Compactions
from core.errors import CollectionNotFound, Unavailable
from core.ids import CollectionId, ShardId


async def test_a_collection_dropped_meanwhile_is_no_failure() -> None:
    async def compact(shard: ShardId) -> int:
        if shard.number == 1:
            raise CollectionNotFound(shard.collection)
        if shard.number == 2:
            raise Unavailable("no data node")
        return 1

    compactions = Compactions(compact)
    with structlog.testing.capture_logs() as logs:
        compactions.start(7, [ShardId(CollectionId(1), n) for n in range(3)])
        for _ in range(20):
            await asyncio.sleep(0)
    state = compactions.state(7)
    assert (state.completed, state.failed) == (2, 1)
    assert [entry["shard"] for entry in logs] == ["1/2"]
    await compactions.close()
