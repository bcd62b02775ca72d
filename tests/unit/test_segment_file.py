"""Segment and tombstone files: round trip, ranges, other tools, damage."""

import json

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Corrupted
from core.hashing import hash_keys
from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from storage.bloom import Bloom
from storage.segment_file import (
    POSITION,
    TS,
    SegmentFile,
    digest,
    digest_file,
    read_tombstones,
    write_segment,
    write_tombstones,
)

SCHEMA = Schema(
    (
        Field(FieldId(100), "id", DataType.INT64, primary=True),
        Field(FieldId(101), "vector", DataType.FLOAT_VECTOR, dim=8),
        Field(FieldId(102), "bits", DataType.BINARY_VECTOR, dim=16),
        Field(FieldId(103), "word", DataType.VARCHAR, max_length=200, nullable=True),
        Field(FieldId(104), "score", DataType.DOUBLE, nullable=True),
        Field(FieldId(105), "flag", DataType.BOOL),
        Field(FieldId(106), "tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, nullable=True),
        Field(FieldId(107), DYNAMIC, DataType.JSON, dynamic=True),
    )
)


def make_table(rows: int, schema: Schema = SCHEMA) -> pa.Table:
    rng = np.random.default_rng(rows)
    columns = {
        "id": np.arange(rows, dtype="i8") * 3,
        "vector": list(rng.standard_normal((rows, 8), dtype="f4")),
        "bits": [rng.bytes(2) for _ in range(rows)],
        "word": [None if i % 7 == 0 else f"word-{i}" for i in range(rows)],
        "score": [None if i % 5 == 0 else float(i) for i in range(rows)],
        "flag": [i % 2 == 0 for i in range(rows)],
        "tags": [None if i % 3 == 0 else [f"t{i}", "x"] for i in range(rows)],
        DYNAMIC: [json.dumps({"n": i}) for i in range(rows)],
    }
    table = pa.table({f.name: pa.array(columns[f.name], f.arrow_type) for f in schema.fields}, schema=schema.arrow)
    table = table.append_column(POSITION, pa.array(np.arange(rows, dtype="i8") + 10))
    return table.append_column(TS, pa.array(np.full(rows, 7, "u8")))


def test_round_trip(tmp_path):
    table = make_table(20_000)
    written = write_segment(tmp_path / "s.parquet", table, SCHEMA)
    assert (written.rows, written.min_position, written.max_position) == (20_000, 10, 20_009)
    ref = written.ref("a/s.parquet")
    assert ref.digest == digest_file(tmp_path / "s.parquet") == digest((tmp_path / "s.parquet").read_bytes())
    segment = SegmentFile(tmp_path / "s.parquet", ref)
    for field in SCHEMA.fields:
        column = segment.column(field.name)
        assert column.equals(table.column(field.name).combine_chunks()), field.name
        assert column.type == field.arrow_type
    assert np.array_equal(segment.positions(), np.arange(20_000) + 10)
    assert segment.column(TS).to_pylist()[:2] == [7, 7]
    assert segment.keys().equals(table.column("id").combine_chunks())
    assert np.array_equal(
        segment.vectors(SCHEMA.by_name["vector"]),
        table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, 8),
    )
    assert segment.vectors(SCHEMA.by_name["bits"])[5].tobytes() == table.column("bits")[5].as_py()


def test_take_gives_the_rows_in_the_order_asked(tmp_path):
    table = make_table(20_000)
    write_segment(tmp_path / "s.parquet", table, SCHEMA)
    segment = SegmentFile(tmp_path / "s.parquet")
    rows = np.array([19_999, 3, 8_192, 3, 0, 12_000])
    for name in table.schema.names[:-1]:
        assert segment.take(name, rows).to_pylist() == [table.column(name)[r].as_py() for r in rows.tolist()]
        assert len(segment.take(name, rows[:0])) == 0


def test_a_deleted_file_stays_readable_while_open(tmp_path):
    table = make_table(10)
    write_segment(tmp_path / "s.parquet", table, SCHEMA)
    segment = SegmentFile(tmp_path / "s.parquet")
    (tmp_path / "s.parquet").unlink()
    assert segment.column("id").equals(table.column("id").combine_chunks())
    segment.close()


def test_fields_added_later_read_as_default_or_null(tmp_path):
    write_segment(tmp_path / "s.parquet", make_table(4), SCHEMA)
    added = (
        Field(FieldId(108), "later", DataType.INT32, default="5"),
        Field(FieldId(109), "empty", DataType.VARCHAR, nullable=True),
    )
    segment = SegmentFile(tmp_path / "s.parquet", None, Schema((*SCHEMA.fields, *added), version=2))
    assert segment.column("later").to_pylist() == [5] * 4
    assert segment.take("empty", np.array([1, 2])).to_pylist() == [None, None]


def test_nullable_vectors(tmp_path):
    fields = (
        SCHEMA.fields[0],
        Field(FieldId(101), "v", DataType.FLOAT_VECTOR, dim=2, nullable=True),
        Field(FieldId(102), "b", DataType.BINARY_VECTOR, dim=8, nullable=True),
    )
    schema = Schema(fields)
    values = {"id": [1, 2, 3], "v": [[1, 2], None, [3, 4]], "b": [b"\x01", None, b"\x02"]}
    table = pa.table({f.name: pa.array(values[f.name], f.arrow_type) for f in fields}, schema=schema.arrow)
    table = table.append_column(POSITION, pa.array([1, 2, 3])).append_column(TS, pa.array([1, 2, 3]))
    write_segment(tmp_path / "s.parquet", table, schema)
    segment = SegmentFile(tmp_path / "s.parquet")
    assert segment.vectors(fields[1]).tolist() == [[1, 2], [0, 0], [3, 4]]
    assert segment.vectors(fields[2]).tolist() == [[1], [0], [2]]
    assert segment.column("v").to_pylist() == values["v"]


def test_stats_bound_every_value(tmp_path):
    written = write_segment(tmp_path / "s.parquet", make_table(100), SCHEMA)
    stats = {SCHEMA.by_id[s.field_id].name: s for s in written.stats}
    assert set(stats) == {"id", "word", "score", "flag"}
    assert (stats["id"].min, stats["id"].max, stats["id"].nulls) == ("0", "297", 0)
    assert (stats["score"].min, stats["score"].max, stats["score"].nulls) == ("1.0", "99.0", 20)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=8, unique=True))
def test_string_bounds(tmp_path_factory, words):
    schema = Schema((Field(FieldId(100), "pk", DataType.VARCHAR, primary=True, max_length=400),))
    pks = sorted(words)
    n = len(pks)
    table = pa.table({"pk": pa.array(pks), POSITION: pa.array(range(n)), TS: pa.array(range(n))})
    (stats,) = write_segment(tmp_path_factory.mktemp("s") / "s.parquet", table, schema).stats
    assert json.loads(stats.min) <= pks[0]
    assert stats.max == "" or json.loads(stats.max) >= pks[-1]
    assert len(stats.max) < 64 * 12 + 3


def test_nan_leaves_a_field_without_bounds(tmp_path):
    schema = Schema((SCHEMA.fields[0], Field(FieldId(101), "x", DataType.FLOAT)))
    table = pa.table(
        {"id": [1, 2], "x": pa.array([1.0, float("nan")], pa.float32()), POSITION: [1, 2], TS: [1, 2]},
    )
    stats = write_segment(tmp_path / "s.parquet", table, schema).stats
    assert (stats[1].min, stats[1].max) == ("", "")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_an_error_that_names_the_object(tmp_path, damage):
    path = tmp_path / "s.parquet"
    ref = write_segment(path, make_table(500), SCHEMA).ref("bucket/segment-1.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    match damage:
        case "flip":
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
    with pytest.raises(Corrupted, match=r"bucket/segment-1\.parquet"):
        SegmentFile(path, ref)
    with pytest.raises(Corrupted, match=r"bucket/segment-1\.parquet"):
        read_tombstones(path, ref)


def test_a_foreign_parquet_file_is_no_segment(tmp_path):
    pa.parquet.write_table(make_table(3), tmp_path / "x.parquet")
    with pytest.raises(Corrupted, match="no SheafDB footer"):
        SegmentFile(tmp_path / "x.parquet")


def test_bloom_of_a_segment_knows_its_keys(tmp_path):
    write_segment(tmp_path / "s.parquet", make_table(5_000), SCHEMA)
    bloom = SegmentFile(tmp_path / "s.parquet").bloom()
    keys = pa.array(np.arange(15_000, dtype="i8"))
    found = bloom.may_contain(hash_keys(keys))
    assert found[::3].all()
    assert found[1::3].mean() < 0.03


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_bloom_never_denies_what_it_holds(inside, others):
    hashes = np.array(inside, np.uint64)
    bloom = Bloom.from_bytes(Bloom.build(hashes).to_bytes())
    assert bloom.may_contain(hashes).all()
    assert bloom.may_contain(np.array(others, np.uint64)).shape == (len(others),)


@pytest.mark.parametrize("keys", [pa.array([5, 3, 3]), pa.array(["b", "é", ""])])
def test_tombstones_round_trip(tmp_path, keys):
    written = write_tombstones(tmp_path / "t.parquet", keys, np.array([9, 4, 7]))
    assert (written.rows, written.min_position, written.max_position) == (3, 4, 9)
    pks, positions = read_tombstones(tmp_path / "t.parquet", written.ref("t"))
    assert pks.equals(keys)
    assert positions.tolist() == [9, 4, 7]


def test_duckdb_pandas_and_polars_read_the_file_as_it_lies(tmp_path):
    table = make_table(3_000)
    path = tmp_path / "s.parquet"
    write_segment(path, table, SCHEMA)
    expected = {n: table.column(n).to_pylist() for n in ("id", "word", "tags", DYNAMIC, POSITION)}
    expected["vector"] = table.column("vector").to_pylist()
    con = duckdb.connect()
    rows = con.sql(f"select * from read_parquet('{path}')").fetchall()
    names = [d[0] for d in con.sql(f"describe select * from read_parquet('{path}')").fetchall()]
    assert names == [*(f.name for f in SCHEMA.fields), POSITION, TS]
    for name, values in expected.items():
        at = names.index(name)
        assert [list(r[at]) if isinstance(r[at], tuple) else r[at] for r in rows] == values, name
    frame = polars.read_parquet(path)
    assert {n: frame[n].to_list() for n in expected} == expected
    assert pandas.read_parquet(path)["id"].tolist() == expected["id"]
    assert pandas.read_parquet(path)["vector"][7].tolist() == expected["vector"][7]
