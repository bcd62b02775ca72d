"""A graph over rows that are still arriving (hnswlib), kept until their segment is sealed."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from engine.vector.declare import default_ef
from engine.vector.flat import distances, normalised, norms_of, search_flat
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from engine.vector.native import CORES, hnswlib
from engine.vector.walk import search_graph

LINKS = 16
EF_CONSTRUCTION = 100
"""Half of a sealed index's: this graph lives for minutes, and is built while rows arrive."""
SLICE_ROWS = 64
"""Rows added under one hold of the lock: the longest a search waits (some 10 ms at 384 dimensions)."""


class InterimIndex(VectorIndex):
    """Grows by ``add``; searches see every row added before them.

    Rows are numbered in the order they were added; ``rows`` is how many are searchable. ``allowed``
    of a search may be shorter than that: later rows count as forbidden, so a reader keeps to its
    view while rows arrive. Scores are exact. hnswlib forbids searching while adding, so adding
    takes short turns with the searches. Metrics L2, IP, COSINE.
    """

    exact = False
    engine = "hnswlib/interim"

    def __init__(self, dim: int, metric: Metric, capacity: int = 16_384) -> None:
        self.rows, self.dim, self._metric = 0, dim, metric
        self._vectors = np.empty((capacity, dim), np.float32)
        self._norms = np.empty(capacity, np.float32)
        self._graph = hnswlib.Index(space="l2" if metric is Metric.L2 else "ip", dim=dim)
        self._graph.init_index(max_elements=capacity, M=LINKS, ef_construction=EF_CONSTRUCTION)
        self._turns = _Turns()
        self._adding = threading.Lock()

    @property
    def vectors(self) -> np.ndarray:
        """float32 [rows, dim]: what was added, as it was given; never written again."""
        return self._vectors[: self.rows]

    @property
    def bytes(self) -> int:
        # hnswlib keeps its own copy, 2*M links of 4 bytes at the bottom, and about 30 bytes more.
        return len(self._vectors) * (2 * 4 * self.dim + 8 * LINKS + 34)

    def add(self, vectors: np.ndarray, threads: int = 1) -> None:
        """Appends float32 [n, dim]. Blocks; releases the GIL. Calls are taken one after the other."""
        with self._adding:
            norms = norms_of(vectors)
            points = normalised(vectors, norms) if self._metric is Metric.COSINE else vectors
            self._reserve(self.rows + len(vectors))
            for i in range(0, len(vectors), SLICE_ROWS):
                part = points[i : i + SLICE_ROWS]
                end = self.rows + len(part)
                self._vectors[self.rows : end] = vectors[i : i + SLICE_ROWS]
                self._norms[self.rows : end] = norms[i : i + SLICE_ROWS]
                with self._turns.alone():
                    self._graph.add_items(part, np.arange(self.rows, end), num_threads=threads)
                    self.rows = end

    def _reserve(self, rows: int) -> None:
        capacity = len(self._vectors)
        if rows <= capacity:
            return
        capacity = max(rows, capacity + capacity // 2)
        # New arrays: who reads the old ones reads on undisturbed.
        grown, norms = np.empty((capacity, self.dim), np.float32), np.empty(capacity, np.float32)
        grown[: self.rows], norms[: self.rows] = self._vectors[: self.rows], self._norms[: self.rows]
        with self._turns.alone():
            self._vectors, self._norms = grown, norms
            self._graph.resize_index(capacity)

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        ef = int(params["ef"]) if "ef" in params else default_ef(k)
        with self._turns.shared():
            view = _View(self._graph, self._vectors[: self.rows], self._norms[: self.rows], self._metric)
            if allowed is not None and len(allowed) != view.rows:
                seen = np.zeros(view.rows, np.bool_)
                seen[: len(allowed)] = allowed[: view.rows]
                allowed = seen
            return search_graph(view, queries, k, ef, allowed)


class _View:
    """The index as one search sees it."""

    def __init__(self, graph: "hnswlib.Index", vectors: np.ndarray, norms: np.ndarray, metric: Metric) -> None:
        self.rows, self.dim = vectors.shape
        self._graph, self._vectors, self._norms, self._metric = graph, vectors, norms, metric

    def walk(self, queries: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        points = normalised(queries) if self._metric is Metric.COSINE else queries
        # The width of a hnswlib search is max(ef, k), and its ef is shared by all searches: ask for k = ef.
        width = min(max(ef, k), self.rows)
        try:
            found, _ = self._graph.knn_query(points, width, num_threads=min(len(queries), CORES))
        except RuntimeError:  # some query has fewer than that within its reach
            return self.scan(queries, k, None)
        found = found[:, :k].astype(np.int64)
        return self._rescore(queries, found, k)

    def _rescore(self, queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact scores: hnswlib's 1 - x.y rounds small products away."""
        scores = np.full((len(queries), k), np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        width = rows.shape[1]
        smaller = self._metric is Metric.L2
        keys = distances(self._vectors, queries, rows) if smaller else -self._products(queries, rows)
        order = np.lexsort((rows, keys), axis=1)
        scores[:, :width] = np.take_along_axis(keys, order, 1)
        found[:, :width] = np.take_along_axis(rows, order, 1)
        return (scores if smaller else -scores), found

    def _products(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = np.empty(rows.shape, np.float32)
        points = normalised(queries) if self._metric is Metric.COSINE else queries
        for q, (point, picked) in enumerate(zip(points, rows, strict=True)):
            out[q] = self._vectors[picked] @ point
        if self._metric is Metric.COSINE:
            norms = self._norms[rows]
            out /= np.where(norms > 0, norms, 1)
            np.clip(out, -1, 1, out=out)
        return out

    def scan(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return search_flat(self._vectors, queries, k, self._metric, allowed, self._norms)


class _Turns:
    """Many readers or one writer. A waiting writer goes before new readers, and each leaves the
    other a turn, so neither starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting = True
            self._changed.wait_for(lambda: not self._writing and not self._readers)
            self._waiting, self._writing = False, True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
