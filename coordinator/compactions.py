"""Compactions a client asked for: each has an id and a state until it is forgotten."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import structlog

from core.errors import CollectionNotFound, SheafError
from core.ids import ShardId
from rpc.roles import CompactionState

KEPT_MAX = 1_000
"""States kept; older ones read as done, as they most likely are."""

log = structlog.get_logger()


class Compactions:
    """Runs compactions of collections in the background, shard by shard."""

    def __init__(self, compact: Callable[[ShardId], Awaitable[int]]) -> None:
        self._compact = compact
        self._states: OrderedDict[int, CompactionState] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, id: int, shards: Sequence[ShardId]) -> None:
        self._states[id] = CompactionState(executing=len(shards), completed=0, failed=0)
        while len(self._states) > KEPT_MAX:
            self._states.popitem(last=False)
        task = asyncio.create_task(self._run(id, shards), name=f"compaction {id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def state(self, id: int) -> CompactionState:
        return self._states.get(id, CompactionState(0, 0, 0))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, id: int, shards: Sequence[ShardId]) -> None:
        completed = failed = 0
        for shard in shards:
            try:
                await self._compact(shard)
                completed += 1
            except CollectionNotFound:
                completed += 1  # dropped meanwhile: nothing is left to do
            except (SheafError, OSError) as e:
                failed += 1
                log.warning("compaction failed", shard=str(shard), error=str(e))
            if id in self._states:
                self._states[id] = CompactionState(len(shards) - completed - failed, completed, failed)
