"""A sealed segment in memory: keys, versions and kills; columns and vectors stay in its file."""

import json
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from core.ids import NEVER, FieldId, PartitionId, SegmentId
from core.manifest import Segment
from core.schema import Field, Schema
from engine.vector.flat import FlatIndex
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from querynode import keys as pk
from querynode.block import vector_array
from querynode.cache import ByteCache
from storage.segment_file import SegmentFile


class SealedSegment:
    """Rows of one stored segment with what has ended since. Implements ``engine.segment.SegmentData``.

    Rows are sorted by primary key, which is unique (invariant 6). Everything but the kills and the
    set of indexes is immutable, and those two never change what an older frontier sees.
    """

    ordered = True
    """Rows lie in primary key order."""

    def __init__(self, segment: Segment, file: SegmentFile, schema: Schema, columns: ByteCache[pa.Array]) -> None:
        assert file.rows == segment.rows > 0, "a segment has the rows its manifest says"
        self.id: SegmentId = segment.id
        self.partition: PartitionId = segment.partition
        self.rows = segment.rows
        self.max_position = segment.max_position
        self._file, self._columns = file, columns
        self._primary = schema.primary.name
        self.keys = pk.keys_of(file.column(self._primary))
        self.first, self.last = pk.span(self.keys)
        # One insert is one position: most segments of a bulk load need no array for it.
        self._positions = segment.min_position if segment.min_position == segment.max_position else file.positions()
        self._bounds = _bounds(segment, schema)
        self._indexes: dict[FieldId, tuple[str, VectorIndex]] = {}
        self._vectors: dict[FieldId, np.ndarray] = {}
        self._exact: dict[tuple[FieldId, Metric], VectorIndex] = {}
        self._large: set[str] = set()
        self._loading = threading.Lock()
        self._deleted_at: np.ndarray | None = None
        self._newest: np.ndarray | None = None
        self.live = self.rows
        self.last_kill = -1
        # Views and running reads may hold the segment longer than the shard: the last one closes it.
        weakref.finalize(self, file.close)

    # --- versions -----------------------------------------------------------------------------
    def kill(self, keys: pk.Keys, positions: np.ndarray | int) -> None:
        """Ends the rows of these keys that are older than the positions (one, or one per key)."""
        rows, which = pk.find(self.keys, keys)
        at = np.full(len(rows), positions) if isinstance(positions, int) else positions[which]
        born = self._positions if isinstance(self._positions, int) else self._positions[rows]
        older = at > born
        rows, at = rows[older], at[older]
        if not len(rows):
            return
        if self._deleted_at is None:
            self._deleted_at = np.full(self.rows, NEVER, np.int64)
        self.live -= len(np.unique(rows[self._deleted_at[rows] == NEVER]))
        np.minimum.at(self._deleted_at, rows, at)
        self._newest = None
        self.last_kill = max(self.last_kill, int(at.max()))

    def visible(self, frontier: int) -> np.ndarray | None:
        """bool [rows]: rows that a view at this frontier sees; None = all of them."""
        assert self.max_position < frontier, "a view holds only segments before its frontier (invariant 4)"
        if self._deleted_at is None:
            return None
        if frontier <= self.last_kill:
            mask = self._deleted_at >= frontier
            return None if mask.all() else mask
        if self._newest is None:
            self._newest = self._deleted_at == NEVER
        return self._newest

    # --- indexes ------------------------------------------------------------------------------
    def index_name(self, field: FieldId) -> str:
        """Name of the index object in use; "" for none."""
        return self._indexes[field][0] if field in self._indexes else ""

    def set_index(self, field: FieldId, name: str, index: VectorIndex) -> None:
        """Searches use the index from now on; the full vectors leave the memory."""
        assert index.rows == self.rows, "an index covers its segment"
        self._indexes = {**self._indexes, field: (name, index)}
        self._vectors.pop(field, None)
        self._exact = {key: index for key, index in self._exact.items() if key[0] != field}

    # --- engine.segment.SegmentData -----------------------------------------------------------
    def column(self, name: str) -> pa.Array:
        """A whole scalar column, kept while the cache has room."""
        held = self._columns.get((self.id, name))
        if held is None:
            held = self._file.column(name)
            if not self._columns.put((self.id, name), held):
                self._large.add(name)
        return held

    def vectors(self, field: Field) -> np.ndarray:
        """float32 [rows, dim] (uint8 [rows, dim/8]); read once and kept until there is an index."""
        held = self._vectors.get(field.id)
        if held is not None:
            return held
        with self._loading:
            held = self._vectors.get(field.id)
            if held is None:
                held = self._file.vectors(field)
                if field.id not in self._indexes:
                    self._vectors[field.id] = held
            return held

    def index(self, field: Field) -> VectorIndex | None:
        held = self._indexes.get(field.id)
        return held[1] if held else None

    def exact(self, field: Field, metric: Metric) -> VectorIndex | None:
        """An exact index over the rows, for as long as there is no other; read once."""
        found = self._exact.get((field.id, metric))
        if found is None:
            found = FlatIndex(self.vectors(field), metric)
            if field.id not in self._indexes:
                self._exact[field.id, metric] = found
        return found

    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]:
        return self._bounds

    # --- output -------------------------------------------------------------------------------
    def take(self, field: Field, rows: np.ndarray) -> pa.Array:
        """Values of one field at these rows."""
        if field.name == self._primary:
            return pk.to_arrow(pk.take(self.keys, rows))
        if field.is_vector:
            held = None if field.nullable else self._vectors.get(field.id)
            return self._file.take(field.name, rows) if held is None else vector_array(held[rows], field)
        if field.name in self._large:
            return self._file.take(field.name, rows)
        return self.column(field.name).take(pa.array(rows))

    def resident(self, field: Field) -> bool:
        """Whether ``take`` needs no reading of the file."""
        if field.is_vector:
            return field.id in self._vectors and not field.nullable
        return field.name == self._primary or self._columns.get((self.id, field.name)) is not None

    @property
    def bytes(self) -> int:
        """Memory the segment takes of itself, indexes included, shared caches not."""
        own = [self.keys, self._positions, self._deleted_at, *self._vectors.values()]
        arrays = sum(a.nbytes for a in own if a is not None and not isinstance(a, int))
        return arrays + sum(index.bytes for _, index in self._indexes.values())


def _bounds(segment: Segment, schema: Schema) -> dict[str, tuple[Any, Any, int]]:
    found: dict[str, tuple[Any, Any, int]] = {}
    for stats in segment.stats:
        field = schema.by_id.get(stats.field_id)
        if field is not None and stats.min and stats.max:
            found[field.name] = (json.loads(stats.min), json.loads(stats.max), stats.nulls)
    return found
