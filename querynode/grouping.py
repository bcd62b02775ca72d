"""Search by groups: the best rows of each query among which a value occurs a few times at most."""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pyarrow as pa

from core.limits import RESULT_ENTRIES_MAX, TOPK_MAX
from core.schema import Field
from rpc.reads import Rows, SearchReply, SearchRequest

WIDEN = 4
"""How much further a search looks when it found too few groups."""


async def search_groups(
    request: SearchRequest, fields: Sequence[Field], by: Field, best: Callable[[int], Awaitable[SearchReply]]
) -> SearchReply:
    """Looks further and further until every query has its groups or no more rows.

    best: gives the so many best rows of each query, with the fields and ``by``.
    """
    groups = -(-request.k // request.group_size)
    farthest = max(request.k, min(TOPK_MAX, RESULT_ENTRIES_MAX // len(request.queries)))
    k = min(request.k * WIDEN, farthest)
    while True:
        whole = await best(k)
        chosen, found = best_of_groups(whole.counts, whole.rows.columns[by.name], groups, request.group_size)
        if k == farthest or ((whole.counts < k) | (found == groups)).all():
            return pick(whole, chosen, fields, by)
        k = min(k * WIDEN, farthest)


def best_of_groups(counts: np.ndarray, values: pa.Array, groups: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses from rows that lie query by query, best first.

    counts: int64 [nq], rows of each query; values: the group of each row [sum(counts)], null being a
    group. Gives (chosen bool [sum(counts)], found int64 [nq]): per query the ``size`` best rows of
    each of its ``groups`` best groups, and how many of those there are.
    """
    query = np.repeat(np.arange(len(counts)), counts)
    codes = values.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    group, first = _numbered(query * (codes.max(initial=0) + 1) + codes)
    # Groups are numbered by their best row, so within a query by rank.
    before = np.searchsorted(first, np.cumsum(counts) - counts)
    rank = group - before[query]
    chosen = (_occurrence(group) < size) & (rank < groups)
    found = np.minimum(np.searchsorted(first, np.cumsum(counts)) - before, groups)
    return chosen, found


def pick(whole: SearchReply, chosen: np.ndarray, fields: Sequence[Field], by: Field) -> SearchReply:
    """The chosen rows of a reply that holds the field ``by``; of its columns only ``fields``."""
    ends = np.r_[0, np.cumsum(chosen)][np.r_[0, np.cumsum(whole.counts)]]
    rows = pa.array(np.flatnonzero(chosen))
    columns = {f.name: whole.rows.columns[f.name].take(rows) for f in fields}
    groups = whole.rows.columns[by.name].take(rows)
    return SearchReply(np.diff(ends), whole.scores[chosen], Rows(whole.rows.pks.take(rows), columns), groups)


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels numbered in order of first appearance: (number of each entry, first entry of each number)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[inverse], first[order]


def _occurrence(group: np.ndarray) -> np.ndarray:
    """For each entry how many earlier entries have the same number."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(group) else np.empty(0, np.int64)
    runs = np.diff(np.r_[starts, len(group)])
    occurrence = np.empty(len(group), np.int64)
    occurrence[order] = np.arange(len(group)) - np.repeat(starts, runs)
    return occurrence
