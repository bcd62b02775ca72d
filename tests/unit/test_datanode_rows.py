"""What is left of records, against the plain meaning of each, one by one."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import CollectionId, FieldId, PartitionId, Position, ShardId
from core.schema import Field, Schema
from core.types import DataType
from datanode.rows import Kills, dead_rows, newest_kills, reduce
from datanode.state import Entry
from storage import record
from storage.segment_file import POSITION

SHARD = ShardId(CollectionId(1), 0)
KINDS: Any = st.sampled_from([record.UPSERT, record.DELETE])
KEYS = st.integers(0, 6)
WRITES = st.lists(st.tuples(KINDS, st.integers(1, 3), st.lists(KEYS, max_size=5)), min_size=1, max_size=8)


def schema(key_type: DataType) -> Schema:
    return Schema(
        (
            Field(FieldId(100), "id", key_type, primary=True, max_length=10),
            Field(FieldId(101), "n", DataType.INT64),
        )
    )


def entries(writes: list[tuple[Any, int, list[int]]], of: Schema) -> list[Entry]:
    made, n = [], 0
    for position, (kind, partition, keys) in enumerate(writes, start=100):
        pks = pa.array([str(k) if of.primary.type is DataType.VARCHAR else k for k in keys], of.primary.arrow_type)
        if kind == record.DELETE:
            batch = pa.record_batch({"pk": pks})
        else:
            values = pa.array(range(n, n + len(keys)), pa.int64())
            batch = pa.RecordBatch.from_arrays([pks, values], schema=of.arrow)
        n += len(keys)
        made.append(Entry(Position(position), record.Record(kind, SHARD, PartitionId(partition), 1, 5, batch)))
    return made


@pytest.mark.parametrize("key_type", [DataType.INT64, DataType.VARCHAR])
@given(writes=WRITES)
def test_the_last_record_about_a_key_decides(key_type: DataType, writes) -> None:
    of = schema(key_type)
    alive: dict[Any, tuple[int, int, int]] = {}
    ended: dict[Any, int] = {}
    made = entries(writes, of)
    for e in made:
        batch = e.record.batch
        assert batch is not None
        for row, key in enumerate(batch.column(0).to_pylist()):
            ended[key] = e.position
            alive.pop(key, None)
            if e.record.kind != record.DELETE and e.record.partition != 3:
                alive[key] = (e.record.partition, e.position, batch.column(1)[row].as_py())
    reduced = reduce(made, of, {PartitionId(1), PartitionId(2)})
    kills = dict(zip(reduced.kills.keys.to_pylist(), reduced.kills.positions.tolist(), strict=True))
    assert kills == ended
    found = {}
    for partition, left in reduced.survivors.items():
        table = left.table.take(pa.array(left.order))
        keys = table.column("id").to_pylist()
        assert keys == sorted(set(keys))
        for key, n, position in zip(
            keys, table.column("n").to_pylist(), table.column(POSITION).to_pylist(), strict=True
        ):
            assert key not in found
            found[key] = (partition, position, n)
    assert found == alive


def test_generated_keys_end_nothing() -> None:
    made = entries([(record.INSERT, 1, [1, 2]), (record.UPSERT, 1, [2])], schema(DataType.INT64))
    reduced = reduce(made, schema(DataType.INT64), {PartitionId(1)})
    assert reduced.kills.keys.to_pylist() == [2]


def test_fields_added_since_are_default_or_null() -> None:
    old = schema(DataType.INT64)
    added = (
        Field(FieldId(102), "a", DataType.INT32, default="4"),
        Field(FieldId(103), "b", DataType.VARCHAR, nullable=True),
    )
    new = Schema((*old.fields, *added), version=2)
    reduced = reduce(entries([(record.UPSERT, 1, [1])], old), new, {PartitionId(1)})
    table = reduced.survivors[PartitionId(1)].table
    assert (table.column("a").to_pylist(), table.column("b").to_pylist()) == ([4], [None])


PAIRS = st.lists(st.tuples(KEYS, st.integers(0, 50)), max_size=12)


@given(st.dictionaries(KEYS, st.integers(0, 50)), PAIRS)
def test_kills_end_older_rows(rows: dict[int, int], pairs) -> None:
    kills = newest_kills(
        [(pa.array([k for k, _ in pairs], pa.int64()), np.array([p for _, p in pairs], np.int64))], pa.int64()
    )
    newest = {k: max(p for other, p in pairs if other == k) for k, _ in pairs}
    assert dict(zip(kills.keys.to_pylist(), kills.positions.tolist(), strict=True)) == newest
    keys, positions = pa.array(list(rows), pa.int64()), np.array(list(rows.values()), np.int64)
    dead, did = dead_rows(keys, positions, kills)
    assert dead.tolist() == [newest.get(k, -1) > p for k, p in rows.items()]
    assert did.tolist() == [k in rows and rows[k] < p for k, p in newest.items()]


def test_no_kills_at_all() -> None:
    kills = newest_kills([], pa.string())
    assert kills == Kills(kills.keys, kills.positions)
    dead, did = dead_rows(pa.array(["a"]), np.array([1]), kills)
    assert (dead.tolist(), did.tolist()) == ([False], [])
