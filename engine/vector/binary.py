"""Exact search over bit vectors: HAMMING and JACCARD by population count."""

import numpy as np

from engine.vector.metric import Metric
from engine.vector.native import empty_result
from engine.vector.topk import TopK

BLOCK_BYTES = 1 << 20
"""Largest block of vectors worked on at a time."""


def search_binary(
    vectors: np.ndarray, queries: np.ndarray, k: int, metric: Metric, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As ``search_flat``, for uint8 [rows, dim/8]. The JACCARD distance of two empty sets is 1."""
    scores, found = empty_result(len(queries), k)
    rows = None if allowed is None else np.flatnonzero(allowed)
    total = len(vectors) if rows is None else len(rows)
    k = min(k, total)
    if not k:
        return scores, found
    words = _words(queries)
    best = TopK(len(queries), k)
    step = max(1, BLOCK_BYTES // vectors.shape[1])
    for i in range(0, total, step):
        block = vectors[i : i + step] if rows is None else vectors[rows[i : i + step]]
        # One word of all rows side by side: sums run down columns, which NumPy vectorises.
        columns = np.ascontiguousarray(_words(block).T)
        best.add(np.negative(_distances(words, columns, metric)), i)
    keys, local = best.result()
    scores[:, :k] = -keys
    found[:, :k] = local if rows is None else np.where(local < 0, -1, rows[local])
    return scores, found


def _words(vectors: np.ndarray) -> np.ndarray:
    """The same bits as the widest words that fit."""
    width = next(w for w in (8, 4, 2, 1) if vectors.shape[1] % w == 0)
    return np.ascontiguousarray(vectors).view(f"u{width}")


def _distances(queries: np.ndarray, columns: np.ndarray, metric: Metric) -> np.ndarray:
    """float32 [nq, m] from words [nq, w] and [w, m]."""
    out = np.empty((len(queries), columns.shape[1]), np.float32)
    if metric is Metric.HAMMING:
        for q, query in enumerate(queries):
            out[q] = _ones(columns ^ query[:, None])
        return out
    sizes = _ones(columns)
    for q, query in enumerate(queries):
        shared = _ones(columns & query[:, None])
        either = sizes + np.bitwise_count(query).sum(dtype=np.int32) - shared
        out[q] = 1 - shared / np.maximum(either, 1)
    return out


def _ones(words: np.ndarray) -> np.ndarray:
    """int32 [m]: set bits of each column of words [w, m]."""
    return np.bitwise_count(words).sum(axis=0, dtype=np.int32)
