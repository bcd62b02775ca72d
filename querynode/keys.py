"""Primary keys as arrays: int64 in NumPy, strings in Arrow, under the same few operations.

Strings order by their UTF-8 bytes, which is the order of segments, of ``str`` and of Arrow.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute
"""Untyped: its stubs lack the generated functions."""

Keys = np.ndarray | pa.StringArray
"""int64 [n], or strings [n]."""


def keys_of(array: pa.Array) -> Keys:
    """The keys of a primary-key column; shares its memory."""
    if pa.types.is_int64(array.type):
        return array.to_numpy(zero_copy_only=False)
    return cast(pa.StringArray, array)


def owned(array: pa.Array) -> pa.Array:
    """A copy that keeps no larger buffer (a log record's payload) alive."""
    return array.copy_to(pa.default_cpu_memory_manager())


def to_arrow(keys: Keys) -> pa.Array:
    if isinstance(keys, np.ndarray):
        # A third of the price of pa.array(), which looks for nulls and dtypes first.
        return pa.Int64Array.from_buffers(pa.int64(), len(keys), [None, pa.py_buffer(keys)])
    return keys


def to_list(keys: Keys) -> list[Any]:
    """Python values, for hashing."""
    return keys.tolist() if isinstance(keys, np.ndarray) else keys.to_pylist()


def concat(parts: Sequence[Keys]) -> Keys:
    """Keys of all parts (at least one) in order."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(cast(Sequence[np.ndarray], parts))
    return cast(pa.StringArray, pa.concat_arrays(cast(Sequence[pa.Array], parts)))


def take(keys: Keys, rows: np.ndarray) -> Keys:
    return keys[rows] if isinstance(keys, np.ndarray) else cast(pa.StringArray, keys.take(pa.array(rows)))


def order(keys: Keys) -> np.ndarray:
    """int64 [n]: the rows in key order; equal keys keep theirs."""
    if isinstance(keys, np.ndarray):
        return np.argsort(keys, kind="stable")
    return pc.sort_indices(keys).to_numpy().astype(np.int64)


def find(stored: Keys, wanted: Keys) -> tuple[np.ndarray, np.ndarray]:
    """Where wanted keys are in stored ones, which are sorted and unique.

    Gives (rows, which), both int64 [hits]: ``stored[rows[i]] == wanted[which[i]]``.
    """
    none = np.empty(0, np.int64)
    if not len(stored) or not len(wanted):
        return none, none
    if isinstance(stored, np.ndarray):
        places = np.searchsorted(stored, wanted)
        places[places == len(stored)] = 0
        which = np.flatnonzero(stored[places] == wanted)
        return places[which], which
    places = pc.search_sorted(stored, wanted).to_numpy().astype(np.int64)
    places[places == len(stored)] = 0
    same = pc.equal(stored.take(pa.array(places)), wanted)
    which = np.flatnonzero(same.to_numpy(zero_copy_only=False))
    return places[which], which


def span(keys: Keys) -> tuple[Any, Any]:
    """Smallest and largest of at least one key."""
    if isinstance(keys, np.ndarray):
        return int(keys.min()), int(keys.max())
    ends = pc.min_max(keys).as_py()
    return ends["min"], ends["max"]
