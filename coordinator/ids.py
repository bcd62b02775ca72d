"""Ids that nobody else ever gets: ranges cut from one counter in the metadata store."""

import asyncio
from collections.abc import Callable

from core.clock import compose, wall_ms
from core.errors import Conflict, InvalidArgument
from core.ids import Revision
from storage import keys
from storage.meta.port import Condition, MetaStore, Put

COUNT_MAX = 1 << 40
_BLOCK = 256
_ATTEMPTS_MAX = 100


class Ids:
    """Leases ranges by compare-and-swap. What a crash leaves unused is never given again.

    The counter starts at the hybrid time stamp of its first use, so ids look like Milvus's and
    those of two clusters do not meet.
    """

    def __init__(self, meta: MetaStore, wall: Callable[[], int] = wall_ms) -> None:
        self._meta, self._wall = meta, wall
        self._turn = asyncio.Lock()
        self._block = range(0)

    async def lease(self, count: int) -> range:
        """``count`` consecutive ids, durable as used when it returns."""
        if not 0 < count <= COUNT_MAX:
            raise InvalidArgument(f"a lease of {count} ids: must be between 1 and {COUNT_MAX}")
        async with self._turn:
            for _ in range(_ATTEMPTS_MAX):
                item = await self._meta.get(keys.NEXT_ID)
                first = int(keys.decode(str, item.value)) if item else compose(self._wall())
                condition = Condition(keys.NEXT_ID, item.revision if item else Revision(0))
                try:
                    await self._meta.commit([condition], [Put(keys.NEXT_ID, keys.encode(str(first + count)))])
                except Conflict:
                    continue
                return range(first, first + count)
        raise Conflict(f"{keys.NEXT_ID}: lost {_ATTEMPTS_MAX} races for a commit")

    async def some(self, count: int) -> range:
        """``count`` ids for the coordinator's own use, mostly from a range leased before."""
        if len(self._block) < count:
            self._block = await self.lease(max(_BLOCK, count))
        taken, self._block = self._block[:count], self._block[count:]
        return taken
