"""The coordinator as the other roles see it: whoever leads now."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from core.errors import Fenced, NotReady, Unavailable
from core.ids import CollectionId, NodeId, PartitionId, Revision, SegmentId, ShardId
from rpc.roles import CatalogChange, CollectionStats, CompactionState, Coordinator, IndexProgress
from sheafdb.remote_nodes import RemoteNodes
from storage import keys
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore

T = TypeVar("T")

PATIENCE_S = 20.0
"""How long a call follows a leader that is lost: longer than a lease and an election."""
PAUSE_S = (0.02, 0.25)
"""Between attempts: the first one, doubled up to the second."""


class LeadingCoordinator(Coordinator):
    """Sends every call to the leader, and again to the next one when it is lost or leads no more.

    That is safe for all of them. A change of the catalog that was already made is success without a
    change, by design (``coordinator.changes``): creating what is there, dropping what is not, loading
    what is loaded. As with any client's retry, what others did in between counts: a drop sent again
    drops what was created anew. Ids leased twice are a gap, a flush is known by its time stamp, a
    compaction started twice finds nothing to do, a bad index is reported by name.
    """

    def __init__(self, meta: MetaStore, nodes: RemoteNodes) -> None:
        self._nodes = nodes
        self._leader: Mirror[str] = Mirror(meta, keys.LEADER, str)

    async def start(self) -> None:
        await self._leader.start()

    async def close(self) -> None:
        await self._leader.close()

    @property
    def node(self) -> NodeId | None:
        """Who leads."""
        id = self._leader.values.get(keys.LEADER)
        return NodeId(id) if id else None

    async def change(self, change: CatalogChange) -> Revision:
        return await self._ask(lambda leader: leader.change(change))

    async def defined(self) -> Revision:
        return await self._ask(lambda leader: leader.defined())

    async def lease_ids(self, count: int) -> range:
        return await self._ask(lambda leader: leader.lease_ids(count))

    async def load_progress(self, collection: CollectionId, partitions: Sequence[PartitionId]) -> int:
        return await self._ask(lambda leader: leader.load_progress(collection, partitions))

    async def flush(self, collection: CollectionId, timestamp: int) -> dict[ShardId, list[SegmentId]]:
        return await self._ask(lambda leader: leader.flush(collection, timestamp))

    async def flushed(self, collection: CollectionId, timestamp: int) -> bool:
        return await self._ask(lambda leader: leader.flushed(collection, timestamp))

    async def compact(self, collection: CollectionId) -> int:
        return await self._ask(lambda leader: leader.compact(collection))

    async def compaction_state(self, id: int) -> CompactionState:
        return await self._ask(lambda leader: leader.compaction_state(id))

    async def index_progress(self, collection: CollectionId) -> list[IndexProgress]:
        return await self._ask(lambda leader: leader.index_progress(collection))

    async def stats(self, collection: CollectionId) -> CollectionStats:
        return await self._ask(lambda leader: leader.stats(collection))

    async def report_bad_index(self, shard: ShardId, segment: SegmentId, object_name: str) -> None:
        await self._ask(lambda leader: leader.report_bad_index(shard, segment, object_name))

    async def _ask(self, call: Callable[[Coordinator], Awaitable[T]]) -> T:
        """The answer of the first leader that gives one; callers end the wait sooner by cancelling."""
        lost = time.monotonic()
        pause_s, most_s = PAUSE_S
        while True:
            asked = time.monotonic()
            try:
                return await call(self._present())
            except (NotReady, Unavailable) as e:
                error = e
            except Fenced as e:
                error = NotReady(str(e))
            now = time.monotonic()
            if now - asked > PATIENCE_S:
                lost = now  # a leader worked on it for that long, and only then was lost
            left_s = lost + PATIENCE_S - now
            if left_s <= 0:
                raise error
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, most_s)

    def _present(self) -> Coordinator:
        node = self.node
        if node is None:
            raise NotReady("no coordinator leads at the moment")
        return self._nodes.coordinator(node)
