"""A graph over rows that are still arriving (hnswlib), kept until their segment is sealed."""

import threading
from collections.abc import Mapping

import numpy as np

from engine.vector.declare import default_ef
from engine.vector.flat import normalised, norms_of, search_flat
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from engine.vector.native import CORES, empty_result, hnswlib
from engine.vector.turns import Turns
from engine.vector.walk import search_graph

LINKS = 16
EF_CONSTRUCTION = 100
"""Half of a sealed index's: this graph lives for minutes, and is built while rows arrive."""
SLICE_ROWS = 16
"""Rows added under one hold of the lock: the longest a search waits (2 to 4 ms at 384 dimensions)."""
CHUNK_ROWS = 4096
"""Fewer rows than this are joined (copied) with those added before, so that scans see few chunks."""


class InterimIndex(VectorIndex):
    """Grows by ``add``; searches see every row added before them.

    Rows are numbered in the order they were added; ``rows`` is how many are searchable. ``allowed``
    of a search may be shorter than that: later rows count as forbidden, so a reader keeps to its
    view while rows arrive. hnswlib forbids searching while adding, so adding takes short turns with
    the searches. Metrics L2, IP, COSINE; scores are exact to single precision.
    """

    exact = False
    engine = "hnswlib/interim"

    def __init__(self, dim: int, metric: Metric, capacity: int = 16_384) -> None:
        self.rows, self.dim, self._metric = 0, dim, metric
        self._scale = 0.0
        self._chunks: tuple[_Chunk, ...] = ()
        self._capacity = capacity
        self._graph = hnswlib.Index(space="l2" if metric is Metric.L2 else "ip", dim=dim)
        self._graph.init_index(max_elements=capacity, M=LINKS, ef_construction=EF_CONSTRUCTION)
        self._turns = Turns()
        self._adding = threading.Lock()

    @property
    def bytes(self) -> int:
        """The caller's vectors are not counted."""
        # hnswlib keeps its own copy, 2*M links of 4 bytes at the bottom, and about 30 bytes more.
        return self._capacity * (4 * self.dim + 8 * LINKS + 34)

    def add(self, vectors: np.ndarray, threads: int = 1) -> None:
        """Appends float32 [n, dim], which must not change afterwards: it is kept, not copied.
        Blocks; releases the GIL. Calls are taken one after the other."""
        with self._adding:
            if not len(vectors):
                return
            norms = norms_of(vectors)
            points = self._points(vectors, norms)
            self._keep(vectors, norms)
            self._reserve(self.rows + len(vectors))
            for i in range(0, len(points), SLICE_ROWS):
                part = points[i : i + SLICE_ROWS]
                end = self.rows + len(part)
                with self._turns.alone():
                    self._graph.add_items(part, np.arange(self.rows, end), num_threads=threads)
                    self.rows = end

    def _points(self, vectors: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """What hnswlib is given. Its distance is 1 - x.y, which rounds small products away: for IP all
        vectors are scaled by one power of two to lengths about 1."""
        if self._metric is Metric.COSINE:
            return normalised(vectors, norms)
        if self._metric is Metric.L2:
            return vectors
        if not self._scale and norms.max() > 0:
            self._scale = float(np.exp2(-np.ceil(np.log2(float(norms.max())))))
        return vectors * np.float32(self._scale or 1)

    def _keep(self, vectors: np.ndarray, norms: np.ndarray) -> None:
        chunks = self._chunks
        if chunks and len(chunks[-1].vectors) + len(vectors) <= CHUNK_ROWS:
            last = chunks[-1]
            vectors, norms = np.concatenate([last.vectors, vectors]), np.concatenate([last.norms, norms])
            chunks = chunks[:-1]
        first = chunks[-1].end if chunks else 0
        # A new tuple: a search goes on with the one it began with.
        self._chunks = (*chunks, _Chunk(first, vectors, norms))

    def _reserve(self, rows: int) -> None:
        if rows > self._capacity:
            with self._turns.alone():
                self._capacity = max(rows, self._capacity + self._capacity // 2)
                self._graph.resize_index(self._capacity)

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        ef = int(params["ef"]) if "ef" in params else default_ef(k)
        with self._turns.shared():
            if allowed is not None and len(allowed) != self.rows:
                seen = np.zeros(self.rows, np.bool_)
                seen[: len(allowed)] = allowed[: self.rows]
                allowed = seen
            return search_graph(self, queries, k, ef, allowed)

    def walk(self, queries: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest the graph finds. Only within ``search``."""
        lengths = None if self._metric is Metric.L2 else norms_of(queries)
        points = queries if lengths is None else normalised(queries, lengths)
        # The width of a hnswlib search is max(ef, k), and its ef is shared by all searches: ask for k = ef.
        width = min(max(ef, k), self.rows)
        try:
            found, apart = self._graph.knn_query(points, width, num_threads=min(len(queries), CORES))
        except RuntimeError:  # some query has fewer than that within its reach
            return self.scan(queries, k, None)
        scores, rows = empty_result(len(queries), k)
        taken = min(k, width)
        rows[:, :taken] = found[:, :taken]
        scores[:, :taken] = apart[:, :taken]
        if lengths is not None:
            scores = np.clip(1 - scores, -1, 1) if self._metric is Metric.COSINE else 1 - scores
        if lengths is not None and self._metric is Metric.IP:
            scores *= (lengths / np.float32(self._scale or 1))[:, None]
        return scores, rows

    def scan(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest allowed rows, exactly. Only within ``search``."""
        found = []
        for chunk in self._chunks:
            part = slice(chunk.first, min(chunk.end, self.rows))
            if part.stop <= part.start or (allowed is not None and not allowed[part].any()):
                continue
            size = part.stop - part.start
            mask = None if allowed is None else allowed[part]
            scores, rows = search_flat(
                chunk.vectors[:size], queries, min(k, size), self._metric, mask, norms=chunk.norms[:size]
            )
            found.append((scores, np.where(rows < 0, -1, rows + chunk.first)))
        best, kept = empty_result(len(queries), k)
        if found:
            scores, rows = (np.concatenate(a, axis=1) for a in zip(*found, strict=True))
            keys = np.where(rows < 0, np.inf, -scores if self._metric.larger_is_better else scores)
            order = np.argsort(keys, axis=1, kind="stable")[:, :k]
            width = order.shape[1]
            best[:, :width], kept[:, :width] = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        return best, kept


class _Chunk:
    """Rows ``first`` .. ``end - 1``, as they were given."""

    __slots__ = ("end", "first", "norms", "vectors")

    def __init__(self, first: int, vectors: np.ndarray, norms: np.ndarray) -> None:
        self.first, self.end, self.vectors, self.norms = first, first + len(vectors), vectors, norms
