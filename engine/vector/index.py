"""The contract of a vector index over the rows of one segment."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class VectorIndex(Protocol):
    """An index over vectors numbered 0 .. rows-1. Searching is thread-safe and releases the GIL.

    exact: its scores are exact and it misses no neighbour (FLAT).
    """

    engine: str
    rows: int
    exact: bool

    @property
    def bytes(self) -> int:
        """Memory it takes when all of it is in use."""
        ...

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of each query.

        queries: float32 [nq, dim] (uint8 [nq, dim/8] for binary), C-contiguous, as the client sent
        them. allowed: bool [rows]; False rows are never returned. Gives (scores float32 [nq, k],
        rows int64 [nq, k]), best first, as ``Metric`` says; missing places have row -1.
        """
        ...
