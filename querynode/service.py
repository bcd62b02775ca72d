"""The query node's service: reads of the shards placed here."""

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from prometheus_client import Gauge

from core.catalog import Consistency
from core.errors import CollectionNotLoaded
from core.ids import NodeId
from core.settings import QueryNodeSettings
from querynode.cache import ByteCache
from querynode.consistency import admit, fresh
from querynode.freezing import Freezing
from querynode.links import RemoteSegment
from querynode.memory import HeldMemory
from querynode.opening import Opener, ReportBadIndex
from querynode.placed import PlacedShards, Served
from querynode.prepared import PreparedSearch
from querynode.reader import Reader
from querynode.shard import ShardState
from querynode.shares import SpreadReader
from querynode.spread_search import SpreadSearch, prepare_spread
from querynode.view import View
from querynode.waiting import within
from querynode.worker import SegmentWorker
from rpc.reads import Holder, QueryReply, QueryRequest, Read, SearchReply, SearchRequest, ShardPhase, ShardStatus
from rpc.workers import FindWorker
from storage.log.port import Log
from storage.meta.port import MetaStore
from storage.objects.port import ObjectStore
from storage.pressure import Load, PressureSign

COLUMN_BYTES = 256 * 1024 * 1024
"""Decoded scalar columns of sealed segments kept between reads."""
EXPIRE_S = 1.0
FREEZE_S = 0.5
"""Pauses between looks for views held too long, and for growing rows that became many."""
GROWING_SHARE = 4
"""Growing rows may take this part of the memory unless told otherwise."""

HELD = Gauge("sheafdb_held_bytes", "Memory of the sealed segments that a query node holds, mapped files included")


class QueryNodeService:
    """Implements ``rpc.roles.QueryNode`` for the shards whose placement names ``node``.

    report_bad_index: told (shard, segment, name of the index object) when an index could not be
    opened; its segment is searched exactly meanwhile.
    find_worker: the other query nodes, to hold a share of large shards; None = there are none.
    worker: this node's side of it.
    """

    def __init__(
        self,
        settings: QueryNodeSettings,
        node: NodeId,
        meta: MetaStore,
        log: Log,
        objects: ObjectStore,
        *,
        report_bad_index: ReportBadIndex | None = None,
        find_worker: FindWorker | None = None,
    ) -> None:
        self._staleness_s = settings.bounded_staleness_s
        threads = settings.search_threads or os.cpu_count() or 1
        self._search_threads = ThreadPoolExecutor(threads, "search")
        # One may be busy with an interim index for a while.
        self._load_threads = ThreadPoolExecutor(max(threads, 2), "load")
        self._memory = memory = HeldMemory(settings.memory_bytes)
        columns: ByteCache[pa.Array] = ByteCache(COLUMN_BYTES)
        opener = Opener(objects, self._load_threads, columns, memory, report_bad_index)
        self._placed = PlacedShards(settings, node, meta, log, opener, find_worker)
        self._reader = Reader(self._search_threads, settings.inline_cost)
        self._spread_reader = SpreadReader(self._reader)
        self.worker = SegmentWorker(opener, self._reader)
        self._freezing = Freezing(settings.interim_rows, self._load_threads)
        self._growing_bytes = settings.growing_bytes or memory.limit // GROWING_SHARE
        self._sign = PressureSign(meta, "querynode", node, self._growing)
        self._upkeep: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to load what is placed here. Whoever wires the node registers it."""
        await self._placed.start()
        self._sign.start()
        self._upkeep = [asyncio.create_task(self._expire()), asyncio.create_task(self._freeze())]

    async def close(self) -> None:
        """Drops everything; waiting reads end with an error."""
        await self._sign.close()
        for task in self._upkeep:
            task.cancel()
        await asyncio.gather(*self._upkeep, return_exceptions=True)
        await self._placed.close()
        self.worker.close()
        for threads in (self._search_threads, self._load_threads):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    async def search(self, request: SearchRequest) -> SearchReply:
        shard, view = await self._pin(request)
        if view.remote:
            return await self._spread_reader.search(shard, view, request)
        return await self._reader.search(shard, view, request)

    def prepare(self, request: SearchRequest) -> PreparedSearch | None:
        shard, view = self._made_view(request)
        if shard is None or view is None or view.remote:
            return None
        return self._reader.prepare(shard, view, request, self._bound_s(request))

    def prepare_spread(self, request: SearchRequest) -> PreparedSearch | SpreadSearch | None:
        """Implements ``rpc.query_node.DirectQueryNode``."""
        shard, view = self._made_view(request)
        if shard is None or view is None:
            return None
        if view.remote:
            return prepare_spread(self._reader, shard, view, request, self._bound_s(request))
        return self._reader.prepare(shard, view, request, self._bound_s(request))

    def _made_view(self, request: SearchRequest) -> tuple[ShardState | None, View | None]:
        """What answers the request with no wait. The event loop makes and fills a view; any thread may read it."""
        served = self._placed.get(request.shard_id)
        if served is None or not fresh(served.shard, request, self._staleness_s):
            return None, None
        if served.shard.excludes(request.partitions):
            return None, None
        return served.shard, served.shard.made_view

    def _bound_s(self, request: SearchRequest) -> float:
        return float("inf") if request.consistency is Consistency.EVENTUALLY else self._staleness_s

    async def query(self, request: QueryRequest) -> QueryReply:
        shard, view = await self._pin(request)
        if view.remote:
            return await self._spread_reader.query(shard, view, request)
        return await self._reader.query(shard, view, request)

    def awaited(self) -> str:
        """What keeps this node from its whole share of the reads; "" = nothing. What failed to load does not."""
        for served in self._placed.all():
            status = _status(served.shard)
            if status.phase is not ShardPhase.READY and not status.failure:
                return f"shard {status.shard} is being loaded"
        return self._placed.awaited()

    async def shards(self) -> list[ShardStatus]:
        return [_status(served.shard) for served in self._placed.all()]

    async def _pin(self, read: Read) -> tuple[ShardState, View]:
        """The view that answers the whole request (invariant 4)."""
        served = self._led(read)
        if served.shard.excludes(read.partitions):
            # Released, or loaded again and not heard of here yet: a part must not be missing from the answer.
            await within(read.deadline, self._placed.catch_up(), "what is to be loaded")
            served = self._led(read)
        shard = served.shard
        if fresh(shard, read, self._staleness_s):
            return shard, shard.view
        return shard, await admit(shard, read, served.end, self._staleness_s)

    def _led(self, read: Read) -> Served:
        """Raises ``CollectionNotLoaded`` when this node does not lead the shard."""
        served = self._placed.get(read.shard_id)
        if served is None:
            raise CollectionNotLoaded(self._placed.name(read.collection))
        return served

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S)
            for served in self._placed.all():
                served.shard.pins.expire()
            self.worker.expire()
            HELD.set(self._memory.used)

    async def _growing(self) -> Load:
        shards = [served.shard for served in self._placed.all() if served.shard.growing.rows]
        used = sum(shard.growing.bytes for shard in shards)
        channels = tuple(sorted({shard.channel for shard in shards}))
        return Load(used, self._growing_bytes, channels, "growing rows", "query_node.growing_bytes")

    async def _freeze(self) -> None:
        while True:
            await asyncio.sleep(FREEZE_S)
            for served in self._placed.all():
                if served.shard.growing.rows >= self._freezing.rows_min:
                    await self._freezing.freeze(served.shard)


def _status(shard: ShardState) -> ShardStatus:
    remote = shard.remote.values()
    whole = shard.ready and shard.covers(shard.loaded) and not any(r.link.failure for r in remote)
    sealed = shard.sealed.values()
    return ShardStatus(
        shard.id,
        ShardPhase.READY if whole else ShardPhase.LOADING,
        shard.manifest.version,
        shard.frontier,
        sum(s.rows for s in sealed) + sum(r.rows for r in remote),
        shard.growing.rows,
        sum(s.bytes for s in sealed) + shard.growing.bytes,
        failure=str(shard.failure or ""),
        holders=_holders(remote),
    )


def _holders(remote: Iterable[RemoteSegment]) -> tuple[Holder, ...]:
    by_node: dict[NodeId, list[RemoteSegment]] = {}
    for segment in remote:
        by_node.setdefault(segment.link.node, []).append(segment)
    return tuple(
        Holder(node, tuple(s.id for s in held), sum(s.bytes for s in held)) for node, held in sorted(by_node.items())
    )
