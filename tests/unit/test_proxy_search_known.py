"""Searches whose like was answered before: which are known, and which go together."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.catalog import Consistency
from core.errors import InvalidArgument
from core.ids import FieldId
from core.schema import Field
from core.types import DataType
from proxy.call import Call
from proxy.search_known import Alike, KnownSearches
from rpc.gathering import K_MAX, REQUESTS_MAX, ROWS_MAX

DIM = 8
FIELD = Field(FieldId(1), "v", DataType.FLOAT_VECTOR, dim=DIM)
COLLECTION = SimpleNamespace(id=1)


def plan(**changes: Any) -> Any:
    parts = {
        "collection": COLLECTION,
        "field": FIELD,
        "filter": "",
        "filter_params": {},
        "group_by": None,
        "k": 10,
        "near": None,
        "far": None,
    }
    return SimpleNamespace(**(parts | changes))


def call(name: str, number: float) -> Call:
    """A search for a vector of its own, of the shape of that name."""
    return Call("", "", 0.0, name.encode() + np.full(DIM, number, "<f4").tobytes() + b"end")


def known(collections: dict[int, Any] | None = None, **shapes: Any) -> KnownSearches:
    searches = KnownSearches({1: COLLECTION} if collections is None else collections)
    for name, planned in shapes.items():
        searches.remember(planned, Consistency.BOUNDED, np.full((1, DIM), 0.5, np.float32), call(name, 0.5))
    return searches


def numbers(groups: list[Alike]) -> list[list[int]]:
    return [group.numbers for group in groups]


def test_those_of_a_shape_go_together_and_unknown_ones_do_not() -> None:
    first, second = plan(), plan()
    searches = known(a=first, b=second)
    groups = searches.alike([call("a", 1), call("x", 2), call("b", 3), call("a", 4)])
    assert numbers(groups) == [[0, 3], [2]]
    assert [group.plan for group in groups] == [first, second]
    assert groups[0].queries().tolist() == [[1.0] * DIM, [4.0] * DIM]
    assert [group.sizes for group in groups] == [(1, 1), ()]


@pytest.mark.parametrize(("k", "together"), [(10, REQUESTS_MAX), (K_MAX, ROWS_MAX // K_MAX)])
def test_a_group_has_a_bound(k: int, together: int) -> None:
    groups = known(a=plan(k=k)).alike([call("a", n) for n in range(2 * together + 1)])
    assert list(map(len, numbers(groups))) == [together, together, 1]


@pytest.mark.parametrize("bound", [{"near": 0.5}, {"far": 0.5}])
def test_by_range_each_goes_alone(bound: dict[str, Any]) -> None:
    assert numbers(known(a=plan(**bound)).alike([call("a", 1), call("a", 2)])) == [[0], [1]]


def test_those_with_one_filter_go_together() -> None:
    assert numbers(known(a=plan(filter="n > 1")).alike([call("a", 1), call("a", 2)])) == [[0, 1]]


@pytest.mark.parametrize("change", [{"filter_params": {"n": 1}}, {"group_by": object()}, {"k": K_MAX + 1}])
def test_what_may_take_long_is_not_known(change: dict[str, Any]) -> None:
    assert not known(a=plan(**change)).alike([call("a", 1)])


def test_a_changed_collection_is_planned_anew() -> None:
    collections = {1: COLLECTION}
    searches = known(collections, a=plan())
    assert searches.alike([call("a", 1)])
    collections[1] = SimpleNamespace(id=1)
    assert not searches.alike([call("a", 1)])


def test_a_vector_that_cannot_be_searched_for_is_said() -> None:
    (group,) = known(a=plan()).alike([call("a", 1), call("a", float("nan"))])
    with pytest.raises(InvalidArgument):
        group.queries()
