"""Filters that are refused, and in which words."""

import pytest
from filter_rows import STRICT

from core.errors import FilterError, NotYet
from engine.filter import compile


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zz == 1", "cannot parse expression: zz == 1, error: field zz not exist"),
        ("id >", "cannot parse expression: id >, error: line 1:4 no viable alternative at input '>'"),
        ("id == 1 1", "line 1:8 no viable alternative at input '1'"),
        ("id ==\n ? 1", "line 2:1"),
        ("(id == 1", "line 1:8"),
        ("id == 1)", "line 1:7 no viable alternative at input ')'"),
        ("name == 'open", "line 1:8"),
        ("id", "predicate is not a boolean expression, data type: Int64"),
        ("id + 1", "predicate is not a boolean expression, data type: Int64"),
        ("info['a']", "predicate is not a boolean expression, data type: JSON"),
        ("not id", "predicate is not a boolean expression"),
        ("id == 1 and name", "predicate is not a boolean expression, data type: VarChar"),
        ("name == 1", "comparisons between VarChar and Int64 are not supported"),
        ("id > 'a'", "comparisons between Int64 and VarChar are not supported"),
        ("id == true", "comparisons between Int64 and Bool are not supported"),
        ("id < name", "comparisons between Int64 and VarChar are not supported"),
        ("vector == 1", "comparisons between FloatVector and Int64 are not supported"),
        ("sizes == 1", "comparisons between Array and Int64 are not supported"),
        ("sizes[0] == 'a'", "comparisons between Int32 and VarChar are not supported"),
        ("1 == 'a'", "incompatible operands: Int64 == VarChar"),
        ("info['a'] == info['b']", "two column comparison with JSON type is not supported"),
        ("info['a'] == id", "two column comparison with JSON type is not supported"),
        ("info['a'] < [1]", "comparisons between JSON and Array with < are not supported"),
        ("5 < id < 1", "invalid range: lowerbound is greater than upperbound"),
        ("1 > id > 5", "invalid range: lowerbound is greater than upperbound"),
        ("1 < id > 5", "comparisons cannot be chained"),
        ("1 == id == 5", "comparisons cannot be chained"),
        ("id in 5", "the right-hand side of 'in' must be a list, but got: Int64"),
        ("id in ['a']", "value 'string_val:\"a\"' in list cannot be casted to Int64"),
        ("id in [1, 2.5]", "value 'float_val:2.5' in list cannot be casted to Int64"),
        ("name in [1]", "value 'int64_val:1' in list cannot be casted to VarChar"),
        ("id in [true]", "value 'bool_val:true' in list cannot be casted to Int64"),
        ("id in [[1]]", "value 'array_val' in list cannot be casted to Int64"),
        ("id in [id]", "array element type must be generic value"),
        ("1 in [1]", "'term' can only be used on non-const expression"),
        ("id + 1 in [1]", "'term' can only be used on single field"),
        ("sizes in [1]", "'term' can only be used on single field"),
        ("id like 'a%'", "like operation on non-string or no-json field is unsupported"),
        ("name like 5", "the pattern of like must be a string, got: Int64"),
        ("name like '%a%" + "_b" * 500 + "'", "like pattern has 1003 characters, the limit is 1000"),
        ("exists name", "exists operations are only supportted on json field"),
        ("exists info", "exists operations are only supportted on json key"),
        ("vector is null", "is null is only supported on scalar fields"),
        ("name['a'] == 1", "VarChar data type not supported accessed with []"),
        ("sizes['a'] == 1", "can only access array field with integer index"),
        ("sizes[0][1] == 1", "can only access array field with integer index"),
        ("id / 0 == 1", "division or modulus by zero"),
        ("1 % 0 == 1", "division or modulus by zero"),
        ("price % 2 == 1", "modulo can only apply on integer types, got: Float % Int64"),
        ("name + 1 == 1", "'+' can only be used between numbers, got: VarChar"),
        ("id + info['a'] == 1", "arithmetic operations between a JSON value and a field"),
        ("-name == 'a'", "a sign cannot be applied to VarChar"),
        ("(id > 1) == true", "a condition cannot be used as a value"),
        ("id == 9223372036854775808", "9223372036854775808 is out of the range of int64"),
        ("id in [9223372036854775808]", "9223372036854775808 is out of the range of int64"),
        ("id == 99999999999999999999", "out of the range of int64"),
        ("id == 09", "09 is not an int64"),
        ("9223372036854775807 + 1 == id", "has no value"),
        ("price == 1e999", "1e999 is out of the range of double"),
        ("(-8) ** 0.5 == price", "has no value"),
        ("name == '\\ud800'", "surrogate"),
        ("name == '\ud800'", "surrogate"),
        ("name in ['a', '\ud800']", "surrogate"),
        ("nothing(id)", "function nothing not found"),
        ("array_contains(sizes)", "array_contains takes 2 arguments, got 1"),
        ("array_length(sizes, 1) == 1", "array_length takes 1 argument, got 2"),
        ("array_contains(name, 'a')", "array_contains operation are only supported on json or array fields now"),
        ("array_contains(sizes, 'a')", "array_contains operation on array of Int32 cannot have an element of VarChar"),
        ("array_contains(sizes, id)", "only supported explicitly specified element, got: Int64"),
        ("array_contains_all(sizes, 1)", "element must be an array, got: Int64"),
        ("array_length(sizes)", "predicate is not a boolean expression, data type: Int64"),
        ("id == {x}", "the value of expression template variable name {x} is not found"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(FilterError) as refused:
        compile(text, STRICT)
    assert message in str(refused.value)
    assert str(refused.value).startswith("cannot parse expression: ")


@pytest.mark.parametrize("value", [None, b"x", {"a": 1}, float("nan"), 2**63, "\ud800", object()])
def test_a_template_value_of_no_use_is_refused(value: object) -> None:
    with pytest.raises(FilterError):
        compile("info['a'] == {x}", STRICT, {"x": value})


@pytest.mark.parametrize(
    "text",
    [
        "text_match(name, 'a b')",
        "TEXT_MATCH(name, 'a', minimum_should_match=2)",
        "phrase_match(name, 'a b', 1)",
        "id > 1 and random_sample(0.5)",
        "st_within(name, 'POINT (1 1)')",
        "element_filter(sizes, $[x] > 1)",
    ],
)
def test_functions_of_milvus_that_are_still_to_come_are_named(text: str) -> None:
    with pytest.raises(NotYet, match=r"^\w+ is not supported in filters yet$"):
        compile(text, STRICT)


def test_a_name_that_is_a_function_to_come_is_only_a_string() -> None:
    with pytest.raises(FilterError):
        compile("name == 'text_match(' and", STRICT)
