"""Arithmetic as Milvus does it: on constants and JSON values one by one, on columns as a whole.

int op int is int (``/`` cuts towards zero, ``%`` has the sign of the dividend), anything with a
float is float, ``**`` is always float. What has no answer has no value: division by zero, an
integer beyond int64, a float beyond double, ``%`` of floats.
"""

import math
import operator
from typing import Any

import numpy as np

from engine.filter.batch import Vector, both
from engine.filter.literals import INT64_MAX, INT64_MIN

_PLAIN = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def calculate(op: str, x: Any, y: Any) -> int | float | None:
    """The answer for two values of a JSON document or a filter's text; None where there is none."""
    if type(x) is int and type(y) is int and op != "**":
        return _calculate_int(op, x, y)
    if not (type(x) in (int, float) and type(y) in (int, float)) or op == "%" or (op == "/" and y == 0):
        return None
    try:
        result = math.pow(x, y) if op == "**" else float(x) / y if op == "/" else _PLAIN[op](float(x), float(y))
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def _calculate_int(op: str, x: int, y: int) -> int | None:
    if op in _PLAIN:
        result = _PLAIN[op](x, y)
    elif y == 0:
        return None
    else:
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        result = quotient if op == "/" else x - quotient * y
    return result if INT64_MIN <= result <= INT64_MAX else None


def calculate_columns(op: str, left: Vector, right: Vector) -> Vector:
    """As ``calculate``, row by row; a side of one value stands for every row."""
    (x, x_valid), (y, y_valid) = left, right
    valid = both(x_valid, y_valid)
    with np.errstate(all="ignore"):
        if x.dtype.kind == "i" and y.dtype.kind == "i" and op != "**":
            values, sound = _integers(op, x.astype(np.int64, copy=False), y.astype(np.int64, copy=False))
        else:
            values, sound = _floats(op, x.astype(np.float64, copy=False), y.astype(np.float64, copy=False))
    return values, both(valid, sound)


def _floats(op: str, x: np.ndarray, y: np.ndarray) -> Vector:
    if op == "/":
        values = x / y
    elif op == "**":
        values = np.power(x, y)
    else:
        values = _PLAIN[op](x, y)
    sound = np.isfinite(values)
    return values, None if sound.all() else sound


def _integers(op: str, x: np.ndarray, y: np.ndarray) -> Vector:
    if op in _PLAIN:
        values = _PLAIN[op](x, y)
        return values, None if _fits(op, x, y) else ~_overflows(op, x, y, values)
    sound = y != 0
    divisor = np.where(y == 0, 1, y)
    if op == "%":
        # The remainder by -1 is 0, but the machine's division of the smallest int64 by -1 traps.
        return np.fmod(x, np.where(divisor == -1, 1, divisor)), None if sound.all() else sound
    sound = sound & ((x != INT64_MIN) | (y != -1))
    quotient = x // divisor
    quotient += (quotient * divisor != x) & ((x < 0) != (divisor < 0))
    return quotient, None if sound.all() else sound


def _fits(op: str, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether no pair can leave int64, by the extremes alone."""
    if not len(x) or not len(y):
        return True
    ends = [_PLAIN[op](int(a), int(b)) for a in (x.min(), x.max()) for b in (y.min(), y.max())]
    return min(ends) >= INT64_MIN and max(ends) <= INT64_MAX


def _overflows(op: str, x: np.ndarray, y: np.ndarray, wrapped: np.ndarray) -> np.ndarray:
    if op == "+":
        return ((x ^ wrapped) & (y ^ wrapped)) < 0
    if op == "-":
        return ((x ^ y) & (x ^ wrapped)) < 0
    smallest_by_minus_one = ((x == INT64_MIN) & (y == -1)) | ((x == -1) & (y == INT64_MIN))
    return ((y != 0) & (wrapped // np.where(y == 0, 1, y) != x)) | smallest_by_minus_one
