"""Writing of segments and tombstone files. ``segment_file`` reads them and describes the format."""

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from core.hashing import hash_keys
from core.ids import Position
from core.manifest import FieldStats, ObjectRef
from core.schema import Field, Schema
from core.types import FLOATS, INTEGERS, DataType
from storage.bloom import Bloom

POSITION = "__position"
TS = "__ts"
FORMAT = 1

_ROW_GROUP_BYTES = 2 << 20
"""Of Arrow data: ``take`` decodes whole row groups, a scan wants few of them. At 384-d: 1,024 rows."""
_ROW_GROUP_ROWS = (1024, 8192)
_PAGE_BYTES = 512 << 10
"""Reading a vector decompresses its page (``vector_pages``): 0.4 ms. Pages of 1 MB take twice that, pages of
384 kB compress vectors 1 % worse."""
_ZSTD_LEVEL = 1
"""Level 3 writes 1.5 to 2 times slower for the same size (measured on 384-d embeddings)."""
_BOUND_LENGTH = 64
"""Characters of a string bound in the manifest."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds. ``stats`` of the scalar fields, none for tombstones."""

    bytes: int
    digest: int
    rows: int
    min_position: Position
    max_position: Position
    stats: tuple[FieldStats, ...] = ()

    def ref(self, name: str) -> ObjectRef:
        """How a manifest names the file once it is stored under ``name``."""
        return ObjectRef(name, self.bytes, self.digest)


class SegmentWriter:
    """Writes a segment piece by piece; the file appears under ``path`` whole at ``finish``.

    A context manager that removes what an error left behind. Not fsynced: the object store is.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path, self._schema = path, schema
        self._partial = path.with_name(f"{path.name}.partial")
        ends = [pa.field(POSITION, pa.int64(), False), pa.field(TS, pa.int64(), False)]
        self._arrow = pa.schema([*schema.arrow, *ends])
        self._writer = _open(self._partial, self._arrow, schema.fields)
        self._bounds = {f.name: Bounds(f) for f in schema.fields if is_bounded(f)}
        self._hashes: list[np.ndarray] = []
        self._positions: list[tuple[int, int]] = []
        self._group_rows = 0
        self._rows = 0

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._writer.close()
            self._partial.unlink(missing_ok=True)

    @property
    def group_rows(self) -> int:
        """Rows of a row group: pieces of a multiple of it make even ones. Known after the first piece."""
        return self._group_rows

    def write(self, table: pa.Table) -> None:
        """Adds rows: the schema's fields, POSITION and TS; keys above all written before, unique."""
        if not table.num_rows:
            return
        self._group_rows = self._group_rows or group_rows(table)
        given = [table.column(f.name) for f in self._arrow]
        columns = [c if c.type == f.type else c.cast(f.type) for c, f in zip(given, self._arrow, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._arrow), row_group_size=self._group_rows)
        self._rows += table.num_rows
        self._hashes.append(hash_keys(table.column(self._schema.primary.name).combine_chunks()))
        span = pc.call_function("min_max", [table.column(POSITION)]).as_py()
        self._positions.append((span["min"], span["max"]))
        for name, bounds in self._bounds.items():
            bounds.add(table.column(name))

    def finish(self) -> Written:
        """Ends the file. At least one row was written."""
        assert self._rows > 0, "a segment has rows"
        bloom = Bloom.build(np.concatenate(self._hashes))
        description = {"format": FORMAT, "schema": asdict(self._schema)}
        footer = {
            "sheafdb": json.dumps(description, separators=(",", ":")),
            "sheafdb.bloom": base64.b64encode(bloom.to_bytes()).decode(),
        }
        # Not in the Arrow schema's metadata: that is stored a second time, in base64.
        self._writer.add_key_value_metadata(footer)
        self._writer.close()
        low = Position(min(p[0] for p in self._positions))
        high = Position(max(p[1] for p in self._positions))
        stats = tuple(b.stats() for b in self._bounds.values())
        written = Written(self._partial.stat().st_size, digest_file(self._partial), self._rows, low, high, stats)
        self._partial.replace(self._path)
        return written


def write_segment(path: Path, table: pa.Table, schema: Schema) -> Written:
    """Writes a segment; the file appears under ``path`` whole or not at all (not fsynced).

    table: the schema's fields, POSITION and TS; sorted by primary key, unique keys, at least one row.
    """
    with SegmentWriter(path, schema) as writer:
        writer.write(table)
        return writer.finish()


def write_tombstones(path: Path, pks: pa.Array, positions: np.ndarray) -> Written:
    """Writes a tombstone file: keys and int64 positions, at least one. Appears whole or not at all."""
    table = pa.table({"pk": pks, "position": pa.array(positions, pa.int64())})
    partial = path.with_name(f"{path.name}.partial")
    with _open(partial, table.schema, ()) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"sheafdb": json.dumps({"format": FORMAT})})
    low, high = Position(int(positions.min())), Position(int(positions.max()))
    written = Written(partial.stat().st_size, digest_file(partial), len(pks), low, high)
    partial.replace(path)
    return written


def digest(data: bytes | memoryview) -> int:
    """xxh3-64."""
    return xxhash.xxh3_64_intdigest(data)


def digest_file(path: Path) -> int:
    """xxh3-64 of a file's bytes, read in pieces: it leaves nothing in this process's memory."""
    hasher = xxhash.xxh3_64()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            hasher.update(buffer[:n])
    return hasher.intdigest()


def group_rows(table: pa.Table) -> int:
    """Rows per row group for rows like these."""
    smallest, largest = _ROW_GROUP_ROWS
    return int(np.clip(_ROW_GROUP_BYTES * table.num_rows // max(table.nbytes, 1), smallest, largest))


def is_bounded(field: Field) -> bool:
    """Whether the manifest keeps bounds of the field."""
    return field.type in INTEGERS | FLOATS or field.type in (DataType.VARCHAR, DataType.BOOL)


class Bounds:
    """Smallest and largest value of a field over the pieces of a segment."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._values: list[Any] = []
        self._nulls = 0
        self._has_nan = False

    def add(self, column: pa.ChunkedArray) -> None:
        self._nulls += column.null_count
        span = pc.call_function("min_max", [column]).as_py()
        if span["min"] is not None:
            self._values += [span["min"], span["max"]]
        if self._field.type in FLOATS:
            self._has_nan = self._has_nan or _has_nan(column)

    def stats(self) -> FieldStats:
        """As JSON values; none where they would mislead: NaN is below and above nothing."""
        if not self._values or self._has_nan:
            return FieldStats(self._field.id, "", "", self._nulls)
        low, high = min(self._values), max(self._values)
        if self._field.type is DataType.VARCHAR:
            low, high = low[:_BOUND_LENGTH], _string_above(high)
        return FieldStats(self._field.id, json.dumps(low), "" if high is None else json.dumps(high), self._nulls)


def _has_nan(column: pa.ChunkedArray) -> bool:
    return any(np.isnan(chunk.drop_null().to_numpy(zero_copy_only=False)).any() for chunk in column.chunks)


def _string_above(text: str) -> str | None:
    """A short string not below ``text`` in code point order; None when there is none."""
    if len(text) <= _BOUND_LENGTH:
        return text
    prefix = text[:_BOUND_LENGTH].rstrip("\U0010ffff")
    if not prefix:
        return None
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _open(path: Path, arrow: pa.Schema, fields: tuple[Field, ...]) -> pq.ParquetWriter:
    """A Parquet writer with the encodings that fit each field."""
    # Floats compress by their bytes' planes: 384-d float32 to 84 % (byte stream split) against 92 %.
    split = [f"{f.name}.list.element" for f in fields if f.type is DataType.FLOAT_VECTOR]
    split += [f.name for f in fields if f.type in FLOATS]
    words = [f for f in fields if not f.is_vector and not f.primary and f.type not in FLOATS]
    dictionary = [f"{f.name}.list.element" if f.type is DataType.ARRAY else f.name for f in words]
    unordered = {f.name for f in fields if not is_bounded(f)}
    return pq.ParquetWriter(
        path,
        arrow,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        data_page_size=_PAGE_BYTES,
        use_dictionary=dictionary,  # type: ignore[arg-type]  # a list of columns is allowed and documented
        use_byte_stream_split=split,  # type: ignore[arg-type]  # the same
        write_statistics=[n for n in arrow.names if n not in unordered],  # type: ignore[arg-type]  # the same
    )
