"""Exact search against plain NumPy."""

import numpy as np
import pytest
from vector_reference import all_scores, best, bits, check_shape, clustered

from engine.vector.flat import FlatIndex, search_flat
from engine.vector.metric import Metric

FLOAT = [Metric.L2, Metric.IP, Metric.COSINE]
BINARY = [Metric.HAMMING, Metric.JACCARD]


def make(metric: Metric, rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return bits(rows, dim * 8, seed) if metric in BINARY else clustered(rows, dim, seed)


def masks(rows: int) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(5)
    few = np.zeros(rows, bool)
    few[rng.integers(0, rows, 5)] = True
    return {"all": None, "half": rng.random(rows) < 0.5, "few": few, "none": np.zeros(rows, bool)}


@pytest.mark.parametrize("metric", FLOAT + BINARY)
@pytest.mark.parametrize("dim", [1, 3, 17, 64])
@pytest.mark.parametrize("mask", ["all", "half", "few", "none"])
@pytest.mark.parametrize("cached", [False, True])
def test_equals_the_reference(metric: Metric, dim: int, mask: str, cached: bool) -> None:
    rows, k = 700, 12
    vectors, queries = make(metric, rows, dim), make(metric, 30, dim, seed=1)
    allowed = masks(rows)[mask]
    if cached:
        scores, found = FlatIndex(vectors, metric).search(queries, k, {}, allowed)
    else:
        scores, found = search_flat(vectors, queries, k, metric, allowed)
    check_shape(scores, found, 30, k, metric)
    true = all_scores(vectors, queries, metric)
    truth = best(true, k, metric, allowed)
    assert ((found >= 0) == (truth >= 0)).all()
    real = truth >= 0
    near = dict(rtol=1e-4, atol=1e-5)
    # Rows may differ where single precision cannot tell them apart; scores may not.
    np.testing.assert_allclose(scores[real], np.take_along_axis(true, np.where(real, truth, 0), 1)[real], **near)
    np.testing.assert_allclose(scores[real], np.take_along_axis(true, np.where(real, found, 0), 1)[real], **near)
    if allowed is not None:
        assert allowed[found[real]].all()


@pytest.mark.parametrize("metric", FLOAT + BINARY)
def test_more_wanted_than_there_are(metric: Metric) -> None:
    vectors = make(metric, 7, 4)
    scores, found = search_flat(vectors, vectors[:2], 50, metric)
    check_shape(scores, found, 2, 50, metric)
    assert (found[:, :7] >= 0).all()
    assert (found[:, 7:] == -1).all()


@pytest.mark.parametrize("metric", FLOAT + BINARY)
def test_nothing_to_search(metric: Metric) -> None:
    vectors = make(metric, 3, 4)
    assert (search_flat(vectors[:0], vectors, 5, metric)[1] == -1).all()
    assert search_flat(vectors, vectors[:0], 5, metric)[1].shape == (0, 5)


@pytest.mark.parametrize("metric", FLOAT + BINARY)
@pytest.mark.parametrize("k", [5, 150])
def test_equal_scores_come_in_row_order(metric: Metric, k: int) -> None:
    vectors = np.repeat(make(metric, 4, 8), 100, axis=0)
    _, found = search_flat(vectors, vectors[[0, 150, 399]], k, metric)
    true = all_scores(vectors, vectors[[0, 150, 399]], metric)
    assert (found == best(np.round(true, 4), k, metric)).all()


def test_blocks_are_joined_in_order() -> None:
    vectors = np.zeros((9000, 600), np.float32)
    vectors[:, 0] = np.arange(9000) % 50
    queries = np.zeros((3, 600), np.float32)
    queries[:, 0] = 1
    for metric in FLOAT:
        true = np.tile(vectors[:, 0] if metric is not Metric.L2 else (vectors[:, 0] - 1) ** 2, (3, 1))
        true = np.sign(true) if metric is Metric.COSINE else true
        _, found = search_flat(vectors, queries, 400, metric)
        assert (found == best(true, 400, metric)).all(), metric


@pytest.mark.parametrize("nq", [1, 40])
def test_l2_of_long_vectors_close_together(nq: int) -> None:
    """The textbook formula loses every digit here: |x|^2 is 10^10, the distances are near 1."""
    rng = np.random.default_rng(3)
    vectors = (10_000 + rng.normal(size=(3000, 100))).astype(np.float32)
    queries = vectors[:nq] + np.float32(0.01)
    allowed = rng.random(3000) < 0.7
    allowed[:nq] = True
    for mask in (None, allowed):
        _, found = search_flat(vectors, queries, 10, Metric.L2, mask)
        assert (found == best(all_scores(vectors, queries, Metric.L2), 10, Metric.L2, mask)).all()
        assert (found[:, 0] == np.arange(nq)).all()
    exact, _ = search_flat(vectors, vectors[:nq], 10, Metric.L2)
    assert (exact[:, 0] == 0).all()


@pytest.mark.parametrize("metric", FLOAT)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e18, 1e30])
def test_no_nan_at_any_length(metric: Metric, scale: float) -> None:
    vectors = clustered(50, 8) * np.float32(scale)
    vectors[7] = 0
    for queries in (vectors[:5], np.zeros((2, 8), np.float32), clustered(3, 8)):
        scores, found = search_flat(vectors, np.ascontiguousarray(queries), 5, metric)
        assert not np.isnan(scores[found >= 0]).any()
        assert (np.abs(scores[found >= 0]) <= 1).all() or metric is not Metric.COSINE


def test_cosine_is_the_same_at_any_length() -> None:
    vectors, queries = clustered(300, 20), clustered(4, 20, seed=1)
    scores, found = search_flat(vectors, queries, 9, Metric.COSINE)
    for scale in (1e-25, 1e25):
        again, rows = search_flat(vectors * np.float32(scale), queries, 9, Metric.COSINE)
        assert (rows == found).all()
        np.testing.assert_allclose(again, scores, rtol=1e-5)


def test_jaccard_of_empty_sets_is_one() -> None:
    vectors = np.array([[0, 0], [255, 0], [15, 0]], np.uint8)
    scores, found = search_flat(vectors, vectors[:2], 3, Metric.JACCARD)
    assert scores.tolist() == [[1, 1, 1], [0, 0.5, 1]]
    assert found.tolist() == [[0, 1, 2], [1, 2, 0]]
