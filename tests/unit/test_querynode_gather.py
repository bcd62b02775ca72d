"""Rows named by part and number, in the order asked for, whichever parts they are of."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import FieldId
from core.schema import Field, Schema
from core.types import DataType
from querynode.gather import gather

NAME = Field(FieldId(101), "name", DataType.VARCHAR, max_length=20)
ROWS = 4
PICKED = st.lists(st.tuples(st.integers(0, 5), st.integers(0, ROWS - 1)), min_size=1, max_size=12)


def schema_of(type: DataType) -> Schema:
    primary = Field(FieldId(100), "pk", type, max_length=20, primary=True)
    return Schema((primary, NAME))


def part(number: int, primary: Field) -> Any:
    """Each value says where it is."""
    keys = pa.array([100 * number + row for row in range(ROWS)], pa.int64())
    columns = {"name": pa.array([f"{number}-{row}" for row in range(ROWS)]), "pk": keys.cast(primary.arrow_type)}
    return SimpleNamespace(data=SimpleNamespace(take=lambda field, rows: columns[field.name].take(pa.array(rows))))


@pytest.mark.parametrize("type", [DataType.INT64, DataType.VARCHAR])
@given(PICKED)
def test_rows_of_any_parts_come_in_the_order_given(type: DataType, picked: list[tuple[int, int]]) -> None:
    schema = schema_of(type)
    parts = [part(number, schema.primary) for number in range(6)]
    part_of, rows = (np.array(column, np.int64) for column in zip(*picked, strict=True))
    got = gather(parts, part_of, rows, schema, [NAME])
    keys = [100 * number + row for number, row in picked]
    assert got.pks.to_pylist() == (keys if type is DataType.INT64 else list(map(str, keys)))
    assert got.columns["name"].to_pylist() == [f"{number}-{row}" for number, row in picked]
    assert got.pks.type == schema.primary.arrow_type
