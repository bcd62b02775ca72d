"""Single float vectors out of a segment's column.

Arrow decodes whole row groups, and most of that time goes into the list levels, which say for each of
the row's floats that the list goes on. Here only the pages that hold wanted rows are decompressed,
and the levels are skipped: where no row is null, a page ends with its values, all of the same length.
What pages and their headers look like: https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HEADER_BYTES_MAX = 256
"""More than a page header of floats takes."""
DATA_PAGE = 0
PLAIN, BYTE_STREAM_SPLIT = 0, 9


class Page(NamedTuple):
    """Where a page's body lies, and how many values it ends with."""

    start: int
    bytes: int
    bytes_plain: int
    values: int
    encoding: int


class VectorPages:
    """The pages of one column of fixed-size lists of float32. Thread-safe.

    read: gives that many bytes of the file from an offset on. starts: int64, the first row of each
    row group and the number of all rows. Everything raises ``ValueError`` where the file is damaged.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], metadata: pq.FileMetaData, column: int, starts: np.ndarray, dim: int
    ) -> None:
        self._read, self._starts, self._dim = read, starts, dim
        self._chunks = [metadata.row_group(g).column(column) for g in range(metadata.num_row_groups)]
        self._codec = pa.Codec("zstd")
        self._pages: dict[int, tuple[list[Page], np.ndarray]] = {}

    @property
    def readable(self) -> bool:
        """Whether rows can be found: none is null, and the pages are as ``segment_writer`` makes them."""
        rows = np.diff(self._starts).tolist()
        # A null counts as one value: with one dimension it can't be told from a vector.
        return self._dim > 1 and all(
            chunk.num_values == n * self._dim
            and chunk.physical_type == "FLOAT"
            and chunk.compression == "ZSTD"
            and not chunk.has_dictionary_page
            for chunk, n in zip(self._chunks, rows, strict=True)
        )

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, dim]: the vectors of these rows (int64 [n], in any order), in the order asked."""
        out = np.empty((len(rows), self._dim), np.float32)
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            pages, firsts = self._of_group(group)
            members = np.flatnonzero(groups == group)
            local = rows[members] - self._starts[group]
            numbers = np.searchsorted(firsts, local, side="right") - 1
            for number in np.unique(numbers).tolist():
                inside = numbers == number
                out[members[inside]] = self._vectors(pages[number], local[inside] - firsts[number])
        return out

    def _vectors(self, page: Page, rows: np.ndarray) -> np.ndarray:
        body = self._codec.decompress(self._read(page.start, page.bytes), page.bytes_plain)
        values = np.frombuffer(body, np.uint8)[page.bytes_plain - 4 * page.values :]
        if page.encoding == PLAIN:
            return values.view("<f4").reshape(-1, self._dim)[rows]
        # First the lowest byte of all values, then the next one of all, ...
        planes = values.reshape(4, -1, self._dim)[:, rows]
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<f4")[..., 0]

    def _of_group(self, group: int) -> tuple[list[Page], np.ndarray]:
        """A row group's pages, and the first row of each, counted within the group."""
        found = self._pages.get(group)
        if found is None:
            chunk = self._chunks[group]
            pages, offset = [], chunk.data_page_offset
            end = offset + chunk.total_compressed_size
            while offset < end:
                page = _page(self._read(offset, HEADER_BYTES_MAX), offset)
                if page.values % self._dim:
                    raise ValueError(f"a page of {page.values} values, {self._dim} a row")
                pages.append(page)
                offset = page.start + page.bytes
            firsts = np.cumsum([0, *(p.values // self._dim for p in pages[:-1])])
            found = self._pages[group] = (pages, firsts)
        return found


def _page(data: bytes, offset: int) -> Page:
    """The page whose header begins ``data``, which lies at ``offset``."""
    try:
        header, size = _struct(data, 0)
        kind, plain, packed, details = header[1], header[2], header[3], header[5]
        values, encoding = details[1], details[2]
    except (IndexError, KeyError, TypeError) as e:
        raise ValueError(f"no page header at {offset}") from e
    if kind != DATA_PAGE or encoding not in (PLAIN, BYTE_STREAM_SPLIT) or not 0 < 4 * values <= plain or packed < 1:
        raise ValueError(f"no page of vectors at {offset}")
    return Page(offset + size, packed, plain, values, encoding)


# --- Thrift's compact protocol, as far as page headers use it ------------------------------------
def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Values by field id, bytes left out, and where the struct ends."""
    fields: dict[int, Any] = {}
    id = 0
    while head := data[at]:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            id += step
        else:
            id, at = _integer(data, at)
        match kind:
            case 1 | 2:
                fields[id] = kind == 1
            case 4 | 5 | 6:
                fields[id], at = _integer(data, at)
            case 8:
                length, at = _number(data, at)
                at += length
            case 12:
                fields[id], at = _struct(data, at)
            case _:
                raise ValueError(f"a page header with a field of type {kind}")
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Zigzag: 0, -1, 1, -2, ... are the numbers 0, 1, 2, 3, ..."""
    number, at = _number(data, at)
    return (number >> 1) ^ -(number & 1), at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
