"""Putting predicates together in normal form: flat, merged, constants folded, cheap before costly."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from core.types import FLOATS, DataType
from engine.filter.documents import TYPES_OF, token
from engine.filter.fit import arrow_type
from engine.filter.tree import (
    And,
    Arithmetic,
    Call,
    Column,
    Compare,
    Constant,
    Element,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
    Path,
    PathIn,
    Predicate,
    Test,
    Value,
)

INVERSE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_UNORDERED = FLOATS
"""Types with NaN: ``not a < b`` is not ``a >= b``."""


def negate(test: Constant | Test | Not) -> Predicate:
    """The negation of a predicate that is no junction."""
    if isinstance(test, Constant):
        return Constant(not test.value)
    if isinstance(test, Not):
        return test.test
    if isinstance(test, Compare) and not {test.left.type, test.right.type} & _UNORDERED:
        return Compare(INVERSE[test.op], test.left, test.right)
    return Not(test)


def junction(conjunction: bool, operands: Iterable[Predicate]) -> Predicate:
    """``and`` or ``or`` of predicates in normal form; of none, the neutral constant."""
    flat: list[Predicate] = []
    for operand in operands:
        if isinstance(operand, Constant):
            if operand.value != conjunction:
                return operand
        elif isinstance(operand, And if conjunction else Or):
            flat += operand.operands
        else:
            flat.append(operand)
    flat = _merge(conjunction, flat)
    if not flat:
        return Constant(conjunction)
    if len(flat) == 1:
        return flat[0]
    return _sorted(conjunction, flat)


def whole(predicate: Predicate) -> Predicate:
    """The root of a tree: a single test of JSON goes below an ``And`` too, which feeds it rows in slices."""
    if isinstance(predicate, And | Or) or not reads_json(predicate):
        return predicate
    return _sorted(True, [predicate])


def _sorted(conjunction: bool, operands: list[Predicate]) -> Predicate:
    cheap = tuple(sorted((o for o in operands if not reads_json(o)), key=_cost))
    costly = tuple(o for o in operands if reads_json(o))
    return And(cheap, costly) if conjunction else Or(cheap, costly)


# --- merging ---------------------------------------------------------------------------------
_Key = tuple[Value, frozenset[type] | None]


def _merge(conjunction: bool, operands: list[Predicate]) -> list[Predicate]:
    """``a == 1 or a in [2]`` becomes ``a in [1, 2]``; ``a != 1 and a not in [2]`` likewise.

    JSON values are merged only among literals of one type: of another type they are unknown.
    """
    groups: dict[_Key, list[Predicate]] = {}
    result: list[Predicate] = []
    for operand in operands:
        key = _membership(operand, negated=conjunction)
        if key is None:
            result.append(operand)
        else:
            groups.setdefault(key, []).append(operand)
    for (value, types), members in groups.items():
        if len(members) == 1:
            result.append(members[0])
            continue
        tests = [m.test if isinstance(m, Not) else m for m in members if not isinstance(m, Constant | And | Or)]
        merged = _union(value, tests) if types is None else _union_json(value, types, tests)
        result.append(Not(merged) if conjunction else merged)
    return result


def _membership(predicate: Predicate, negated: bool) -> _Key | None:
    """What a predicate tests for membership (or, negated, for its absence)."""
    op = "!=" if negated else "=="
    if negated and isinstance(predicate, Not):
        predicate, op = predicate.test, "=="
    elif negated and not isinstance(predicate, Compare):
        return None
    match predicate:
        case Compare(o, Column() | Element() as value, Literal()) if o == op:
            return value, None
        case Compare(o, Path() as value, Literal(_, kind)) if o == op and kind is not DataType.ARRAY:
            return value, TYPES_OF[kind]
        case In(Column() | Element() as value, _):
            return value, None
        case PathIn(value, _, types):
            return value, types
    return None


def _union(value: Value, tests: list[Test]) -> In:
    kind = arrow_type(value.type)
    single = [t.right.value for t in tests if isinstance(t, Compare) and isinstance(t.right, Literal)]
    lists = [t.values for t in tests if isinstance(t, In)]
    return In(value, pa.concat_arrays([pa.array(single, kind), *lists]).unique())


def _union_json(value: Value, types: frozenset[type], tests: list[Test]) -> PathIn:
    assert isinstance(value, Path)
    wanted: set[object] = set()
    for test in tests:
        if isinstance(test, PathIn):
            wanted |= test.wanted
        elif isinstance(test, Compare) and isinstance(test.right, Literal):
            wanted.add(token(test.right.value))
    return PathIn(value, frozenset(wanted), types)


# --- what a tree reads -----------------------------------------------------------------------
def reads(node: Predicate | Value) -> Iterator[Value]:
    """The columns, elements, paths and calls in a tree."""
    match node:
        case And() | Or():
            for operand in node.operands:
                yield from reads(operand)
        case Not(test):
            yield from reads(test)
        case Compare(_, left, right) | Arithmetic(_, left, right):
            yield from reads(left)
            yield from reads(right)
        case In(value) | PathIn(value) | Like(value) | IsNull(value):
            yield from reads(value)
        case Column() | Element() | Path() | Call():
            yield node


def fields(predicate: Predicate) -> frozenset[str]:
    names: set[str] = set()
    for value in reads(predicate):
        if isinstance(value, Call):
            names |= value.columns
        elif isinstance(value, Column | Element | Path):
            names.add(value.name)
    return frozenset(names)


def reads_json(predicate: Predicate) -> bool:
    if isinstance(predicate, And | Or):
        return bool(predicate.costly)
    return any(isinstance(value, Path) or (isinstance(value, Call) and value.json) for value in reads(predicate))


def _cost(predicate: Predicate) -> int:
    """Ranks tests that read no JSON: numbers, strings, arrays, patterns, junctions."""
    test = predicate.test if isinstance(predicate, Not) else predicate
    match test:
        case And() | Or():
            return 4
        case Like():
            return 3
        case Call():
            return 2
        case Compare(_, left, right) if DataType.VARCHAR in (left.type, right.type):
            return 1
        case In(value) if value.type is DataType.VARCHAR:
            return 1
    return 0
