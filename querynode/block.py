"""Append-only blocks of growing rows.

Readers hold a ``BlockView``, a prefix of a block: what is appended later, and every kill at or after
their frontier, changes nothing in it.
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from core.ids import NEVER, FieldId, PartitionId, Position
from core.schema import Field, Schema
from core.types import TYPES, DataType
from engine.vector.flat import FlatIndex
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from querynode import keys as pk

BLOCK_ROWS = 8192
FIRST_ROWS = 64
"""Room of a new block: thousands of quiet partitions must stay small."""


class Block:
    """Rows of one partition in log order. Only the event loop changes it; threads read prefixes."""

    def __init__(self, number: int, partition: PartitionId, schema: Schema) -> None:
        self.number, self.partition, self.schema = number, partition, schema
        self.rows = 0
        self.dead = 0
        self.positions = np.empty(FIRST_ROWS, np.int64)
        self.deleted_at = np.full(FIRST_ROWS, NEVER, np.int64)
        self.vectors = {f.name: np.empty((FIRST_ROWS, _width(f)), TYPES[f.type].numpy) for f in schema.vectors}
        self._chunks: dict[str, list[pa.Array]] = {f.name: [] for f in schema.fields if not f.is_vector}
        # Counted as they come: there may be thousands of chunks, and the sum is wanted often.
        self._scalar_bytes = 0
        self._exact: dict[tuple[FieldId, Metric], VectorIndex] = {}
        self._merging = threading.Lock()

    @property
    def full(self) -> bool:
        return self.rows == BLOCK_ROWS

    def before(self, frontier: Position) -> int:
        """How many rows have ``position < frontier``."""
        if not self.rows or self.positions[self.rows - 1] < frontier:
            return self.rows
        return int(np.searchsorted(self.positions[: self.rows], frontier))

    def append(self, columns: Mapping[str, pa.Array], rows: int, positions: np.ndarray | int) -> None:
        """Adds rows, at most as many as there is room. Scalars must be ``keys.owned``."""
        end = self.rows + rows
        assert end <= BLOCK_ROWS, "a block has a bound"
        self._reserve(end)
        self.positions[self.rows : end] = positions
        for field in self.schema.vectors:
            self.vectors[field.name][self.rows : end] = vector_values(columns[field.name], field)
        with self._merging:
            for name, chunks in self._chunks.items():
                chunks.append(columns[name])
                self._scalar_bytes += columns[name].nbytes
        self.rows = end

    def _reserve(self, rows: int) -> None:
        room = len(self.positions)
        if rows <= room:
            return
        while room < rows:
            room *= 2
        # New arrays, never resized ones: readers keep the old, whose rows do not change.
        self.positions = _grown(self.positions, self.rows, room)
        self.deleted_at = _grown(self.deleted_at, self.rows, room)
        self.deleted_at[self.rows :] = NEVER
        self.vectors = {name: _grown(v, self.rows, room) for name, v in self.vectors.items()}

    def kill(self, rows: np.ndarray, position: int) -> None:
        """Ends rows that are alive; a row that has ended keeps its first end."""
        alive = rows[self.deleted_at[rows] == NEVER]
        self.deleted_at[alive] = position
        self.dead += len(alive)

    def column(self, name: str, rows: int) -> pa.Array:
        """The first rows of a scalar column."""
        with self._merging:
            chunks = self._chunks[name]
            if len(chunks) > 1:
                chunks[:] = [pa.concat_arrays(chunks)]
            return chunks[0] if len(chunks[0]) == rows else chunks[0].slice(0, rows)

    def exact(self, field: Field, metric: Metric) -> VectorIndex | None:
        """An exact index over a full block, which spares each search the norms; None while it grows."""
        if not self.full:
            return None
        found = self._exact.get((field.id, metric))
        if found is None:
            found = self._exact[field.id, metric] = FlatIndex(self.vectors[field.name], metric)
        return found

    def since(self, first: int, number: int) -> "Block":
        """A new block with the rows from ``first`` on."""
        rest = Block(number, self.partition, self.schema)
        view = BlockView(self, self.rows)
        places = np.arange(first, self.rows)
        columns = {f.name: view.take(f, places) for f in self.schema.fields}
        rest.append(columns, len(places), self.positions[first : self.rows])
        rest.deleted_at[: len(places)] = self.deleted_at[first : self.rows]
        rest.dead = int(np.count_nonzero(rest.deleted_at[: len(places)] != NEVER))
        return rest

    @property
    def bytes(self) -> int:
        vectors = sum(v.nbytes for v in self.vectors.values())
        return self._scalar_bytes + vectors + self.positions.nbytes + self.deleted_at.nbytes


class BlockView:
    """The first rows of a block, as one reader sees them. Implements ``engine.segment.SegmentData``."""

    ordered = False

    def __init__(self, block: Block, rows: int) -> None:
        self.block, self.rows = block, rows
        self.partition = block.partition
        self._deleted_at = block.deleted_at
        self._vectors = block.vectors

    def visible(self, frontier: int) -> np.ndarray | None:
        """bool [rows]: rows that a view at this frontier sees; None = all of them."""
        if not self.block.dead:
            return None
        mask = self._deleted_at[: self.rows] >= frontier
        return None if mask.all() else mask

    @property
    def keys(self) -> pk.Keys:
        return pk.keys_of(self.column(self.block.schema.primary.name))

    def column(self, name: str) -> pa.Array:
        return self.block.column(name, self.rows)

    def vectors(self, field: Field) -> np.ndarray:
        return self._vectors[field.name][: self.rows]

    def index(self, field: Field) -> VectorIndex | None:
        return None

    def exact(self, field: Field, metric: Metric) -> VectorIndex | None:
        """An exact index over the rows, if they no longer change."""
        return self.block.exact(field, metric) if self.rows == BLOCK_ROWS else None

    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]:
        return {}

    def resident(self, field: Field) -> bool:
        """Whether ``take`` needs no reading of a file."""
        return True

    def take(self, field: Field, rows: np.ndarray) -> pa.Array:
        """Values of one field at these rows."""
        if field.is_vector:
            return vector_array(self._vectors[field.name][rows], field)
        return self.column(field.name).take(pa.array(rows))


def vector_values(array: pa.Array, field: Field) -> np.ndarray:
    """A vector column as an array [rows, dim] (uint8 [rows, dim/8] for binary); null rows are 0, as
    segments have it. Shares its memory."""
    width = _width(field)
    if array.null_count:
        values = np.zeros((len(array), width), TYPES[field.type].numpy)
        values[array.is_valid().to_numpy(zero_copy_only=False)] = vector_values(array.drop_null(), field)
        return values
    if field.type is DataType.BINARY_VECTOR:
        raw = np.frombuffer(array.buffers()[1], np.uint8)
        return raw[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
    return array.flatten().to_numpy(zero_copy_only=True).reshape(-1, width)


def vector_array(values: np.ndarray, field: Field) -> pa.Array:
    """The vector column with these values."""
    if field.type is DataType.BINARY_VECTOR:
        data = pa.py_buffer(np.ascontiguousarray(values))
        return pa.FixedSizeBinaryArray.from_buffers(field.arrow_type, len(values), [None, data])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=field.arrow_type)


def _width(field: Field) -> int:
    return field.dim // 8 if field.type is DataType.BINARY_VECTOR else field.dim


def _grown(array: np.ndarray, rows: int, room: int) -> np.ndarray:
    new = np.empty((room, *array.shape[1:]), array.dtype)
    new[:rows] = array[:rows]
    return new
