"""Segments and tombstone files: Parquet that any tool reads, and that we verify when we open it.

A segment has the user's fields under their own names, then ``__position`` and ``__ts`` (int64), its
rows sorted by primary key, each key once. The footer holds, under ``sheafdb``, the format version
and the schema as JSON, and under ``sheafdb.bloom`` the bloom filter of the keys in base64 (footers
must be UTF-8). ``docs/formats.md`` describes the format for other readers.
"""

import base64
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import Corrupted
from core.manifest import ObjectRef
from core.schema import Field, Schema
from core.types import TYPES, DataType
from storage.bloom import Bloom
from storage.segment_writer import (
    FORMAT,
    POSITION,
    TS,
    SegmentWriter,
    Written,
    digest,
    digest_file,
    write_segment,
    write_tombstones,
)
from storage.vector_pages import VectorPages

__all__ = [
    "POSITION",
    "TS",
    "SegmentFile",
    "SegmentWriter",
    "Written",
    "digest",
    "digest_file",
    "read_tombstones",
    "write_segment",
    "write_tombstones",
]


def read_tombstones(path: Path, ref: ObjectRef | None = None) -> tuple[pa.Array, np.ndarray]:
    """(keys, int64 positions) of a tombstone file, as written. Raises ``Corrupted``."""
    name = ref.name if ref else str(path)
    _verify(path, ref)
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            _check_format(file.metadata, name)
            table = file.read(use_threads=False)
        return table.column("pk").combine_chunks(), table.column("position").to_numpy()
    except (OSError, ValueError, KeyError, pa.ArrowException) as e:
        raise Corrupted(name, str(e)) from e


class SegmentFile:
    """An open segment. Thread-safe; goes on reading after its object was deleted.

    Reads go through the file, not through a mapping: what is not asked for takes no memory.

    path, ref: the local file and how the manifest names it (size and digest are verified; None =
    trust the file). schema: the collection's present one; fields the file does not have yet read
    as their default or null. Raises ``Corrupted`` naming the object.
    """

    def __init__(self, path: Path, ref: ObjectRef | None = None, schema: Schema | None = None) -> None:
        self.name = ref.name if ref else str(path)
        _verify(path, ref)
        try:
            self._file = pa.OSFile(str(path))
            self._metadata = pq.read_metadata(self._file)
            description = _check_format(self._metadata, self.name)
            self._primary = next(f["name"] for f in description["schema"]["fields"] if f["primary"])
        except (OSError, ValueError, KeyError, StopIteration, pa.ArrowException) as e:
            raise Corrupted(self.name, str(e)) from e
        self._fields = schema.by_name if schema else {}
        self.rows: int = self._metadata.num_rows
        groups = range(self._metadata.num_row_groups)
        self._starts = np.cumsum([0, *(self._metadata.row_group(g).num_rows for g in groups)])
        self._arrow = self._metadata.schema.to_arrow_schema()
        self._columns = frozenset(self._arrow.names)
        self._last_group: dict[str, tuple[int, pa.Array]] = {}
        self._pages = self._vector_pages()

    def column(self, name: str) -> pa.Array:
        """A whole column as one array, in row order."""
        if name not in self._columns:
            return self._absent(name, self.rows)
        return self._read(name, range(len(self._starts) - 1))

    def take(self, name: str, rows: np.ndarray) -> pa.Array:
        """The values of some rows (int64 [n], in any order), in the order asked.

        Decodes the pages of a vector column the rows are in, of another one the row groups; the last
        row group of each column is kept.
        """
        if name not in self._columns:
            return self._absent(name, len(rows))
        if len(rows) == 0:
            return self._read(name, [])
        if name in self._pages:
            values = pa.array(self._from_pages(name, rows).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(values, type=self._arrow.field(name).type)
        group_of = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(group_of, kind="stable")
        groups, first = np.unique(group_of[order], return_index=True)
        parts = []
        for group, members in zip(groups.tolist(), np.split(order, first[1:]), strict=True):
            local = pa.array(rows[members] - self._starts[group], pa.int64())
            parts.append(self._group(name, group).take(local))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return _one_chunk(pa.chunked_array(parts)).take(pa.array(back))

    def positions(self) -> np.ndarray:
        """int64 [rows]: the position of each row's record."""
        return self.column(POSITION).to_numpy()

    def vectors(self, field: Field) -> np.ndarray:
        """A vector column: float32 [rows, dim], or uint8 [rows, dim/8] for binary; null rows are 0."""
        dtype = TYPES[field.type].numpy
        width = field.dim // 8 if field.type is DataType.BINARY_VECTOR else field.dim
        out = np.zeros((self.rows, width), dtype)
        if field.name not in self._columns:
            return out
        # Group by group: the Arrow form of the whole column never exists beside the result.
        for group, (start, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            out[start:end] = _dense(self._read(field.name, [group]), width, out.dtype)
        return out

    def bloom(self) -> Bloom:
        """The filter over the keys of all rows."""
        try:
            return Bloom.from_bytes(base64.b64decode(self._metadata.metadata[b"sheafdb.bloom"], validate=True))
        except (KeyError, ValueError) as e:
            raise Corrupted(self.name, f"bloom filter: {e}") from e

    def keys(self) -> pa.Array:
        """The primary keys, sorted."""
        return self.column(self._primary)

    def close(self) -> None:
        """Frees the file. Arrays handed out stay valid."""
        self._last_group.clear()
        self._file.close()

    def _vector_pages(self) -> dict[str, VectorPages]:
        """The columns whose rows can be read one by one."""
        found: dict[str, VectorPages] = {}
        leaves = [self._metadata.schema.column(i).path for i in range(self._metadata.num_columns)]
        for field in self._arrow:
            if pa.types.is_fixed_size_list(field.type):
                leaf = leaves.index(f"{field.name}.list.element")
                found[field.name] = VectorPages(self._bytes, self._metadata, leaf, self._starts, field.type.list_size)
        return {name: pages for name, pages in found.items() if pages.readable}

    def _from_pages(self, name: str, rows: np.ndarray) -> np.ndarray:
        try:
            return self._pages[name].take(rows)
        except (OSError, ValueError) as e:
            raise Corrupted(self.name, f"column {name}: {e}") from e

    def _bytes(self, start: int, length: int) -> bytes:
        return self._file.read_at(length, start)

    def _group(self, name: str, group: int) -> pa.Array:
        kept = self._last_group.get(name)
        if kept is None or kept[0] != group:
            kept = (group, self._read(name, [group]))
            self._last_group[name] = kept
        return kept[1]

    def _read(self, name: str, groups: range | list[int]) -> pa.Array:
        # A reader per call: readers are not promised to be thread-safe, the file is (pread).
        reader = pq.ParquetFile(self._file, metadata=self._metadata)
        try:
            return _one_chunk(reader.read_row_groups(list(groups), columns=[name], use_threads=False).column(0))
        except (OSError, pa.ArrowException) as e:
            raise Corrupted(self.name, f"column {name}: {e}") from e

    def _absent(self, name: str, rows: int) -> pa.Array:
        field = self._fields[name]
        if not field.default:
            return pa.nulls(rows, field.arrow_type)
        return pa.repeat(pa.scalar(json.loads(field.default), field.arrow_type), rows)


def _verify(path: Path, ref: ObjectRef | None) -> None:
    try:
        size = path.stat().st_size
        if ref is None:
            return
        if size != ref.bytes:
            raise Corrupted(ref.name, f"{size} bytes, expected {ref.bytes}")
        if digest_file(path) != ref.digest:
            raise Corrupted(ref.name, "its digest is not that of the bytes written")
    except OSError as e:
        raise Corrupted(ref.name if ref else path, os.strerror(e.errno) if e.errno else str(e)) from e


def _check_format(metadata: pq.FileMetaData, name: str) -> dict:
    raw = (metadata.metadata or {}).get(b"sheafdb")
    if raw is None:
        raise Corrupted(name, "no SheafDB footer")
    description = json.loads(raw)
    if description["format"] > FORMAT:
        raise Corrupted(name, f"format {description['format']}, this version reads up to {FORMAT}")
    return description


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _dense(column: pa.Array, width: int, dtype: np.dtype) -> np.ndarray:
    """[n, width] of a vector column; null rows are 0."""
    if pa.types.is_fixed_size_list(column.type):
        if column.null_count == 0:
            return column.flatten().to_numpy().reshape(-1, width)
        flat = column.flatten().to_numpy().reshape(-1, width)
    else:
        flat = np.frombuffer(column.drop_null().buffers()[1], dtype)[: (len(column) - column.null_count) * width]
        flat = flat.reshape(-1, width)
        if column.null_count == 0:
            return flat
    out = np.zeros((len(column), width), dtype)
    out[column.is_valid().to_numpy(zero_copy_only=False)] = flat
    return out
