"""The rows a filter is asked about, and their columns in the forms the tests need."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from engine.filter.kernels import pc

Vector = tuple[np.ndarray, np.ndarray | None]
"""Values [n] and where they are valid (bool [n], None = everywhere). Values that are not valid are arbitrary."""

ISIN_MAX = 40
"""Values up to which comparing with each beats hashing every row (measured on 1M int64)."""


class Batch:
    """``rows`` rows; columns are fetched, taken and parsed once. Used by one thread."""

    __slots__ = ("_columns", "_documents", "_parent", "_selection", "_source", "_vectors", "rows")

    def __init__(
        self,
        source: Callable[[str], pa.Array],
        rows: int,
        parent: "Batch | None" = None,
        selection: np.ndarray | None = None,
    ) -> None:
        self.rows = rows
        self._source = source
        self._parent = parent
        self._selection = selection
        self._columns: dict[str, pa.Array] = {}
        self._vectors: dict[str, Vector] = {}
        self._documents: dict[str, list[Any]] = {}

    def take(self, selection: np.ndarray) -> "Batch":
        """The rows with these numbers, int64 [m]."""
        indices = pa.array(selection)
        return Batch(lambda name: self.column(name).take(indices), len(selection), self, selection)

    def column(self, name: str) -> pa.Array:
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = self._source(name)
        return found

    def vector(self, name: str) -> Vector:
        """A numeric or bool column as NumPy."""
        found = self._vectors.get(name)
        if found is None:
            found = self._vectors[name] = vector(self.column(name))
        return found

    def parsed(self, name: str) -> bool:
        """Whether ``documents`` of a column has nothing left to parse."""
        return name in self._documents or (self._parent is not None and name in self._parent._documents)

    def documents(self, name: str) -> Sequence[Any]:
        """The parsed values of a JSON column; None where the column is null."""
        found = self._documents.get(name)
        if found is None:
            known = self._parent._documents.get(name) if self._parent is not None else None
            if known is not None and self._selection is not None:
                found = [known[i] for i in self._selection.tolist()]
            else:
                found = [None if text is None else orjson.loads(text) for text in self.column(name).to_pylist()]
            self._documents[name] = found
        return found


def both(x: np.ndarray | None, y: np.ndarray | None) -> np.ndarray | None:
    """Valid where both are."""
    return y if x is None else x if y is None else x & y


def validity(array: pa.Array) -> np.ndarray | None:
    return array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None


def vector(array: pa.Array) -> Vector:
    """A numeric or bool array as NumPy; numbers without a copy, nulls or not."""
    if pa.types.is_boolean(array.type):
        values = array.fill_null(False) if array.null_count else array
        return values.to_numpy(zero_copy_only=False), validity(array)
    dtype = np.dtype(array.type.to_pandas_dtype())
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), dtype), validity(array)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize), validity(array)


def as_bool(array: pa.BooleanArray) -> np.ndarray:
    """NumPy bool; null is False."""
    return (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False)


def member(array: pa.Array, values: pa.Array) -> np.ndarray:
    """bool [n]: which of the array are in ``values`` (same type, distinct); null is not."""
    if len(values) == 0 or len(array) == 0:
        return np.zeros(len(array), bool)
    if pa.types.is_boolean(array.type) or pa.types.is_string(array.type):
        return as_bool(pc.is_in(array, value_set=values))
    data, valid = vector(array)
    wanted, _ = vector(values)
    span = int(wanted.max()) - int(wanted.min()) if wanted.dtype.kind == "i" else None
    if wanted.dtype.kind == "f" or len(wanted) <= ISIN_MAX or (span is not None and span <= 4 * len(data)):
        found = np.isin(data, wanted)
    else:
        found = as_bool(pc.is_in(array, value_set=values))
    return found if valid is None else found & valid
