"""The k best of scores that arrive block by block."""

import numpy as np

from engine.vector.native import faiss, pointer, use_threads


class TopK:
    """Keeps the k largest keys of each query. Of equal keys the smaller row wins.

    Native heaps: measured, they cost under 5 % of the matrix product that makes the keys, where
    ``argpartition`` costs as much as the product itself.
    """

    def __init__(self, nq: int, k: int) -> None:
        self._nq = nq
        self._keys = np.empty((nq, k), np.float32)
        self._ids = np.empty((nq, k), np.int64)
        self._heaps = faiss.float_minheap_array_t()
        self._heaps.nh, self._heaps.k = nq, k
        self._heaps.val, self._heaps.ids = pointer(self._keys), pointer(self._ids)
        self._heaps.heapify()

    def add(self, keys: np.ndarray, first: int) -> None:
        """keys: float32 [nq, m], C-contiguous, of rows ``first`` and up; blocks come in row order.
        Keys of -inf and NaN are never kept."""
        # One thread: OpenMP teams between BLAS calls fight BLAS's own threads for the cores.
        use_threads(1)
        # Of equal keys a heap drops the smallest id first: ids fall as rows rise.
        ids = np.arange(-2 - first, -2 - first - keys.shape[1], -1)
        self._heaps.addn_with_ids(keys.shape[1], pointer(keys), pointer(ids), 0, 0, self._nq)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys [nq, k], rows [nq, k]), best first; missing places have row -1."""
        self._heaps.reorder()
        rows = np.where(self._ids == -1, -1, -2 - self._ids)
        order = np.lexsort((rows, -self._keys), axis=1)
        return np.take_along_axis(self._keys, order, 1), np.take_along_axis(rows, order, 1)
