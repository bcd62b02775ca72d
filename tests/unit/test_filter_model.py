"""Random typed filters against the plain evaluator of ``filter_model``."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pytest
from filter_model import SCHEMA, Case, Row, chains, filters, leaves, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from core.types import DataType
from engine.filter import Filter, compile, evaluate


def columns(data: list[Row]) -> dict[str, pa.Array]:
    """Columns as a segment gives them; slices, because nobody promised that they start at 0."""
    result = {}
    for field in SCHEMA.fields:
        values = [row[field.name] for row in data]
        if field.type is DataType.JSON:
            # As this server stores documents, and as others may write them: with escapes and spaces.
            writers = itertools.cycle([lambda v: orjson.dumps(v).decode(), json.dumps])
            values = [None if v is None else write(v) for v, write in zip(values, writers, strict=False)]
        result[field.name] = pa.array(values[:1] * 3 + values + values[:1], field.arrow_type).slice(3, len(values))
    return result


def mask(compiled: Filter, data: list[Row]) -> list[bool]:
    known = columns(data)
    asked: list[str] = []

    def column(name: str) -> pa.Array:
        asked.append(name)
        return known[name]

    result = compiled.mask(column, len(data))
    assert result.dtype == bool
    assert result.shape == (len(data),)
    assert set(asked) <= compiled.fields
    assert len(asked) == len(set(asked))
    return result.tolist()


def bounds(data: list[Row]) -> dict[str, tuple[Any, Any, int]]:
    result = {}
    for name in ("id", "small", "big", "real", "double", "name", "flag"):
        values = [row[name] for row in data if row[name] is not None]
        result[name] = (min(values, default=None), max(values, default=None), len(data) - len(values))
    return result


@pytest.fixture(autouse=True, scope="module")
def _small_slices() -> Iterator[None]:
    """So that a handful of JSON rows takes several of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "SLICE_ROWS", 3)
        yield


@settings(max_examples=400, deadline=None)
@given(filters, st.lists(rows, max_size=8))
def test_a_filter_matches_the_rows_for_which_it_is_true(case: Case, data: list[Row]) -> None:
    text, expected = case
    assert mask(compile(text, SCHEMA), data) == [expected(row) is True for row in data]


@settings(max_examples=600, deadline=None)
@given(leaves, st.lists(rows, min_size=1, max_size=6))
def test_a_single_test_and_its_negation(case: Case, data: list[Row]) -> None:
    text, expected = case
    truths = [expected(row) for row in data]
    assert mask(compile(text, SCHEMA), data) == [truth is True for truth in truths]
    assert mask(compile(f"not ({text})", SCHEMA), data) == [truth is False for truth in truths]


@settings(max_examples=300, deadline=None)
@given(chains(), st.lists(rows, min_size=1, max_size=6))
def test_a_chain_of_tests_about_one_value_and_its_negation(case: Case, data: list[Row]) -> None:
    text, expected = case
    truths = [expected(row) for row in data]
    assert mask(compile(text, SCHEMA), data) == [truth is True for truth in truths]
    assert mask(compile(f"not ({text})", SCHEMA), data) == [truth is False for truth in truths]


@settings(max_examples=400, deadline=None)
@given(leaves | filters, st.lists(rows, min_size=1, max_size=2))
def test_a_segment_is_pruned_only_if_none_of_its_rows_match(case: Case, data: list[Row]) -> None:
    compiled = compile(case[0], SCHEMA)
    if any(mask(compiled, data)):
        assert compiled.may_match(bounds(data))
        assert compiled.may_match({})


key_tests = st.one_of(
    st.builds(lambda n: (f"id == {n}", None), st.integers(-3, 10)),
    st.builds(lambda ns: (f"id in {ns}", None), st.lists(st.integers(-3, 10), max_size=5)),
    leaves,
)
key_filters = st.recursive(
    key_tests,
    lambda inner: st.builds(
        lambda cases, word: (f" {word} ".join(f"({text})" for text, _ in cases), None),
        st.lists(inner, min_size=2, max_size=3),
        st.sampled_from(["and", "or"]),
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(key_filters, st.lists(rows, min_size=1, max_size=6))
def test_no_row_outside_the_keys_matches(case: tuple[str, None], data: list[Row]) -> None:
    compiled = compile(case[0], SCHEMA)
    if compiled.keys is None:
        assert not compiled.keys_only
        return
    assert compiled.keys.type == pa.int64()
    keys = compiled.keys.to_pylist()
    assert len(keys) == len(set(keys))
    matched = mask(compiled, data)
    inside = [row["id"] in keys for row in data]
    if compiled.keys_only:
        assert matched == inside
    assert not any(m and not i for m, i in zip(matched, inside, strict=True))
