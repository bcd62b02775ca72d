"""Index objects: built, opened, searched, damaged."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from vector_reference import all_scores, best, bits, check_shape, clustered, recall

from core.errors import Corrupted
from core.types import DataType
from engine import plan
from engine.vector.build import build, open_index
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric

ROWS, DIM = 12_000, 32
assert plan.walk_pays(ROWS, ROWS, 64, DIM), "these tests would not test the graph"
FLOAT = [Metric.L2, Metric.IP, Metric.COSINE]
GRAPHS = [("AUTOINDEX", m) for m in FLOAT] + [("HNSW", m) for m in FLOAT]
ALL = [*GRAPHS, *(("FLAT", m) for m in FLOAT), ("BIN_FLAT", Metric.HAMMING), ("AUTOINDEX", Metric.JACCARD)]


def make(metric: Metric, rows: int = ROWS, dim: int = DIM, seed: int = 0) -> np.ndarray:
    return clustered(rows, dim, seed) if metric in FLOAT else bits(rows, dim, seed)


def make_index(path: Path, vectors: np.ndarray, type: str, metric: Metric, **params: str) -> VectorIndex:
    data_type = DataType.FLOAT_VECTOR if vectors.dtype == np.float32 else DataType.BINARY_VECTOR
    engine = build(path, vectors, data_type, type, metric, params, 2)
    index = open_index(path)
    assert index.engine == engine
    return index


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Metric], VectorIndex]:
    folder = tmp_path_factory.mktemp("indexes")
    return {(t, m): make_index(folder / f"{t}-{m}", make(m), t, m, efConstruction="60") for t, m in ALL}


@pytest.mark.parametrize(("type", "metric"), ALL)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_recall_and_scores(indexes: dict, type: str, metric: Metric, k: int) -> None:
    index, vectors, queries = indexes[type, metric], make(metric), make(metric, 50, seed=7)
    assert (index.rows, index.exact) == (ROWS, "FLAT" in type or metric is Metric.JACCARD)
    scores, found = index.search(queries, k, {})
    check_shape(scores, found, 50, k, metric)
    true = all_scores(vectors, queries, metric)
    # Unscaled inner products are no metric: graphs lose recall on them as k grows, Milvus's too.
    if metric in (Metric.L2, Metric.COSINE) or (metric is Metric.IP and k <= 10):
        assert recall(found, best(true, k, metric)) >= 0.95
    # The codes of AUTOINDEX have 8 bits of precision.
    scale = np.abs(true).max() if metric is not Metric.COSINE else 1
    atol = 4e-3 * scale if type == "AUTOINDEX" else 1e-5 * scale
    np.testing.assert_allclose(scores, np.take_along_axis(true, found, 1), atol=atol, rtol=1e-4)


@pytest.mark.parametrize(("type", "metric"), [*GRAPHS, ("FLAT", Metric.COSINE), ("BIN_FLAT", Metric.HAMMING)])
@pytest.mark.parametrize("share", [0.99, 0.5, 0.1, 0.01, 0.001, 0.0])
def test_recall_under_a_random_filter(indexes: dict, type: str, metric: Metric, share: float) -> None:
    index, vectors, queries = indexes[type, metric], make(metric), make(metric, 50, seed=7)
    allowed = np.random.default_rng(1).random(ROWS) < share
    scores, found = index.search(queries, 10, {}, allowed)
    check_shape(scores, found, 50, 10, metric)
    assert allowed[found[found >= 0]].all()
    truth = best(all_scores(vectors, queries, metric), 10, metric, allowed)
    assert ((found >= 0) == (truth >= 0)).all()
    if metric is not Metric.HAMMING:
        assert recall(found, truth) >= 0.95


def test_recall_under_a_filter_that_excludes_the_neighbourhood(tmp_path: Path) -> None:
    """Many rows pass, none of them near the query: a graph steered by a bitmap misses most."""
    rows = 20_000
    vectors, queries = clustered(rows, 32), clustered(20, 32, seed=3)
    index = make_index(tmp_path / "index", vectors, "HNSW", Metric.COSINE, efConstruction="60")
    true = all_scores(vectors, queries, Metric.COSINE)
    for share in (0.2, 0.5, 0.8):
        allowed = true[0] <= np.quantile(true[0], share)
        survivors = int(allowed.sum())
        assert plan.walk_pays(rows, survivors, plan.filtered_ef(rows, survivors, 10, 64), 32)
        truth = best(true, 10, Metric.COSINE, allowed)
        assert recall(index.search(queries[:1], 10, {}, allowed)[1], truth[:1]) >= 0.9
        assert recall(index.search(queries, 10, {}, allowed)[1], truth) >= 0.95


@pytest.mark.parametrize(("type", "metric"), ALL)
def test_more_wanted_than_there_are(tmp_path: Path, type: str, metric: Metric) -> None:
    index = make_index(tmp_path / "index", make(metric, 9), type, metric)
    scores, found = index.search(make(metric, 3), 16_384, {})
    check_shape(scores, found, 3, 16_384, metric)
    assert (np.sort(found[:, :9], axis=1) == np.arange(9)).all()
    assert (found[:, 9:] == -1).all()


@pytest.mark.parametrize(("type", "metric"), ALL)
@pytest.mark.parametrize("dim", [1, 3, 33])
def test_any_dimension(tmp_path: Path, type: str, metric: Metric, dim: int) -> None:
    vectors = make(metric, 2500, dim * (1 if metric in FLOAT else 8))
    index = make_index(tmp_path / "index", vectors, type, metric, M="2", efConstruction="1")
    scores, found = index.search(vectors[:5], 10, {})
    check_shape(scores, found, 5, 10, metric)
    assert (found >= 0).all()


@pytest.mark.parametrize(("type", "metric"), GRAPHS)
def test_many_copies_of_one_vector(tmp_path: Path, type: str, metric: Metric) -> None:
    vectors = clustered(6000, 8)
    vectors[1000:5000] = vectors[1000]
    index = make_index(tmp_path / "index", vectors, type, metric)
    for k in (10, 200, 5000):
        scores, found = index.search(vectors[[1000, 5500]], k, {})
        check_shape(scores, found, 2, k, metric)
        assert (found >= 0).all()


@pytest.mark.parametrize(("type", "metric"), GRAPHS)
def test_zero_vectors_are_no_nan(tmp_path: Path, type: str, metric: Metric) -> None:
    vectors = clustered(3000, 8)
    vectors[::3] = 0
    index = make_index(tmp_path / "index", vectors, type, metric)
    for allowed in (None, np.arange(3000) % 3 == 0):
        scores, found = index.search(np.stack([vectors[0], vectors[1]]), 20, {}, allowed)
        check_shape(scores, found, 2, 20, metric)
        assert (found >= 0).all()


@pytest.mark.parametrize("type", ["AUTOINDEX", "HNSW"])
def test_l2_of_long_vectors_close_together(tmp_path: Path, type: str) -> None:
    """bf16 cannot tell these apart, so AUTOINDEX has to keep them in single precision."""
    rng = np.random.default_rng(3)
    vectors = (1000 + rng.normal(size=(5000, 12))).astype(np.float32)
    index = make_index(tmp_path / "index", vectors, type, Metric.L2)
    assert index.engine.endswith("hnsw-float32")
    _, found = index.search(vectors[:100], 10, {})
    assert recall(found, best(all_scores(vectors, vectors[:100], Metric.L2), 10, Metric.L2)) >= 0.95


def test_autoindex_takes_half_the_bytes(indexes: dict) -> None:
    auto, hnsw = indexes["AUTOINDEX", Metric.COSINE], indexes["HNSW", Metric.COSINE]
    assert auto.engine.endswith("hnsw-bf16")
    assert hnsw.bytes - auto.bytes == pytest.approx(ROWS * DIM * 2, rel=0.001)


def test_a_declared_graph_holds_the_vectors_as_they_are(indexes: dict) -> None:
    """Its links are found by bf16 codes, which leave no trace in the scores."""
    index, vectors = indexes["HNSW", Metric.L2], make(Metric.L2)
    assert index.engine.endswith("hnsw-float32")
    scores, found = index.search(vectors[:100], 1, {"ef": 200})
    assert (found[:, 0] == np.arange(100)).all()
    assert (scores == 0).all()


@pytest.mark.parametrize(("type", "metric"), ALL)
def test_threads_get_the_answers_of_one(indexes: dict, type: str, metric: Metric) -> None:
    index, queries = indexes[type, metric], make(metric, 40, seed=7)
    allowed = np.random.default_rng(1).random(ROWS) < 0.4
    asks = [(q, k, a, p) for q in range(20) for k, a, p in ((5, None, {}), (5, None, {"ef": 30}), (9, allowed, {}))]

    def ask(q: int, k: int, a: np.ndarray | None, p: dict) -> tuple[np.ndarray, np.ndarray]:
        return index.search(queries[q : q + 1], k, p, a)

    alone = [ask(*a) for a in asks]
    with ThreadPoolExecutor(8) as pool:
        for together in [pool.map(ask, *zip(*asks, strict=True)) for _ in range(3)]:
            for (s1, r1), (s2, r2) in zip(alone, together, strict=True):
                assert (r1 == r2).all()
                assert (s1 == s2).all()


@pytest.mark.parametrize(("type", "metric"), [("AUTOINDEX", Metric.L2), ("FLAT", Metric.COSINE)])
def test_one_query_or_many_is_the_same(indexes: dict, type: str, metric: Metric) -> None:
    index, queries = indexes[type, metric], make(metric, 64, seed=7)
    _, together = index.search(queries, 10, {})
    apart = np.concatenate([index.search(queries[i : i + 1], 10, {})[1] for i in range(64)])
    assert np.mean(together == apart) > 0.999


@pytest.mark.parametrize(
    ("type", "metric"), [("HNSW", Metric.L2), ("FLAT", Metric.COSINE), ("BIN_FLAT", Metric.HAMMING)]
)
def test_any_damage_is_told(tmp_path: Path, type: str, metric: Metric) -> None:
    good = tmp_path / "good"
    make_index(good, make(metric, 2100, 16), type, metric)
    data = good.read_bytes()
    bad = tmp_path / "bad"
    offsets = {0, 1, len(data) - 1, *range(len(data) - 200, len(data)), *range(0, len(data), len(data) // 50)}
    for offset in sorted(offsets):
        damaged = bytearray(data)
        damaged[offset] ^= 0x40
        bad.write_bytes(damaged)
        with pytest.raises(Corrupted, match=str(bad)):
            open_index(bad)
    for size in (0, 1, 30, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:size])
        with pytest.raises(Corrupted, match=str(bad)):
            open_index(bad)
    bad.write_bytes(data + b"x")
    with pytest.raises(Corrupted):
        open_index(bad)
    with pytest.raises(Corrupted):
        open_index(tmp_path / "missing")


@pytest.mark.parametrize("name", ["index-flat.bin", "index-hnsw.bin"])
def test_objects_of_this_format_stay_readable(name: str) -> None:
    """Golden files: L2 over six points."""
    index = open_index(Path(__file__).parents[1] / "golden" / name)
    scores, found = index.search(np.array([[1, 0.25]], np.float32), 6, {})
    assert found.tolist() == [[1, 0, 2, 4, 3, 5]]
    assert scores.tolist() == [[0.0625, 1.0625, 4.0625, 10.5625, 11.5625, 38.5625]]


def test_an_open_index_outlives_its_file(tmp_path: Path) -> None:
    for type in ("HNSW", "FLAT"):
        vectors = make(Metric.L2, 3000)
        index = make_index(tmp_path / type, vectors, type, Metric.L2)
        (tmp_path / type).unlink()
        assert (index.search(vectors[:3], 1, {})[1][:, 0] == np.arange(3)).all()


def test_very_wide_searches_stay_small(indexes: dict) -> None:
    index, queries = indexes["HNSW", Metric.L2], make(Metric.L2, 3, seed=7)
    _, found = index.search(queries, 10, {"ef": 2**31 - 1})
    assert (found == best(all_scores(make(Metric.L2), queries, Metric.L2), 10, Metric.L2)).all()
