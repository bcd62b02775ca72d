"""What the vector tests compare with: data like embeddings, and every metric in plain NumPy."""

import numpy as np

from engine.vector.metric import Metric


def clustered(rows: int, dim: int, seed: int = 0, clusters: int = 40) -> np.ndarray:
    """float32 [rows, dim]: clusters in a few directions with noise, as embeddings lie."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(clusters, dim))
    noise = rng.normal(size=(rows, dim)) * rng.uniform(0.5, 1.5, size=(rows, 1))
    return (centres[rng.integers(0, clusters, rows)] + noise).astype(np.float32)


def bits(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """uint8 [rows, dim/8], sparse enough that JACCARD tells rows apart."""
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random((rows, dim)) < rng.uniform(0.05, 0.6, (rows, 1)), axis=1)


def all_scores(vectors: np.ndarray, queries: np.ndarray, metric: Metric) -> np.ndarray:
    """float64 [nq, rows]."""
    if metric in (Metric.HAMMING, Metric.JACCARD):
        a, b = np.unpackbits(queries, axis=1)[:, None].astype(bool), np.unpackbits(vectors, axis=1)[None].astype(bool)
        if metric is Metric.HAMMING:
            return (a ^ b).sum(axis=2).astype(np.float64)
        return 1 - (a & b).sum(axis=2) / np.maximum((a | b).sum(axis=2), 1)
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.L2:
        return ((q[:, None] - x[None]) ** 2).sum(axis=2)
    product = q @ x.T
    if metric is Metric.IP:
        return product
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    return np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)


def best(scores: np.ndarray, k: int, metric: Metric, allowed: np.ndarray | None = None) -> np.ndarray:
    """int64 [nq, k]: the best allowed rows, equal scores in row order; -1 where there are no more."""
    keys = -scores if metric.larger_is_better else scores.copy()
    if allowed is not None:
        keys[:, ~allowed] = np.inf
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    rows = np.where(np.isinf(np.take_along_axis(keys, order, 1)), -1, order)
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true rows that were found; 1 where there are none."""
    hits = [len(set(f[f >= 0]) & set(t[t >= 0])) for f, t in zip(found, truth, strict=True)]
    total = int((truth >= 0).sum())
    return sum(hits) / total if total else 1.0


def check_shape(scores: np.ndarray, rows: np.ndarray, nq: int, k: int, metric: Metric) -> None:
    """What every answer holds: types, shapes, order, no NaN, no row twice, padding at the end."""
    assert scores.shape == rows.shape == (nq, k)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert not np.isnan(scores).any()
    for s, r in zip(scores, rows, strict=True):
        real = r >= 0
        count = int(real.sum())
        assert real[:count].all()
        assert len(set(r[:count].tolist())) == count
        steps = np.diff(s[:count])
        assert (steps <= 0).all() if metric.larger_is_better else (steps >= 0).all()
