"""Exact search: every row is scored, in blocks that stay in the cache."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from core.types import DataType
from engine.vector.binary import search_binary
from engine.vector.index import VectorIndex
from engine.vector.metric import METRICS, Metric
from engine.vector.native import CORES, empty_result, faiss, pointer, use_threads
from engine.vector.topk import TopK

BLOCK_FLOATS = 1 << 20
"""Largest temporary, in floats: blocks of rows, and blocks of scores."""
QUERIES_MAX = 256
"""Queries scored together."""
FEW = 16
"""Vectors whose lengths are found one by one."""
SLACK = 8
"""L2: candidates beyond k that the matrix product must tell apart before it is trusted."""
GATHER_SHARE = 3
"""A scan of fewer than one row in this many copies them together instead of scoring all."""


def norms_of(vectors: np.ndarray) -> np.ndarray:
    """float32 [rows]: lengths, also where their squares leave the range of float32."""
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    odd = np.flatnonzero(~((norms > 1e-15) & (norms < 1e18)))
    if len(odd):
        exact = np.linalg.norm(vectors[odd].astype(np.float64), axis=1)
        norms[odd] = np.minimum(exact, np.finfo(np.float32).max)
    return norms


def normalised(vectors: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """A copy scaled to length 1; zero vectors stay zero."""
    if len(vectors) <= FEW and norms is None:  # the queries of most searches: 2 us each instead of 12 and more
        lengths = [math.sqrt(np.vdot(v, v)) for v in vectors]
        if all(1e-15 < length < 1e18 for length in lengths):
            return vectors * np.array([1 / length for length in lengths], np.float32)[:, None]
    norms = norms_of(vectors) if norms is None else norms
    return vectors / np.where(norms > 0, norms, 1)[:, None]


def search_flat(
    vectors: np.ndarray,
    queries: np.ndarray,
    k: int,
    metric: Metric,
    allowed: np.ndarray | None = None,
    *,
    norms: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of each query, exactly; (scores [nq, k], rows [nq, k]) as ``VectorIndex.search``.

    vectors: float32 [rows, dim] (uint8 [rows, dim/8] for binary metrics), C-contiguous.
    allowed: bool [rows]. norms: ``norms_of(vectors)`` where kept, which halves the time of COSINE
    and L2. Equal scores come in row order. Memory stays within some MB besides the result.
    """
    if metric in METRICS[DataType.BINARY_VECTOR]:
        return search_binary(vectors, queries, k, metric, allowed)
    scores, found = empty_result(len(queries), k)
    rows = None if allowed is None else np.flatnonzero(allowed)
    k = min(k, len(vectors) if rows is None else len(rows))
    if not k:
        return scores, found
    scan = _Scan(vectors, metric, rows, norms)
    step = max(1, min(QUERIES_MAX, 8 * BLOCK_FLOATS // k))
    for i in range(0, len(queries), step):
        part = slice(i, i + step)
        scores[part, :k], found[part, :k] = scan.search(queries[part], k)
    return scores, found


class _Scan:
    """One pass over the (allowed) rows. Keys are the score, or for L2 ``q.x - |x|^2 / 2``: the order
    of the distances without their cost."""

    def __init__(self, vectors: np.ndarray, metric: Metric, rows: np.ndarray | None, norms: np.ndarray | None) -> None:
        self._vectors, self._metric, self._norms = vectors, metric, norms
        self._count = len(vectors) if rows is None else len(rows)
        gather = rows is not None and len(rows) * GATHER_SHARE < len(vectors)
        self._rows = rows
        self._gathered = rows if gather else None
        self._forbidden: np.ndarray | None = None
        if rows is not None and not gather and len(rows) < len(vectors):
            self._forbidden = np.full(len(vectors), -np.inf, np.float32)
            self._forbidden[rows] = 0
        self._longest = 0.0

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._metric is Metric.L2:
            return self._search_l2(queries, k)
        if self._metric is Metric.COSINE:
            queries = normalised(queries)
        keys, rows = self._best(queries, k)
        if self._metric is Metric.COSINE:
            np.clip(keys, -1, 1, out=keys)
        return keys, rows

    def _best(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        best = TopK(len(queries), k)
        with np.errstate(over="ignore", invalid="ignore"):
            for first, block, norms in self._blocks():
                keys = queries @ block.T
                if self._metric is Metric.COSINE:
                    keys /= np.where(norms > 0, norms, 1)
                elif self._metric is Metric.L2:
                    keys -= norms * norms / 2
                    self._longest = max(self._longest, float(norms.max()))
                if self._forbidden is not None:
                    keys += self._forbidden[first : first + len(block)]
                best.add(keys, first)
        keys, rows = best.result()
        if self._gathered is not None:
            rows = np.where(rows < 0, -1, self._gathered[rows])
        return keys, rows

    def _blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(first, vectors, norms) over what is scanned; no norms for IP."""
        step = max(1, BLOCK_FLOATS // max(self._vectors.shape[1], QUERIES_MAX))
        total = len(self._vectors) if self._gathered is None else len(self._gathered)
        for i in range(0, total, step):
            part = slice(i, i + step) if self._gathered is None else self._gathered[i : i + step]
            block = self._vectors[part]
            if self._metric is Metric.IP:
                yield i, block, block[:0, 0]
            else:
                yield i, block, norms_of(block) if self._norms is None else self._norms[part]

    def _search_l2(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidates by matrix product, their distances by subtraction.

        The product cancels digits where vectors are long and close together. So its order is only
        trusted if the k-th distance, computed directly, is below that of the last candidate by
        more than the product's rounding error; otherwise the query is scanned by subtraction.
        """
        wide = min(k + SLACK, self._count)
        keys, rows = self._best(queries, wide)
        scores = _distances(self._vectors, queries, rows)
        order = np.lexsort((rows, scores), axis=1)[:, :k]
        scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        if wide < self._count or (rows < 0).any():
            length = norms_of(queries)
            with np.errstate(over="ignore", invalid="ignore"):
                error = 4 * (np.sqrt(queries.shape[1]) + 4) * np.finfo(np.float32).eps * (length + self._longest) ** 2
                sure = scores[:, -1] + error <= length * length - 2 * keys[:, -1]
            unsure = np.flatnonzero(~sure)
            if len(unsure):
                scores[unsure], found[unsure] = self._subtract(queries[unsure], k)
        return scores, found

    def _subtract(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        nq, (rows, dim) = len(queries), self._vectors.shape
        scores, found = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
        picked = None if self._rows is None else faiss.IDSelectorArray(len(self._rows), pointer(self._rows))
        use_threads(min(nq, CORES))
        # Few queries at a time: older faiss goes over to a matrix product at 20.
        for i in range(0, nq, 16):
            q, s, f = (np.ascontiguousarray(a[i : i + 16]) for a in (queries, scores, found))
            vectors = pointer(self._vectors)
            faiss.knn_L2sqr(pointer(q), vectors, dim, len(q), rows, k, pointer(s), pointer(f), None, picked)
            scores[i : i + 16], found[i : i + 16] = s, f
        order = np.lexsort((found, scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)


def _distances(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 [nq, k]: squared distance of each query to its rows, +inf for row -1."""
    out = np.empty(rows.shape, np.float32)
    step = max(1, BLOCK_FLOATS // (rows.shape[1] * vectors.shape[1]))
    with np.errstate(over="ignore"):
        for i in range(0, len(queries), step):
            apart = vectors[rows[i : i + step]] - queries[i : i + step, None, :]
            out[i : i + step] = np.einsum("qkd,qkd->qk", apart, apart)
    out[rows < 0] = np.inf
    return out


class FlatIndex(VectorIndex):
    """Exact search over vectors that no longer change; keeps their norms, not a copy.

    vectors: as ``search_flat`` takes them (may be mapped from a file).
    """

    exact = True

    def __init__(
        self, vectors: np.ndarray, metric: Metric, norms: np.ndarray | None = None, engine: str = "sheafdb/flat"
    ) -> None:
        self.engine, self.rows, self._vectors, self._metric = engine, len(vectors), vectors, metric
        self._norms = norms
        if norms is None and metric in (Metric.L2, Metric.COSINE):
            self._norms = norms_of(vectors)

    @property
    def bytes(self) -> int:
        return self._vectors.nbytes + (0 if self._norms is None else self._norms.nbytes)

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return search_flat(self._vectors, queries, k, self._metric, allowed, norms=self._norms)
