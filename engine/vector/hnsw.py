"""HNSW by faiss (Malkov and Yashunin, 2016), opened from a file by mmap.

faiss and not hnswlib, though hnswlib walks a little faster: it opens by mmap in a few ms (pages
shared by all processes of a machine) and can scan its own codes under a bitmap.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine import plan
from engine.vector.declare import default_ef
from engine.vector.flat import normalised
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from engine.vector.native import CORES, empty_result, faiss, pointer, use_threads
from engine.vector.walk import search_graph

EF_CACHE_MAX = 64
QUERIES_PER_THREAD = 8
"""Fewer queries than this are no work for another thread: to wake it costs as much as one."""
ONE = np.float32(1)
"""Of the scores' own type: NumPy converts a Python number each time."""


class HnswIndex(VectorIndex):
    """A graph over float32 or bf16 codes; COSINE is the inner product of normalised vectors.

    Scores are those of the codes: with bf16 they differ from exact ones by some 1e-4 of the product
    of the lengths; their order is that of the scores.

    native: a faiss ``IndexHNSW``. file_bytes: size of the file it is mapped from.
    """

    exact = False

    def __init__(self, native: Any, metric: Metric, engine: str, file_bytes: int) -> None:
        self.engine, self.rows, self.dim = engine, int(native.ntotal), int(native.d)
        self._native, self._metric, self._file_bytes = native, metric, file_bytes
        self._storage = faiss.downcast_index(native.storage)
        size = self._storage.code_size
        codes = faiss.rev_swig_ptr(self._storage.codes.data(), self.rows * size)
        self._codes = codes.reshape(self.rows, size)
        self._params: dict[int, Any] = {}

    @property
    def bytes(self) -> int:
        return self._file_bytes

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._metric is Metric.COSINE:
            queries = normalised(queries)
        ef = int(params["ef"]) if "ef" in params else default_ef(k)
        scores, rows = search_graph(self, queries, k, ef, allowed)
        if self._metric is Metric.COSINE:
            # maximum.minimum, not clip: a quarter of its price on ten numbers.
            np.maximum(np.minimum(scores, ONE, out=scores), -ONE, out=scores)
        return scores, rows

    def walk(self, queries: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest the graph finds; queries are normalised already."""
        nq = len(queries)
        scores, rows = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
        use_threads(max(1, min(nq // QUERIES_PER_THREAD, CORES)))
        # search_c is the native method without faiss's Python checks.
        self._native.search_c(nq, pointer(queries), k, pointer(scores), pointer(rows), self._params_of(ef))
        return scores, rows

    def _params_of(self, ef: int) -> Any:
        params = self._params.get(ef)
        if params is None:
            if len(self._params) >= EF_CACHE_MAX:
                self._params.clear()
            params = self._params[ef] = faiss.SearchParametersHNSW(efSearch=ef)
        return params

    def scan(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of the allowed rows, by the same codes as the graph's."""
        use_threads(min(len(queries), CORES))
        if allowed is None:
            return self._scan(self._storage, queries, k, None)
        picked = np.flatnonzero(allowed)
        if not len(picked):
            return empty_result(len(queries), k)
        if not isinstance(self._storage, faiss.IndexScalarQuantizer):
            # Only float32 codes have a kernel that visits a list of rows.
            selector = faiss.IDSelectorArray(len(picked), pointer(picked))
            return self._scan(self._storage, queries, k, faiss.SearchParameters(sel=selector))
        if len(picked) * plan.GATHER_SHARE < self.rows:
            storage = self._storage
            gathered = faiss.IndexScalarQuantizer(self.dim, storage.sq.qtype, storage.metric_type)
            gathered.add_sa_codes(self._codes[picked])
            scores, rows = self._scan(gathered, queries, k, None)
            return scores, np.where(rows < 0, -1, picked[rows])
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), pointer(bits))
        return self._scan(self._storage, queries, k, faiss.SearchParameters(sel=selector))

    def _scan(self, storage: Any, queries: np.ndarray, k: int, params: Any) -> tuple[np.ndarray, np.ndarray]:
        nq = len(queries)
        scores, rows = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
        storage.search_c(nq, pointer(queries), k, pointer(scores), pointer(rows), params)
        return scores, rows
