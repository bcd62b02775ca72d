"""Putting predicates together in normal form: flat, merged, constants folded, cheap before costly."""

from collections.abc import Iterable, Iterator

from core.types import FLOATS, DataType
from engine.filter import tree
from engine.filter.merge import merge

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
    flat = list(merge(conjunction, flat))
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
