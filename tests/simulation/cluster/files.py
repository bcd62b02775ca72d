"""Segment and tombstone files kept in memory: what the roles write and open instead of Parquet.

The format has tests of its own; here a schedule would spend most of its time on it.
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

import datanode.compact
import datanode.key_filters
import datanode.seal
import querynode.opening
import storage.keys
from core.hashing import hash_keys
from core.ids import Position
from core.manifest import ObjectRef
from core.schema import Schema
from storage.bloom import Bloom
from storage.segment_writer import POSITION, TS, Bounds, Written, is_bounded

WRITTEN: dict[str, Any] = {}
"""What lies under each path: scratch files of the nodes, and copies of objects."""


class Scratch(PosixPath):
    """A scratch folder without a disk."""

    def mkdir(self, *_: object, **__: object) -> None:
        pass

    def glob(self, pattern: str) -> Generator["Scratch", None, None]:
        yield from ()


class Segment:
    """The rows of a segment file."""

    def __init__(self, table: pa.Table, primary: str) -> None:
        self.columns = {n: table.column(n).combine_chunks() for n in table.column_names}
        self.primary, self.count = primary, table.num_rows
        self.positions = self.columns[POSITION].to_numpy()
        names = (primary, "n", POSITION)
        self.rows = list(zip(*(self.columns[n].to_pylist() for n in names), strict=True))


class Tombstones:
    """The kills of a tombstone file."""

    def __init__(self, keys: pa.Array, positions: np.ndarray) -> None:
        self.keys, self.positions = keys, positions
        self.rows = list(zip(keys.to_pylist(), positions.tolist(), strict=True))


class MemorySegmentWriter:
    """As ``storage.segment_writer.SegmentWriter``."""

    group_rows = 1

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path, self._schema = path, schema
        self._tables: list[pa.Table] = []

    def __enter__(self) -> "MemorySegmentWriter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, table: pa.Table) -> None:
        self._tables.append(table)

    def finish(self) -> Written:
        names = [*self._schema.arrow.names, POSITION, TS]
        table = pa.concat_tables([t.select(names) for t in self._tables])
        bounds = [Bounds(f) for f in self._schema.fields if is_bounded(f)]
        for field, bound in zip((f for f in self._schema.fields if is_bounded(f)), bounds, strict=True):
            bound.add(table.column(field.name))
        segment = Segment(table, self._schema.primary.name)
        WRITTEN[str(self._path)] = segment
        low, high = int(segment.positions.min()), int(segment.positions.max())
        stats = tuple(b.stats() for b in bounds)
        return Written(table.nbytes, 0, table.num_rows, Position(low), Position(high), stats)


class MemorySegmentFile:
    """As ``storage.segment_file.SegmentFile``."""

    def __init__(self, path: Path, ref: ObjectRef | None = None, schema: Schema | None = None) -> None:
        self._segment: Segment = WRITTEN[str(path)]
        self.rows = self._segment.count

    def column(self, name: str) -> pa.Array:
        return self._segment.columns[name]

    def take(self, name: str, rows: np.ndarray) -> pa.Array:
        return self.column(name).take(pa.array(rows))

    def positions(self) -> np.ndarray:
        return self._segment.positions

    def keys(self) -> pa.Array:
        return self.column(self._segment.primary)

    def bloom(self) -> Bloom:
        return Bloom.build(hash_keys(self.keys()))

    def close(self) -> None:
        pass


def write_tombstones(path: Path, pks: pa.Array, positions: np.ndarray) -> Written:
    """As ``storage.segment_writer.write_tombstones``."""
    WRITTEN[str(path)] = Tombstones(pks, positions)
    return Written(16 * len(pks), 0, len(pks), Position(int(positions.min())), Position(int(positions.max())))


def read_tombstones(path: Path, ref: ObjectRef | None = None) -> tuple[pa.Array, np.ndarray]:
    """As ``storage.segment_file.read_tombstones``."""
    held: Tombstones = WRITTEN[str(path)]
    return held.keys, held.positions


@contextmanager
def in_memory() -> Iterator[None]:
    """Inside, the roles write and read these files, and each stored value is decoded once for all nodes."""
    with ExitStack() as stack:
        for module in (datanode.seal, datanode.compact):
            stack.enter_context(mock.patch.object(module, "SegmentWriter", MemorySegmentWriter))
        for module in (datanode.compact, datanode.key_filters, querynode.opening):
            stack.enter_context(mock.patch.object(module, "SegmentFile", MemorySegmentFile))
        for module in (datanode.compact, querynode.opening):
            stack.enter_context(mock.patch.object(module, "read_tombstones", read_tombstones))
        stack.enter_context(mock.patch.object(storage.keys, "decode", lru_cache(4096)(storage.keys.decode)))
        stack.enter_context(mock.patch.object(datanode.seal, "write_tombstones", write_tombstones))
        try:
            yield
        finally:
            WRITTEN.clear()
