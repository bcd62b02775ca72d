"""The functions of the filter language: a new one is one entry in ``FUNCTIONS``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from core.errors import FilterError
from core.types import DataType
from engine.filter import arrays, documents
from engine.filter.batch import Batch, Vector
from engine.filter.fit import distinct, fitting, label
from engine.filter.tree import Column, Literal, Path, Value


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One function.

    result: BOOL for a test, INT64 or DOUBLE for a value.
    check: given the name and the typed arguments, what ``evaluate`` takes; raises FilterError.
    evaluate: values [n] and validity over the rows of a batch.
    union: what ``evaluate`` takes to be true where any of several calls is that were given these; None = there
        is no such thing.
    """

    result: DataType
    check: Callable[[str, tuple[Value, ...]], tuple[Any, ...]]
    evaluate: Callable[..., Vector]
    union: Callable[[list[tuple[Any, ...]]], tuple[Any, ...]] | None = None


def _container(name: str, arguments: tuple[Value, ...], count: int) -> Column | Path:
    if len(arguments) != count:
        raise FilterError(f"{name} takes {count} argument{'s' * (count > 1)}, got {len(arguments)}")
    target = arguments[0]
    if isinstance(target, Path) or (isinstance(target, Column) and target.type is DataType.ARRAY):
        return target
    raise FilterError(f"{name} operation are only supported on json or array fields now, got: {label(target)}")


def _one_container(name: str, arguments: tuple[Value, ...]) -> tuple[Any, ...]:
    return (_container(name, arguments, 1),)


def _and_element(name: str, arguments: tuple[Value, ...]) -> tuple[Any, ...]:
    target = _container(name, arguments, 2)
    element = arguments[1]
    if not isinstance(element, Literal):
        raise FilterError(f"{name} operation are only supported explicitly specified element, got: {label(element)}")
    return _wanted(name, target, [element.value])


def _and_list(name: str, arguments: tuple[Value, ...]) -> tuple[Any, ...]:
    target = _container(name, arguments, 2)
    elements = arguments[1]
    if not isinstance(elements, Literal) or elements.type is not DataType.ARRAY:
        raise FilterError(f"{name} operation element must be an array, got: {label(elements)}")
    return _wanted(name, target, elements.value)


def _wanted(name: str, target: Column | Path, elements: list[Any]) -> tuple[Any, ...]:
    if isinstance(target, Path):
        return target, frozenset(map(documents.token, elements)), 0
    values: pa.Array = fitting(target.element, elements, f"{name} operation on array of")
    return target, values, distinct(elements)


def _over_both(on_array: Callable[..., Vector], on_json: Callable[..., Vector]) -> Callable[..., Vector]:
    def evaluate(batch: Batch, target: Column | Path, *wanted: Any) -> Vector:
        if isinstance(target, Path):
            return on_json(documents.select(batch.documents(target.name), target.keys), *wanted[:1])
        return on_array(batch.column(target.name), *wanted)

    return evaluate


def _any_wanted(calls: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """What one call takes for what several on the same target take."""
    target = calls[0][0]
    wanted = [values for _, values, _ in calls]
    if isinstance(target, Path):
        return target, frozenset().union(*wanted), 0
    values = pa.concat_arrays(wanted).unique()
    return target, values, len(values)


_LENGTH = Function(DataType.INT64, _one_container, _over_both(arrays.length, documents.length))
_ANY = _over_both(arrays.contains_any, documents.contains_any)
_CONTAINS = Function(DataType.BOOL, _and_element, _ANY, _any_wanted)
_CONTAINS_ANY = Function(DataType.BOOL, _and_list, _ANY, _any_wanted)
_CONTAINS_ALL = Function(DataType.BOOL, _and_list, _over_both(arrays.contains_all, documents.contains_all))

FUNCTIONS: dict[str, Function] = {
    "array_length": _LENGTH,
    "array_contains": _CONTAINS,
    "array_contains_any": _CONTAINS_ANY,
    "array_contains_all": _CONTAINS_ALL,
    "json_contains": _CONTAINS,
    "json_contains_any": _CONTAINS_ANY,
    "json_contains_all": _CONTAINS_ALL,
}

NOT_YET = frozenset(
    {
        "text_match",
        "phrase_match",
        "random_sample",
        "element_filter",
        "match_all",
        "match_any",
        "match_least",
        "match_most",
        "match_exact",
        "membership_match",
        "st_equals",
        "st_touches",
        "st_overlaps",
        "st_crosses",
        "st_contains",
        "st_intersects",
        "st_within",
        "st_dwithin",
        "st_isvalid",
    }
)
"""Functions of Milvus that this version does not have."""
