"""Tests and values of ARRAY fields, on the offsets of the Arrow list column."""

import numpy as np
import pyarrow as pa

from engine.filter.batch import Vector, member, validity
from engine.filter.kernels import pc


def _ends(array: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets[:-1], offsets[1:]


def element(array: pa.ListArray, index: int) -> pa.Array:
    """``array[index]`` of every row; null where the row is null or shorter."""
    start, end = _ends(array)
    outside = end - start <= index
    valid = validity(array)
    if valid is not None:
        outside |= ~valid
    return array.values.take(pa.array(start + index, mask=outside))


def length(array: pa.ListArray) -> Vector:
    start, end = _ends(array)
    return end - start, validity(array)


def contains_any(array: pa.ListArray, values: pa.Array, _needed: int) -> Vector:
    """Rows that hold at least one of ``values``."""
    start, end = _ends(array)
    hits = np.concatenate(([0], np.cumsum(member(array.values, values))))
    return hits[end] > hits[start], validity(array)


def contains_all(array: pa.ListArray, values: pa.Array, needed: int) -> Vector:
    """Rows that hold each of ``needed`` distinct values; those of them that an element can be are ``values``."""
    if needed != len(values):
        return np.zeros(len(array), bool), validity(array)
    if not needed:
        return np.ones(len(array), bool), validity(array)
    start, end = _ends(array)
    kinds = pc.index_in(array.values, value_set=values).fill_null(-1).to_numpy().astype(np.int64)
    # Rows need not lie back to back in ``array.values`` (a null row may cover elements).
    lengths = end - start
    rows = np.repeat(np.arange(len(array)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kinds = kinds[np.repeat(start, lengths) + within]
    found = kinds >= 0
    pairs = np.unique(rows[found] * needed + kinds[found])
    return np.bincount(pairs // needed, minlength=len(array)) == needed, validity(array)
