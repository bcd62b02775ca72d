"""Growing rows against a dict, at every frontier that was ever the newest."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import FieldId, PartitionId, Position
from core.schema import Field, Schema
from core.types import DataType
from querynode import block as blocks
from querynode import growing as growing_module
from querynode.growing import Growing
from querynode.view import View

SCHEMA = Schema(
    (
        Field(FieldId(100), "id", DataType.INT64, primary=True),
        Field(FieldId(101), "tags", DataType.ARRAY, element_type=DataType.VARCHAR),
        Field(FieldId(102), "v", DataType.FLOAT_VECTOR, dim=2),
        Field(FieldId(103), "b", DataType.BINARY_VECTOR, dim=16),
    )
)
A, B = PartitionId(1), PartitionId(2)


def batch(keys: list[int], position: int) -> pa.RecordBatch:
    arrow = SCHEMA.arrow
    columns = [
        pa.array(keys, pa.int64()),
        pa.array([[f"at-{position}"] for _ in keys], arrow.field("tags").type),
        pa.array([[k, position] for k in keys], arrow.field("v").type),
        pa.array([k.to_bytes(1) + position.to_bytes(1) for k in keys], arrow.field("b").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=arrow)


def view_at(growing: Growing, frontier: int) -> View:
    both = frozenset({A, B})
    return View(1, Position(frontier), partitions=both, known=both, sealed=(), growing=growing)


def rows_of(view: View) -> dict[int, tuple[int, int]]:
    """key -> (position, partition) of the visible rows; all columns must agree."""
    found: dict[int, tuple[int, int]] = {}
    for data, visible in view.parts((A, B)):
        rows = np.arange(data.rows) if visible is None else np.flatnonzero(visible)
        taken = {f.name: data.take(f, rows).to_pylist() for f in SCHEMA.fields}
        for key, tags, v, b in zip(*taken.values(), strict=True):
            assert key not in found, "a key is visible at most once"
            position = int(v[1])
            assert (tags, v[0], b) == ([f"at-{position}"], key, bytes([key, position]))
            found[key] = (position, data.partition)
    return found


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([A, B]), st.lists(st.integers(0, 9), min_size=1, max_size=7)),
        st.tuples(st.just("delete"), st.just(A), st.lists(st.integers(0, 9), min_size=1, max_size=4)),
        st.tuples(st.just("drop"), st.just(A), st.lists(st.integers(0, 30), min_size=1, max_size=1)),
    ),
    max_size=25,
)


@given(OPERATIONS)
def test_every_frontier_keeps_its_rows(operations: list[tuple[str, PartitionId, list[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ROWS", 4)
        patch.setattr(growing_module, "BLOCK_ROWS", 4)
        patch.setattr(blocks, "FIRST_ROWS", 1)
        growing = Growing(SCHEMA)
        model: dict[int, tuple[int, int]] = {}
        history: list[tuple[View, dict[int, tuple[int, int]]]] = []
        for position, (what, partition, numbers) in enumerate(operations):
            if what == "put":
                growing.append(partition, batch(numbers, position), Position(position))
                model |= dict.fromkeys(numbers, (position, partition))
            elif what == "delete":
                growing.kill(numbers, Position(position))
                for key in numbers:
                    model.pop(key, None)
            else:
                before = min(numbers[0], position)
                growing.drop(Position(before))
                model = {k: row for k, row in model.items() if row[0] >= before}
            view = view_at(growing, position + 1)
            assert rows_of(view) == model
            assert sum(data.rows for data, _ in view.parts((A, B))) == growing.rows
            # A view made of the same rows later is the same view.
            history.append((view_at(growing, position + 1), dict(model)))
        for view, then in history:
            assert rows_of(view) == then


def test_views_of_an_older_frontier_can_be_made_later() -> None:
    growing = Growing(SCHEMA)
    growing.append(A, batch([1, 2], 0), Position(0))
    growing.append(A, batch([2, 3], 1), Position(1))
    growing.kill([1], Position(2))
    assert rows_of(view_at(growing, 1)) == {1: (0, A), 2: (0, A)}
    assert rows_of(view_at(growing, 2)) == {1: (0, A), 2: (1, A), 3: (1, A)}
    assert rows_of(view_at(growing, 3)) == {2: (1, A), 3: (1, A)}


def test_a_large_record_fills_several_blocks() -> None:
    growing = Growing(SCHEMA)
    keys = np.arange(20_000)
    flat = pa.array(np.stack([keys, keys], 1).astype(np.float32).reshape(-1))
    record = pa.RecordBatch.from_arrays(
        [
            pa.array(keys),
            pa.array([[]] * len(keys), SCHEMA.arrow.field("tags").type),
            pa.FixedSizeListArray.from_arrays(flat, type=SCHEMA.arrow.field("v").type),
            pa.array([b"ab"] * len(keys), SCHEMA.arrow.field("b").type),
        ],
        schema=SCHEMA.arrow,
    )
    growing.append(A, record, Position(0))
    assert growing.rows == 20_000
    growing.kill(list(range(0, 20_000, 2)), Position(1))
    view = view_at(growing, 2)
    visible = [p.live for p in view.parts((A, B))]
    assert sum(visible) == 10_000
    assert len(visible) == 3


def test_a_quiet_partition_is_small() -> None:
    growing = Growing(SCHEMA)
    growing.append(A, batch([1], 0), Position(0))
    assert growing.bytes < 4096


def test_rows_keep_no_log_payload_alive() -> None:
    record = batch([1, 2, 3], 0)
    before = pa.total_allocated_bytes()
    growing = Growing(SCHEMA)
    growing.append(A, record, Position(0))
    del record
    assert pa.total_allocated_bytes() <= before + 1024
    assert rows_of(view_at(growing, 1)) == {1: (0, A), 2: (0, A), 3: (0, A)}
