"""Nearest rows over one view: each part searched on its own, the answers merged."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from core.errors import Timeout
from core.schema import Field, Schema
from engine.segment import SegmentData, estimate_cost, prepare_search
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from querynode.best import Best, Found, Merged, best_of, best_of_runs
from querynode.gather import gather, no_rows
from querynode.matching import Matching
from querynode.view import Part, PartData
from rpc.reads import SearchReply, SearchRequest

WIDE = 4
"""Answers' worth of rows that a run holds before it keeps the best of them only."""


PartSearch = Callable[[np.ndarray, Sequence[int]], Found]
"""Queries and ``sizes`` as in ``SearchRequest`` to the best rows of a part."""


class FoundRows(NamedTuple):
    """part_of: for each row of the reply the number of its part, int64; None = all of part 0."""

    reply: SearchReply
    parts: Sequence[Part]
    part_of: np.ndarray | None


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
) -> PartSearch:
    """The search of one part's visible rows for any queries; as safe and as lasting as what
    ``engine.segment.prepare_search`` gives."""
    metric = Metric(request.metric)
    part = _indexed(data, field, metric)
    # A small part has no k rows: what would pad its answer is what thousands of small parts take most memory for.
    k = min(k, data.rows)
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


def search_run(matching: Matching, numbers: Sequence[int], field: Field, request: SearchRequest, k: int) -> Best:
    """The best rows of some parts, one part after the other: rows of as many as make ``WIDE`` answers are in
    memory. Safe in any thread. Raises ``Timeout``."""
    held: list[Best] = []
    width, metric = 0, Metric(request.metric)
    for number in numbers:
        if time.monotonic() > request.deadline:
            raise Timeout("deadline passed in the middle of a search")
        held.append(best_of([search_part(matching, number, field, request, k)], [number], k, metric))
        width += held[-1].rows.shape[1]
        if width > WIDE * k:
            held = [best_of_runs(held, k, metric)]
            width = held[0].rows.shape[1]
    return best_of_runs(held, k, metric)


def cut(matching: Matching, most: int) -> list[Sequence[int]]:
    """The numbers of the parts in at most so many runs of neighbours, of about as many rows each."""
    numbers = matching.numbers
    if len(numbers) <= most:
        return [[n] for n in numbers]
    rows = np.array([matching.parts[n].data.rows for n in numbers])
    ends = np.cumsum(rows)
    run = (ends - rows / 2) * most // ends[-1]
    return [some.tolist() for some in np.split(numbers, np.flatnonzero(np.diff(run)) + 1)]


def reply(merged: Merged, parts: Sequence[Part], schema: Schema, fields: Sequence[Field]) -> SearchReply:
    """The answer with keys and columns."""
    return SearchReply(merged.counts, merged.scores, gather(parts, merged.part_of, merged.rows, schema, fields))


def nothing(schema: Schema, fields: Sequence[Field], request: SearchRequest) -> SearchReply:
    """The answer when there is no row to search."""
    nq = len(request.queries)
    groups = pa.array([], schema.by_name[request.group_by].arrow_type) if request.group_by else None
    return SearchReply(np.zeros(nq, np.int64), np.empty(0, np.float32), no_rows(schema, fields), groups)
