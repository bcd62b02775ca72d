"""What a typed tree says without reading rows: whether a segment can match, and with which values."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from core.schema import Field
from core.types import FLOATS
from engine.filter.documents import OPERATORS
from engine.filter.fit import arrow_type
from engine.filter.kernels import pc
from engine.filter.tree import (
    And,
    Column,
    Compare,
    Constant,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
    Predicate,
)

Bounds = Mapping[str, tuple[Any, Any, int]]


def may_match(node: Predicate, bounds: Bounds) -> bool:  # noqa: PLR0911 (one per kind of node)
    """False only if no row within the bounds can match."""
    match node:
        case Constant(value):
            return value
        case And():
            return all(may_match(operand, bounds) for operand in node.operands)
        case Or():
            return any(may_match(operand, bounds) for operand in node.operands)
        case IsNull(Column(name)):
            return name not in bounds or bounds[name][2] > 0
        case Compare(op, Column(name, kind), Literal(value)) if _known(name, bounds):
            low, high, _ = bounds[name]
            # Rows of NaN are within no bounds, and unequal to everything.
            return kind in FLOATS if op == "!=" and low == high == value else _overlaps(op, low, high, value)
        case In(Column(name), values) if _known(name, bounds):
            return _any_between(values, *bounds[name][:2])
        case Not(In(Column(name, kind), values)) if _known(name, bounds) and kind not in FLOATS:
            low, high, _ = bounds[name]
            return low != high or not _any_between(values, low, high)
        case Like(Column(name), pattern) if _known(name, bounds) and pattern.kind in ("equal", "prefix"):
            low, high, _ = bounds[name]
            prefix = pattern.operand
            return high >= prefix and (low <= prefix or low.startswith(prefix))
    return True


def _known(name: str, bounds: Bounds) -> bool:
    found = bounds.get(name)
    return found is not None and found[0] is not None and found[1] is not None


def _overlaps(op: str, low: Any, high: Any, value: Any) -> bool:
    match op:
        case "==":
            return low <= value <= high
        case "!=":
            return True
        case "<" | "<=":
            return OPERATORS[op](low, value)
    return OPERATORS[op](high, value)


def _any_between(values: pa.Array, low: Any, high: Any) -> bool:
    if not len(values):
        return False
    low, high = pa.scalar(low, values.type), pa.scalar(high, values.type)
    between = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    return bool(pc.any(between).as_py())


def values(node: Predicate, field: Field) -> tuple[pa.Array | None, bool]:
    """The values of a field a matching row can have (None = any), distinct; and whether the predicate is
    exactly membership in them."""
    match node:
        case Constant(False):
            return pa.array([], arrow_type(field.type)), True
        case Compare("==", Column(name), Literal(value)) if name == field.name:
            return pa.array([value], arrow_type(field.type)), True
        case In(Column(name), wanted) if name == field.name:
            return wanted, True
        case And():
            return _intersection([values(operand, field) for operand in node.operands])
        case Or():
            return _union([values(operand, field) for operand in node.operands])
    return None, False


def _intersection(sides: list[tuple[pa.Array | None, bool]]) -> tuple[pa.Array | None, bool]:
    known = sorted((side for side, _ in sides if side is not None), key=len)
    if not known:
        return None, False
    result = known[0]
    for other in known[1:]:
        result = result.filter(pc.is_in(result, value_set=other))
    return result, all(exact for _, exact in sides)


def _union(sides: list[tuple[pa.Array | None, bool]]) -> tuple[pa.Array | None, bool]:
    known = [side for side, _ in sides if side is not None]
    if len(known) < len(sides):
        return None, False
    return pa.concat_arrays(known).unique(), all(exact for _, exact in sides)
