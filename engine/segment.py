"""Search over the rows of one segment: filter, visibility, index or scan, range."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from core.schema import Field
from core.types import DataType
from engine import plan
from engine.filter import Filter
from engine.vector.declare import default_ef
from engine.vector.flat import search_flat
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from engine.vector.native import empty_result
from engine.vector.walk import RESULTS_MAX

FILTER_COST = 16
"""Multiply-adds that a filter costs per row, about."""

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries, k) -> (scores [nq, k], rows [nq, k]), over the rows that count."""


class SegmentData(Protocol):
    """The rows of a segment, sealed or growing, as a search needs them; numbered 0 .. rows-1."""

    rows: int

    def column(self, name: str) -> pa.Array:
        """A scalar field [rows], for filters."""
        ...

    def vectors(self, field: Field) -> np.ndarray:
        """float32 [rows, dim] or uint8 [rows, dim/8], C-contiguous, as stored; the first call may be slow."""
        ...

    def index(self, field: Field) -> VectorIndex | None:
        """The index over the field, covering all rows; None = search exactly."""
        ...

    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]:
        """Per scalar field (min, max, nulls); fields without bounds are left out."""
        ...


def search_segment(  # noqa: PLR0917 -- the whole of a search request
    data: SegmentData,
    field: Field,
    queries: np.ndarray,
    metric: Metric,
    k: int,
    params: Mapping[str, float],
    filter: Filter | None = None,
    visible: np.ndarray | None = None,
    radius: float | None = None,
    range_filter: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of each query that are visible, pass the filter and lie in the range.

    queries: as ``VectorIndex.search``. visible: bool [rows], None = all. radius (far bound, excluded)
    and range_filter (near bound, included) are scores. Gives (scores float32 [nq, k], rows int64
    [nq, k]), best first; missing places have row -1. Scores are never NaN.
    """
    allowed = _allowed(data, filter, visible)
    return prepare_search(data, field, metric, k, params, allowed, radius, range_filter)(queries)


def prepare_search(  # noqa: PLR0917 -- as search_segment
    data: SegmentData,
    field: Field,
    metric: Metric,
    k: int,
    params: Mapping[str, float],
    allowed: np.ndarray | None = None,
    radius: float | None = None,
    range_filter: float | None = None,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """``search_segment`` of the ``allowed`` rows (bool [rows], None = all) for any queries.

    What it gives is safe in any thread and holds for as long as the rows' index stays the same.
    """
    survivors = data.rows if allowed is None else int(np.count_nonzero(allowed))
    if not survivors:
        return lambda queries: empty_result(len(queries), k)
    index = data.index(field)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if index is not None:
            return index.search(queries, k, params, allowed)
        return search_flat(data.vectors(field), queries, k, metric, allowed)

    if radius is None and range_filter is None:
        return lambda queries: _numbers(*search(queries, k))
    within = _Range(metric, radius, range_filter)
    return lambda queries: _numbers(*_search_range(search, queries, k, survivors, within))


def _numbers(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without NaN, which a product of huge components gives that overflowed both ways."""
    # One product decides nearly always; where it only overflowed, the exact look finds nothing.
    if isfinite(np.vdot(scores, scores)) or not (odd := np.isnan(scores)).any():
        return scores, rows
    rows[odd] = -1
    scores[odd] = 0
    first = np.argsort(rows < 0, axis=1, kind="stable")
    return np.take_along_axis(scores, first, 1), np.take_along_axis(rows, first, 1)


def _allowed(data: SegmentData, filter: Filter | None, visible: np.ndarray | None) -> np.ndarray | None:
    """bool [rows], None = all rows."""
    if filter is None:
        return visible
    if not filter.may_match(data.bounds()):
        return np.zeros(data.rows, np.bool_)
    mask = filter.mask(data.column, data.rows)
    return mask if visible is None else mask & visible


class _Range:
    """Bounds on the score, in single precision as the scores are."""

    def __init__(self, metric: Metric, radius: float | None, range_filter: float | None) -> None:
        self._larger = metric.larger_is_better
        self._far = None if radius is None else np.float32(radius)
        self._near = None if range_filter is None else np.float32(range_filter)

    def split(self, scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(inside, past the far bound or missing), bool [nq, k] each."""
        beyond = rows < 0
        if self._far is not None:
            beyond |= (scores <= self._far) if self._larger else (scores >= self._far)
        inside = ~beyond
        if self._near is not None:
            inside &= (scores <= self._near) if self._larger else (scores >= self._near)
        return inside, beyond


def _search_range(
    search: Search, queries: np.ndarray, k: int, survivors: int, bounds: _Range
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a score between the bounds. The near bound may cut off the first hits, however many:
    a query with too few left is asked again for four times as many, up to all rows."""
    scores, found = empty_result(len(queries), k)
    pending = np.arange(len(queries))
    ask = min(k, survivors)
    while len(pending):
        step = max(1, RESULTS_MAX // ask)
        again = []
        for i in range(0, len(pending), step):
            part = pending[i : i + step]
            near_scores, near = search(queries[part], ask)
            inside, beyond = bounds.split(near_scores, near)
            done = (np.count_nonzero(inside, axis=1) >= k) | beyond[:, -1] | (ask >= survivors)
            ready, inside = part[done], inside[done]
            order = np.argsort(~inside, axis=1, kind="stable")[:, :k]
            keep = np.take_along_axis(inside, order, 1)
            width = order.shape[1]
            scores[ready, :width] = np.where(keep, np.take_along_axis(near_scores[done], order, 1), 0)
            found[ready, :width] = np.where(keep, np.take_along_axis(near[done], order, 1), -1)
            again.append(part[~done])
        pending = np.concatenate(again)
        ask = min(ask * 4, survivors)
    return scores, found


def estimate_cost(  # noqa: PLR0917 -- as search_segment
    data: SegmentData,
    field: Field,
    nq: int,
    k: int = 10,
    params: Mapping[str, float] | None = None,
    filtered: bool = False,
) -> int:
    """Multiply-adds a search will take, about: whether it may run on the event loop. A filter counts
    as one that keeps half of the rows."""
    index = data.index(field)
    # 64 bits are compared in the time of a few multiply-adds.
    width = max(1, field.dim // 16) if field.type is DataType.BINARY_VECTOR else field.dim
    survivors = data.rows // 2 if filtered else data.rows
    cost = plan.scan_cost(data.rows, survivors, width)
    if index is not None and not index.exact:
        ef = max(int((params or {}).get("ef", default_ef(k))), k)
        if filtered:
            ef = plan.filtered_ef(data.rows, max(survivors, 1), k, ef)
        cost = min(cost, plan.walk_cost(ef, width))
    return nq * cost + (data.rows * FILTER_COST if filtered else 0)
