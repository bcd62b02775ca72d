"""Columns through the wire and back; keys and records of a write."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalog import Collection, Partition, Shard
from core.errors import InvalidArgument, TooLarge
from core.hashing import shard_of
from core.ids import Channel, CollectionId, FieldId, PartitionId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from proxy import json_text
from proxy.log_entries import Writer, newest_of_each_key
from proxy.rows_in import read_rows
from proxy.rows_out import write_column
from rpc.pb import record_pb2
from storage.record import UPSERT, Record, decode, encode

F32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TYPES: dict[DataType, st.SearchStrategy[Any]] = {
    DataType.BOOL: st.booleans(),
    DataType.INT8: st.integers(-128, 127),
    DataType.INT16: st.integers(-(2**15), 2**15 - 1),
    DataType.INT32: st.integers(-(2**31), 2**31 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.FLOAT: F32,
    DataType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    DataType.VARCHAR: st.text(max_size=10),
}


def field(kind: DataType, **options: Any) -> Field:
    return Field(FieldId(100), "f", kind, **({"max_length": 40, "max_capacity": 3} | options))


def one_column(f: Field) -> Schema:
    return Schema((f,))


@pytest.mark.parametrize("kind", TYPES)
@given(st.data())
def test_scalars_survive_the_wire(kind: DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | TYPES[kind], max_size=6))
    f = field(kind, nullable=True)
    column = pa.array(values, f.arrow_type)
    back = read_rows([write_column(f, column)], len(values), one_column(f)).column(0)
    assert back.equals(column)
    plain = column.drop_null()
    f = field(kind)
    assert read_rows([write_column(f, plain)], len(plain), one_column(f)).column(0).equals(plain)


@pytest.mark.parametrize("kind", TYPES)
@given(st.data())
def test_arrays_survive_the_wire(kind: DataType, data: st.DataObject) -> None:
    f = field(DataType.ARRAY, element_type=kind, nullable=True)
    column = pa.array(data.draw(st.lists(st.none() | st.lists(TYPES[kind], max_size=3), max_size=5)), f.arrow_type)
    assert read_rows([write_column(f, column)], len(column), one_column(f)).column(0).equals(column)


@given(st.lists(st.lists(F32, min_size=3, max_size=3), max_size=5), st.integers(0, 3))
def test_float_vectors_survive_the_wire(rows: list[list[float]], skip: int) -> None:
    f = field(DataType.FLOAT_VECTOR, dim=3)
    column = pa.array(rows, f.arrow_type).slice(skip)
    assert read_rows([write_column(f, column)], len(column), one_column(f)).column(0).equals(column)


@given(st.lists(st.binary(min_size=2, max_size=2), max_size=5), st.integers(0, 3))
def test_binary_vectors_survive_the_wire(rows: list[bytes], skip: int) -> None:
    f = field(DataType.BINARY_VECTOR, dim=16)
    column = pa.array(rows, f.arrow_type).slice(skip)
    assert read_rows([write_column(f, column)], len(column), one_column(f)).column(0).equals(column)


@given(st.lists(JSON, max_size=5))
def test_json_is_compact_and_means_the_same(values: list[Any]) -> None:
    spaced = [json.dumps(v, indent=2).encode() for v in values]
    out = json_text.compact("f", spaced)
    assert [json.loads(t) for t in out] == values
    assert out == json_text.compact("f", out)


def test_absent_columns() -> None:
    schema = Schema(
        (
            field(DataType.INT64),
            Field(FieldId(101), "n", DataType.INT8, nullable=True),
            Field(FieldId(102), "d", DataType.VARCHAR, default='"x"', max_length=3),
            Field(FieldId(103), DYNAMIC, DataType.JSON, dynamic=True),
        )
    )
    column = write_column(schema.fields[0], pa.array([1, 2]))
    batch = read_rows([column], 2, schema)
    assert batch.schema == schema.arrow
    assert batch.to_pylist() == [{"f": i, "n": None, "d": "x", "$meta": "{}"} for i in (1, 2)]


# --- records --------------------------------------------------------------------------------------
def collection(shards: int = 1, key: DataType = DataType.INT64) -> Collection:
    fields = (
        Field(FieldId(100), "id", key, primary=True, max_length=10),
        Field(FieldId(101), "s", DataType.VARCHAR, max_length=65_535),
    )
    return Collection(
        CollectionId(7),
        "default",
        "c",
        Schema(fields),
        tuple(Shard(n, Channel(n + 10)) for n in range(shards)),
        (Partition(PartitionId(5), "_default", 0),),
    )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.booleans())
def test_the_last_row_of_a_key_is_kept(keys: list[int], text: bool) -> None:
    column = pa.array(keys).cast(pa.string()) if text else pa.array(keys)
    batch = pa.record_batch({"k": column, "n": pa.array(range(len(keys)))})
    kept = newest_of_each_key(batch, "k").column("n").to_pylist()
    assert kept == sorted(max(i for i, k in enumerate(keys) if k == key) for key in set(keys))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.integers(1, 4))
def test_records_hold_every_row_once_in_its_shard(sizes: list[int], shards: int) -> None:
    c = collection(shards)
    batch = pa.record_batch([pa.array(range(len(sizes))), pa.array(["x" * n for n in sizes])], schema=c.schema.arrow)
    writer = Writer(c, 99, 6000)
    found: list[dict[str, Any]] = []
    for channel, payload in writer.rows(batch, UPSERT, PartitionId(5)):
        assert len(payload) <= writer.most
        record = decode(payload)
        assert (record.partition, record.timestamp, channel) == (5, 99, record.shard.number + 10)
        assert record.batch is not None
        assert set(shard_of(record.batch.column("id"), shards)) == {record.shard.number}
        found += record.batch.to_pylist()
    assert sorted(found, key=lambda r: r["id"]) == batch.to_pylist()
    deleted = [decode(p) for _, p in writer.deletes(batch.column("id"))]
    assert sorted(k for r in deleted for k in r.batch.column("pk").to_pylist()) == list(range(len(sizes)))


def test_a_row_too_large_for_the_log() -> None:
    c = collection()
    batch = pa.record_batch([pa.array([1, 2]), pa.array(["", "x" * 9000])], schema=c.schema.arrow)
    with pytest.raises(TooLarge, match="larger than the log takes"):
        Writer(c, 1, 6000).rows(batch, UPSERT, PartitionId(5))


def test_records_are_what_protobuf_writes() -> None:
    c = collection()
    batch = pa.record_batch([pa.array(range(300)), pa.array(["y" * 50] * 300)], schema=c.schema.arrow)
    payload = encode(Record(UPSERT, c.shard_ids[0], PartitionId(5), 1, 99, batch))
    message = record_pb2.Record.FromString(payload)
    assert message.SerializeToString() == payload
    assert (message.rows, message.kind) == (300, UPSERT)


def test_numbers_that_are_none() -> None:
    f = field(DataType.DOUBLE)
    column = write_column(f, pa.array([1.0, math.nan]))
    with pytest.raises(InvalidArgument, match=r"'nan' is not a number or infinity, field \(f\), row 1"):
        read_rows([column], 2, one_column(f))
    vector = field(DataType.FLOAT_VECTOR, dim=2)
    column = write_column(vector, pa.array([[0.0, 1.0], [np.inf, 0.0]], vector.arrow_type))
    with pytest.raises(InvalidArgument, match="row 1"):
        read_rows([column], 2, one_column(vector))
