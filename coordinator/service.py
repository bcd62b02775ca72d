"""The coordinator: carries out DDL, hands out ids, places shards, and keeps house in the background.

It is on the path of no write and no search. Everything it decides is decided in ``changes``, ``state``
and ``index_plan``; here decisions are committed, conditional on leading and on what they were made from.
"""

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from coordinator.changes import Context, Present, collection_name, decide, ids_needed
from coordinator.cleaning import Cleaner
from coordinator.cluster import ClusterPicture
from coordinator.compactions import Compactions
from coordinator.garbage import GarbageCollector
from coordinator.ids import Ids
from coordinator.index_plan import indexed, without_index
from coordinator.indexing import IndexScheduler
from coordinator.leadership import Leadership
from coordinator.placing import Placer
from core.catalog import Collection
from core.clock import HybridClock
from core.errors import Conflict, Fenced, LoadFailed, Timeout, Unavailable
from core.failpoints import failpoint
from core.ids import CollectionId, NodeId, PartitionId, Position, Revision, SegmentId, ShardId
from core.manifest import Manifest
from core.settings import CoordinatorSettings, IndexNodeSettings, QueryNodeSettings
from rpc.reads import ShardPhase, ShardStatus
from rpc.roles import CatalogChange, CollectionStats, CompactionState, CreateCollection, IndexProgress, Load, Nodes
from storage import keys
from storage.catalog import defined
from storage.log.port import Log
from storage.manifests import commit_manifest
from storage.meta.port import MetaStore, Put
from storage.objects.port import ObjectStore

ATTEMPTS_MAX = 100
FLUSH_DEADLINE_S = 120.0
OWNER_RETRY_S = 0.2
STATUS_DEADLINE_S = 2.0
"""Longest wait for a query node to say how far its shards are."""
SPREAD_BYTES = QueryNodeSettings().spread_bytes

log = structlog.get_logger()


class CoordinatorService:
    """Implements ``rpc.roles.Coordinator``. While another one leads, DDL raises ``NotReady``."""

    def __init__(  # noqa: PLR0917 (one per seam)
        self,
        settings: CoordinatorSettings,
        index_settings: IndexNodeSettings,
        node: NodeId,
        meta: MetaStore,
        log: Log,
        objects: ObjectStore,
        nodes: Nodes,
        clock: HybridClock,
        spread_bytes: int = SPREAD_BYTES,
    ) -> None:
        """spread_bytes: ``query_node.spread_bytes``."""
        self._settings, self._rows_min = settings, index_settings.rows_min
        self._meta, self._log, self._nodes, self._clock = meta, log, nodes, clock
        self._picture = ClusterPicture(meta, spread_bytes)
        self._ids = Ids(meta)
        self._leadership = Leadership(meta, node, settings.lease_ttl_s, self._lead, self._stand_by)
        self._indexing = IndexScheduler(
            settings, index_settings, meta, objects, nodes, self._picture, self._leadership, self._ids
        )
        self._cleaner = Cleaner(settings, meta, self._picture, self._leadership)
        self._garbage = GarbageCollector(settings, meta, objects, self._picture, self._leadership)
        self._placer = Placer(meta, log.channels, self._picture, self._leadership, self._statuses)
        self._compactions = Compactions(self._compact_shard)

    async def start(self) -> None:
        """Leads when it returns, unless another coordinator does."""
        await self._picture.start()
        self._picture.on_collection(self._indexing.mark)
        self._picture.on_collection(self._cleaner.mark)
        self._placer.follow()
        await self._leadership.start()

    async def resign(self) -> None:
        """Leads no more, for good: a standby takes over at once. Goes on answering what needs no leader."""
        await self._leadership.close()

    async def close(self) -> None:
        await self._compactions.close()
        await self._leadership.close()
        await self._picture.close()

    # --- Coordinator -------------------------------------------------------------------------
    async def change(self, change: CatalogChange) -> Revision:
        database, name = collection_name(change)
        authority = self._leadership.authority
        needed = ids_needed(change)
        ids = await self._ids.some(needed) if needed else ()
        for _ in range(ATTEMPTS_MAX):
            present = await self._present(database, name)
            decision = decide(change, present, await self._context(change, present, ids))
            if not decision.writes:
                return present.revision
            failpoint("ddl.before_commit")
            try:
                writes = (*decision.writes, Put(keys.DEFINED, b""))
                revision = await self._meta.commit((authority.condition, *decision.conditions), writes)
            except Conflict:
                await authority.check(self._meta)
                continue
            failpoint("ddl.committed")
            log.info("catalog changed", change=type(change).__name__, collection=name, revision=revision)
            await self._picture.catalog.wait(revision)
            if isinstance(change, Load):
                self._check_replicas(present.collection)
            return revision
        raise Conflict(f"collection {name}: lost {ATTEMPTS_MAX} races for a commit")

    async def defined(self) -> Revision:
        return await defined(self._meta)

    async def lease_ids(self, count: int) -> range:
        return await self._ids.lease(count)

    async def load_progress(self, collection: CollectionId, partitions: Sequence[PartitionId]) -> int:
        found = await self._find(collection)
        placement = self._picture.catalog.placement(collection)
        if placement is None or not set(partitions) <= set(found.loaded):
            return 0
        statuses = await self._statuses({n for r in placement.replicas for n in r.leaders})
        led = {(n, s) for r in placement.replicas for n, s in zip(r.leaders, found.shard_ids, strict=False)}
        # A replica on a lost node is left out as long as another one serves the shard.
        led = {(n, s) for n, s in led if n in statuses or not any(s == other and m in statuses for m, other in led)}
        ready = {(n, s.shard) for n, held in statuses.items() for s in held if s.phase is ShardPhase.READY}
        served = {shard for _, shard in ready}
        for status in (s for held in statuses.values() for s in held):
            if status.shard.collection == collection and status.failure and status.shard not in served:
                raise LoadFailed(status.failure)
        return 100 * len(led & ready) // len(led) if led else 0

    async def _statuses(self, nodes: Iterable[NodeId]) -> dict[NodeId, list[ShardStatus]]:
        """What the query nodes that answer say of their shards."""

        async def ask(node: NodeId) -> tuple[NodeId, list[ShardStatus]] | None:
            try:
                async with asyncio.timeout(STATUS_DEADLINE_S):
                    return node, await self._nodes.query_node(node).shards()
            except (Unavailable, TimeoutError):
                return None

        return dict(filter(None, await asyncio.gather(*map(ask, nodes))))

    async def flush(self, collection: CollectionId, timestamp: int) -> dict[ShardId, list[SegmentId]]:
        found = await self._find(collection)
        sealed: dict[ShardId, list[SegmentId]] = {}
        try:
            async with asyncio.timeout(FLUSH_DEADLINE_S):
                while left := [s for s in found.shard_ids if s not in sealed]:
                    self._picture.collection(collection)  # dropped meanwhile: nobody would ever answer
                    sealed |= await self._flush(found, left, timestamp)
                    if len(sealed) < len(found.shards):
                        await self._picture.moved(OWNER_RETRY_S)
        except TimeoutError:
            raise Timeout(f"waited {FLUSH_DEADLINE_S} s for data nodes to flush {found.name}") from None
        await self._picture.until(
            lambda: self._picture.catalog.get(collection) is None or self._flushed(found, timestamp),
            FLUSH_DEADLINE_S,
            f"the manifests of the flush of {found.name}",
        )
        return sealed

    async def flushed(self, collection: CollectionId, timestamp: int) -> bool:
        return self._flushed(await self._find(collection), timestamp)

    async def compact(self, collection: CollectionId) -> int:
        found = await self._find(collection)
        (id,) = await self._ids.some(1)
        self._compactions.start(id, found.shard_ids)
        return id

    async def compaction_state(self, id: int) -> CompactionState:
        return self._compactions.state(id)

    async def index_progress(self, collection: CollectionId) -> list[IndexProgress]:
        found = await self._find(collection)
        segments = [s for m in self._picture.manifests_of(found) for s in m.segments]
        return [
            IndexProgress(
                index=index,
                indexed_rows=sum(s.rows for s in segments if indexed(s, index, self._rows_min)),
                total_rows=sum(s.rows for s in segments),
                error=self._indexing.errors.get(index.id, ""),
            )
            for index in found.indexes
        ]

    async def stats(self, collection: CollectionId) -> CollectionStats:
        found = await self._find(collection)
        rows = {p.id: 0 for p in found.partitions}
        for manifest in self._picture.manifests_of(found):
            for segment in manifest.segments:
                if segment.partition in rows:
                    rows[segment.partition] += segment.rows
        return CollectionStats(rows)

    async def report_bad_index(self, shard: ShardId, segment: SegmentId, object_name: str) -> None:
        """A query node could not read an index: takes it out of the manifest, so it is built anew."""

        def change(manifest: Manifest) -> Manifest | None:
            return without_index(manifest, segment, object_name)

        log.warning("unreadable index is dropped and built again", shard=str(shard), index=object_name)
        authority = self._leadership.authority
        await commit_manifest(self._meta, shard, change, authority, self._settings.garbage_grace_s)

    # --- leading -----------------------------------------------------------------------------
    async def _lead(self) -> None:
        self._placer.start()
        self._indexing.start()
        self._cleaner.start()
        self._garbage.start()

    async def _stand_by(self) -> None:
        for part in (self._garbage, self._cleaner, self._indexing, self._placer):
            await part.close()

    def _check_replicas(self, before: Collection | None) -> None:
        """Another number of replicas of what is loaded already is brought about in the background."""
        now = self._picture.catalog.get(before.id) if before and before.loaded else None
        if now and before and now.replicas != before.replicas:
            self._placer.mark(now.id)

    # --- parts of the above ------------------------------------------------------------------
    async def _present(self, database: str, name: str) -> Present:
        name_item = await self._meta.get(keys.name(database, name))
        if name_item is None:
            return Present()
        id = CollectionId(int(keys.decode(str, name_item.value)))
        item = await self._meta.get(keys.collection(id))
        if item is None:
            return Present(name_item.revision)
        collection = keys.decode(Collection, item.value)
        # Dropped between the two reads: the name is free or taken anew, and the commit will conflict.
        living = None if collection.dropped else collection
        return Present(name_item.revision, living, item.revision)

    async def _find(self, id: CollectionId) -> Collection:
        """With all that any leader acknowledged: the picture of one that has just begun to lead may lag behind that.
        Raises ``CollectionNotFound`` also for a dropped one."""
        if item := await self._meta.get(keys.collection(id)):
            await self._picture.catalog.wait(item.revision)
        return self._picture.collection(id)

    async def _context(self, change: CatalogChange, present: Present, ids: Sequence[int]) -> Context:
        ends: Sequence[Position] = ()
        if isinstance(change, CreateCollection) and present.collection is None:
            ends = await self._log.end(range(self._log.channels))  # type: ignore[arg-type]  # Channel is int
        nodes, found = self._picture.role_nodes("querynode"), present.collection
        pinned = {s: node for s, (node, _) in self._picture.pins({found.id}).items()} if found else {}
        large = found is not None and self._picture.large(found)
        return Context(ids, self._clock.now(), ends, nodes, pinned, large)

    def _flushed(self, collection: Collection, timestamp: int) -> bool:
        manifests = self._picture.manifests_of(collection)
        return len(manifests) == len(collection.shards) and all(m.flushed_ts >= timestamp for m in manifests)

    async def _flush(
        self, collection: Collection, shards: Sequence[ShardId], timestamp: int
    ) -> dict[ShardId, list[SegmentId]]:
        """One attempt: what the owners that answered have sealed."""
        by_node: dict[NodeId, list[ShardId]] = {}
        for shard in shards:
            owner = self._picture.owner(collection.shards[shard.number].channel)
            if owner is not None:
                by_node.setdefault(owner, []).append(shard)
        sealed: dict[ShardId, list[SegmentId]] = {}
        for node, mine in by_node.items():
            try:
                sealed |= await self._nodes.data_node(node).flush(mine, timestamp)
            except (Fenced, Unavailable) as e:
                log.info("flush waits for a new owner", node=node, error=str(e))
        return sealed

    async def _compact_shard(self, shard: ShardId) -> int:
        found = self._picture.collection(shard.collection)
        owner = self._picture.owner(found.shards[shard.number].channel)
        if owner is None:
            raise Unavailable(f"no data node owns the channel of shard {shard}")
        return await self._nodes.data_node(owner).compact(shard)
