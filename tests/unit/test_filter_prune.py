"""What a filter says without reading rows: its columns, its keys, the segments it can match."""

import pyarrow as pa
import pytest
from filter_rows import SCHEMA

from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from engine.filter import compile


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
