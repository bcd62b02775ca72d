"""The filter language case by case: what matches, what is refused and in which words."""

import threading
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from core.errors import FilterError, NotYet
from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from engine.filter import Filter, compile

FIELDS = (
    Field(FieldId(100), "id", DataType.INT64, primary=True),
    Field(FieldId(101), "age", DataType.INT8, nullable=True),
    Field(FieldId(102), "price", DataType.FLOAT),
    Field(FieldId(103), "score", DataType.DOUBLE),
    Field(FieldId(104), "name", DataType.VARCHAR, nullable=True),
    Field(FieldId(105), "sold", DataType.BOOL),
    Field(FieldId(106), "sizes", DataType.ARRAY, element_type=DataType.INT32),
    Field(FieldId(107), "tags", DataType.ARRAY, element_type=DataType.VARCHAR, nullable=True),
    Field(FieldId(108), "info", DataType.JSON, nullable=True),
    Field(FieldId(109), "vector", DataType.FLOAT_VECTOR, dim=2),
)
STRICT = Schema(FIELDS)
SCHEMA = Schema((*FIELDS, Field(FieldId(110), DYNAMIC, DataType.JSON, dynamic=True)))

ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "age": 5,
        "price": 0.1,
        "score": -1.5,
        "name": "apple",
        "sold": True,
        "sizes": [1, 2, 3],
        "tags": ["a", "b"],
        "info": {"color": "red", "n": 1, "list": [1, "x", [2, 3]], "deep": {"x": [{"y": 7}]}, "ok": True},
        DYNAMIC: {"kind": "fruit", "rank": 1, "größe": 3},
    },
    {
        "id": 2,
        "age": -7,
        "price": 2.5,
        "score": 3.0,
        "name": "apple_pie",
        "sold": False,
        "sizes": [],
        "tags": None,
        "info": {"color": 7, "n": 2.5, "list": [], "ok": 1},
        DYNAMIC: {"kind": "cake", "rank": 2.0},
    },
    {
        "id": 3,
        "age": None,
        "price": 100.0,
        "score": float("nan"),
        "name": None,
        "sold": True,
        "sizes": [3],
        "tags": [],
        "info": None,
        DYNAMIC: {"kind": None},
    },
    {
        "id": 4,
        "age": 127,
        "price": -0.0,
        "score": 2.0**53,
        "name": '50% "off"\n\0é',
        "sold": False,
        "sizes": [3, 3, 4, 5],
        "tags": ["b"],
        "info": {"color": "blue", "n": "1", "list": "no", "big": 2**62, "0": "zero"},
        DYNAMIC: {"rank": "1"},
    },
]


def columns() -> dict[str, pa.Array]:
    result = {}
    for field in SCHEMA.fields:
        if field.is_vector:
            continue
        values = [row[field.name] for row in ROWS]
        if field.type is DataType.JSON:
            values = [None if v is None else orjson.dumps(v).decode() for v in values]
        result[field.name] = pa.array(values, field.arrow_type)
    return result


COLUMNS = columns()


def matching(text: str, params: dict[str, Any] | None = None) -> list[int]:
    found = compile(text, SCHEMA, params or {}).mask(COLUMNS.__getitem__, len(ROWS))
    return [row["id"] for row, hit in zip(ROWS, found, strict=True) if hit]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        # comparisons, both sides, chained
        ("id == 2", [2]),
        ("2 == id", [2]),
        ("id != 2", [1, 3, 4]),
        ("age < 6", [1, 2]),
        ("5 >= age", [1, 2]),
        ("-7 <= age < 5", [2]),
        ("127 >= age > 5", [4]),
        ("-7 <= age <= -7", [2]),
        ("not (-8 < age < 6)", [4]),
        ("1 < 2", [1, 2, 3, 4]),
        ("'a' == 'b'", []),
        ("age < id", [2]),
        ("id <= price", [2, 3]),
        ("name == name", [1, 2, 4]),
        # integers and floats
        ("age > 4.5", [1, 4]),
        ("age >= 4.5", [1, 4]),
        ("age < 5.5", [1, 2]),
        ("age <= -6.5", [2]),
        ("age == 5.0", [1]),
        ("age == 5.5", []),
        ("age != 5.5", [1, 2, 4]),
        ("age < 1000", [1, 2, 4]),
        ("age > 1e30", []),
        ("age <= 9223372036854775807", [1, 2, 4]),
        ("age > -9223372036854775808", [1, 2, 4]),
        ("age != 300", [1, 2, 4]),
        ("age < 127", [1, 2]),
        ("age >= 127", [4]),
        ("age > -128", [1, 2, 4]),
        ("not (age == 300)", [1, 2, 4]),
        ("price == 0.1", [1]),
        ("price in [0.1, 2.5]", [1, 2]),
        ("price == 0", [4]),
        ("price < 1e300", [1, 2, 3, 4]),
        ("score < 9007199254740993", [1, 2]),
        ("score == 9007199254740993", [4]),
        ("score != 3", [1, 3, 4]),
        ("not (score < 3)", [2, 3, 4]),
        ("not (score >= 3)", [1, 3]),
        ("id == 0x2 or id == 0b11 or id == 01", [1, 2, 3]),
        ("price < .5 and price > -1.", [1, 4]),
        # logic and its spellings
        ("age == 5 or age == -7 or id == 3", [1, 2, 3]),
        ("id == 1 || id == 4 && sold", [1]),
        ("(id == 1 OR id == 4) AND NOT sold", [4]),
        ("!(id == 1)", [2, 3, 4]),
        ("not not (id == 1)", [1]),
        ("not id == 1", [2, 3, 4]),
        ("sold", [1, 3]),
        ("sold == false", [2, 4]),
        ("sold != True", [2, 4]),
        ("TRUE", [1, 2, 3, 4]),
        ("false or id == 1", [1]),
        ("true and false", []),
        ("   ", [1, 2, 3, 4]),
        # null is neither true nor false
        ("age > 0 or id == 3", [1, 3, 4]),
        ("not (age > 0)", [2]),
        ("not (age > 0 and id == 3)", [1, 2, 4]),
        ("not (age > 0 or id == 4)", [2]),
        ("age is null", [3]),
        ("age IS NOT NULL", [1, 2, 4]),
        ("not (age is null)", [1, 2, 4]),
        ("name is\n null and id is not null", [3]),
        ("tags is null", [2]),
        # in
        ("id in [1, 3, 99]", [1, 3]),
        ("id not in [1, 3]", [2, 4]),
        ("id IN [1,]", [1]),
        ("id NOT IN [0x1]", [2, 3, 4]),
        ("age in [5, 300, -7]", [1, 2]),
        ("age not in [5]", [2, 4]),
        ("age in []", []),
        ("age not in []", [1, 2, 3, 4]),
        ("name in ['apple', \"apple_pie\"]", [1, 2]),
        ("name not in ['apple']", [2, 4]),
        ("name in ['50% \"off\"\\n\\0é']", [4]),
        ("sold in [true]", [1, 3]),
        ("id in [1, 1 + 1]", [1, 2]),
        # like
        ("name like 'apple'", [1]),
        ("name like 'apple%'", [1, 2]),
        ("name like '%pie'", [2]),
        ("name like '%le_p%'", [2]),
        ("name like '%pl%'", [1, 2]),
        ("name like 'a%e'", [1, 2]),
        ("name like 'appl_'", [1]),
        ("name like '_____'", [1]),
        ("name like '%'", [1, 2, 4]),
        ("name like '%%'", [1, 2, 4]),
        ("name like 'apple\\_%'", [2]),
        ("name like '50\\%%'", [4]),
        ("name like '50\\\\%%'", [4]),
        ('name LIKE "%é"', [4]),
        ("name like '%off%_'", [4]),
        ("not (name like 'apple%')", [4]),
        ("tags[0] like 'b%'", [4]),
        # arithmetic
        ("age + 1 == 6", [1]),
        ("1 + age == 6", [1]),
        ("age / 2 == -3", [2]),
        ("age % 2 == -1", [2]),
        ("age % 4 == 1", [1]),
        ("age * 100 == 12700", [4]),
        ("-age == 7", [2]),
        ("- (age - 5) == 0", [1]),
        ("id / (id - 2) == 3", [3]),
        ("id % (id - 2) > -100", [1, 3, 4]),
        ("id + 9223372036854775806 > 0", [1]),
        ("price / 0.5 == 5", [2]),
        ("price * 2 + 1 > 200", [3]),
        ("age ** 2 == 25", [1]),
        ("id == 2 ** 2", [4]),
        ("id == 1 + 2 * 3 - 10 / 3 - 7 % 4", [1]),
        ("id == -7 / 2 + 4", [1]),
        ("2 + 3 == 5 and id == 1", [1]),
        ("id == -(-1)", [1]),
        # arrays
        ("sizes[0] == 3", [3, 4]),
        ("sizes[1] > 0", [1, 4]),
        ("sizes [ 3 ] == 5", [4]),
        ("sizes[7] is null", [1, 2, 3, 4]),
        ("not (sizes[0] == 3)", [1]),
        ("sizes[0] in [1]", [1]),
        ("sizes[0] + sizes[1] == 3", [1]),
        ("tags[0] == 'b'", [4]),
        ("array_length(sizes) == 0", [2]),
        ("ARRAY_LENGTH(tags) < 2", [3, 4]),
        ("array_length(sizes) - 1 == 2", [1]),
        ("array_contains(sizes, 3)", [1, 3, 4]),
        ("ARRAY_CONTAINS(sizes, 3.0)", [1, 3, 4]),
        ("array_contains(sizes, 3.5)", []),
        ("not array_contains(tags, 'a')", [3, 4]),
        ("array_contains_all(sizes, [3, 4])", [4]),
        ("array_contains_all(sizes, [3, 3])", [1, 3, 4]),
        ("array_contains_all(sizes, [3, 3.5])", []),
        ("array_contains_all(sizes, [])", [1, 2, 3, 4]),
        ("array_contains_any(sizes, [2, 5])", [1, 4]),
        ("array_contains_any(sizes, [])", []),
        ("array_contains_any(tags, ['a', 'z'])", [1]),
        ("json_contains(sizes, 3) == false", [2]),
        # JSON fields
        ('info["color"] == "red"', [1]),
        ("'red' == info['color']", [1]),
        ('info["color"] != "red"', [4]),
        ('not (info["color"] == "red")', [4]),
        ('info["color"] > 1', [2]),
        ('info["color"] in ["red", 7]', [1, 2]),
        ('info["color"] not in ["red"]', [4]),
        ('info["color"] not in ["red", 7]', [4]),
        ('info["color"] == "red" or info["color"] == "blue"', [1, 4]),
        ('not (info["color"] == "red" or info["color"] == 8)', []),
        ('info["color"] like "%e%"', [1, 4]),
        ('info["n"] == 1', [1]),
        ('info["n"] >= 1', [1, 2]),
        ('info["n"] == "1"', [4]),
        ('info["ok"] == true', [1]),
        ('info["ok"] == 1', [2]),
        ('info["big"] == 4611686018427387904', [4]),
        ('info["big"] == 4611686018427387905', []),
        ('info["list"][0] == 1', [1]),
        ('info["list"][1] == "x"', [1]),
        ('info["list"][2] == [2, 3]', [1]),
        ('info["list"] == []', [2]),
        ('info["list"] != []', [1]),
        ('info["deep"]["x"][0]["y"] == 7', [1]),
        ("info[0] == 'zero'", [4]),
        ('info["missing"]["y"] == 1', []),
        ('info["n"] + 1 == 3.5', [2]),
        ('info["n"] * 2 > 1', [1, 2]),
        ('1 < info["n"] < 3', [2]),
        ('exists info["list"]', [1, 2, 4]),
        ("exists info['nothing']", []),
        ('not exists info["big"]', [1, 2, 3]),
        ('info["big"] is null', [1, 2, 3]),
        ('info["color"] is not null', [1, 2, 4]),
        ("info is null", [3]),
        ('json_contains(info["list"], 1)', [1]),
        ('json_contains(info["list"], true)', []),
        ('JSON_CONTAINS(info["list"], [2, 3])', [1]),
        ('not json_contains(info["list"], 1)', [2]),
        ('json_contains_all(info["list"], [1, "x"])', [1]),
        ('json_contains_any(info["list"], ["y", 1.0])', [1]),
        ('array_length(info["list"]) == 0', [2]),
        # dynamic keys
        ('kind == "fruit"', [1]),
        ('$meta["kind"] in ["fruit", "cake"]', [1, 2]),
        ("kind is null", [3, 4]),
        ("exists kind", [1, 2]),
        ("rank > 0", [1, 2]),
        ("rank == 2", [2]),
        ("größe == 3", [1]),
        ("kind[0] == 'f'", []),
        ("id > 1 and kind == 'cake' and rank < 3", [2]),
        ("id == 3 or kind == 'cake' or rank == 1", [1, 2, 3]),
    ],
)
def test_matches(text: str, ids: list[int]) -> None:
    assert matching(text) == ids


@pytest.mark.parametrize(
    ("text", "params", "ids"),
    [
        ("age > {low}", {"low": 0}, [1, 4]),
        ("{low} < age <= {high}", {"low": -8, "high": 5}, [1, 2]),
        ("id in {ids}", {"ids": [1, 4]}, [1, 4]),
        ("id in { ids }", {"ids": np.array([1, 4])}, [1, 4]),
        ("id in {ids}", {"ids": pa.array([1, 4])}, [1, 4]),
        ("id in {ids}", {"ids": ()}, []),
        ("id in [{one}, 2]", {"one": 1}, [1, 2]),
        ("name in {names}", {"names": ["apple"]}, [1]),
        ("name like {pattern}", {"pattern": "apple\\_%"}, [2]),
        ("sold == {flag}", {"flag": False}, [2, 4]),
        ("{flag}", {"flag": True}, [1, 2, 3, 4]),
        ("price < {x}", {"x": 0.05}, [4]),
        ("array_contains_all(sizes, {sizes})", {"sizes": [1, 2]}, [1]),
        ("info['color'] == {color}", {"color": 'red" or 1 == 1 or "'}, []),
    ],
)
def test_templates(text: str, params: dict[str, Any], ids: list[int]) -> None:
    assert matching(text, params) == ids


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


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("age > 1 and sizes[0] == 2", {"age", "sizes"}),
        ("array_contains(tags, 'a') or info['x'] == 1", {"tags", "info"}),
        ("kind == 'a' or other < 3", {DYNAMIC}),
        ("age > 1 or true", set()),
    ],
)
def test_fields_are_the_columns_that_are_read(text: str, fields: set[str]) -> None:
    assert compile(text, SCHEMA).fields == fields


@pytest.mark.parametrize(
    ("text", "keys", "exact"),
    [
        ("id == 3", [3], True),
        ("id in [3, 1, 3]", [1, 3], True),
        ("id == 3 or id == 1 or id in [7]", [1, 3, 7], True),
        ("id in [1, 2, 3] and id in [3, 4, 2]", [2, 3], True),
        ("id in [1, 2] and age > 1", [1, 2], False),
        ("(id == 1 and age > 1) or (id == 2 and age < 1)", [1, 2], False),
        ("id == 1 or age > 1", None, False),
        ("id not in [1]", None, False),
        ("id > 1", None, False),
        ("not (id != 4)", [4], True),
        ("id in []", [], True),
        ("false", [], True),
        ("true", None, False),
    ],
)
def test_keys(text: str, keys: list[int] | None, exact: bool) -> None:
    found = compile(text, SCHEMA)
    assert (None if found.keys is None else sorted(found.keys.to_pylist()), found.keys_only) == (keys, exact)


def test_string_keys() -> None:
    schema = Schema((Field(FieldId(100), "key", DataType.VARCHAR, primary=True),))
    found = compile("key in ['a', 'b'] or key == 'c'", schema)
    assert found.keys is not None
    assert found.keys.type == pa.string()
    assert sorted(found.keys.to_pylist()) == ["a", "b", "c"]
    assert found.keys_only


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("age < 10", False),
        ("age < 11", True),
        ("age <= 10", True),
        ("age > 20", False),
        ("age >= 20", True),
        ("25 < age", False),
        ("age == 9", False),
        ("age == 15", True),
        ("age in [1, 9, 21]", False),
        ("age in [1, 15]", True),
        ("age == 1000", False),
        ("age is null", False),
        ("age is not null", True),
        ("name is null", True),
        ("name == 'a'", False),
        ("name == 'c'", True),
        ("name like 'b%'", True),
        ("name like 'ca%'", True),
        ("name like 'd%'", True),
        ("name like 'e%'", False),
        ("name like 'azz%'", False),
        ("name like '%a'", True),
        ("price != 2.0", True),
        ("id != 7", False),
        ("id not in [7, 8]", False),
        ("id not in [8]", True),
        ("age not in [15]", True),
        ("age < 10 or id == 7", True),
        ("age < 10 and id == 7", False),
        ("not (age >= 10 or id == 8)", False),
        ("score > 1", True),
        ("age + 1 < 0", True),
        ("kind == 'x'", True),
        ("false", False),
    ],
)
def test_pruning(text: str, may: bool) -> None:
    bounds = {
        "id": (7, 7, 0),
        "age": (10, 20, 0),
        "name": ("b", "dog", 3),
        "price": (2.0, 2.0, 0),
        "score": (None, None, 4),
    }
    assert compile(text, SCHEMA).may_match(bounds) is may


def test_the_text_of_a_filter_holds_no_literal() -> None:
    found = compile("age>1 AND name in ['secret','x'] || !(info['k'] == {x})  and TRUE", SCHEMA, {"x": "secret"})
    assert found.text == "age > ? and name in [?] or not ( info['k'] == ? ) and ?"
    assert compile("age > 7", SCHEMA).text == compile("age  >\t8", SCHEMA).text


def test_an_empty_segment() -> None:
    empty = {name: column.slice(0, 0) for name, column in COLUMNS.items()}
    for text in (
        "age > 1 or kind == 'a'",
        "tags[0] == 'a'",
        "array_contains_all(sizes, [1])",
        "age + 1 > 2",
        "age in [1]",
    ):
        assert compile(text, SCHEMA).mask(empty.__getitem__, 0).shape == (0,)


def test_filters_are_cached_per_schema_and_parameters() -> None:
    once = compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 2]})
    assert compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 2]}) is once
    assert compile("id in {ids} and age > 1", STRICT, {"ids": [1, 2]}) is not once
    assert compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 3]}) is not once
    ids = list(range(1000))
    many = compile("id in {ids}", SCHEMA, {"ids": ids})
    ids.append(1000)
    assert many.keys is not None
    assert len(many.keys) == 1000
    longer = compile("id in {ids}", SCHEMA, {"ids": ids})
    assert longer.keys is not None
    assert len(longer.keys) == 1001
    assert compile("sold == {x}", SCHEMA, {"x": True}) is not None
    with pytest.raises(FilterError):
        compile("sold == {x}", SCHEMA, {"x": 1})


def test_threads_compile_and_ask_at_once() -> None:
    results: list[list[int]] = []

    def work(n: int) -> None:
        results.extend(matching(f"id == {i % 5} or age == {n + 1000}") for i in range(20))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 160
    assert all(len(found) == 1 for found in results if found)


def test_a_mask_is_the_callers_own() -> None:
    found: Filter = compile("sold", SCHEMA)
    mask = found.mask(COLUMNS.__getitem__, len(ROWS))
    mask[:] = False
    assert found.mask(COLUMNS.__getitem__, len(ROWS)).tolist() == [True, False, True, False]
