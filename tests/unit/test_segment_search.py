"""Search over one segment: filters, visibility, ranges, with and without an index."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from vector_reference import all_scores, best, bits, check_shape, clustered, recall

from core.ids import FieldId
from core.schema import Field, Schema
from core.types import DataType
from engine.filter import Filter
from engine.filter import compile as compile_filter
from engine.segment import estimate_cost, search_segment
from engine.vector.build import build, open_index
from engine.vector.flat import FlatIndex
from engine.vector.index import VectorIndex
from engine.vector.interim import InterimIndex
from engine.vector.metric import Metric

ROWS, DIM = 13_000, 24
SCHEMA = Schema((
    Field(FieldId(100), "id", DataType.INT64, primary=True),
    Field(FieldId(101), "group", DataType.INT64),
    Field(FieldId(102), "v", DataType.FLOAT_VECTOR, dim=DIM),
))  # fmt: skip
FIELD = SCHEMA.by_name["v"]
METRICS = [Metric.L2, Metric.IP, Metric.COSINE]
PASSES = {
    "": lambda ids: ids >= 0,
    "group < 50": lambda ids: ids % 100 < 50,
    "group < 10": lambda ids: ids % 100 < 10,
    "group == 3": lambda ids: ids % 100 == 3,
    "id in [5, 9, 4000]": lambda ids: np.isin(ids, [5, 9, 4000]),
    "group > 99": lambda ids: ids < 0,
}
"""Filters, and the rows they keep."""


class Segment:
    """A segment in memory: ``group`` is the row number modulo 100."""

    def __init__(self, vectors: np.ndarray, index: VectorIndex | None = None) -> None:
        self.rows, self._vectors, self._index = len(vectors), vectors, index
        self._columns = {"id": pa.array(np.arange(self.rows)), "group": pa.array(np.arange(self.rows) % 100)}
        self.read: list[str] = []

    def column(self, name: str) -> pa.Array:
        self.read.append(name)
        return self._columns[name]

    def vectors(self, field: Field) -> np.ndarray:
        assert self._index is None, "the index was there to be used"
        return self._vectors

    def index(self, field: Field) -> VectorIndex | None:
        return self._index

    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]:
        return {"id": (0, self.rows - 1, 0), "group": (0, 99, 0)}


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Metric], Segment]:
    vectors, folder = clustered(ROWS, DIM), tmp_path_factory.mktemp("segments")
    out = {}
    for metric in METRICS:
        out["none", metric] = Segment(vectors)
        out["flat", metric] = Segment(vectors, FlatIndex(vectors, metric))
        interim = InterimIndex(DIM, metric)
        interim.add(vectors, threads=2)
        out["interim", metric] = Segment(vectors, interim)
        path = folder / str(metric)
        build(path, vectors, DataType.FLOAT_VECTOR, "HNSW", metric, {"efConstruction": "60"}, 2)
        out["hnsw", metric] = Segment(vectors, open_index(path))
    return out


def compiled(text: str) -> Filter | None:
    return compile_filter(text, SCHEMA) if text else None


@pytest.mark.parametrize("kind", ["none", "flat", "interim", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", PASSES)
@pytest.mark.parametrize("deleted", [0.0, 0.3])
def test_finds_what_passes_and_is_visible(segments: dict, kind: str, metric: Metric, text: str, deleted: float) -> None:
    segment, queries = segments[kind, metric], clustered(20, DIM, seed=3)
    visible = np.random.default_rng(1).random(ROWS) >= deleted if deleted else None
    scores, rows = search_segment(segment, FIELD, queries, metric, 10, {}, compiled(text), visible)
    check_shape(scores, rows, 20, 10, metric)
    ids = np.arange(ROWS)
    passes = PASSES[text](ids)
    allowed = passes if visible is None else passes & visible
    truth = best(all_scores(clustered(ROWS, DIM), queries, metric), 10, metric, allowed)
    assert ((rows >= 0) == (truth >= 0)).all()
    assert allowed[rows[rows >= 0]].all()
    assert recall(rows, truth) >= (0.95 if kind in ("interim", "hnsw") else 0.999)


def test_a_filter_beyond_the_bounds_reads_nothing(segments: dict) -> None:
    segment = Segment(clustered(ROWS, DIM))
    _, rows = search_segment(segment, FIELD, clustered(2, DIM), Metric.L2, 5, {}, compiled("id > 100000"))
    assert (rows == -1).all()
    assert not segment.read


@pytest.mark.parametrize("kind", ["none", "flat", "interim", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("near", "far"), [(None, 300), (1, 300), (4, 8), (5, 5000), (2000, None), (12_990, None)])
def test_range(segments: dict, kind: str, metric: Metric, near: int | None, far: int | None) -> None:
    """Bounds are put at the scores of the near-th and far-th best row of each query."""
    segment, queries = segments[kind, metric], clustered(8, DIM, seed=3)
    true = all_scores(clustered(ROWS, DIM), queries, metric)
    visible = np.random.default_rng(1).random(ROWS) < 0.8
    found, truth = [], []
    for visibility in (None, visible):
        for q, query in enumerate(queries):
            ranked = true[q][best(true[q : q + 1], ROWS, metric)[0]]
            # Between two scores, so that rounding cannot decide.
            bounds = [None if n is None else float(ranked[n - 1 : n + 1].mean()) for n in (near, far)]
            range_filter, radius = bounds
            scores, rows = search_segment(
                segment, FIELD, query[None], metric, 10, {}, None, visibility, radius, range_filter
            )
            check_shape(scores, rows, 1, 10, metric)
            sign = -1 if metric.larger_is_better else 1
            inside = np.ones(ROWS, bool)
            if radius is not None:
                inside &= sign * true[q] < sign * radius
            if range_filter is not None:
                inside &= sign * true[q] >= sign * range_filter
            if visibility is not None:
                inside &= visibility
            assert inside[rows[rows >= 0]].all()
            found.append(rows[0])
            truth.append(best(true[q : q + 1], 10, metric, inside)[0])
    exact = kind in ("none", "flat") or (near or 0) >= 2000
    assert recall(np.array(found), np.array(truth)) >= (0.999 if exact else 0.95)


def test_bounds_are_as_milvus_has_them() -> None:
    """radius is excluded, range_filter included."""
    vectors = np.zeros((5, 1), np.float32)
    vectors[:, 0] = [0, 1, 2, 3, 4]
    field, query = Field(FieldId(1), "v", DataType.FLOAT_VECTOR, dim=1), np.zeros((1, 1), np.float32)
    segment = Segment(vectors)
    _, rows = search_segment(segment, field, query, Metric.L2, 5, {}, None, None, radius=9, range_filter=1)
    assert rows.tolist() == [[1, 2, -1, -1, -1]]
    _, rows = search_segment(segment, field, query + 1, Metric.IP, 5, {}, None, None, radius=1, range_filter=3)
    assert rows.tolist() == [[3, 2, -1, -1, -1]]
    _, rows = search_segment(segment, field, query, Metric.L2, 5, {}, None, None, radius=1, range_filter=9)
    assert (rows == -1).all()


@pytest.mark.parametrize("metric", [Metric.HAMMING, Metric.JACCARD])
def test_binary(metric: Metric) -> None:
    field = Field(FieldId(1), "v", DataType.BINARY_VECTOR, dim=64)
    vectors, queries = bits(2000, 64), bits(7, 64, seed=2)
    visible = np.arange(2000) % 3 > 0
    true = all_scores(vectors, queries, metric)
    for segment in (Segment(vectors), Segment(vectors, FlatIndex(vectors, metric))):
        scores, rows = search_segment(segment, field, queries, metric, 9, {}, compiled("group < 40"), visible)
        check_shape(scores, rows, 7, 9, metric)
        truth = best(np.round(true, 6), 9, metric, visible & (np.arange(2000) % 100 < 40))
        assert (rows == truth).all()


def test_overflow_is_no_nan() -> None:
    vectors = np.full((4, 2), 3e38, np.float32)
    vectors[1] = [3e38, -3e38]
    for metric in METRICS:
        scores, rows = search_segment(Segment(vectors), FIELD, vectors, metric, 4, {})
        assert not np.isnan(scores).any()
        assert rows.shape == (4, 4)


def test_no_rows() -> None:
    _, rows = search_segment(Segment(np.zeros((0, DIM), np.float32)), FIELD, clustered(2, DIM), Metric.L2, 3, {})
    assert (rows == -1).all()


def test_cost_follows_the_work(segments: dict) -> None:
    flat, graph = segments["none", Metric.L2], segments["hnsw", Metric.L2]
    assert ROWS * DIM <= estimate_cost(flat, FIELD, 1) <= 2 * ROWS * DIM
    assert estimate_cost(flat, FIELD, 8) == 8 * estimate_cost(flat, FIELD, 1)
    assert estimate_cost(flat, FIELD, 1, filtered=True) > estimate_cost(flat, FIELD, 1)
    narrow = {"ef": 10}
    assert estimate_cost(graph, FIELD, 1, 10, narrow) < estimate_cost(flat, FIELD, 1, 10, narrow)
    assert estimate_cost(graph, FIELD, 1, 10, narrow) < estimate_cost(graph, FIELD, 1, 10, {"ef": 15})
    # A wide walk over few rows is a scan.
    assert estimate_cost(graph, FIELD, 1, 10, {"ef": 5000}) == estimate_cost(flat, FIELD, 1)
