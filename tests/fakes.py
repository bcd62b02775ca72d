"""In-memory stand-ins for the ports and roles, for tests of one room at a time.

They keep the contracts and nothing else: no files, no background work, answers by brute force.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from core.catalog import Collection, Index, Partition, Placement, Replica, Shard
from core.clock import HybridClock
from core.errors import (
    CollectionNotFound,
    CollectionNotLoaded,
    Conflict,
    IndexNotFound,
    Refused,
    SnapshotExpired,
    Unavailable,
)
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, Revision, ShardId
from core.schema import FIRST_FIELD_ID, Schema
from core.types import DataType
from engine.filter import compile as compile_filter
from engine.vector.declare import declare
from rpc import reads, roles
from storage import keys
from storage.catalog import Catalog, defined
from storage.log.port import LogRecord
from storage.meta.port import Condition, Delete, Event, Item, Put
from storage.record import BARRIER, DELETE, Record, decode

NODE = NodeId("fake-query-node")


def led_by(collection: CollectionId, *replicas: tuple[NodeId, ...]) -> Placement:
    """A settled placement: for each replica the leaders of its shards."""
    return Placement(collection, tuple(Replica(tuple(sorted(set(r))), r, r) for r in replicas))


class FakeMeta:
    """``MetaStore`` without leases."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.history: list[list[Event]] = []
        self._moved = asyncio.Event()

    @property
    def revision(self) -> Revision:
        return Revision(len(self.history))

    async def get(self, key: str) -> Item | None:
        return self.items.get(key)

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        return sorted((i for k, i in self.items.items() if k.startswith(prefix)), key=lambda i: i.key), self.revision

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        for c in conditions:
            if (self.items[c.key].revision if c.key in self.items else 0) != c.revision:
                raise Conflict(c.key)
        revision, events = Revision(self.revision + 1), []
        for write in writes:
            if isinstance(write, Put):
                self.items[write.key] = Item(write.key, write.value, revision)
                events.append(Event(write.key, write.value, revision))
            elif self.items.pop(write.key, None):
                events.append(Event(write.key, None, revision))
        self.history.append(events)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        return revision

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Sequence[Event]]:
        while True:
            while after < self.revision:
                events = [e for e in self.history[after] if e.key.startswith(prefix)]
                after = Revision(after + 1)
                if events:
                    yield events
            await self._moved.wait()

    async def grant(self, ttl_s: float) -> int:
        return 1

    async def keep_alive(self, lease: int) -> None: ...

    async def revoke(self, lease: int) -> None: ...

    async def close(self) -> None: ...


class FakeLog:
    """``Log`` in lists. ``fail`` is raised by the next append, which then appends nothing."""

    channels = 4

    def __init__(self, record_bytes_max: int = 8 * 1024 * 1024) -> None:
        self.record_bytes_max = record_bytes_max
        self.records: list[list[bytes]] = [[] for _ in range(self.channels)]
        self.appends = 0
        self.fail: Exception | None = None

    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        if self.fail:
            fail, self.fail = self.fail, None
            raise fail
        assert all(len(payload) <= self.record_bytes_max for _, payload in entries)
        await asyncio.sleep(0)
        self.appends += 1
        positions = []
        for channel, payload in entries:
            positions.append(Position(len(self.records[channel])))
            self.records[channel].append(payload)
        return positions

    async def read(self, channel: Channel, start: Position) -> AsyncIterator[Sequence[LogRecord]]:
        while True:
            found = self.records[channel][start:]
            if found:
                yield [LogRecord(Position(start + i), p) for i, p in enumerate(found)]
                start = Position(start + len(found))
            await asyncio.sleep(0.001)

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        return [Position(len(self.records[c])) for c in channels]

    async def start(self, channel: Channel) -> Position:
        return Position(0)

    async def trim(self, channel: Channel, before: Position) -> None: ...

    async def close(self) -> None: ...

    def of(self, collection: Collection) -> list[tuple[int, Record]]:
        """(position, record) of everything in the log about a collection."""
        found = []
        for shard in collection.shards:
            for position, payload in enumerate(self.records[shard.channel]):
                record = decode(payload)
                if record.shard == ShardId(collection.id, shard.number):
                    found.append((position, record))
        return found


class FakeCoordinator:
    """``Coordinator`` whose changes take effect at once. What was asked is in ``asked``."""

    def __init__(self, meta: FakeMeta, clock: HybridClock) -> None:
        self.meta, self.clock = meta, clock
        self.next_id = 1000
        self.leases: list[range] = []
        self.asked: list[Any] = []
        self.progress = 100
        self.sealed: dict[PartitionId, int] = {}
        self.flushes: set[int] = set()

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id

    def _find(self, name: str) -> Collection:
        for key, item in self.meta.items.items():
            if key.startswith(keys.COLLECTIONS):
                value = keys.decode(Collection, item.value)
                if value.name == name:
                    return value
        raise CollectionNotFound(name)

    async def _put(self, value: Collection) -> Revision:
        writes: list[Put | Delete] = [Put(keys.collection(value.id), keys.encode(value))]
        if value.loaded:
            leaders = (NODE,) * len(value.shards)
            writes.append(Put(keys.placement(value.id), keys.encode(led_by(value.id, leaders))))
        else:
            writes.append(Delete(keys.placement(value.id)))
        return await self._commit(*writes)

    async def _commit(self, *writes: Put | Delete) -> Revision:
        return await self.meta.commit([], [*writes, Put(keys.DEFINED, b"")])

    async def change(self, change: roles.CatalogChange) -> Revision:
        self.asked.append(change)
        match change:
            case roles.CreateCollection():
                return await self._create(change)
            case roles.DropCollection():
                try:
                    gone = self._find(change.name)
                except CollectionNotFound:
                    return Revision(0)
                return await self._commit(Delete(keys.collection(gone.id)), Delete(keys.placement(gone.id)))
            case _:
                return await self._put(self._changed(self._find(change.collection), change))

    async def _create(self, change: roles.CreateCollection) -> Revision:
        try:
            old = self._find(change.name)
        except CollectionNotFound:
            pass
        else:
            unnumbered = tuple(replace(f, id=FieldId(0)) for f in old.schema.fields)
            if unnumbered == change.schema.fields:
                return Revision(0)
            raise Refused(f"create duplicate collection with different parameters, collection: {change.name}")
        now = self.clock.now()
        fields = tuple(replace(f, id=FieldId(FIRST_FIELD_ID + n)) for n, f in enumerate(change.schema.fields))
        names = [f"_default_{n}" for n in range(change.partitions)] or ["_default"]
        return await self._put(
            Collection(
                CollectionId(self._id()),
                change.database,
                change.name,
                Schema(fields, change.schema.description),
                tuple(Shard(n, Channel(n % 4)) for n in range(change.shards)),
                tuple(Partition(PartitionId(self._id()), name, now) for name in names),
                consistency=change.consistency,
                properties=change.properties,
                created_ts=now,
                updated_ts=now,
            )
        )

    def _changed(self, c: Collection, change: Any) -> Collection:
        match change:
            case roles.CreatePartition():
                new = Partition(PartitionId(self._id()), change.name, self.clock.now())
                loaded = (*c.loaded, new.id) if c.load_all else c.loaded
                return replace(c, partitions=(*c.partitions, new), loaded=loaded)
            case roles.DropPartition():
                gone = c.partition_by_name.get(change.name)
                if gone and gone.id in c.loaded:
                    raise Refused("partition cannot be dropped, partition is loaded, please release it first")
                return replace(c, partitions=tuple(p for p in c.partitions if p != gone))
            case roles.Load():
                if any(f.id not in c.index_by_field for f in c.schema.vectors):
                    raise IndexNotFound(f"index not found[collection={c.name}]")
                ids = [c.partition_by_name[n].id for n in change.partitions] or [p.id for p in c.partitions]
                return replace(c, loaded=tuple(dict.fromkeys((*c.loaded, *ids))), load_all=not change.partitions)
            case roles.Release():
                gone_ids = {c.partition_by_name[n].id for n in change.partitions} or set(c.loaded)
                return replace(c, loaded=tuple(i for i in c.loaded if i not in gone_ids), load_all=False)
            case roles.CreateIndex():
                field = c.schema.by_name[change.field]
                made = declare(field.type, field.dim, change.type, change.metric, dict(change.params))
                name = change.name or change.field
                index = Index(IndexId(self._id()), name, field.id, made.type, made.metric, change.params)
                return replace(c, indexes=(*c.indexes, index))
            case roles.DropIndex():
                if c.loaded:
                    raise Refused("index cannot be dropped, collection is loaded, please release it first")
                return replace(c, indexes=tuple(i for i in c.indexes if i.name != change.name))
            case _:
                raise AssertionError(change)

    async def defined(self) -> Revision:
        return await defined(self.meta)

    async def lease_ids(self, count: int) -> range:
        start = 449_000_000 + sum(map(len, self.leases))
        self.leases.append(range(start, start + count))
        return self.leases[-1]

    async def load_progress(self, collection: CollectionId, partitions: Sequence[PartitionId]) -> int:
        return self.progress

    async def flush(self, collection: CollectionId, timestamp: int) -> dict[ShardId, list[Any]]:
        self.asked.append(("flush", collection))
        self.flushes.add(timestamp)
        return {ShardId(collection, 0): [77]}

    async def flushed(self, collection: CollectionId, timestamp: int) -> bool:
        return timestamp in self.flushes

    async def compact(self, collection: CollectionId) -> int:
        return 5

    async def compaction_state(self, id: int) -> roles.CompactionState:
        return roles.CompactionState(0, 1, 0)

    async def index_progress(self, collection: CollectionId) -> list[roles.IndexProgress]:
        item = self.meta.items[keys.collection(collection)]
        return [roles.IndexProgress(i, 7, 7) for i in keys.decode(Collection, item.value).indexes]

    async def stats(self, collection: CollectionId) -> roles.CollectionStats:
        return roles.CollectionStats(self.sealed)

    async def report_bad_index(self, shard: ShardId, segment: Any, object_name: str) -> None:
        self.asked.append(("bad index", object_name))


class FakeQueryNode:
    """``QueryNode`` that replays the log for every read and scans all rows. ``fail`` is raised by the next read."""

    def __init__(self, catalog: Catalog, log: FakeLog) -> None:
        self.catalog, self.log = catalog, log
        self.requests: list[reads.Read] = []
        self.fail: Exception | None = None

    def _rows(self, request: reads.Read) -> tuple[Collection, pa.Table]:
        """The collection and its visible, matching rows in key order."""
        self.requests.append(request)
        if self.fail:
            fail, self.fail = self.fail, None
            raise fail
        collection = self.catalog.get(request.collection)
        if collection is None or not collection.loaded:
            raise CollectionNotLoaded(request.collection)
        table = pa.Table.from_batches(self._live(collection, request), collection.schema.arrow).combine_chunks()
        table = table.sort_by(collection.schema.primary.name)
        if request.filter:
            chosen = compile_filter(request.filter, collection.schema, request.filter_params)
            table = table.filter(pa.array(chosen.mask(lambda n: _whole(table, n), table.num_rows)))
        return collection, table.combine_chunks()

    def _live(self, collection: Collection, request: reads.Read) -> list[pa.RecordBatch]:
        live: dict[Any, tuple[PartitionId, pa.RecordBatch]] = {}
        cut = False
        for _, record in self.log.of(collection):
            if record.shard.number != request.shard:
                continue
            if record.kind == BARRIER:
                cut = record.timestamp == request.snapshot_ts
                if cut:
                    break
            elif record.kind == DELETE:
                assert record.batch is not None
                for key in record.batch.column("pk").to_pylist():
                    live.pop(key, None)
            else:
                assert record.batch is not None
                for n, key in enumerate(record.batch.column(collection.schema.primary.name).to_pylist()):
                    live[key] = (record.partition, record.batch.slice(n, 1))
        if request.snapshot_ts and not cut:
            raise SnapshotExpired(f"no view at {request.snapshot_ts}")
        return [row for partition, row in live.values() if partition in request.partitions]

    async def query(self, request: reads.QueryRequest) -> reads.QueryReply:
        collection, table = self._rows(request)
        count = table.num_rows
        table = table.slice(0, 0 if request.count_only else request.limit)
        return reads.QueryReply(count, _answer(collection, table, request.output))

    def prepare(self, request: reads.SearchRequest) -> reads.PreparedSearch | None:
        return None

    async def search(self, request: reads.SearchRequest) -> reads.SearchReply:
        collection, table = self._rows(request)
        field = collection.schema.by_id[request.field_id]
        column = _whole(table, field.name)
        counts, scores, rows = [], [], []
        for query in request.queries:
            with np.errstate(over="ignore", invalid="ignore"):
                score = _scores(field.type, column, query, request.metric)
            larger = request.metric in ("IP", "COSINE")
            order = np.argsort(-score if larger else score, kind="stable")
            order = order[_within(score[order], request, larger)]
            if request.group_by:
                order = _grouped(order, _whole(table, request.group_by).to_pylist(), request.group_size)
            order = order[: request.k]
            counts.append(len(order))
            scores.append(score[order])
            rows.append(order)
        picked = table.take(pa.array(np.concatenate(rows), pa.int64()))
        groups = _whole(picked, request.group_by) if request.group_by else None
        answer = _answer(collection, picked, request.output)
        return reads.SearchReply(np.array(counts), np.concatenate(scores).astype(np.float32), answer, groups)

    async def shards(self) -> list[reads.ShardStatus]:
        return []


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _answer(collection: Collection, table: pa.Table, output: Sequence[str]) -> reads.Rows:
    return reads.Rows(_whole(table, collection.schema.primary.name), {n: _whole(table, n) for n in output})


def _scores(kind: DataType, column: pa.Array, query: np.ndarray, metric: str) -> np.ndarray:
    if kind is DataType.BINARY_VECTOR:
        stored = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(column), len(query))
        if metric == "HAMMING":
            return np.bitwise_count(stored ^ query).sum(axis=1).astype(np.float32)
        both, either = np.bitwise_count(stored & query).sum(axis=1), np.bitwise_count(stored | query).sum(axis=1)
        return (1 - both / np.maximum(either, 1)).astype(np.float32)
    stored = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), len(query))
    if metric == "L2":
        return ((stored - query) ** 2).sum(axis=1)
    dots = stored @ query
    if metric == "IP":
        return dots
    return dots / np.maximum(np.linalg.norm(stored, axis=1) * np.linalg.norm(query), 1e-30)


def _within(score: np.ndarray, request: reads.SearchRequest, larger: bool) -> np.ndarray:
    keep = np.ones(len(score), bool)
    if request.range_filter is not None:
        keep &= score <= request.range_filter if larger else score >= request.range_filter
    if request.radius is not None:
        keep &= score > request.radius if larger else score < request.radius
    return keep


def _grouped(order: np.ndarray, values: list[Any], size: int) -> np.ndarray:
    seen: dict[Any, int] = {}
    kept = []
    for row in order:
        seen[values[row]] = seen.get(values[row], 0) + 1
        if seen[values[row]] <= size:
            kept.append(row)
    return np.array(kept, np.int64)


class FakeNodes:
    """``Nodes`` with one query node."""

    def __init__(self, query_node: FakeQueryNode) -> None:
        self._query_node = query_node

    def query_node(self, id: NodeId) -> roles.QueryNode:
        if id != NODE:
            raise Unavailable(f"query node {id} is not known")
        return self._query_node

    def data_node(self, id: NodeId) -> roles.DataNode:
        raise Unavailable(f"data node {id} is not known")

    def index_nodes(self) -> Sequence[roles.IndexNode]:
        return ()
