"""Alternatives about one value put together: thousands of tests become one.

Programs write ``a == 1 or a == 2 or ...``, and the same with ``array_contains`` and ``like``; asked one by
one, each test passes over all rows. What holds for ``or`` of tests holds for ``and`` of their negations:
``a != 1 and a not in [2]`` is ``a not in [1, 2]``.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator

import pyarrow as pa

from core.types import DataType
from engine.filter import tree
from engine.filter.documents import TYPES_OF, token
from engine.filter.fit import arrow_type
from engine.filter.like import any_of

_Key = tuple[Callable[..., Iterable[tree.Test]], Hashable, Hashable]
"""What puts tests together, and what it needs besides them: tests with the same key are merged."""


def merge(conjunction: bool, operands: Iterable[tree.Predicate]) -> Iterator[tree.Predicate]:
    """Operands of an ``and`` or ``or`` that hold, or are unknown, for the same rows as all of these."""
    groups: dict[_Key, list[tuple[tree.Predicate, tree.Test]]] = {}
    for operand in operands:
        test = _denied(operand) if conjunction else operand
        if test is None or isinstance(test, tree.Constant | tree.Not | tree.And | tree.Or):
            yield operand
            continue
        key = _key(test)
        if key is None:
            yield operand
        else:
            groups.setdefault(key, []).append((operand, test))
    for (union, *needed), members in groups.items():
        if len(members) == 1:
            yield members[0][0]
        else:
            tests = union([test for _, test in members], *needed)
            yield from map(tree.Not, tests) if conjunction else tests


def _denied(predicate: tree.Predicate) -> tree.Test | None:
    """The test that a predicate is the negation of."""
    match predicate:
        case tree.Not(test):
            return test
        case tree.Compare("!=", left, right):
            return tree.Compare("==", left, right)
    return None


def _key(test: tree.Test) -> _Key | None:  # noqa: PLR0911 (one per kind of test)
    match test:
        case tree.Compare("==", tree.Column() | tree.Element() as value, tree.Literal()):
            return _members, value, None
        case tree.In(tree.Column() | tree.Element() as value, _):
            return _members, value, None
        # JSON values only among literals of one type: of another type they are unknown.
        case tree.Compare("==", tree.Path() as value, tree.Literal(_, kind)) if kind is not DataType.ARRAY:
            return _members_of_json, value, TYPES_OF[kind]
        case tree.PathIn(value, _, types):
            return _members_of_json, value, types
        case tree.Call(function, (target, *_)) if function.union is not None:
            return _calls, function.union, target
        case tree.Like(value, _):
            return _likes, value, None
    return None


def _members(tests: list[tree.Test], value: tree.Value, _: None) -> Iterator[tree.In]:
    single = [t.right.value for t in tests if isinstance(t, tree.Compare) and isinstance(t.right, tree.Literal)]
    lists = [t.values for t in tests if isinstance(t, tree.In)]
    yield tree.In(value, pa.concat_arrays([pa.array(single, arrow_type(value.type)), *lists]).unique())


def _members_of_json(tests: list[tree.Test], value: tree.Path, types: frozenset[type]) -> Iterator[tree.PathIn]:
    wanted: set[object] = set()
    for test in tests:
        if isinstance(test, tree.PathIn):
            wanted |= test.wanted
        elif isinstance(test, tree.Compare) and isinstance(test.right, tree.Literal):
            wanted.add(token(test.right.value))
    yield tree.PathIn(value, frozenset(wanted), types)


def _calls(tests: list[tree.Test], union: Callable[[list[tuple]], tuple], _: object) -> Iterator[tree.Call]:
    calls = [t for t in tests if isinstance(t, tree.Call)]
    yield tree.Call(calls[0].function, union([c.arguments for c in calls]), calls[0].columns, calls[0].json)


def _likes(tests: list[tree.Test], value: tree.Value, _: None) -> Iterator[tree.Like]:
    for pattern in any_of([t.pattern for t in tests if isinstance(t, tree.Like)]):
        yield tree.Like(value, pattern)
