"""When a search walks the graph and when it scans."""

import numpy as np
import pytest

from engine import plan
from engine.vector.walk import search_graph


class Line:
    """A graph over the numbers 0 .. rows-1, which a walk finds without fault, and counts what is done."""

    def __init__(self, rows: int, dim: int = 384, reach: int | None = None) -> None:
        self.rows, self.dim = rows, dim
        self.done: list[tuple[str, int]] = []
        self._reach = reach

    def walk(self, queries: np.ndarray, k: int, ef: int) -> tuple[np.ndarray, np.ndarray]:
        self.done.append(("walk", ef))
        rows = np.argsort(np.abs(queries - np.arange(self.rows)), axis=1, kind="stable")[:, :k]
        if self._reach is not None:
            rows[:, self._reach :] = -1
        return np.abs(queries - rows).astype(np.float32), rows

    def scan(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        self.done.append(("scan", len(queries)))
        apart = np.abs(queries - np.arange(self.rows))
        apart[:, ~(np.ones(self.rows, bool) if allowed is None else allowed)] = np.inf
        rows = np.argsort(apart, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(apart, rows, 1).astype(np.float32)
        return scores, np.where(np.isinf(scores), -1, rows)


QUERIES = np.array([[100.0], [30_000.0]])


def test_no_filter_walks_once_with_the_asked_width() -> None:
    graph = Line(60_000)
    search_graph(graph, QUERIES, 10, 64, None)
    search_graph(graph, QUERIES, 10, 64, np.ones(60_000, bool))
    assert graph.done == [("walk", 64), ("walk", 64)]


def test_few_survivors_are_scanned() -> None:
    for share in (0.02, 0.001):
        graph = Line(60_000)
        _, rows = search_graph(graph, QUERIES, 10, 64, np.arange(60_000) % int(1 / share) == 0)
        assert graph.done == [("scan", 2)]
        assert (rows % int(1 / share) == 0).all()


def test_many_survivors_are_walked_to_wider() -> None:
    graph = Line(60_000)
    _, rows = search_graph(graph, QUERIES, 20, 64, np.arange(60_000) % 4 == 0)
    assert graph.done == [("walk", 121)]
    assert rows[0].max() <= 140


def test_only_queries_that_found_too_few_go_on() -> None:
    """Nothing is allowed within 4,000 rows of the first query."""
    graph = Line(60_000)
    allowed = np.arange(60_000) > 4100
    scores, rows = search_graph(graph, QUERIES, 10, 64, allowed)
    assert graph.done == [("walk", 64), ("walk", 256), ("walk", 1024), ("scan", 1)]
    assert rows[0].tolist() == list(range(4101, 4111))
    assert scores[0, 0] == 4001
    assert set(rows[1]) == set(range(29_995, 30_005)) or 30_005 in rows[1]


def test_a_walk_that_ends_early_is_no_answer() -> None:
    graph = Line(60_000, reach=5)
    _, rows = search_graph(graph, QUERIES, 10, 64, None)
    assert graph.done == [("walk", 64), ("scan", 2)]
    assert (rows >= 0).all()


@pytest.mark.parametrize("k", [1, 10, 100, 10_000])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.1, 0.01, 0.0001])
@pytest.mark.parametrize("dim", [1, 384, 32_768])
def test_a_walk_never_collects_more_rows_than_there_are(k: int, share: float, dim: int) -> None:
    for rows in (1, 100, 60_000, 10_000_000):
        survivors = max(1, int(rows * share))
        ef = plan.filtered_ef(rows, survivors, min(k, survivors), 64)
        while plan.walk_pays(rows, survivors, ef, dim):
            assert ef < rows
            ef *= plan.WIDEN


def test_many_queries_are_taken_in_turns() -> None:
    graph = Line(60_000)
    queries = np.zeros((9, 1))
    _, rows = search_graph(graph, queries, 400_000, 64, None)
    assert rows.shape[0] == 9
    assert len(graph.done) == 5
