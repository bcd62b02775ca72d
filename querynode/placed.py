"""The shards placed on this node: loaded, kept at their newest manifest, released."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from core.catalog import ChannelCheckpoint, Collection, Placement
from core.ids import Channel, CollectionId, NodeId, Position, ShardId
from core.manifest import Manifest
from core.settings import QueryNodeSettings
from querynode.channel_tail import ChannelTails
from querynode.handoff import HandOff
from querynode.links import Links
from querynode.opening import Opener
from querynode.shard import ShardState
from querynode.spreading import Spreader
from querynode.waiting import LogEnd
from rpc.workers import FindWorker
from storage import keys
from storage.catalog import Catalog
from storage.log.port import Log
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore

RETRY_S = 0.5
MANIFESTS_DECODED = 256
"""Manifests are looked at when they change; those of other nodes' shards never."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Served:
    """A shard placed here, what keeps it at its manifest, and the end of its channel."""

    shard: ShardState
    handoff: HandOff
    end: LogEnd


class PlacedShards:
    """Follows placements, collections and manifests of the metadata store."""

    def __init__(  # noqa: PLR0917 (one per seam)
        self,
        settings: QueryNodeSettings,
        node: NodeId,
        meta: MetaStore,
        log: Log,
        opener: Opener,
        find_worker: FindWorker | None,
    ) -> None:
        self._node, self._meta, self._log, self._opener = node, meta, log, opener
        self._session_ttl_s = settings.session_ttl_s
        self._links = Links(node, find_worker, self._spread_anew)
        self._spreader = Spreader(node, self._links, settings.spread_bytes, opener.memory)
        self._catalog = Catalog(meta)
        self._checkpoints: Mirror[ChannelCheckpoint] = Mirror(meta, keys.CHECKPOINTS, ChannelCheckpoint)
        self._manifests: Mirror[Manifest] = Mirror(meta, keys.MANIFESTS, Manifest, MANIFESTS_DECODED)
        self._tails = ChannelTails(log, self._start_again)
        self._ends: dict[Channel, LogEnd] = {}
        self._served: dict[ShardId, Served] = {}
        self._shards_of: dict[CollectionId, set[ShardId]] = {}
        self._starting: list[Served] = []
        self._starts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to load what is placed here now, and follows from there."""
        await self._checkpoints.start()
        await self._manifests.start()
        await self._catalog.start()
        for mirror in (self._catalog.placements, self._catalog.collections):
            mirror.listen(lambda key, _: self._reconcile(CollectionId(int(key.rpartition("/")[2]))))
        self._manifests.listen(self._offer, replay=False)

    async def close(self) -> None:
        for mirror in (self._catalog, self._manifests, self._checkpoints):
            await mirror.close()
        ending = [t for s in list(self._served.values()) if (t := self._release(s))]
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*ending, *self._starts, return_exceptions=True)
        await self._tails.close()
        await self._links.close()

    def get(self, shard: ShardId) -> Served | None:
        return self._served.get(shard)

    def catch_up(self) -> Awaitable[None]:
        """Done once all DDL that anyone committed before this call is seen here. Fails with ``Unavailable`` or
        ``Timeout``."""
        return self._catalog.catch_up()

    def all(self) -> list[Served]:
        return list(self._served.values())

    def awaited(self) -> str:
        """What is still to be placed on this node or handed over to it; "" = nothing."""
        for collection in self._catalog.all():
            if not collection.loaded:
                continue
            placement = self._catalog.placement(collection.id)
            replicas = [r for r in placement.replicas if self._node in r.nodes] if placement else []
            if not replicas:
                return f"collection {collection.name} waits for the coordinator to place it here"
            for number, leads in enumerate(zip(replicas[0].leaders, replicas[0].coming, strict=True)):
                if leads[1] == self._node != leads[0]:
                    return f"shard {number} of collection {collection.name} waits to be handed over to this node"
        return ""

    def name(self, collection: CollectionId) -> str:
        """For messages: the collection's name if it is known here, else its id."""
        known = self._catalog.get(collection)
        return known.name if known else str(collection)

    # --- what changes -------------------------------------------------------------------------
    def _reconcile(self, id: CollectionId) -> None:
        collection, placement = self._catalog.get(id), self._catalog.placement(id)
        loaded = placement and collection and collection.loaded
        wanted = _led(placement, self._node) if placement and loaded else {}
        held = self._shards_of.get(id, set())
        for shard in held - wanted.keys():
            self._release(self._served[shard])
        for shard in sorted(wanted):
            assert collection is not None
            if shard not in held:
                self._add(collection, shard.number)
            served = self._served[shard]
            served.handoff.nodes = wanted[shard]
            served.shard.describe(collection)
            served.handoff.poke()

    def _spread_anew(self) -> None:
        """A node came back, or was lost: what it is to hold, or held, may have to move."""
        for served in self._served.values():
            if len(served.handoff.nodes) > 1:
                served.handoff.poke()

    def _offer(self, _key: str, manifest: Manifest | None) -> None:
        served = self._served.get(manifest.shard_id) if manifest else None
        if manifest and served and served.handoff.started:
            served.handoff.offer(manifest)

    def _add(self, collection: Collection, number: int) -> None:
        shard = ShardState(collection, number, self._session_ttl_s)
        if shard.channel not in self._ends:
            self._ends[shard.channel] = LogEnd(self._log, shard.channel)
        end = self._ends[shard.channel]
        served = Served(shard, HandOff(shard, self._opener, self._spreader, end), end)
        self._served[shard.id] = served
        self._shards_of.setdefault(collection.id, set()).add(shard.id)
        self._begin(served)

    def _release(self, served: Served) -> asyncio.Task[None] | None:
        shard = served.shard.id
        del self._served[shard]
        self._shards_of[shard.collection].discard(shard)
        self._tails.leave(served.shard)
        served.shard.release()
        return served.handoff.stop()

    def _start_again(self, shards: list[ShardState]) -> None:
        for shard in shards:
            served = self._served[shard.id]
            served.handoff.stop()
            self._begin(served)

    # --- loading ------------------------------------------------------------------------------
    def _begin(self, served: Served) -> None:
        """Starts a shard; those that come together are read from the log together."""
        if not self._starting:
            asyncio.get_running_loop().call_soon(self._start_all)
        self._starting.append(served)

    def _start_all(self) -> None:
        batch, self._starting = self._starting, []
        task = asyncio.create_task(self._load(batch), name="start of shards")
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _load(self, batch: list[Served]) -> None:
        points = await asyncio.gather(*(self._starting_point(s.shard) for s in batch), return_exceptions=True)
        for served, point in zip(batch, points, strict=True):
            shard = served.shard
            if shard.released:
                continue
            if isinstance(point, BaseException):
                log.warning("shard can't be started, trying again", shard=str(shard.id), error=str(point))
                asyncio.get_running_loop().call_later(RETRY_S, self._begin, served)
                continue
            manifest, start = point
            shard.reset(start)
            self._tails.join(shard, start)
            served.handoff.offer(manifest)
            newer = self._manifests.values.get(keys.manifest(shard.id))
            if newer:
                served.handoff.offer(newer)

    async def _starting_point(self, shard: ShardState) -> tuple[Manifest, Position]:
        """A manifest, and the position from which the log completes it."""
        # The checkpoint first: what it covers is in any manifest read after it.
        checkpoint = self._checkpoints.values.get(keys.checkpoint(shard.channel))
        item = await self._meta.get(keys.manifest(shard.id))
        manifest = keys.decode(Manifest, item.value) if item else Manifest(shard.id.collection, shard.id.number)
        return manifest, Position(max(manifest.checkpoint, checkpoint.position if checkpoint else 0))


def _led(placement: Placement, node: NodeId) -> dict[ShardId, tuple[NodeId, ...]]:
    """The shards a node leads or is about to lead, each with the nodes of the replica."""
    found: dict[ShardId, tuple[NodeId, ...]] = {}
    for replica in placement.replicas:
        for number, pair in enumerate(zip(replica.leaders, replica.coming, strict=True)):
            shard = ShardId(placement.collection, number)
            # In two replicas while they are separated: it belongs to the one that names it a member.
            if node in pair and (shard not in found or node in replica.nodes):
                found[shard] = replica.nodes
    return found
