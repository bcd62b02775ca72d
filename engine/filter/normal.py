"""Putting predicates together in normal form: flat, merged, constants folded, cheap before costly."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from core.types import FLOATS, DataType
from engine.filter import tree
from engine.filter.documents import TYPES_OF, token
from engine.filter.fit import arrow_type

INVERSE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_UNORDERED = FLOATS
"""Types with NaN: ``not a < b`` is not ``a >= b``."""


def negate(test: tree.Constant | tree.Test | tree.Not) -> tree.Predicate:
    """The negation of a predicate that is no junction."""
    if isinstance(test, tree.Constant):
        return tree.Constant(not test.value)
    if isinstance(test, tree.Not):
        return test.test
    if isinstance(test, tree.Compare) and not {test.left.type, test.right.type} & _UNORDERED:
        return tree.Compare(INVERSE[test.op], test.left, test.right)
    return tree.Not(test)


def junction(conjunction: bool, operands: Iterable[tree.Predicate]) -> tree.Predicate:
    """``and`` or ``or`` of predicates in normal form; of none, the neutral constant."""
    flat: list[tree.Predicate] = []
    for operand in operands:
        if isinstance(operand, tree.Constant):
            if operand.value != conjunction:
                return operand
        elif isinstance(operand, tree.And if conjunction else tree.Or):
            flat += operand.operands
        else:
            flat.append(operand)
    flat = _merge(conjunction, flat)
    if not flat:
        return tree.Constant(conjunction)
    if len(flat) == 1:
        return flat[0]
    return _sorted(conjunction, flat)


def whole(predicate: tree.Predicate) -> tree.Predicate:
    """The root of a tree: a single test of JSON goes below an ``And`` too, which feeds it rows in slices."""
    if isinstance(predicate, tree.And | tree.Or) or not reads_json(predicate):
        return predicate
    return _sorted(True, [predicate])


def _sorted(conjunction: bool, operands: list[tree.Predicate]) -> tree.Predicate:
    cheap: list[tree.Predicate] = []
    costly: list[tree.Predicate] = []
    for operand in operands:
        (costly if reads_json(operand) else cheap).append(operand)
    kind = tree.And if conjunction else tree.Or
    return kind(tuple(sorted(cheap, key=_cost)), tuple(costly))


# --- merging ---------------------------------------------------------------------------------
_Key = tuple[tree.Value, frozenset[type] | None]


def _merge(conjunction: bool, operands: list[tree.Predicate]) -> list[tree.Predicate]:
    """``a == 1 or a in [2]`` becomes ``a in [1, 2]``; ``a != 1 and a not in [2]`` likewise.

    JSON values are merged only among literals of one type: of another type they are unknown.
    """
    groups: dict[_Key, list[tree.Predicate]] = {}
    result: list[tree.Predicate] = []
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
        tests = [
            m.test if isinstance(m, tree.Not) else m
            for m in members
            if not isinstance(m, tree.Constant | tree.And | tree.Or)
        ]
        merged = _union(value, tests) if types is None else _union_json(value, types, tests)
        result.append(tree.Not(merged) if conjunction else merged)
    return result


def _membership(predicate: tree.Predicate, negated: bool) -> _Key | None:
    """What a predicate tests for membership (or, negated, for its absence)."""
    op = "!=" if negated else "=="
    if negated and isinstance(predicate, tree.Not):
        predicate, op = predicate.test, "=="
    elif negated and not isinstance(predicate, tree.Compare):
        return None
    match predicate:
        case tree.Compare(o, tree.Column() | tree.Element() as value, tree.Literal()) if o == op:
            return value, None
        case tree.Compare(o, tree.Path() as value, tree.Literal(_, kind)) if o == op and kind is not DataType.ARRAY:
            return value, TYPES_OF[kind]
        case tree.In(tree.Column() | tree.Element() as value, _):
            return value, None
        case tree.PathIn(value, _, types):
            return value, types
    return None


def _union(value: tree.Value, tests: list[tree.Test]) -> tree.In:
    kind = arrow_type(value.type)
    single = [t.right.value for t in tests if isinstance(t, tree.Compare) and isinstance(t.right, tree.Literal)]
    lists = [t.values for t in tests if isinstance(t, tree.In)]
    return tree.In(value, pa.concat_arrays([pa.array(single, kind), *lists]).unique())


def _union_json(value: tree.Value, types: frozenset[type], tests: list[tree.Test]) -> tree.PathIn:
    assert isinstance(value, tree.Path)
    wanted: set[object] = set()
    for test in tests:
        if isinstance(test, tree.PathIn):
            wanted |= test.wanted
        elif isinstance(test, tree.Compare) and isinstance(test.right, tree.Literal):
            wanted.add(token(test.right.value))
    return tree.PathIn(value, frozenset(wanted), types)


# --- what a tree reads -----------------------------------------------------------------------
def reads(node: tree.Predicate | tree.Value) -> Iterator[tree.Column | tree.Element | tree.Path | tree.Call]:
    """The columns, elements, paths and calls in a tree."""
    left: list[tree.Predicate | tree.Value] = [node]
    while left:
        node = left.pop()
        match node:
            case tree.Column() | tree.Element() | tree.Path() | tree.Call():
                yield node
            case tree.Compare() | tree.Arithmetic():
                left += (node.left, node.right)
            case tree.In() | tree.PathIn() | tree.Like() | tree.IsNull():
                left.append(node.value)
            case tree.Not():
                left.append(node.test)
            case tree.And() | tree.Or():
                left += node.operands


def fields(predicate: tree.Predicate) -> frozenset[str]:
    names: set[str] = set()
    for value in reads(predicate):
        if isinstance(value, tree.Call):
            names |= value.columns
        else:
            names.add(value.name)
    return frozenset(names)


def reads_json(predicate: tree.Predicate) -> bool:
    if isinstance(predicate, tree.And | tree.Or):
        return bool(predicate.costly)
    return any(
        isinstance(value, tree.Path) or (isinstance(value, tree.Call) and value.json) for value in reads(predicate)
    )


def _cost(predicate: tree.Predicate) -> int:
    """Ranks tests that read no JSON: numbers, strings, arrays, patterns, junctions."""
    test = predicate.test if isinstance(predicate, tree.Not) else predicate
    match test:
        case tree.And() | tree.Or():
            return 4
        case tree.Like():
            return 3
        case tree.Call():
            return 2
        case tree.Compare(_, left, right) if DataType.VARCHAR in (left.type, right.type):
            return 1
        case tree.In(value) if value.type is DataType.VARCHAR:
            return 1
    return 0
