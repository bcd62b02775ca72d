"""JSON values: one Python value per row, because their types differ from row to row."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.types import DataType
from engine.filter.batch import Vector

_NUMBERS = frozenset({int, float})
TYPES_OF: dict[DataType, frozenset[type]] = {
    DataType.BOOL: frozenset({bool}),
    DataType.INT64: _NUMBERS,
    DataType.DOUBLE: _NUMBERS,
    DataType.VARCHAR: frozenset({str}),
    DataType.ARRAY: frozenset({list}),
}
"""The Python types of the JSON values a literal of the type can be compared with."""

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def select(documents: Sequence[Any], keys: tuple[str | int, ...]) -> Sequence[Any]:
    """The value at ``keys`` in each document; None where there is none or it is null."""
    for key in keys:
        name = str(key)
        index = int(name) if name.isascii() and name.isdigit() and len(name) < 10 else None
        documents = [
            d.get(name)
            if type(d) is dict
            else d[index]
            if type(d) is list and index is not None and index < len(d)
            else None
            for d in documents
        ]
    return documents


def token(value: Any) -> Any:
    """A hashable stand-in, equal for equal JSON values: 1 equals 1.0 and is not ``true``."""
    kind = type(value)
    if kind in (int, float, str):
        return value
    if kind is list:
        return (list, *map(token, value))
    if kind is dict:
        return (dict, frozenset((k, token(v)) for k, v in value.items()))
    return (kind, value)


def compare(values: Sequence[Any], op: str, literal: Any, literal_type: DataType) -> Vector:
    """``value op literal``; not valid where the value's type is another than the literal's."""
    types, test = TYPES_OF[literal_type], OPERATORS[op]
    if literal_type is DataType.ARRAY:
        literal, values = token(literal), [token(v) if type(v) is list else None for v in values]
        types = frozenset({tuple})
    return (
        np.fromiter((type(v) in types and test(v, literal) for v in values), bool, len(values)),
        np.fromiter((type(v) in types for v in values), bool, len(values)),
    )


def member(values: Sequence[Any], wanted: frozenset[Any], types: frozenset[type]) -> Vector:
    return (
        np.fromiter((type(v) in types and token(v) in wanted for v in values), bool, len(values)),
        np.fromiter((type(v) in types for v in values), bool, len(values)),
    )


def length(values: Sequence[Any]) -> Vector:
    return (
        np.fromiter((len(v) if type(v) is list else 0 for v in values), np.int64, len(values)),
        _lists(values),
    )


def contains_any(values: Sequence[Any], wanted: frozenset[Any]) -> Vector:
    return (
        np.fromiter((type(v) is list and any(token(e) in wanted for e in v) for v in values), bool, len(values)),
        _lists(values),
    )


def contains_all(values: Sequence[Any], wanted: frozenset[Any]) -> Vector:
    return (
        np.fromiter((type(v) is list and wanted <= set(map(token, v)) for v in values), bool, len(values)),
        _lists(values),
    )


def present(values: Sequence[Any]) -> np.ndarray:
    return np.fromiter((v is not None for v in values), bool, len(values))


def _lists(values: Sequence[Any]) -> np.ndarray:
    return np.fromiter((type(v) is list for v in values), bool, len(values))
