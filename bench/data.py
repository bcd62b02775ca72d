"""The vectors a benchmark runs on, and what is true about them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SAMPLE = Path(__file__).parent.parent / "examples" / "data"
VECTOR_COLUMN = "embedding"
K = 10
PICK_VALUES = 1000
"""``pick < n`` selects n / PICK_VALUES of the rows."""


@dataclass(frozen=True)
class Dataset:
    """vectors: float32 [rows, dim]; queries: float32 [queries, dim]; both of unit length.

    pick: int64 [rows], uniform in 0 .. PICK_VALUES-1, to filter by.
    """

    name: str
    vectors: np.ndarray
    queries: np.ndarray
    pick: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    @cached_property
    def truth(self) -> np.ndarray:
        """int64 [queries, K]: the exact nearest rows by cosine."""
        return self.nearest(np.ones(self.rows, bool))

    def nearest(self, among: np.ndarray) -> np.ndarray:
        """int64 [queries, K]: the exact nearest of the rows ``among`` (bool [rows]) selects."""
        rows = np.flatnonzero(among)
        scores = self.queries @ self.vectors[rows].T
        return rows[np.argsort(-scores, axis=1, kind="stable")[:, :K]]


def recall(found: list[list[int]], truth: np.ndarray) -> float:
    """Share of the true neighbours that were found."""
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth.tolist(), strict=True)]))


def load(path: Path | None, rows: int | None = None) -> Dataset:
    """A folder with two Parquet files, rows and ``*queries*``; the committed sample without a path."""
    folder = path or SAMPLE
    files = sorted(folder.glob("*.parquet"))
    queries = [f for f in files if "queries" in f.name]
    if len(files) != 2 or len(queries) != 1:
        raise SystemExit(f"{folder}: expected one Parquet file with rows and one *queries*.parquet")
    base = next(f for f in files if f not in queries)
    vectors = _read(base)[:rows]
    pick = np.random.default_rng(0).permutation(np.arange(len(vectors)) % PICK_VALUES)
    return Dataset(base.stem, vectors, _read(queries[0]), pick)


def _read(path: Path) -> np.ndarray:
    column = pq.read_table(path, columns=[VECTOR_COLUMN])[VECTOR_COLUMN].combine_chunks()
    assert isinstance(column, pa.FixedSizeListArray | pa.ListArray)
    values = column.flatten().to_numpy().astype(np.float32).reshape(len(column), -1)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
