"""Search of a graph under a filter, the same for every graph: walk, check, widen, or scan (``engine.plan``)."""

from typing import Protocol

import numpy as np

from engine import plan
from engine.vector.native import empty_result

RESULTS_MAX = 1 << 20
"""Rows collected at a time: bounds the memory of many queries with a wide walk."""


class Graph(Protocol):
    """A graph that can also scan. Both give (scores [nq, k], rows [nq, k]), -1 padded."""

    rows: int
    dim: int

    def walk(self, queries: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, np.ndarray]: ...

    def scan(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]: ...


def search_graph(
    graph: Graph, queries: np.ndarray, k: int, ef: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """As ``VectorIndex.search``; ``ef`` is the width an unfiltered search would take."""
    rows = graph.rows
    survivors = rows if allowed is None else int(np.count_nonzero(allowed))
    if survivors == rows:
        allowed = None
    if not survivors:
        return empty_result(len(queries), k)
    wanted = min(k, survivors)
    wide = max(ef, k) if allowed is None else plan.filtered_ef(rows, survivors, wanted, ef)
    step = max(1, RESULTS_MAX // max(k, min(wide, rows)))
    if len(queries) > step:
        parts = [search_graph(graph, queries[i : i + step], k, ef, allowed) for i in range(0, len(queries), step)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    if not plan.walk_pays(rows, survivors, wide, graph.dim):
        return graph.scan(queries, k, allowed)
    if allowed is not None:
        return _filtered(graph, queries, k, wide, allowed, survivors=survivors)
    scores, found = graph.walk(queries, k, wide)
    # Many copies of one vector can cut a graph in two: a walk that ends early is no answer.
    if (found.item(wanted - 1) if len(queries) == 1 else found[:, wanted - 1].min()) < 0:
        short = np.flatnonzero(found[:, wanted - 1] < 0)
        scores[short], found[short] = graph.scan(queries[short], k, None)
    return scores, found


def _filtered(
    graph: Graph, queries: np.ndarray, k: int, ef: int, allowed: np.ndarray, *, survivors: int
) -> tuple[np.ndarray, np.ndarray]:
    wanted = min(k, survivors)
    scores, found = empty_result(len(queries), k)
    pending = np.arange(len(queries))
    while len(pending) and plan.walk_pays(graph.rows, survivors, ef, graph.dim):
        near_scores, near = graph.walk(queries[pending], ef, ef)
        keep = allowed[near] & (near >= 0)
        short = []
        for q, kept, s, r in zip(pending, keep, near_scores, near, strict=True):
            first = kept.nonzero()[0][:wanted]
            if len(first) < wanted:
                short.append(q)
            else:
                scores[q, :wanted], found[q, :wanted] = s[first], r[first]
        pending = np.array(short, np.int64)
        ef *= plan.WIDEN
    if len(pending):
        scores[pending], found[pending] = graph.scan(queries[pending], k, allowed)
    return scores, found
