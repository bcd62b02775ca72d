"""Coordinator, data node and a fake index node over a real embedded store, without proxy and readers.

``Rig.state`` reads what a query node would serve: the manifests' files and the log from the
checkpoint on, put together by the plain rules of the design and nothing else.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from coordinator.service import CoordinatorService
from core.catalog import ChannelCheckpoint, Collection
from core.clock import HybridClock
from core.errors import LogTruncated, ObjectNotFound, Unavailable
from core.hashing import shard_of
from core.ids import Channel, FieldId, NodeId, Position, ShardId
from core.manifest import IndexFile, Manifest, ObjectRef
from core.schema import Field, Schema
from core.settings import CoordinatorSettings, DataNodeSettings, IndexNodeSettings, LogSettings
from core.types import DataType
from datanode.service import DataNodeService
from rpc.roles import CatalogChange, CreateCollection, IndexTask
from storage import keys, record
from storage.embedded import Store, open_store
from storage.membership import Membership
from storage.segment_file import SegmentFile, digest, read_tombstones

NODE = NodeId("rig")
SCHEMA = Schema(
    (
        Field(FieldId(0), "pk", DataType.INT64, primary=True),
        Field(FieldId(0), "n", DataType.INT64),
        Field(FieldId(0), "vector", DataType.FLOAT_VECTOR, dim=4),
    )
)
STRING_SCHEMA = replace(
    SCHEMA, fields=(Field(FieldId(0), "pk", DataType.VARCHAR, primary=True, max_length=64), *SCHEMA.fields[1:])
)
COORDINATOR = CoordinatorSettings(garbage_grace_s=0, garbage_interval_s=0.05, index_retry_s=0.05, orphan_grace_s=0)
DATA_NODE = DataNodeSettings(
    segment_bytes=8_000,
    seal_age_s=30.0,
    compact_bytes=1 << 20,
    compact_segments=3,
    compact_interval_s=0.05,
    trim_interval_s=0.05,
)
QUIET = replace(DATA_NODE, segment_bytes=1 << 30, compact_interval_s=3600.0, trim_interval_s=3600.0)
"""Seals when flushed, and nothing else by itself."""


class FakeIndexNode:
    """Writes a few bytes for an index. ``broken``: every build fails."""

    def __init__(self, store: Store) -> None:
        self.objects = store.objects
        self.broken = False
        self.tasks: list[IndexTask] = []

    async def build(self, task: IndexTask) -> IndexFile:
        self.tasks.append(task)
        if self.broken:
            raise Unavailable("the index node is broken")
        data = f"index {task.target}".encode()
        await self.objects.put(task.target, data)
        return IndexFile(task.field_id, task.index_id, ObjectRef(task.target, len(data), digest(data)), "fake 1")


@dataclass
class FakeNodes:
    data: Any = None
    index: list[Any] = field(default_factory=list)
    query: dict[NodeId, Any] = field(default_factory=dict)

    def query_node(self, id: NodeId) -> Any:
        if id not in self.query:
            raise Unavailable(f"no query node {id}")
        return self.query[id]

    def data_node(self, id: NodeId) -> Any:
        if self.data is None or id != NODE:
            raise Unavailable(f"no data node {id}")
        return self.data

    def index_nodes(self) -> Sequence[Any]:
        return self.index


class Rig:
    """One cluster in a folder; ``restart`` ends it and starts it again on the same folder."""

    def __init__(self, folder: Path, data_node: DataNodeSettings, coordinator: CoordinatorSettings) -> None:
        self.folder, self.settings, self.coordinator_settings = folder, data_node, coordinator
        self.log_settings = LogSettings(channels=2, record_bytes_max=1 << 20)
        self.clock = HybridClock()
        self.nodes = FakeNodes()

    @classmethod
    async def open(
        cls,
        folder: Path,
        data_node: DataNodeSettings = DATA_NODE,
        coordinator: CoordinatorSettings = COORDINATOR,
    ) -> "Rig":
        rig = cls(folder, data_node, coordinator)
        await rig.start()
        return rig

    async def start(self) -> None:
        self.store = await open_store(self.folder, self.log_settings)
        meta, log, objects = self.store.meta, self.store.log, self.store.objects
        self.index_node = FakeIndexNode(self.store)
        self.nodes.index = [self.index_node]
        self.coordinator = CoordinatorService(
            self.coordinator_settings, IndexNodeSettings(rows_min=1), NODE, meta, log, objects, self.nodes, self.clock
        )
        scratch = self.folder / "scratch"
        grace_s = self.coordinator_settings.garbage_grace_s
        self.data_node = DataNodeService(self.settings, grace_s, NODE, meta, log, objects, self.coordinator, scratch)
        self.nodes.data = self.data_node
        self.member = Membership(meta, "datanode", NODE, "local", 5.0)
        await self.coordinator.start()
        await self.data_node.start()
        await self.member.start()

    async def close(self) -> None:
        await self.member.close()
        await self.data_node.close()
        await self.coordinator.close()
        await self.store.close()

    async def restart(self) -> None:
        await self.close()
        await self.start()

    async def objects(self) -> set[str]:
        """Names of all objects that are stored."""
        return {o.name async for o in self.store.objects.list("")}

    # --- what clients do ---------------------------------------------------------------------
    async def change(self, change: CatalogChange) -> None:
        await self.coordinator.change(change)

    async def create(self, name: str = "c", shards: int = 1, schema: Schema = SCHEMA) -> Collection:
        await self.change(CreateCollection("default", name, schema, shards))
        return await self.collection(name)

    async def collection(self, name: str = "c") -> Collection:
        item = await self.store.meta.get(keys.name("default", name))
        assert item is not None
        value = await self.store.meta.get(f"{keys.COLLECTIONS}{item.value.decode()}")
        assert value is not None
        return keys.decode(Collection, value.value)

    async def write(
        self,
        collection: Collection,
        rows: dict[Any, int],
        *,
        partition: str = "_default",
        kind: Any = record.UPSERT,
    ) -> list[Position]:
        """Appends rows (key -> n), one record per shard."""
        schema = collection.schema
        pks = pa.array(list(rows), schema.primary.arrow_type)
        columns = [pks, pa.array(list(rows.values()), pa.int64())]
        vectors = [[float(n), 1.0, 2.0, 3.0] for n in rows.values()]
        columns.append(pa.array(vectors, schema.fields[2].arrow_type))
        batch = pa.RecordBatch.from_arrays(columns, schema=schema.arrow)
        return await self._append(collection, kind, collection.partition_by_name[partition].id, batch, pks)

    async def delete(self, collection: Collection, gone: Sequence[Any]) -> list[Position]:
        pks = pa.array(list(gone), collection.schema.primary.arrow_type)
        return await self._append(collection, record.DELETE, 0, pa.record_batch({"pk": pks}), pks)

    async def _append(
        self, collection: Collection, kind: Any, partition: int, batch: pa.RecordBatch, pks: pa.Array
    ) -> list[Position]:
        numbers = shard_of(pks, len(collection.shards))
        entries = []
        for shard in collection.shards:
            part = batch.filter(pa.array(numbers == shard.number))
            if part.num_rows:
                id = ShardId(collection.id, shard.number)
                value = record.Record(kind, id, partition, 1, self.clock.now(), part)
                entries.append((shard.channel, record.encode(value)))
        return await self.store.log.append(entries)

    async def flush(self, collection: Collection) -> None:
        await self.coordinator.flush(collection.id, self.clock.now())

    # --- what readers see ----------------------------------------------------------------------
    async def manifests(self, collection: Collection) -> list[Manifest]:
        items = [await self.store.meta.get(keys.manifest(s)) for s in collection.shard_ids]
        return [keys.decode(Manifest, i.value) for i in items if i is not None]

    async def state(self, collection: Collection) -> dict[Any, int]:
        """key -> n of all living rows, read from files and log. A key that lives twice is an error."""
        found: dict[Any, int] = {}
        for shard in collection.shards:
            rows = await self._patient_state(collection, ShardId(collection.id, shard.number), shard.channel)
            assert not rows.keys() & found.keys()
            found |= rows
        return found

    async def _patient_state(self, collection: Collection, shard: ShardId, channel: Channel) -> dict[Any, int]:
        while True:
            # A reader that is overtaken by trimming or collection starts again from the manifest.
            with suppress(LogTruncated, ObjectNotFound):
                return await self._shard_state(collection, shard, channel)

    async def _shard_state(self, collection: Collection, shard: ShardId, channel: Channel) -> dict[Any, int]:
        # In this order: what is sealed between the two reads is in the manifest then.
        item = await self.store.meta.get(keys.checkpoint(channel))
        floor = keys.decode(ChannelCheckpoint, item.value).position if item else Position(0)
        start = await self.store.log.start(channel)
        (end,) = await self.store.log.end([channel])
        kept = await self._log(channel, max(floor, start), end)
        manifest_item = await self.store.meta.get(keys.manifest(shard))
        if manifest_item is None:
            return {}
        manifest = keys.decode(Manifest, manifest_item.value)
        partitions = (await self.collection(collection.name)).partition_ids
        kills: dict[Any, int] = {}
        for tombstones in manifest.tombstones:
            path = await self.store.objects.fetch(tombstones.object.name)
            pks, positions = read_tombstones(path, tombstones.object)
            for pk, position in zip(pks.to_pylist(), positions.tolist(), strict=True):
                kills[pk] = max(position, kills.get(pk, -1))
        rows: dict[Any, tuple[int, int]] = {}
        for segment in manifest.segments:
            if segment.partition not in partitions:
                continue
            path = await self.store.objects.fetch(segment.object.name)
            file = SegmentFile(path, segment.object)
            columns = (file.column("pk").to_pylist(), file.column("n").to_pylist(), file.positions().tolist())
            file.close()
            assert columns[0] == sorted(set(columns[0])), "keys are sorted and unique"
            for pk, n, position in zip(*columns, strict=True):
                assert segment.min_position <= position <= segment.max_position < manifest.checkpoint
                if kills.get(pk, -1) <= position:
                    assert pk not in rows, f"key {pk} lives twice"
                    rows[pk] = (position, n)
        state = {pk: n for pk, (_, n) in rows.items()}
        for position, entry in kept:
            if entry.shard == shard and position >= manifest.checkpoint:
                apply(state, entry, partitions)
        return state

    async def _log(self, channel: Channel, start: Position, end: Position) -> list[tuple[int, record.Record]]:
        found: list[tuple[int, record.Record]] = []
        if start >= end:
            return found
        reader = self.store.log.read(channel, start)
        async for batch in reader:
            found += [(r.position, record.decode(r.payload)) for r in batch if r.position < end]
            if batch[-1].position >= end - 1:
                break
        await reader.aclose()
        return found


def apply(state: dict[Any, int], entry: record.Record, partitions: frozenset[Any]) -> None:
    """The plain meaning of a record."""
    if entry.batch is None:
        return
    pks = entry.batch.column("pk").to_pylist()
    for pk in pks:
        state.pop(pk, None)
    if entry.kind != record.DELETE and entry.partition in partitions:
        state |= zip(pks, entry.batch.column("n").to_pylist(), strict=True)
