"""From syntax to the typed tree of one schema: names, types, templates, constants.

Raises FilterError with Milvus's wording where Milvus has one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import FilterError, NotYet
from core.limits import FILTER_DEPTH_MAX
from core.schema import DYNAMIC, Field, Schema
from core.types import INTEGERS, TYPES, DataType
from engine.filter import fit, syntax
from engine.filter.arithmetic import calculate
from engine.filter.documents import OPERATORS, TYPES_OF, token
from engine.filter.fit import label
from engine.filter.functions import FUNCTIONS, NOT_YET
from engine.filter.like import compile_pattern
from engine.filter.normal import junction, negate, whole
from engine.filter.tree import (
    Arithmetic,
    Call,
    Column,
    Compare,
    Constant,
    Element,
    IsNull,
    Like,
    Literal,
    Not,
    Path,
    PathIn,
    Predicate,
    Test,
    Value,
)

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_RANGES = (frozenset({"<", "<="}), frozenset({">", ">="}))


def check(tree: syntax.Syntax, schema: Schema, params: Mapping[str, Any]) -> Predicate:
    """The typed tree of a filter, in normal form."""
    return whole(_Checker(schema, params).predicate(tree, False, 1))


class _Checker:
    def __init__(self, schema: Schema, params: Mapping[str, Any]) -> None:
        self._schema = schema
        self._params = params
        self._names: dict[syntax.Name, Value] = {}

    # --- predicates --------------------------------------------------------------------------
    def predicate(self, node: syntax.Syntax, negated: bool, depth: int) -> Predicate:
        """The node, or its negation, as a predicate. ``depth`` bounds the recursion."""
        if depth > FILTER_DEPTH_MAX:
            raise FilterError(f"filter is nested {depth} deep, the limit is {FILTER_DEPTH_MAX}")
        if isinstance(node, syntax.Junction):
            operands = []
            for operand in node.operands:
                operands.append(self.predicate(operand, negated, depth + 1))  # noqa: PERF401 (a frame less per level)
            return junction(node.conjunction != negated, operands)
        if isinstance(node, syntax.Negation):
            return self.predicate(node.operand, not negated, depth + 1)
        if isinstance(node, syntax.Comparison) and len(node.ops) > 1:
            tests = self._range(node.operands, node.ops, depth)
            return junction(not negated, [negate(t) if negated else t for t in tests])
        test = self._test(node, depth)
        return negate(test) if negated else test

    def _test(self, node: syntax.Syntax, depth: int) -> Constant | Test | Not:  # noqa: PLR0911 (one per kind of node)
        match node:
            case syntax.Comparison((left, right), (op,)):
                return self._compare(op, self.value(left, depth + 1), self.value(right, depth + 1))
            case syntax.Membership(operand, items):
                return self._member(self.value(operand, depth + 1), self.value(items, depth + 1))
            case syntax.Match(operand, pattern):
                return self._like(self.value(operand, depth + 1), self.value(pattern, depth + 1))
            case syntax.Null(operand):
                return self._is_null(self.value(operand, depth + 1))
            case syntax.Exists(operand):
                return self._exists(self.value(operand, depth + 1))
        value = self.value(node, depth + 1)
        if value.type is not DataType.BOOL:
            raise FilterError(f"predicate is not a boolean expression, data type: {label(value)}")
        if isinstance(value, Literal):
            return Constant(value.value)
        return value if isinstance(value, Call) else Compare("==", value, Literal(True, DataType.BOOL))

    def _compare(self, op: str, left: Value, right: Value) -> Constant | Test | Not:
        if isinstance(left, Literal) and isinstance(right, Literal):
            if not fit.comparable(left.type, right.type):
                raise FilterError(
                    "comparison operations cannot be applied to two incompatible operands: "
                    f"{label(left)} {op} {label(right)}"
                )
            return Constant(OPERATORS[op](left.value, right.value))
        if isinstance(left, Literal):
            op, left, right = _MIRRORED[op], right, left
        if left.type is DataType.JSON or right.type is DataType.JSON:
            return self._compare_json(op, left, right)
        if not fit.comparable(left.type, right.type):
            raise FilterError(f"comparisons between {label(left)} and {label(right)} are not supported")
        return fit.compare_literal(op, left, right) if isinstance(right, Literal) else Compare(op, left, right)

    def _compare_json(self, op: str, left: Value, right: Value) -> Test:
        if not isinstance(right, Literal):
            raise FilterError("two column comparison with JSON type is not supported")
        if right.type is DataType.ARRAY and (op not in ("==", "!=") or not isinstance(left, Path)):
            raise FilterError(f"comparisons between {label(left)} and {label(right)} with {op} are not supported")
        return Compare(op, left, right)

    def _range(
        self, operands: tuple[syntax.Syntax, ...], ops: tuple[str, ...], depth: int
    ) -> list[Constant | Test | Not]:
        if len(ops) != 2 or not any(ops_of_one_way.issuperset(ops) for ops_of_one_way in _RANGES):
            raise FilterError(f"comparisons cannot be chained as in: a {' b '.join(ops)} c")
        first, middle, last = (self.value(operand, depth + 1) for operand in operands)
        if isinstance(first, Literal) and isinstance(last, Literal) and fit.comparable(first.type, last.type):
            strict_or_not = ops[0] if ops[0] == ops[1] else ops[0][0]
            if not OPERATORS[strict_or_not](first.value, last.value):
                raise FilterError("invalid range: lowerbound is greater than upperbound")
        return [self._compare(ops[0], first, middle), self._compare(ops[1], middle, last)]

    def _member(self, value: Value, items: Value) -> Constant | Test:
        if not isinstance(items, Literal) or items.type is not DataType.ARRAY:
            raise FilterError(f"the right-hand side of 'in' must be a list, but got: {label(items)}")
        if isinstance(value, Literal):
            raise FilterError(f"'term' can only be used on non-const expression, but got: {value.value}")
        if not isinstance(value, Column | Element | Path) or value.type is DataType.ARRAY:
            raise FilterError("'term' can only be used on single field")
        if not items.value:
            return Constant(False)
        if isinstance(value, Path):
            types = frozenset[type]().union(*(TYPES_OF[fit.literal(e).type] for e in items.value))
            return PathIn(value, frozenset(map(token, items.value)), types)
        return fit.member(value, items.value)

    def _like(self, value: Value, pattern: Value) -> Test:
        if not isinstance(value, Column | Element | Path) or value.type not in (DataType.VARCHAR, DataType.JSON):
            raise FilterError(f"like operation on non-string or no-json field is unsupported, got: {label(value)}")
        if not isinstance(pattern, Literal) or pattern.type is not DataType.VARCHAR:
            raise FilterError(f"the pattern of like must be a string, got: {label(pattern)}")
        return Like(value, compile_pattern(pattern.value))

    def _is_null(self, value: Value) -> Test:
        if not isinstance(value, Column | Element | Path) or TYPES[value.type].vector:
            raise FilterError(f"is null is only supported on scalar fields and JSON keys, got: {label(value)}")
        return IsNull(value)

    def _exists(self, value: Value) -> Not:
        if not isinstance(value, Path):
            raise FilterError(f"exists operations are only supportted on json field, got:{label(value)}")
        if not value.keys:
            raise FilterError("exists operations are only supportted on json key")
        # As in Milvus, a key whose value is null does not exist.
        return Not(IsNull(value))

    # --- values ------------------------------------------------------------------------------
    def value(self, node: syntax.Syntax, depth: int) -> Value:  # noqa: PLR0911 (one per kind of node)
        """The node as a value; constants are folded. ``depth`` bounds the recursion."""
        if depth > FILTER_DEPTH_MAX:
            raise FilterError(f"filter is nested {depth} deep, the limit is {FILTER_DEPTH_MAX}")
        match node:
            case syntax.Name(name, keys):
                found = self._names.get(node)
                if found is None:
                    found = self._names[node] = self._name(name, keys)
                return found
            case syntax.Literal(value):
                return fit.literal(value)
            case syntax.Literals(values):
                return Literal(values, DataType.ARRAY)
            case syntax.Template(name):
                return self._template(name)
            case syntax.Arithmetic(op, left, right):
                return _calculate(op, self.value(left, depth + 1), self.value(right, depth + 1))
            case syntax.Signed(negative, operand):
                return _signed(negative, self.value(operand, depth + 1))
            case syntax.Call(name, arguments):
                return self._call(name, [self.value(argument, depth + 1) for argument in arguments])
            case syntax.Sequence(items):
                return _sequence([self.value(item, depth + 1) for item in items])
        raise FilterError("a condition cannot be used as a value")

    def _name(self, name: str, keys: tuple[str | int, ...]) -> Value:
        field = self._schema.by_name.get(name)
        if field is None:
            if not self._schema.dynamic:
                raise FilterError(f"field {name} not exist")
            return Path(DYNAMIC, (name, *keys))
        if field.type is DataType.JSON:
            return Path(name, keys)
        if field.type is DataType.ARRAY:
            return _array(field, keys)
        if keys:
            raise FilterError(f"{TYPES[field.type].label} data type not supported accessed with []")
        return Column(name, field.type)

    def _template(self, name: str) -> Literal:
        if name not in self._params:
            raise FilterError(f"the value of expression template variable name {{{name}}} is not found")
        value = self._params[name]
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        elif isinstance(value, pa.Array):
            value = value.to_pylist()
        elif isinstance(value, tuple):
            value = list(value)
        return fit.literal(value)

    def _call(self, name: str, arguments: list[Value]) -> Value:
        if name in NOT_YET:
            raise NotYet(f"{name} is not supported in filters yet")
        function = FUNCTIONS.get(name)
        if function is None:
            raise FilterError(f"function {name} not found")
        read = [a for a in arguments if isinstance(a, Column | Element | Path)]
        return Call(
            function,
            function.check(name, tuple(arguments)),
            frozenset(a.name for a in read),
            any(isinstance(a, Path) for a in read),
        )


def _array(field: Field, keys: tuple[str | int, ...]) -> Value:
    match keys:
        case ():
            return Column(field.name, DataType.ARRAY, field.element_type)
        case (int() as index,):
            return Element(field.name, index, field.element_type)
    raise FilterError("can only access array field with integer index")


def _sequence(items: list[Value]) -> Literal:
    for item in items:
        if not isinstance(item, Literal):
            raise FilterError(f"array element type must be generic value, but got: {label(item)}")
    return Literal([item.value for item in items if isinstance(item, Literal)], DataType.ARRAY)


def _signed(negative: bool, operand: Value) -> Value:
    if operand.type not in fit.NUMBERS and operand.type is not DataType.JSON:
        raise FilterError(f"a sign cannot be applied to {label(operand)}")
    return _calculate("*", operand, Literal(-1, DataType.INT64)) if negative else operand


def _calculate(op: str, left: Value, right: Value) -> Value:
    for side in (left, right):
        if side.type not in fit.NUMBERS and side.type is not DataType.JSON:
            raise FilterError(f"'{op}' can only be used between numbers, got: {label(side)}")
    if op in "/%" and isinstance(right, Literal) and right.value == 0:
        raise FilterError("division or modulus by zero")
    if isinstance(left, Literal) and isinstance(right, Literal):
        result = calculate(op, left.value, right.value)
        if result is None:
            raise FilterError(f"{left.value} {op} {right.value} has no value in the range of int64 and double")
        return fit.literal(result)
    json = [side.type is DataType.JSON for side in (left, right)]
    if any(json):
        if not all(j or isinstance(side, Literal) for j, side in zip(json, (left, right), strict=True)):
            raise FilterError("not supported to do arithmetic operations between a JSON value and a field")
        return Arithmetic(op, left, right, DataType.JSON)
    integers = left.type in INTEGERS and right.type in INTEGERS
    if op == "%" and not integers:
        raise FilterError(f"modulo can only apply on integer types, got: {label(left)} % {label(right)}")
    return Arithmetic(op, left, right, DataType.INT64 if integers and op != "**" else DataType.DOUBLE)
