"""Which rows of a batch a typed tree holds for.

A test gives values and validity (``batch.Vector``): true, false, or unknown where not valid.
Everything above the tests is plain bool arrays (see ``tree``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.types import DataType
from engine.filter import arrays, documents, tree
from engine.filter.arithmetic import calculate, calculate_columns
from engine.filter.batch import Batch, Vector, as_bool, both, member, validity, vector
from engine.filter.documents import OPERATORS
from engine.filter.kernels import pc
from engine.filter.screening import candidates

SLICE_ROWS = 16_384
"""JSON rows parsed and held at a time."""

_STRING_OPERATORS: dict[str, Callable[..., pa.BooleanArray]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def holds(node: tree.Predicate, batch: Batch) -> np.ndarray:
    """bool [rows]: where the predicate is true. The array is the caller's."""
    if isinstance(node, tree.And | tree.Or):
        return _junction(node, batch, isinstance(node, tree.And))
    if isinstance(node, tree.Constant):
        return np.full(batch.rows, node.value)
    if isinstance(node, tree.Not):
        values, valid = test(node.test, batch)
        return ~values if valid is None else valid & ~values
    values, valid = test(node, batch)
    return values if valid is None else values & valid


def _junction(node: tree.And | tree.Or, batch: Batch, conjunction: bool) -> np.ndarray:
    result = np.full(batch.rows, conjunction)
    for operand in node.cheap:
        if conjunction:
            result &= holds(operand, batch)
        else:
            result |= holds(operand, batch)
    if not node.costly:
        return result
    open_rows = np.flatnonzero(result == conjunction)
    for first in range(0, len(open_rows), SLICE_ROWS):
        rows = open_rows[first : first + SLICE_ROWS]
        undecided = batch.take(rows)
        for operand in node.costly:
            kept = np.flatnonzero(_holds_costly(operand, undecided) == conjunction)
            result[np.delete(rows, kept)] = not conjunction
            rows, undecided = rows[kept], undecided.take(kept)
    return result


def _holds_costly(node: tree.Predicate, batch: Batch) -> np.ndarray:
    rows = candidates(node, batch)
    if rows is None:
        return holds(node, batch)
    result = np.zeros(batch.rows, bool)
    result[rows] = holds(node, batch.take(rows))
    return result


def test(node: tree.Test, batch: Batch) -> Vector:  # noqa: PLR0911 (one per kind of node)
    """Truth and validity of one test."""
    match node:
        case tree.Compare(op, left, right):
            return _compare(op, left, right, batch)
        case tree.In(value, values):
            column = _column(value, batch)
            return member(column, values), validity(column)
        case tree.PathIn(value, wanted, types):
            return documents.member(_json(value, batch), wanted, types)
        case tree.Like(value, pattern):
            strings = _strings(value, batch)
            return pattern.match(strings), validity(strings)
        case tree.IsNull(tree.Path() as value) if value.keys:
            return ~documents.present(_json(value, batch)), None
        case tree.IsNull(value):
            valid = validity(_column(value, batch))
            return np.zeros(batch.rows, bool) if valid is None else ~valid, None
        case tree.Call(function, arguments):
            return function.evaluate(batch, *arguments)
    raise AssertionError(f"no such test: {node}")


def _compare(op: str, left: tree.Value, right: tree.Value, batch: Batch) -> Vector:
    if left.type is DataType.JSON:
        assert isinstance(right, tree.Literal)
        return documents.compare(_json(left, batch), op, right.value, right.type)
    if left.type is DataType.VARCHAR:
        x = _column(left, batch)
        y = pa.scalar(right.value) if isinstance(right, tree.Literal) else _column(right, batch)
        result = _STRING_OPERATORS[op](x, y)
        return as_bool(result), validity(result)
    x, x_valid = _vector(left, batch)
    if isinstance(right, tree.Literal):
        # A plain Python number takes the type of the column: no copy of the column is made.
        return OPERATORS[op](x, right.value), x_valid  # type: ignore[return-value]  # comparisons give arrays
    y, y_valid = _vector(right, batch)
    return OPERATORS[op](x, y), both(x_valid, y_valid)  # type: ignore[return-value]  # as above


def _column(value: tree.Value, batch: Batch) -> pa.Array:
    match value:
        case tree.Column(name) | tree.Path(name):
            return batch.column(name)
        case tree.Element(name, index):
            return arrays.element(batch.column(name), index)
    raise AssertionError(f"not a column: {value}")


def _vector(value: tree.Value, batch: Batch) -> Vector:
    match value:
        case tree.Literal(number):
            return np.array([number]), None
        case tree.Arithmetic(op, left, right):
            return calculate_columns(op, _vector(left, batch), _vector(right, batch))
        case tree.Call(function, arguments):
            return function.evaluate(batch, *arguments)
        case tree.Column(name):
            return batch.vector(name)
    return vector(_column(value, batch))


def _json(value: tree.Value, batch: Batch) -> Sequence[Any]:
    match value:
        case tree.Path(name, keys):
            return documents.select(batch.documents(name), keys)
        case tree.Literal(number):
            return [number] * batch.rows
        case tree.Arithmetic(op, left, right):
            pairs = zip(_json(left, batch), _json(right, batch), strict=True)
            return [calculate(op, x, y) for x, y in pairs]
    raise AssertionError(f"not a JSON value: {value}")


def _strings(value: tree.Value, batch: Batch) -> pa.Array:
    if not isinstance(value, tree.Path):
        return _column(value, batch)
    return pa.array([v if type(v) is str else None for v in _json(value, batch)], pa.string())
