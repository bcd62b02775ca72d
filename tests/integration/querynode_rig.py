"""A query node over a real embedded store, with the other roles played by the test."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from core.catalog import ChannelCheckpoint, Collection, Consistency, Index, Partition, Shard
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, SegmentId, ShardId
from core.manifest import IndexFile, Manifest, ObjectRef, Segment, TombstoneFile
from core.schema import Field, Schema
from core.settings import LogSettings, QueryNodeSettings
from core.types import DataType
from engine.vector.build import build
from querynode import keys as pk
from querynode.service import QueryNodeService
from rpc.gathering import split
from rpc.reads import QueryReply, QueryRequest, SearchReply, SearchRequest, ShardPhase
from storage import keys, names
from storage.embedded import Store, open_store
from storage.meta.port import Put
from storage.record import BARRIER, DELETE, UPSERT, Record, encode
from storage.segment_file import SegmentFile, read_tombstones
from storage.segment_writer import digest, write_segment, write_tombstones
from tests.fakes import led_by

DIM = 8
VECTOR = FieldId(102)
NODE = NodeId("querynode-1")
PARTITIONS = (PartitionId(11), PartitionId(12))


def schema(key: DataType = DataType.INT64) -> Schema:
    return Schema(
        (
            Field(FieldId(100), "id", key, primary=True, max_length=64),
            Field(FieldId(101), "n", DataType.INT64),
            Field(VECTOR, "v", DataType.FLOAT_VECTOR, dim=DIM),
        )
    )


def collection(key: DataType = DataType.INT64, metric: str = "L2", index: str = "AUTOINDEX") -> Collection:
    return Collection(
        CollectionId(1),
        "default",
        "things",
        schema(key),
        (Shard(0, Channel(1)),),
        tuple(Partition(p, f"p{p}", 0) for p in PARTITIONS),
        (Index(IndexId(50), "v", VECTOR, index, metric),),
        loaded=PARTITIONS,
    )


def vector(n: int) -> np.ndarray:
    """float32 [DIM], its own for every number."""
    return np.random.default_rng(n).normal(size=DIM).astype(np.float32)


def batch(of: Collection, rows: Sequence[tuple[Any, int]]) -> pa.RecordBatch:
    """Rows (key, n); the vector is that of n."""
    vectors = np.concatenate([vector(n) for _, n in rows]) if rows else np.empty(0, np.float32)
    columns = [
        pa.array([k for k, _ in rows], of.schema.primary.arrow_type),
        pa.array([n for _, n in rows], pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), type=of.schema.by_name["v"].arrow_type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=of.schema.arrow)


@dataclass
class Rig:
    """One collection with one shard. What ``seal`` and ``compact`` do is a data node's work, done simply."""

    folder: Path
    store: Store
    collection: Collection
    settings: QueryNodeSettings
    manifest: Manifest
    log: list[tuple[Position, Record]] = field(default_factory=list)
    next_id: int = 1000
    timestamp: int = 0
    bad_indexes: list[str] = field(default_factory=list)
    node: QueryNodeService = field(init=False)

    @classmethod
    async def open(cls, folder: Path, of: Collection, settings: QueryNodeSettings | None = None) -> Self:
        store = await open_store(folder, LogSettings())
        rig = cls(folder, store, of, settings or QueryNodeSettings(), Manifest(of.id, 0))
        await rig.put(keys.collection(of.id), of)
        await rig.place()
        await rig.start()
        return rig

    async def place(self) -> None:
        """Names the nodes of the collection."""
        await self.put(keys.placement(self.collection.id), led_by(self.collection.id, (NODE,)))

    async def start(self) -> None:
        self.node = self.service(NODE)
        await self.node.start()

    def service(self, node: NodeId, **more: Any) -> QueryNodeService:
        async def report(_shard: ShardId, _segment: SegmentId, name: str) -> None:
            self.bad_indexes.append(name)

        store = self.store
        return QueryNodeService(
            self.settings, node, store.meta, store.log, store.objects, report_bad_index=report, **more
        )

    async def restart(self) -> None:
        await self.node.close()
        await self.start()

    async def close(self) -> None:
        await self.node.close()
        await self.store.close()

    # --- the proxy's part -----------------------------------------------------------------------
    @property
    def shard(self) -> ShardId:
        return ShardId(self.collection.id, 0)

    @property
    def channel(self) -> Channel:
        return self.collection.shards[0].channel

    async def append(self, *records: Record) -> None:
        positions = await self.store.log.append([(self.channel, encode(r)) for r in records])
        self.log += zip(positions, records, strict=True)

    def upserting(self, rows: Sequence[tuple[Any, int]], partition: PartitionId = PARTITIONS[0]) -> Record:
        return Record(UPSERT, self.shard, partition, 1, 0, batch(self.collection, rows))

    def deleting(self, wanted: Sequence[Any]) -> Record:
        column = pa.array(wanted, self.collection.schema.primary.arrow_type)
        return Record(DELETE, self.shard, PartitionId(0), 1, 0, pa.RecordBatch.from_arrays([column], names=["pk"]))

    async def upsert(self, rows: Sequence[tuple[Any, int]], partition: PartitionId = PARTITIONS[0]) -> None:
        await self.append(self.upserting(rows, partition))

    async def delete(self, wanted: Sequence[Any]) -> None:
        await self.append(self.deleting(wanted))

    async def barrier(self) -> int:
        self.timestamp += 1
        await self.append(Record(BARRIER, self.shard, PartitionId(0), 1, self.timestamp, None))
        return self.timestamp

    async def query(self, filter: str = "", **more: Any) -> QueryReply:
        asked: dict[str, Any] = {"consistency": Consistency.STRONG, "deadline": time.monotonic() + 10}
        asked |= {"partitions": PARTITIONS, "output": ("n", "v")} | more
        return await self.node.query(QueryRequest(self.collection.id, 0, filter=filter, **asked))

    async def search(self, queries: np.ndarray, k: int, **more: Any) -> SearchReply:
        asked: dict[str, Any] = {"consistency": Consistency.STRONG, "deadline": time.monotonic() + 10}
        asked |= {"partitions": PARTITIONS, "output": ("n",), "metric": self.collection.indexes[0].metric} | more
        queries = np.ascontiguousarray(queries, np.float32)
        request = SearchRequest(self.collection.id, 0, field_id=VECTOR, queries=queries, k=k, **asked)
        reply = await self.node.search(request)
        self.check_prepared(request, reply)
        return reply

    def check_prepared(self, request: SearchRequest, expected: SearchReply) -> bool:
        """What is answered at once is what is answered the long way; False if nothing is."""
        if request.snapshot_ts:
            return False
        prepared = self.node.prepare_spread(replace(request, consistency=Consistency.EVENTUALLY))
        if prepared is None or len(request.queries) > prepared.queries_max or not len(request.queries):
            return False
        requests = [request.queries, request.queries[:1], request.queries]
        sizes = [len(queries) for queries in requests]
        together = prepared.start(np.concatenate(requests), sizes)()
        if together is None:
            return False
        for reply in split(together, sizes)[::2]:
            assert np.array_equal(reply.counts, expected.counts)
            assert np.array_equal(reply.scores, expected.scores)
            assert reply.rows == expected.rows
        return True

    async def rows(self, filter: str = "", **more: Any) -> dict[Any, int]:
        """What a query answers, as {key: n}; checks order, uniqueness and vectors on the way."""
        reply = await self.query(filter, **more)
        found = reply.rows.pks.to_pylist()
        assert found == sorted(set(found)), "keys in order, each once"
        numbers = reply.rows.columns["n"].to_pylist()
        for n, v in zip(numbers, reply.rows.columns["v"].to_pylist(), strict=True):
            assert np.array_equal(np.array(v, np.float32), vector(n))
        return dict(zip(found, numbers, strict=True))

    # --- the data node's, index node's and coordinator's parts ------------------------------------
    async def put(self, key: str, value: object) -> None:
        await self.store.meta.commit([], [Put(key, keys.encode(value))])

    async def describe(self, **changes: Any) -> None:
        self.collection = replace(self.collection, **changes)
        await self.put(keys.collection(self.collection.id), self.collection)

    async def commit(self, **changes: Any) -> None:
        self.manifest = self.manifest.bump(**changes)
        await self.put(keys.manifest(self.shard), self.manifest)

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id

    async def _store(self, name: str, path: Path) -> ObjectRef:
        data = await asyncio.to_thread(path.read_bytes)
        await self.store.objects.put(name, data)
        return ObjectRef(name, len(data), digest(data))

    async def _segment(self, partition: PartitionId, table: pa.Table) -> Segment:
        table = table.sort_by("id")
        path = self.folder / "scratch.parquet"
        written = write_segment(path, table, self.collection.schema)
        id = SegmentId(self._id())
        ref = await self._store(names.segment(names.folder(self.collection), 0, id), path)
        span = (written.min_position, written.max_position)
        return Segment(id, partition, ref, written.rows, *span, written.stats)

    async def seal(self) -> None:
        """Moves the checkpoint to the end of the log."""
        (end,) = await self.store.log.end([self.channel])
        newest: dict[Any, tuple[Position, PartitionId, int]] = {}
        kills: dict[Any, Position] = {}
        for position, record in self.log:
            if position < self.manifest.checkpoint or record.batch is None:
                continue
            columns = record.batch.to_pydict()
            gone = columns["pk" if record.kind == DELETE else "id"]
            kills |= dict.fromkeys(gone, position)
            for key in gone:
                newest.pop(key, None)
            if record.kind != DELETE:
                newest |= {k: (position, record.partition, n) for k, n in zip(gone, columns["n"], strict=True)}
        segments = [
            await self._segment(partition, self._table(rows))
            for partition in PARTITIONS
            if (rows := [(k, n, p) for k, (p, at, n) in newest.items() if at == partition])
        ]
        tombstones = list(self.manifest.tombstones)
        if kills and self.manifest.segments:
            path = self.folder / "scratch.tombstones"
            column = pa.array(list(kills), self.collection.schema.primary.arrow_type)
            written = write_tombstones(path, column, np.array(list(kills.values()), np.int64))
            ref = await self._store(names.tombstones(names.folder(self.collection), 0, self._id()), path)
            tombstones.append(TombstoneFile(ref, written.rows, written.min_position, written.max_position))
        await self.commit(checkpoint=end, segments=(*self.manifest.segments, *segments), tombstones=tuple(tombstones))

    def _table(self, rows: Sequence[tuple[Any, int, Position]]) -> pa.Table:
        table = pa.Table.from_batches([batch(self.collection, [(k, n) for k, n, _ in rows])])
        positions = pa.array([p for *_, p in rows], pa.int64())
        return table.append_column("__position", positions).append_column("__ts", positions)

    async def compact(self) -> list[str]:
        """Merges the segments of each partition, without their dead rows; the objects it replaced."""
        kills: list[tuple[pk.Keys, np.ndarray]] = []
        for file in self.manifest.tombstones:
            column, positions = read_tombstones(await self.store.objects.fetch(file.object.name), file.object)
            kills.append((pk.keys_of(column), positions))
        merged: list[Segment] = []
        for partition in PARTITIONS:
            tables = [await self._alive(s, kills) for s in self.manifest.segments if s.partition == partition]
            if tables and (table := pa.concat_tables(tables)).num_rows:
                merged.append(await self._segment(partition, table))
        replaced = [o.name for o in self.manifest.objects()]
        await self.commit(segments=tuple(merged), tombstones=())
        return replaced

    async def _alive(self, segment: Segment, kills: list[tuple[pk.Keys, np.ndarray]]) -> pa.Table:
        file = SegmentFile(await self.store.objects.fetch(segment.object.name), segment.object)
        stored = {name: file.column(name) for name in (*self.collection.schema.by_name, "__position", "__ts")}
        file.close()
        positions = stored["__position"].to_numpy()
        alive = np.ones(len(positions), bool)
        for wanted, at in kills:
            rows, which = pk.find(pk.keys_of(stored["id"]), wanted)
            alive[rows[at[which] > positions[rows]]] = False
        return pa.table(stored).filter(pa.array(alive))

    async def index(self) -> None:
        """Builds the declared index over every segment that has none."""
        declared = self.collection.indexes[0]
        indexed: list[Segment] = []
        for segment in self.manifest.segments:
            if VECTOR in segment.index_by_field:
                indexed.append(segment)
                continue
            file = SegmentFile(await self.store.objects.fetch(segment.object.name), segment.object)
            path = self.folder / "scratch.index"
            vectors = file.vectors(self.collection.schema.by_id[VECTOR])
            engine = build(path, vectors, DataType.FLOAT_VECTOR, declared.type, declared.metric, {}, 1)
            file.close()
            ref = await self._store(names.index(segment.object.name, declared.id, self._id()), path)
            indexed.append(replace(segment, indexes=(IndexFile(VECTOR, declared.id, ref, engine),)))
        await self.commit(segments=tuple(indexed))

    async def trim(self) -> None:
        """As a data node trims: the channel's checkpoint first, then the log."""
        await self.put(keys.checkpoint(self.channel), ChannelCheckpoint(self.manifest.checkpoint))
        await self.store.log.trim(self.channel, self.manifest.checkpoint)

    # --- waiting ----------------------------------------------------------------------------------
    async def settled(self, node: QueryNodeService | None = None) -> None:
        """Returns once the node serves the newest manifest."""
        deadline = time.monotonic() + 10
        while True:
            states = {s.shard: s for s in await (node or self.node).shards()}
            state = states.get(self.shard)
            if state and state.phase is ShardPhase.READY and state.manifest_version >= self.manifest.version:
                return
            assert time.monotonic() < deadline, f"not at manifest {self.manifest.version}: {state}"
            await asyncio.sleep(0.002)

    async def seen(self) -> None:
        """Returns once the node's copy of the catalog is as new as the store's."""
        deadline = time.monotonic() + 10
        while True:
            served = self.node._placed.get(self.shard)
            if served and served.shard.collection == self.collection:
                return
            assert time.monotonic() < deadline, "the node did not see the catalog's change"
            await asyncio.sleep(0.002)
