"""The stored formats: dataclass and protobuf hold the same fields, and old bytes still mean the same.

The golden files are what version 1 of each format wrote. A change that breaks one breaks stores
that exist: give the format a new version and a reader for the old one instead.
"""

import json
import typing
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.descriptor import FieldDescriptor

from core.catalog import (
    Adoption,
    ChannelCheckpoint,
    ChannelOwner,
    Cluster,
    Collection,
    Consistency,
    Garbage,
    Index,
    Partition,
    Placement,
    Replica,
    Shard,
)
from core.ids import (
    Channel,
    CollectionId,
    FieldId,
    IndexId,
    NodeId,
    PartitionId,
    Position,
    SegmentId,
    ShardId,
)
from core.manifest import FieldStats, IndexFile, Manifest, ObjectRef, Segment, TombstoneFile
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from storage import keys, record
from storage.segment_file import POSITION, TS, SegmentFile, read_tombstones, write_segment, write_tombstones

GOLDEN = Path(__file__).parents[1] / "golden"

SCHEMA = Schema(
    (
        Field(FieldId(100), "pk", DataType.INT64, primary=True, auto_id=True, description="key"),
        Field(FieldId(101), "vector", DataType.FLOAT_VECTOR, dim=4, params=(("mmap.enabled", "true"),)),
        Field(FieldId(102), "tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=8, max_length=16),
        Field(FieldId(103), "tenant", DataType.VARCHAR, max_length=32, partition_key=True),
        Field(FieldId(104), "age", DataType.INT32, nullable=True, default="7"),
        Field(FieldId(105), DYNAMIC, DataType.JSON, dynamic=True, nullable=True),
    ),
    description="one of each",
    version=3,
)
OBJECT = ObjectRef("default/c-7/shard=1/segment-9.parquet", 1234, 2**64 - 2)
VALUES: dict[str, Any] = {
    "collection": Collection(
        id=CollectionId(7),
        database="default",
        name="c",
        schema=SCHEMA,
        shards=(Shard(0, Channel(3)), Shard(1, Channel(0))),
        partitions=(Partition(PartitionId(8), "_default", 2**60),),
        indexes=(Index(IndexId(9), "vector", FieldId(101), "HNSW", "COSINE", (("M", "16"),), 2**60 + 1),),
        consistency=Consistency.STRONG,
        properties=(("collection.ttl.seconds", "60"),),
        loaded=(PartitionId(8),),
        load_all=True,
        replicas=1,
        created_ts=2**60,
        updated_ts=2**60 + 5,
        dropped=True,
    ),
    "placement": Placement(
        CollectionId(7),
        (
            Replica((NodeId("a"), NodeId("b")), (NodeId("a"), NodeId("b")), (NodeId("b"), NodeId("b"))),
            Replica((NodeId("c"),), (NodeId("c"), NodeId("c")), (NodeId("c"), NodeId("c"))),
        ),
    ),
    "owner": ChannelOwner(NodeId("a")),
    "checkpoint": ChannelCheckpoint(41),
    "garbage": Garbage(("x", "y"), 1_700_000_000_000),
    "cluster": Cluster("c-1", 1),
    "adoption": Adoption(Cluster("c-2", 1), "c-1", 41),
    "manifest": Manifest(
        CollectionId(7),
        1,
        version=4,
        checkpoint=Position(100),
        segments=(
            Segment(
                SegmentId(9),
                PartitionId(8),
                OBJECT,
                rows=5,
                min_position=Position(1),
                max_position=Position(99),
                stats=(FieldStats(FieldId(100), "-3", "12", 0), FieldStats(FieldId(103), '"a"', '"b"', 1)),
                indexes=(IndexFile(FieldId(101), IndexId(9), ObjectRef("i", 1, 2), "faiss 1.12"),),
                schema_version=3,
            ),
        ),
        tombstones=(TombstoneFile(ObjectRef("t", 3, 4), 2, Position(5), Position(6)),),
        flushed_ts=2**60 + 9,
    ),
}
BATCH = pa.record_batch({"pk": pa.array([1, 2, 3])})
RECORD = record.Record(record.DELETE, ShardId(CollectionId(7), 1), PartitionId(0), 3, 2**60, BATCH)


@pytest.mark.parametrize("cls", keys.MESSAGES)
def test_message_and_dataclass_have_the_same_shape(cls: type) -> None:
    same_shape(cls, keys.MESSAGES[cls].DESCRIPTOR)


def same_shape(cls: Any, descriptor: Any) -> None:
    hints = typing.get_type_hints(cls)
    assert [f.name for f in fields(cls)] == [f.name for f in descriptor.fields], cls.__name__
    for f in descriptor.fields:
        where, hint = f"{cls.__name__}.{f.name}", hints[f.name]
        repeated = typing.get_origin(hint) is tuple
        assert f.is_repeated == repeated, where
        if repeated:
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is tuple:
            assert f.message_type.name == "KeyValue", where
        elif is_dataclass(hint):
            assert f.message_type.name == typing.cast(type, hint).__name__, where
            same_shape(hint, f.message_type)
        else:
            assert f.message_type is None, where
            assert plain(hint) is KINDS[f.cpp_type], where


KINDS = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_STRING: str,
}


def plain(hint: Any) -> type:
    """The built-in type behind a NewType or an integer enum."""
    hint = getattr(hint, "__supertype__", hint)
    return int if issubclass(hint, Enum) else hint


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_as_they_were(name: str) -> None:
    value = VALUES[name]
    assert keys.decode(type(value), keys.encode(value)) == value


@pytest.mark.parametrize("cls", keys.MESSAGES)
def test_empty_bytes_are_the_value_of_defaults(cls: type) -> None:
    decoded = keys.decode(cls, b"")
    assert keys.decode(cls, keys.encode(decoded)) == decoded


@pytest.mark.parametrize("name", VALUES)
def test_golden_metadata_values(name: str) -> None:
    data = golden(f"{name}.bin", lambda: keys.encode(VALUES[name]))
    assert keys.decode(type(VALUES[name]), data) == VALUES[name]
    assert keys.encode(VALUES[name]) == data, "what is written today is what was written then"


def test_a_placement_of_version_1_is_one_replica() -> None:
    old = (GOLDEN / "placement-1.bin").read_bytes()
    nodes = (NodeId("a"), NodeId("b"))
    assert keys.decode(Placement, old) == Placement(CollectionId(7), (Replica(nodes, nodes, nodes),))


def test_golden_record() -> None:
    decoded = record.decode(golden("record.bin", lambda: record.encode(RECORD)))
    assert decoded.batch is not None
    assert decoded.batch.equals(BATCH)
    assert (decoded.kind, decoded.shard, decoded.partition) == (RECORD.kind, RECORD.shard, RECORD.partition)
    assert (decoded.schema_version, decoded.timestamp) == (RECORD.schema_version, RECORD.timestamp)


ROWS = {
    "pk": [1, 2],
    "vector": [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]],
    "tags": [["a"], []],
    "tenant": ["x", "y"],
    "age": [None, 9],
    DYNAMIC: ['{"k":1}', None],
    POSITION: [10, 11],
    TS: [2**60, 2**60 + 1],
}


def test_golden_segment(tmp_path: Path) -> None:
    def make() -> bytes:
        columns = {f.name: pa.array(ROWS[f.name], f.arrow_type) for f in SCHEMA.fields}
        table = pa.table(columns, schema=SCHEMA.arrow)
        table = table.append_column(POSITION, pa.array(ROWS[POSITION])).append_column(TS, pa.array(ROWS[TS]))
        write_segment(tmp_path / "made", table, SCHEMA)
        return (tmp_path / "made").read_bytes()

    golden("segment.parquet", make)
    file = SegmentFile(GOLDEN / "segment.parquet", None, SCHEMA)
    assert {name: file.column(name).to_pylist() for name in ROWS} == ROWS
    assert file.bloom().may_contain(np.array([], np.uint64)).shape == (0,)
    file.close()


def test_golden_tombstones(tmp_path: Path) -> None:
    def make() -> bytes:
        write_tombstones(tmp_path / "made", pa.array(["a", "b"]), np.array([3, 4]))
        return (tmp_path / "made").read_bytes()

    golden("tombstones.parquet", make)
    pks, positions = read_tombstones(GOLDEN / "tombstones.parquet")
    assert (pks.to_pylist(), positions.tolist()) == (["a", "b"], [3, 4])


def test_the_schema_in_a_segment_is_the_whole_schema() -> None:
    footer = json.loads(pq.read_metadata(GOLDEN / "segment.parquet").metadata[b"sheafdb"])
    assert footer == {"format": 1, "schema": json.loads(json.dumps(asdict(SCHEMA)))}


def golden(name: str, make: typing.Callable[[], bytes]) -> bytes:
    """The stored bytes. Made only where there are none yet; commit what appears."""
    path = GOLDEN / name
    if not path.exists():
        path.write_bytes(make())
        pytest.fail(f"{path.name} was missing and has been made: look at it and commit it")
    return path.read_bytes()
