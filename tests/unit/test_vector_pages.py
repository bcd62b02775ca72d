"""Vectors read one by one out of Parquet pages: the same as Arrow reads, or an error."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import Corrupted
from core.ids import FieldId
from core.schema import Field, Schema
from core.types import DataType
from storage.segment_file import POSITION, TS, SegmentFile, write_segment


def make(path: Path, rows: int, dim: int, *, nulls: bool = False) -> tuple[SegmentFile, pa.Array]:
    """A segment of random vectors (every seventh null), and its column."""
    key = Field(FieldId(100), "id", DataType.INT64, primary=True)
    schema = Schema((key, Field(FieldId(101), "v", DataType.FLOAT_VECTOR, dim=dim, nullable=nulls)))
    values = np.random.default_rng(dim).standard_normal((rows, dim), dtype="f4")
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=schema.fields[1].arrow_type)
    if nulls:
        column = pa.array([None if i % 7 == 0 else v for i, v in enumerate(values)], column.type)
    ids = pa.array(np.arange(rows))
    write_segment(path, pa.table({"id": ids, "v": column, POSITION: ids, TS: ids}), schema)
    return SegmentFile(path), column


@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (20_000, 3), (5_000, 384), (1_500, 1025), (70, 32_768)])
@pytest.mark.parametrize("nulls", [False, True])
def test_rows_are_those_of_the_column(tmp_path: Path, rows: int, dim: int, nulls: bool) -> None:
    segment, column = make(tmp_path / "s.parquet", rows, dim, nulls=nulls)
    chance = np.random.default_rng(1)
    for asked in (np.array([0]), np.array([rows - 1, 0, rows - 1]), chance.integers(rows, size=40), np.arange(rows)):
        taken = segment.take("v", asked)
        assert taken.type == column.type
        assert taken.equals(column.take(pa.array(asked)))


def test_few_rows_are_not_read_by_the_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment, column = make(tmp_path / "s.parquet", 5_000, 384)
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", None)
    assert segment.take("v", np.array([4_000, 7])).equals(column.take(pa.array([4_000, 7])))


def test_damage_found_while_reading_names_the_file(tmp_path: Path) -> None:
    """Opening verifies the digest; what is damaged later must still be no wrong answer of a wrong length."""
    path = tmp_path / "s.parquet"
    segment, _ = make(path, 2_000, 64)
    start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 64)
    with pytest.raises(Corrupted, match=r"s\.parquet: column v"):
        segment.take("v", np.array([5]))
