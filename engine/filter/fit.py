"""How literals fit the types they are compared with."""

import math
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import FilterError
from core.types import FLOATS, INTEGERS, TYPES, DataType
from engine.filter.documents import token
from engine.filter.literals import INT64_MAX, INT64_MIN
from engine.filter.tree import Compare, In, Literal, Not, Test, Value

NUMBERS = INTEGERS | FLOATS
_LIMITS = {t: (int(np.iinfo(n).min), int(np.iinfo(n).max)) for t in INTEGERS if (n := TYPES[t].numpy)}
_LITERAL_TYPES = {bool: DataType.BOOL, int: DataType.INT64, float: DataType.DOUBLE, str: DataType.VARCHAR}
_ACCEPTED = {
    **dict.fromkeys(NUMBERS, frozenset({int, float})),
    DataType.BOOL: frozenset({bool}),
    DataType.VARCHAR: frozenset({str}),
}


def literal(value: Any) -> Literal:
    """A typed literal. Raises FilterError for an int beyond int64, a NaN, a string with half of a
    surrogate pair, or what is no value."""
    if isinstance(value, list):
        return Literal(value, DataType.ARRAY)
    kind = _LITERAL_TYPES.get(type(value))
    if kind is None:
        raise FilterError(f"a value of type {type(value).__name__} cannot be used in a filter")
    if kind is DataType.INT64 and not INT64_MIN <= value <= INT64_MAX:
        raise FilterError(f"{value} is out of the range of int64")
    if kind is DataType.DOUBLE and not math.isfinite(value):
        raise FilterError(f"{value} is not a finite number")
    if kind is DataType.VARCHAR and not value.isascii():
        _array(kind, [value])
    return Literal(value, kind)


def label(value: Value) -> str:
    """The name of a value's type as Milvus writes it."""
    return TYPES[value.type].label


def comparable(x: DataType, y: DataType) -> bool:
    return (x in NUMBERS and y in NUMBERS) or (x is y and x in (DataType.BOOL, DataType.VARCHAR))


def compare_literal(op: str, value: Value, other: Literal) -> Test | Not:
    """``value op literal`` with the literal brought exactly to the type of the value; types are comparable."""
    x = other.value
    if value.type is DataType.FLOAT:
        return Compare(op, value, Literal(_float32(x), DataType.FLOAT))
    if value.type is DataType.DOUBLE:
        return Compare(op, value, Literal(float(x), DataType.DOUBLE))
    return _compare_integer(op, value, x) if value.type in INTEGERS else Compare(op, value, other)


def _compare_integer(op: str, value: Value, x: Any) -> Test | Not:
    if type(x) is float and not x.is_integer():
        if op in ("==", "!="):
            return _all_or_none(op == "!=", value)
        op, x = {"<": "<=", "<=": "<=", ">": ">", ">=": ">"}[op], math.floor(x)
    least, most = _LIMITS[value.type]
    if x > most:
        return _all_or_none(op in ("<", "<=", "!="), value)
    if x < least:
        return _all_or_none(op in (">", ">=", "!="), value)
    return Compare(op, value, Literal(int(x), value.type))


def _all_or_none(every: bool, value: Value) -> Test | Not:
    """The same answer for every value; still unknown for null."""
    nothing = In(value, pa.array([], arrow_type(value.type)))
    return Not(nothing) if every else nothing


def arrow_type(data_type: DataType) -> pa.DataType:
    return TYPES[data_type].arrow(0)


def member(value: Value, elements: list[Any]) -> In:
    """``value in elements``. Raises FilterError for an element that cannot be of the value's type."""
    kinds = set(map(type, elements))
    allowed = {int} if value.type in INTEGERS else _ACCEPTED[value.type]
    if not kinds <= allowed:
        wrong = next(e for e in elements if type(e) not in allowed)
        raise FilterError(f"value '{_as_generic(wrong)}' in list cannot be casted to {label(value)}")
    return In(value, _array(value.type, elements))


def fitting(data_type: DataType, elements: list[Any], what: str) -> pa.Array:
    """The distinct elements that a value of the type can be equal to. Raises FilterError for one of another kind."""
    allowed = _ACCEPTED[data_type]
    for element in elements:
        if type(element) not in allowed:
            other = TYPES[_LITERAL_TYPES.get(type(element), DataType.ARRAY)].label
            raise FilterError(f"{what} {TYPES[data_type].label} cannot have an element of {other}")
    if data_type in INTEGERS:
        elements = [int(e) for e in elements if type(e) is int or e.is_integer()]
    return _array(data_type, elements)


def distinct(elements: list[Any]) -> int:
    return len(set(map(token, elements)))


def _array(data_type: DataType, elements: list[Any]) -> pa.Array:
    numpy = TYPES[data_type].numpy
    if data_type in (DataType.VARCHAR, DataType.BOOL) or numpy is None:
        try:
            return pa.array(elements, arrow_type(data_type)).unique()
        except UnicodeEncodeError:
            raise FilterError("a string holds half of a surrogate pair") from None
    with np.errstate(over="ignore"):
        if data_type in FLOATS:
            return pa.array(np.unique(np.array(elements, np.float64).astype(numpy)))
        try:
            values = np.unique(np.array(elements, np.int64))
        except OverflowError:
            wrong = next(e for e in elements if not INT64_MIN <= e <= INT64_MAX)
            raise FilterError(f"{wrong} is out of the range of int64") from None
    limits = np.iinfo(numpy)
    return pa.array(values[(values >= limits.min) & (values <= limits.max)].astype(numpy))


def _float32(x: int | float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(x))


def _as_generic(value: Any) -> str:
    """As Milvus prints a literal in this message."""
    match value:
        case bool():
            return f"bool_val:{str(value).lower()}"
        case int():
            return f"int64_val:{value}"
        case float():
            return f"float_val:{value}"
        case str():
            return f'string_val:"{value}"'
    return "array_val"
