"""Random typed filters and rows, and a plain row-by-row evaluator with three-valued logic."""

import json
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType

SCHEMA = Schema(
    (
        Field(FieldId(100), "id", DataType.INT64, primary=True),
        Field(FieldId(101), "small", DataType.INT8, nullable=True),
        Field(FieldId(102), "big", DataType.INT64),
        Field(FieldId(103), "real", DataType.FLOAT, nullable=True),
        Field(FieldId(104), "double", DataType.DOUBLE),
        Field(FieldId(105), "name", DataType.VARCHAR, nullable=True, max_length=100),
        Field(FieldId(106), "flag", DataType.BOOL, nullable=True),
        Field(FieldId(107), "numbers", DataType.ARRAY, element_type=DataType.INT32, nullable=True, max_capacity=8),
        Field(FieldId(108), "words", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=8),
        Field(FieldId(109), "doc", DataType.JSON, nullable=True),
        Field(FieldId(110), DYNAMIC, DataType.JSON, dynamic=True),
    )
)
Row = dict[str, Any]
Truth = bool | None
Case = tuple[str, Callable[[Row], Truth]]

OPS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


# --- rows ------------------------------------------------------------------------------------
int64 = st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])
words = st.text("ab%_\\'\"é\n", max_size=4)
doubles = st.sampled_from([-1.5, -0.0, 0.0, 0.1, 1.0, 2.5, 1e300]) | st.floats(-10, 10)
json_scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([2**60, 0.5, 1.0, -1.5]) | st.sampled_from("ab")
)
json_values = json_scalars | st.lists(json_scalars, max_size=3) | st.dictionaries(st.sampled_from("xy"), json_scalars)
documents = st.dictionaries(st.sampled_from(["a", "b", "0"]), json_values, max_size=3)
rows = st.fixed_dictionaries(
    {
        "id": st.integers(-3, 10),
        "small": st.none() | st.integers(-128, 127) | st.integers(-3, 3),
        "big": int64,
        "real": st.none() | doubles.map(lambda x: float(np.float32(min(x, 1e30)))),
        "double": doubles,
        "name": st.none() | words,
        "flag": st.none() | st.booleans(),
        "numbers": st.none() | st.lists(st.integers(-3, 3), max_size=4),
        "words": st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3),
        "doc": st.none() | documents,
        DYNAMIC: documents,
    }
)


# --- the model -------------------------------------------------------------------------------
def lift(test: Callable[..., bool], *values: Any) -> Truth:
    return None if any(v is None for v in values) else test(*values)


def kleene_and(truths: list[Truth]) -> Truth:
    return False if False in truths else None if None in truths else True


def kleene_or(truths: list[Truth]) -> Truth:
    return True if True in truths else None if None in truths else False


def kleene_not(truth: Truth) -> Truth:
    return None if truth is None else not truth


def arithmetic(op: str, x: Any, y: Any) -> Any:
    if x is None or y is None:
        return None
    if isinstance(x, int) and isinstance(y, int) and op != "**":
        if op in "/%" and y == 0:
            return None
        quotient = math.trunc(Fraction(x, y)) if op in "/%" else 0
        result = {"+": x + y, "-": x - y, "*": x * y, "/": quotient, "%": x - quotient * y if op == "%" else 0}[op]
        return result if -(2**63) <= result < 2**63 else None
    try:
        x, y = float(x), float(y)
        result = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / y, "**": lambda: x**y}[
            op
        ]()
    except (ZeroDivisionError, OverflowError, KeyError):
        return None
    return result if isinstance(result, float) and math.isfinite(result) else None


def like(pattern: str) -> Callable[[str], bool]:
    regex, escaped = "", False
    for c in pattern:
        if escaped:
            regex, escaped = regex + re.escape(c), False
        elif c == "\\":
            escaped = True
        else:
            regex += {"%": ".*", "_": "."}.get(c, re.escape(c))
    compiled = re.compile(regex, re.DOTALL)
    return lambda s: compiled.fullmatch(s) is not None


def kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def same(x: Any, y: Any) -> bool:
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(same, x, y))
    return kind(x) == kind(y) and x == y


def at(document: Any, *keys: str | int) -> Any:
    for key in keys:
        if isinstance(document, dict):
            document = document.get(str(key))
        elif isinstance(document, list) and str(key).isdigit():
            document = document[int(key)] if int(key) < len(document) else None
        else:
            return None
    return document


# --- filters ---------------------------------------------------------------------------------
def quoted(s: str) -> str:
    return json.dumps(s, ensure_ascii=False)


def written(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def compare(text: str, get: Callable[[Row], Any], op: str, literal: Any, mirrored: bool) -> Case:
    shown = written(literal)
    return (
        f"{shown} {MIRROR[op]} {text}" if mirrored else f"{text} {op} {shown}",
        lambda row: lift(OPS[op], get(row), literal),
    )


ops = st.sampled_from(sorted(OPS))


@st.composite
def numeric_tests(draw: st.DrawFn) -> Case:
    field = draw(st.sampled_from(["id", "small", "big", "real", "double"]))
    literal = draw(int64 | st.integers(-200, 200) | doubles)
    row_literal = literal
    if field == "real":
        with np.errstate(over="ignore"):
            row_literal = float(np.float32(literal))
    elif field == "double":
        row_literal = float(literal)
    op = draw(ops)
    text, _ = compare(field, lambda row: row[field], op, literal, draw(st.booleans()))
    return text, lambda row: lift(OPS[op], row[field], row_literal)


@st.composite
def ranges(draw: st.DrawFn) -> Case:
    low, high = draw(st.integers(-5, 3)), draw(st.integers(4, 9))
    a, b = draw(st.sampled_from(["<", "<="])), draw(st.sampled_from(["<", "<="]))
    return f"{low} {a} small {b} {high}", lambda row: lift(lambda x: OPS[a](low, x) and OPS[b](x, high), row["small"])


@st.composite
def column_tests(draw: st.DrawFn) -> Case:
    x, y = draw(st.sampled_from([("small", "id"), ("id", "big"), ("real", "double"), ("small", "double")]))
    op = draw(ops)
    return f"{x} {op} {y}", lambda row: lift(OPS[op], row[x], row[y])


@st.composite
def memberships(draw: st.DrawFn) -> Case:
    field, values = draw(
        st.one_of(
            st.tuples(st.sampled_from(["id", "small", "big"]), st.lists(int64 | st.integers(-300, 300), max_size=20)),
            st.tuples(st.just("name"), st.lists(words, max_size=4)),
            st.tuples(st.just("double"), st.lists(doubles, max_size=4)),
        )
    )
    negated = draw(st.booleans())

    def test(row: Row) -> Truth:
        truth = False if not values else lift(lambda v: v in values, row[field])
        return kleene_not(truth) if negated else truth

    return f"{field} {'not in' if negated else 'in'} {written(values)}", test


@st.composite
def string_tests(draw: st.DrawFn) -> Case:
    literal = draw(words)
    if draw(st.booleans()):
        return compare("name", lambda row: row["name"], draw(ops), literal, draw(st.booleans()))
    pattern = draw(st.text("ab%_\\é", max_size=6).filter(lambda p: not re.search(r"(?<!\\)(\\\\)*\\$", p)))
    matches = like(pattern)
    return f"name like {quoted(pattern)}", lambda row: lift(matches, row["name"])


@st.composite
def calculations(draw: st.DrawFn) -> Case:
    field = draw(st.sampled_from(["small", "big", "real", "double", "id"]))
    integer = field in ("small", "big", "id")
    op = draw(st.sampled_from(["+", "-", "*", "/", "%"] if integer else ["+", "-", "*", "/"]))
    operand = draw(st.integers(-3, 3) | int64 if integer else doubles)
    if op in "/%" and operand == 0:
        operand = 2
    flipped = draw(st.booleans())
    text = f"({written(operand)} {op} {field})" if flipped else f"({field} {op} {written(operand)})"

    def get(row: Row) -> Any:
        x = row[field]
        return arithmetic(op, operand, x) if flipped else arithmetic(op, x, operand)

    return compare(text, get, draw(ops), draw(st.integers(-5, 5)), draw(st.booleans()))


def _nullness(field: str, negated: bool) -> Case:
    return f"{field} is {'not ' * negated}null", lambda row: (row[field] is None) != negated


null_tests = st.builds(_nullness, st.sampled_from(["small", "real", "name", "flag", "numbers", "doc"]), st.booleans())
bool_tests: st.SearchStrategy[Case] = st.sampled_from(
    [
        ("flag", lambda row: row["flag"]),
        ("flag == false", lambda row: lift(operator.not_, row["flag"])),
        ("true != flag", lambda row: lift(operator.not_, row["flag"])),
    ]
)


@st.composite
def array_tests(draw: st.DrawFn) -> Case:
    field, element = draw(
        st.sampled_from([("numbers", st.integers(-3, 3)), ("words", st.sampled_from(["a", "b", "ab", "c"]))])
    )
    match draw(st.integers(0, 4)):
        case 0:
            i = draw(st.integers(0, 4))
            return compare(f"{field}[{i}]", lambda row: at(row[field], i), draw(ops), draw(element), False)
        case 1:
            return compare(
                f"ARRAY_LENGTH({field})", lambda row: lift(len, row[field]), draw(ops), draw(st.integers(0, 4)), False
            )
        case 2:
            value = draw(element)
            return f"array_contains({field}, {written(value)})", lambda row: lift(lambda v: value in v, row[field])
        case 3:
            values = draw(st.lists(element, max_size=4))
            return f"array_contains_all({field}, {written(values)})", lambda row: lift(
                lambda v: set(values) <= set(v), row[field]
            )
        case _:
            values = draw(st.lists(element, max_size=4))
            return f"array_contains_any({field}, {written(values)})", lambda row: lift(
                lambda v: bool(set(values) & set(v)), row[field]
            )


@st.composite
def json_tests(draw: st.DrawFn) -> Case:
    text, get = draw(
        st.sampled_from(
            [
                ('doc["a"]', lambda row: at(row["doc"], "a")),
                ('doc["a"][0]', lambda row: at(row["doc"], "a", 0)),
                ("doc['b']['x']", lambda row: at(row["doc"], "b", "x")),
                ('$meta["a"]', lambda row: at(row[DYNAMIC], "a")),
                ("b", lambda row: at(row[DYNAMIC], "b")),
                ("b[1]", lambda row: at(row[DYNAMIC], "b", 1)),
            ]
        )
    )
    match draw(st.integers(0, 6)):
        case 0 | 1:
            literal, op = draw(json_scalars.filter(lambda v: v is not None)), draw(ops)
            typed = lambda row: v if kind(v := get(row)) == kind(literal) else None  # noqa: E731 -- := needs its own scope
            return compare(text, typed, op, literal, draw(st.booleans()))
        case 2:
            values = draw(st.lists(json_scalars.filter(lambda v: v is not None), min_size=1, max_size=4))
            kinds = set(map(kind, values))
            return (
                f"{text} in {written(values)}",
                lambda row: any(same(get(row), v) for v in values) if kind(get(row)) in kinds else None,
            )
        case 3:
            return draw(
                st.sampled_from(
                    [
                        (f"exists {text}", lambda row: get(row) is not None),
                        (f"{text} is null", lambda row: get(row) is None),
                        (f"{text} IS NOT NULL", lambda row: get(row) is not None),
                    ]
                )
            )
        case 4:
            values = draw(st.lists(json_scalars.filter(lambda v: v is not None), max_size=3))
            name, quantifier = draw(st.sampled_from([("json_contains_all", all), ("JSON_CONTAINS_ANY", any)]))
            return (
                f"{name}({text}, {written(values)})",
                lambda row: (
                    quantifier(any(same(v, e) for e in get(row)) for v in values)
                    if isinstance(get(row), list)
                    else None
                ),
            )
        case 5:
            op, operand = draw(st.sampled_from("+-*/%")), draw(st.integers(1, 3))
            number = lambda row: v if kind(v := get(row)) == "number" else None  # noqa: E731 -- := needs its own scope
            return compare(
                f"{text} {op} {operand}",
                lambda row: (
                    None if op == "%" and isinstance(number(row), float) else arithmetic(op, number(row), operand)
                ),
                draw(ops),
                draw(st.integers(-3, 3)),
                False,
            )
        case _:
            matches = like("a%")
            return f'{text} like "a%"', lambda row: matches(get(row)) if isinstance(get(row), str) else None


leaves = st.one_of(
    numeric_tests(),
    ranges(),
    column_tests(),
    memberships(),
    string_tests(),
    calculations(),
    null_tests,
    bool_tests,
    array_tests(),
    json_tests(),
)


def _joined(cases: list[Case], conjunction: bool, symbols: bool) -> Case:
    word = ("&&" if symbols else "and") if conjunction else ("||" if symbols else "OR")
    combine = kleene_and if conjunction else kleene_or
    return f" {word} ".join(f"({text})" for text, _ in cases), lambda row: combine([test(row) for _, test in cases])


def _negated(case: Case, symbol: bool) -> Case:
    return f"{'!' if symbol else 'not '}({case[0]})", lambda row: kleene_not(case[1](row))


@st.composite
def chains(draw: st.DrawFn) -> Case:
    """Many tests of one kind about one value, as programs write them."""
    patterns = st.text("ab%_", max_size=3)
    make: Callable[[Any], Case]
    texts, make = draw(
        st.sampled_from(
            [
                (patterns, lambda p: (f"name like '{p}'", lambda row: lift(like(p), row["name"]))),
                (
                    patterns,
                    lambda p: (
                        f"b like '{p}'",
                        lambda row: like(p)(b) if isinstance(b := at(row[DYNAMIC], "b"), str) else None,
                    ),
                ),
                (
                    st.sampled_from(["a", "b", "ab", "c"]),
                    lambda w: (f"array_contains(words, '{w}')", lambda row: w in row["words"]),
                ),
                (
                    st.integers(-4, 4),
                    lambda n: (f"array_contains(numbers, {n})", lambda row: lift(lambda v: n in v, row["numbers"])),
                ),
                (
                    st.integers(-3, 3),
                    lambda n: (
                        f'json_contains(doc["a"], {n})',
                        lambda row: any(same(n, e) for e in a) if isinstance(a := at(row["doc"], "a"), list) else None,
                    ),
                ),
            ]
        )
    )
    cases = [make(value) for value in draw(st.lists(texts, min_size=1, max_size=24))]
    if draw(st.booleans()):
        cases = [_negated(case, False) for case in cases]
    return _joined(cases, draw(st.booleans()), False)


filters = st.recursive(
    leaves | chains(),
    lambda inner: (
        st.builds(_joined, st.lists(inner, min_size=2, max_size=4), st.booleans(), st.booleans())
        | st.builds(_negated, inner, st.booleans())
    ),
    max_leaves=8,
)
