"""Nearest rows over one view: each part searched on its own, the answers merged."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from core.schema import Field, Schema
from engine.segment import SegmentData, estimate_cost, prepare_search
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from querynode.gather import gather, no_rows
from querynode.matching import Matching
from querynode.view import Part, PartData
from rpc.reads import SearchReply, SearchRequest

Found = tuple[np.ndarray, np.ndarray]
"""scores float32 [nq, k], rows int64 [nq, k]; row -1 = nothing there."""


def search_cost(matching: Matching, field: Field, request: SearchRequest) -> int:
    """Estimated multiply-adds of the whole search."""
    nq, k, params = len(request.queries), request.k, request.params
    filtered = matching.filter is not None
    cost = sum(estimate_cost(matching.parts[n].data, field, nq, k, params, filtered) for n in matching.numbers)
    return cost + matching.cost()


def search_part(matching: Matching, number: int, field: Field, request: SearchRequest, k: int) -> Found:
    """The best rows of one part. Safe in any thread."""
    search = prepare_part(matching.parts[number].data, field, request, k, matching.mask(number))
    return search(request.queries, request.sizes)


def prepare_part(
    data: PartData, field: Field, request: SearchRequest, k: int, visible: np.ndarray | None
) -> Callable[[np.ndarray, Sequence[int]], Found]:
    """The search of one part's visible rows for any queries, of requests of these ``sizes``; as safe and as
    lasting as what ``engine.segment.prepare_search`` gives."""
    metric = Metric(request.metric)
    part = _indexed(data, field, metric)
    search = prepare_search(part, field, metric, k, request.params, visible, request.radius, request.range_filter)
    index = part.index(field)
    if index is not None and not index.exact:
        return lambda queries, _sizes: search(queries)

    def one_by_one(queries: np.ndarray, sizes: Sequence[int]) -> Found:
        """The matrix products of exact searches round differently with other queries beside them, and an
        answer must not depend on those (invariant 7)."""
        if not sizes:
            return search(queries)
        scores, rows = zip(*map(search, np.split(queries, np.cumsum(sizes)[:-1])), strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    return one_by_one


def _indexed(data: PartData, field: Field, metric: Metric) -> SegmentData:
    """The rows of a part with the index to search them by; an exact one where there is no other."""
    if data.index(field) is None and (exact := data.exact(field, metric)) is not None:
        return _Indexed(data, exact)
    return data


class _Indexed:
    """A part with the index to search it by. Implements ``engine.segment.SegmentData``."""

    def __init__(self, data: PartData, index: VectorIndex) -> None:
        self.rows, self._index = data.rows, index
        self.column, self.vectors, self.bounds = data.column, data.vectors, data.bounds

    def index(self, field: Field) -> VectorIndex | None:
        return self._index


class Merged:
    """The best ``k`` rows of each query over all parts, flat: query by query, best first.

    numbers: of the parts searched, at least one. counts int64 [nq]; scores float32, part_of and rows
    int64 [sum(counts)]; part_of None = all of part 0.
    """

    def __init__(self, found: Sequence[Found], numbers: Sequence[int], k: int, metric: Metric) -> None:
        if len(found) == 1:
            scores, rows = found[0]
            part_of = np.full(rows.shape, numbers[0]) if numbers[0] else None
        else:
            scores, rows, place = _merge(found, k, metric)
            part_of = np.array(numbers)[place]
        nq, width = rows.shape
        # What is missing is at the end. One query is by far the most frequent case, and item() the cheapest look.
        if (rows.item(-1) >= 0) if nq == 1 else (rows[:, -1] >= 0).all():
            self.counts = np.full(nq, width)
            self.scores, self.rows = scores.ravel(), rows.ravel()
            self.part_of = None if part_of is None else part_of.ravel()
        else:
            held = rows >= 0
            self.counts = np.count_nonzero(held, axis=1)
            self.scores, self.rows = scores[held], rows[held]
            self.part_of = None if part_of is None else part_of[held]

    def used(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that some of the rows are of."""
        return [parts[0]] if self.part_of is None else [parts[n] for n in np.unique(self.part_of)]


def _merge(found: Sequence[Found], k: int, metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores = np.concatenate([s for s, _ in found], axis=1)
    rows = np.concatenate([r for _, r in found], axis=1)
    part_of = np.repeat(np.arange(len(found)), [r.shape[1] for _, r in found])
    distance = np.where(rows < 0, np.inf, -scores if metric.larger_is_better else scores)
    # Stable: of equal scores the order of the parts decides, the same on every replica.
    best = np.argsort(distance, axis=1, kind="stable")[:, :k]
    taken = np.take_along_axis
    return taken(scores, best, 1), taken(rows, best, 1), part_of[best]


def reply(merged: Merged, parts: Sequence[Part], schema: Schema, fields: Sequence[Field]) -> SearchReply:
    """The answer with keys and columns."""
    return SearchReply(merged.counts, merged.scores, gather(parts, merged.part_of, merged.rows, schema, fields))


def nothing(schema: Schema, fields: Sequence[Field], request: SearchRequest) -> SearchReply:
    """The answer when there is no row to search."""
    nq = len(request.queries)
    groups = pa.array([], schema.by_name[request.group_by].arrow_type) if request.group_by else None
    return SearchReply(np.zeros(nq, np.int64), np.empty(0, np.float32), no_rows(schema, fields), groups)
