"""Gluing the answers of shards into one, and cutting it to what was asked. Pure functions on arrays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rpc.reads import Rows, SearchReply


@dataclass(frozen=True, slots=True)
class Hits:
    """counts int64 [nq]; scores float32, pks and columns [sum(counts)], best first within a query."""

    counts: np.ndarray
    scores: np.ndarray
    rows: Rows
    groups: pa.Array | None


def merge(replies: list[SearchReply], limit: int, offset: int, larger_is_better: bool) -> Hits:
    """The best ``limit`` rows of each query over all replies, after the first ``offset``.

    Each reply has at most ``limit + offset`` rows per query, best first.
    """
    if len(replies) == 1:
        only = replies[0]
        hits = Hits(only.counts, only.scores, only.rows, only.groups)
        if offset == 0:
            return hits
        order, query = np.arange(len(only.scores)), _query_of(only.counts)
    else:
        hits, query = _concat(replies)
        order = _best_first(query, hits.scores, larger_is_better)
        query = query[order]
    place = _place_within(query, len(hits.counts))
    return _pick(hits, order, query, (place >= offset) & (place < offset + limit))


def merge_groups(replies: list[SearchReply], limit: int, offset: int, size: int, larger_is_better: bool) -> Hits:
    """As ``merge``, counting groups: of each query the ``limit`` best groups after the first ``offset``,
    each with at most ``size`` rows, the rows of a group side by side."""
    hits, query = _concat(replies)
    assert hits.groups is not None
    order = _best_first(query, hits.scores, larger_is_better)
    query = query[order]
    codes = hits.groups.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)
    _, group = np.unique(query * np.int64(2**32) + codes[order], return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    place_in_group = np.empty(len(group), np.int64)
    place_in_group[by_group] = _place_within(group[by_group], int(group.max(initial=-1)) + 1)
    # Groups of a query are ranked by where their best row stands.
    first = np.flatnonzero(place_in_group == 0)
    rank = np.empty(int(group.max(initial=-1)) + 1, np.int64)
    rank[group[first]] = _place_within(query[first], len(hits.counts))
    keep = (place_in_group < size) & (rank[group] >= offset) & (rank[group] < offset + limit)
    together = np.lexsort((place_in_group, rank[group], query))
    return _pick(hits, order[together], query[together], keep[together])


def _query_of(counts: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def _concat(replies: list[SearchReply]) -> tuple[Hits, np.ndarray]:
    rows = [r.rows for r in replies]
    names = rows[0].columns
    groups = pa.concat_arrays([r.groups for r in replies]) if replies[0].groups is not None else None
    hits = Hits(
        np.sum([r.counts for r in replies], axis=0),
        np.concatenate([r.scores for r in replies]),
        Rows(
            pa.concat_arrays([r.pks for r in rows]),
            {name: pa.concat_arrays([r.columns[name] for r in rows]) for name in names},
        ),
        groups,
    )
    return hits, np.concatenate([_query_of(r.counts) for r in replies])


def _best_first(query: np.ndarray, scores: np.ndarray, larger_is_better: bool) -> np.ndarray:
    """Stable: rows of equal score keep the order of their shards."""
    return np.lexsort((-scores if larger_is_better else scores, query))


def _place_within(sorted_keys: np.ndarray, keys: int) -> np.ndarray:
    """The place of each element among those of equal key, for keys 0 .. keys-1 in rising order."""
    counts = np.bincount(sorted_keys, minlength=keys)
    starts = np.cumsum(counts) - counts
    return np.arange(len(sorted_keys)) - starts[sorted_keys]


def _pick(hits: Hits, order: np.ndarray, query: np.ndarray, keep: np.ndarray) -> Hits:
    chosen = order[keep]
    index = pa.array(chosen, pa.int64())
    return Hits(
        np.bincount(query[keep], minlength=len(hits.counts)),
        hits.scores[chosen],
        Rows(hits.rows.pks.take(index), {name: c.take(index) for name, c in hits.rows.columns.items()}),
        hits.groups.take(index) if hits.groups is not None else None,
    )


def pick(hits: Hits, keep: np.ndarray) -> Hits:
    """Those rows of the answer to a single query. keep: bool [n]."""
    assert len(hits.counts) == 1
    return hits if keep.all() else _pick(hits, np.arange(len(keep)), np.zeros(len(keep), np.int64), keep)


def head(hits: Hits, rows: int) -> Hits:
    """The first ``rows`` rows of the answer to a single query."""
    assert len(hits.counts) == 1
    if rows >= len(hits.scores):
        return hits
    columns = {name: c.slice(0, rows) for name, c in hits.rows.columns.items()}
    return Hits(np.array([rows]), hits.scores[:rows], Rows(hits.rows.pks.slice(0, rows), columns), None)
