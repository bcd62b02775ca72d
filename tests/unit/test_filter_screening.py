"""Documents told apart by their text before they are parsed: fewer are parsed, no row is lost."""

import json
from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa
import pytest

from core.ids import FieldId
from core.schema import Field, Schema
from core.types import DataType
from engine.filter import batch, compile

KEY = Field(FieldId(100), "id", DataType.INT64, primary=True)
SCHEMA = Schema((KEY, Field(FieldId(101), "doc", DataType.JSON, nullable=True)))
ROWS = 2_000


def column(write: Callable[[object], str]) -> pa.Array:
    """``{"name": "n<row % 50>", "other": ...}``; every 20th row null, every 33rd without a name."""
    documents = [{"name": f"n{i % 50}", "other": ["n7", i]} if i % 33 else {"other": "n7"} for i in range(ROWS)]
    return pa.array([None if i % 20 == 0 else write(d) for i, d in enumerate(documents)])


def expected(*names: int) -> list[int]:
    return [i for i in range(ROWS) if i % 20 and i % 33 and i % 50 in names]


def matching(text: str, documents: pa.Array) -> list[int]:
    return np.flatnonzero(compile(text, SCHEMA).mask(lambda _: documents, len(documents))).tolist()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents parsed since."""
    seen: list[str] = []

    class Parser:
        @staticmethod
        def loads(text: str) -> object:
            seen.append(text)
            return orjson.loads(text)

    monkeypatch.setattr(batch, "orjson", Parser)
    return seen


@pytest.mark.parametrize("write", [lambda d: orjson.dumps(d).decode(), json.dumps, lambda d: json.dumps(d, indent=1)])
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("doc['name'] == 'n3'", [3]),
        ("doc['name'] in ['n3', 'n4']", [3, 4]),
        ("doc['name'] == 'n3' or doc['name'] == 'n8' or doc['missing'] == 'n9'", [3, 8]),
        ("doc['name'] == 'n3' and doc['other'][0] == 'n7'", [3]),
        ("doc['name'] == ''", []),
    ],
)
def test_few_documents_are_parsed(
    write: Callable[[object], str], text: str, names: list[int], parsed: list[str]
) -> None:
    assert matching(text, column(write)) == expected(*names)
    assert len(parsed) < ROWS / 8


def test_what_most_documents_hold_is_parsed_once(parsed: list[str]) -> None:
    text = "doc['other'] == 'n7' or doc['other'][0] == 'n7' or doc['name'] == 'n3'"
    found = matching(text, column(lambda d: orjson.dumps(d).decode()))
    assert found == [i for i in range(ROWS) if i % 20]
    assert len(parsed) <= ROWS


@pytest.mark.parametrize(
    "document", ['{"name":"\\u006e3"}', '{"\\u006eame" : "n3"}', '{"name":"n3", "quote":"\\""}', '{"name":"n3"}']
)
def test_escapes_hide_nothing(document: str) -> None:
    others = ['{"name":"x"}'] * 9
    assert matching("doc['name'] == 'n3'", pa.array([*others, document])) == [9]


@pytest.mark.parametrize("value", ['a"b', "back\\slash", "line\nbreak", "é", "\u2028", "😀", ""])
def test_strings_that_need_escapes_are_found(value: str) -> None:
    documents = pa.array([json.dumps({"name": "x"})] * 9 + [json.dumps({"name": value}), orjson.dumps({"name": value})])
    assert matching(f"doc['name'] == {json.dumps(value, ensure_ascii=False)}", documents.cast(pa.string())) == [9, 10]


def test_a_negated_test_is_not_narrowed() -> None:
    documents = column(lambda d: orjson.dumps(d).decode())
    found = matching("doc['name'] != 'n3'", documents)
    assert found == expected(*(n for n in range(50) if n != 3))
