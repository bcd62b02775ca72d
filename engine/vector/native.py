"""faiss and hnswlib, loaded with threading that does not burn the machine.

Idle OpenMP workers spin by default: measured on two cores, a 3 ms batch cost 11 ms of CPU, 7 ms
with the passive policy. It is read once, when the library loads, so this module is the only one
that imports faiss.

NumPy's OpenBLAS is worse: idle, its threads burn 50 ms of CPU after each product of 1.5 ms; on a busy
machine they wait for each other (exact search of 62,666 x 384, 100 queries: 980 ms, 270 ms with one
thread each). ``OPENBLAS_NUM_THREADS=1`` has to be set before NumPy is imported, by whoever starts the
process; searches then run side by side instead.
"""

import os
import threading
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import faiss as _faiss
import hnswlib
import numpy as np

faiss: Any = _faiss
"""The library. Untyped: its stubs do not know what its Python wrapper adds."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores this process may use."""

pointer = faiss.swig_ptr
"""Address of a C-contiguous array as faiss takes it; the caller keeps the array alive."""


# Every search would take the GIL twice more to look whether Ctrl-C was pressed, and wait for it each time.
faiss.InterruptCallback.clear_instance()


class _Set(threading.local):
    threads = 0


_set = _Set()


def use_threads(count: int) -> None:
    """OpenMP threads of faiss calls from this thread from now on (the setting is per thread)."""
    # The native call drops the GIL: with other threads waiting for it, a costly way to change nothing.
    if _set.threads != count:
        faiss.omp_set_num_threads(count)
        _set.threads = count


def empty_result(nq: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows of a search that found nothing."""
    return np.zeros((nq, k), np.float32), np.full((nq, k), -1, np.int64)


__all__ = ["CORES", "empty_result", "faiss", "hnswlib", "pointer", "use_threads"]
