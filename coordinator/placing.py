"""Keeps owners, leaders and members in line with the living nodes, a few collections at a time.

Only collections about which something changed are looked at; when a node comes or goes, that is all of
them, in slices between which everything else on the event loop goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

import structlog

from coordinator.cluster import ClusterPicture
from coordinator.leadership import Leadership
from coordinator.placement import waits_for
from coordinator.state import Move, owner_moves, placement_moves
from core.background import Background
from core.catalog import Collection, Placement
from core.errors import Conflict
from core.ids import CollectionId, NodeId, ShardId
from rpc.reads import ShardPhase, ShardStatus
from storage import keys
from storage.meta.port import MetaStore

IDLE_S = 30.0
MOVES_MAX = 32
"""Moves of one commit."""
SLICE = 32
"""Collections looked at in one go: some milliseconds."""
AGAIN_S = 0.1
"""Pause before what the picture lags behind in is looked at again."""
TAKE_OVER_POLL_S = (0.1, 5.0)
"""Pause between looks at shards that are about to change their leader: the least, and how many times what
the look took."""

Statuses = Callable[[Iterable[NodeId]], Awaitable[dict[NodeId, list[ShardStatus]]]]
"""What query nodes say of their shards; those that don't answer are left out."""

log = structlog.get_logger()


class Placer:
    """Carries out what ``coordinator.state`` decides, while this coordinator leads."""

    def __init__(
        self, meta: MetaStore, channels: int, picture: ClusterPicture, leadership: Leadership, statuses: Statuses
    ) -> None:
        self._meta, self._channels, self._picture = meta, channels, picture
        self._leadership, self._statuses = leadership, statuses
        self._changed: set[CollectionId] = set()
        self._urgent: set[CollectionId] = set()
        """Of those, the ones that a lost node led: they come first."""
        self._moving: set[CollectionId] = set()
        """Those with a shard that waits for its next leader."""
        self._loop = Background("placement", self._round, IDLE_S)

    def follow(self) -> None:
        """Begins to note what changes. Once, when the picture is there."""
        picture = self._picture
        picture.nodes.listen(lambda key, address: self._of_node(key, lost=address is None), replay=False)
        picture.drains.listen(lambda key, _: self._of_node(key, lost=False), replay=False)
        picture.owners.listen(lambda _key, _value: self._loop.wake(), replay=False)
        picture.channel_pins.listen(lambda _key, _value: self._loop.wake(), replay=False)
        picture.shard_pins.listen(lambda key, _: self.mark(_collection(key, keys.SHARD_PINS)), replay=False)
        picture.manifests.listen(lambda key, _: self._of_manifest(_collection(key, keys.MANIFESTS)), replay=False)
        picture.catalog.placements.listen(self._of_placement)
        picture.catalog.collections.listen(self._of_collection, replay=False)

    def start(self) -> None:
        """Begins to lead: looks at everything once."""
        self._changed = self._picture.known()
        self._urgent.clear()
        self._loop.start()

    async def close(self) -> None:
        await self._loop.close()

    def mark(self, collection: CollectionId) -> None:
        """Something that decides where the collection is to be changed."""
        self._changed.add(collection)
        self._loop.wake()

    # --- what changes --------------------------------------------------------------------------
    def _of_node(self, key: str, *, lost: bool) -> None:
        _, role, node = key.split("/", 2)
        if role == "querynode":
            self._changed = self._picture.known()
        if role == "querynode" and lost:
            placements = self._picture.catalog.placements.values.values()
            led = {p.collection for p in placements if any(node in r.leaders for r in p.replicas)}
            self._urgent |= led & self._changed
        self._loop.wake()

    def _of_manifest(self, id: CollectionId) -> None:
        """It may have become large, or be so no more."""
        collection, placement = self._picture.catalog.get(id), self._picture.catalog.placement(id)
        if collection and placement:
            self.mark(id)

    def _of_collection(self, key: str, collection: Collection | None) -> None:
        id = _collection(key, keys.COLLECTIONS)
        if collection is None:
            self.mark(id)
        elif collection.loaded and self._picture.catalog.placement(id) is None:
            # DDL commits both at once, so the placement is most likely about to be seen.
            self._look_again([id])

    def _of_placement(self, key: str, placement: Placement | None) -> None:
        """Also one that DDL made: of nodes that may be gone by now."""
        id = _collection(key, keys.PLACEMENTS)
        (self._moving.add if placement and waits_for(placement) else self._moving.discard)(id)
        self.mark(id)

    # --- a round -------------------------------------------------------------------------------
    async def _round(self) -> None:
        ready = await self._ready()
        if not await self._commit(owner_moves(self._picture.state(self._channels))):
            self._look_again(())
        self._changed |= {shard.collection for _, shard in ready}
        while self._changed:
            some = self._next()
            try:
                if not await self._commit(placement_moves(self._picture.state(self._channels, some, ready))):
                    self._look_again(some)
            except BaseException:
                self._changed.update(some)
                raise
            await asyncio.sleep(0)

    def _next(self) -> list[CollectionId]:
        first = self._urgent or self._changed
        some = [first.pop() for _ in range(min(SLICE, len(first)))]
        self._changed.difference_update(some)
        return some

    def _look_again(self, collections: Sequence[CollectionId]) -> None:
        """Soon, when what the picture lags behind by has come."""

        def again() -> None:
            self._changed.update(collections)
            self._loop.wake()

        asyncio.get_running_loop().call_later(AGAIN_S, again)

    async def _ready(self) -> set[tuple[NodeId, ShardId]]:
        """Of the nodes that are to lead a shard, those that could. Looks again soon while there are any."""
        placements = [self._picture.catalog.placement(id) for id in self._moving]
        awaited = {pair for placement in placements if placement for pair in waits_for(placement)}
        if not awaited:
            return set()
        asked_s = time.monotonic()
        statuses = await self._statuses({node for node, _ in awaited})
        least_s, times = TAKE_OVER_POLL_S
        pause_s = max(least_s, times * (time.monotonic() - asked_s))
        asyncio.get_running_loop().call_later(pause_s, self._loop.wake)
        ready = {(n, s.shard) for n, held in statuses.items() for s in held if s.phase is ShardPhase.READY}
        return awaited & ready

    async def _commit(self, moves: Iterator[Move]) -> bool:
        """Makes the moves, as far as what they were decided from still holds; whether that is so for all."""
        authority, whole = self._leadership.authority, True
        while some := list(islice(moves, MOVES_MAX)):
            try:
                await self._move(some)
            except Conflict:
                whole = False
                await authority.check(self._meta)
                for move in some:
                    with suppress(Conflict):
                        await self._move([move])
        return whole

    async def _move(self, moves: Sequence[Move]) -> None:
        """All of them in one commit."""
        conditions = dict.fromkeys(c for move in moves for c in move.conditions)
        authority = self._leadership.authority
        await self._meta.commit((authority.condition, *conditions), [move.write for move in moves])
        for move in moves:
            log.info("moved", key=move.write.key)


def _collection(key: str, prefix: str) -> CollectionId:
    return CollectionId(int(key.removeprefix(prefix).partition("/")[0]))
