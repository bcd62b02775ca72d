"""Searches known again by the bytes around their vectors."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from proxy import search_shapes
from proxy.search_shapes import Shapes

DIM = 8
PLAN: Any = object()
VECTOR = bytes(range(1, 4 * DIM + 1))


def message(vector: bytes = VECTOR, **changes: Any) -> bytes:
    value = common_pb2.PlaceholderValue(tag="$0", type=common_pb2.PlaceholderType.FloatVector, values=[vector])
    group = common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString()
    parts: dict[str, Any] = {"collection_name": "docs", "nq": 1, "placeholder_group": group, **changes}
    return milvus_pb2.SearchRequest(**parts).SerializeToString()


@pytest.fixture
def shapes() -> Shapes:
    shapes = Shapes()
    shapes.remember(message(), "", VECTOR, PLAN)
    return shapes


@given(vector=st.binary(min_size=4 * DIM, max_size=4 * DIM))
def test_the_same_search_with_any_other_vector_is_known(vector: bytes) -> None:
    shapes = Shapes()
    shapes.remember(message(), "", VECTOR, PLAN)
    assert shapes.find(message(vector), "") == (PLAN, vector)


def test_a_message_that_differs_in_any_other_byte_is_not(shapes: Shapes) -> None:
    known = message()
    start = known.index(VECTOR)
    for i in [*range(start), *range(start + len(VECTOR), len(known))]:
        other = bytearray(known)
        other[i] ^= 1
        assert shapes.find(bytes(other), "") is None, i


@pytest.mark.parametrize(
    "other",
    [
        message(collection_name="dogs"),
        message(dsl="a > 1"),
        message(VECTOR + VECTOR),
        message(VECTOR[4:]),
        message(consistency_level=2),
        b"",
    ],
)
def test_another_search_is_not_known(shapes: Shapes, other: bytes) -> None:
    assert shapes.find(other, "") is None


def test_the_database_beside_the_message_counts(shapes: Shapes) -> None:
    assert shapes.find(message(), "other") is None


def test_a_vector_that_occurs_twice_has_no_certain_place() -> None:
    shapes = Shapes()
    twice = message(search_params=[common_pb2.KeyValuePair(key="k", value=VECTOR.decode("latin1"))])
    assert twice.count(VECTOR) == 2
    shapes.remember(twice, "", VECTOR, PLAN)
    assert shapes.find(twice, "") is None


def test_searches_that_differ_in_where_the_vector_is_are_told_apart() -> None:
    """Both messages are as long, and what is left of them without their vectors may be the same."""
    shapes, first, second = Shapes(), object(), object()
    a, b = b"A" * 20, b"B" * 20
    shapes.remember(a + b"xyz" + b"xyz", "", a, first)
    shapes.remember(b"xyz" + b + b"xyz", "", b, second)
    assert shapes.find(b"C" * 20 + b"xyzxyz", "") == (first, b"C" * 20)
    assert shapes.find(b"xyz" + b"C" * 20 + b"xyz", "") == (second, b"C" * 20)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_shapes, "SHAPES_MAX", 10)
    shapes = Shapes()
    for i in range(1000):
        shapes.remember(message(collection_name=f"docs{i}"), "", VECTOR, PLAN)
        assert shapes.find(message(collection_name=f"docs{i}"), "") == (PLAN, VECTOR)
    assert sum(shapes.find(message(collection_name=f"docs{i}"), "") is not None for i in range(1000)) <= 10
    long = message(collection_name="d" * 10_000)
    shapes.remember(long, "", VECTOR, PLAN)
    assert shapes.find(long, "") is None
