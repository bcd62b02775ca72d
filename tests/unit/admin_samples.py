"""A small store for the tests of ``sheafdb admin``: one collection, two shards, one sealed segment."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from core.catalog import ChannelCheckpoint, Collection, Partition, Shard
from core.ids import Channel, CollectionId, FieldId, IndexId, PartitionId, Position, SegmentId, ShardId
from core.manifest import IndexFile, Manifest, ObjectRef, Segment, TombstoneFile
from core.schema import Field, Schema
from core.settings import LogSettings
from core.types import DataType
from sheafdb.admin.picture import Picture
from storage import keys
from storage.embedded import open_store
from storage.meta.port import Put
from storage.record import BARRIER, Record, encode
from storage.segment_file import digest
from storage.store import Store

LOG = LogSettings(channels=2)
SEALED = 3
"""Positions of channel 0 that are sealed and trimmed."""
END = 5
FOLDER = "default/docs-1/shard=0/"
BYTES = {
    f"{FOLDER}segment-7.parquet": b"a segment",
    f"{FOLDER}segment-7.index-8-9": b"its index",
    f"{FOLDER}tombstones-10.parquet": b"deletes",
}
SEGMENT, INDEX, TOMBSTONES = BYTES

COLLECTION = Collection(
    id=CollectionId(1),
    database="default",
    name="docs",
    schema=Schema((Field(FieldId(100), "id", DataType.INT64, primary=True),)),
    shards=(Shard(0, Channel(0)), Shard(1, Channel(1))),
    partitions=(Partition(PartitionId(2), "_default", 0),),
    loaded=(PartitionId(2),),
)


def _ref(name: str) -> ObjectRef:
    return ObjectRef(name, len(BYTES[name]), digest(BYTES[name]))


FIRST = Manifest(
    COLLECTION.id,
    0,
    version=4,
    checkpoint=Position(SEALED),
    segments=(
        Segment(
            SegmentId(7),
            PartitionId(2),
            _ref(SEGMENT),
            20,
            Position(0),
            Position(2),
            indexes=(IndexFile(FieldId(101), IndexId(8), _ref(INDEX), "faiss"),),
        ),
    ),
    tombstones=(TombstoneFile(_ref(TOMBSTONES), 6, Position(1), Position(2)),),
)
SECOND = Manifest(COLLECTION.id, 1)
PICTURE = Picture(
    collections={COLLECTION.id: COLLECTION},
    manifests={FIRST.shard_id: FIRST, SECOND.shard_id: SECOND},
    checkpoints={Channel(0): Position(SEALED)},
)


def with_manifest(manifest: Manifest) -> Picture:
    return replace(PICTURE, manifests={**PICTURE.manifests, manifest.shard_id: manifest})


async def make(folder: Path) -> None:
    """The same as a folder that a standalone server left."""
    store = await open_store(folder, LOG)
    await fill(store)
    await store.close()


async def fill(store: Store) -> None:
    for name, data in BYTES.items():
        await store.objects.put(name, data)
    shard = ShardId(COLLECTION.id, 0)
    batch = pa.record_batch({"id": pa.array([1], pa.int64())})
    record = encode(Record(BARRIER, shard, PartitionId(2), 1, 0, batch))
    await store.log.append([(Channel(0), record)] * END)
    checkpoint = ChannelCheckpoint(SEALED)
    values = {
        keys.collection(COLLECTION.id): COLLECTION,
        keys.name("default", "docs"): "1",
        keys.manifest(FIRST.shard_id): FIRST,
        keys.manifest(SECOND.shard_id): SECOND,
        keys.checkpoint(Channel(0)): checkpoint,
    }
    await store.meta.commit([], [Put(key, keys.encode(value)) for key, value in values.items()])
    await store.log.trim(Channel(0), Position(SEALED))
