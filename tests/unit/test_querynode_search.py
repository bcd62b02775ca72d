"""The best rows over many parts: merged part by part, in runs, or at once, they are the same."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.vector.metric import Metric
from querynode.best import Best, Found, Merged, best_of, best_of_runs
from querynode.search import cut


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Found], int, Metric]:
    """Of parts of different sizes, some with fewer rows than asked for; few scores, so that many are equal."""
    nq, k = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    metric = draw(st.sampled_from([Metric.L2, Metric.IP]))
    found: list[Found] = []
    for _ in range(draw(st.integers(1, 7))):
        width = draw(st.integers(1, k))
        drawn = draw(st.lists(st.integers(0, 3), min_size=nq * width, max_size=nq * width))
        scores = np.sort(np.array(drawn, np.float32).reshape(nq, width), axis=1)
        if metric.larger_is_better:
            scores = scores[:, ::-1].copy()
        held = np.array([[draw(st.integers(0, width))] for _ in range(nq)]) > np.arange(width)
        found.append((np.where(held, scores, 0).astype(np.float32), np.where(held, np.arange(width), -1)))
    return found, k, metric


def expected(found: list[Found], k: int, metric: Metric) -> list[list[tuple[float, int, int]]]:
    """(score, part, row) of each query's best, one by one."""
    sign = -1 if metric.larger_is_better else 1
    best = []
    for query in range(len(found[0][0])):
        rows = [
            (float(s), part, int(r))
            for part, (scores, rows) in enumerate(found)
            for s, r in zip(scores[query], rows[query], strict=True)
            if r >= 0
        ]
        best.append(sorted(rows, key=lambda row: sign * row[0])[:k])
    return best


def flat(best: Best) -> list[list[tuple[float, int, int]]]:
    merged = Merged(best)
    part_of = np.zeros_like(merged.rows) if merged.part_of is None else merged.part_of
    rows = list(zip(merged.scores.tolist(), part_of.tolist(), merged.rows.tolist(), strict=True))
    ends = np.cumsum(merged.counts).tolist()
    return [rows[end - count : end] for end, count in zip(ends, merged.counts.tolist(), strict=True)]


@given(answers())
def test_the_best_of_all_parts_in_their_order(drawn: tuple[list[Found], int, Metric]) -> None:
    found, k, metric = drawn
    assert flat(best_of(found, range(len(found)), k, metric)) == expected(found, k, metric)


@given(answers(), st.data())
def test_the_best_of_runs_are_the_best_of_their_parts(
    drawn: tuple[list[Found], int, Metric], data: st.DataObject
) -> None:
    found, k, metric = drawn
    ends = sorted(data.draw(st.sets(st.integers(1, len(found)), max_size=3)) | {len(found)})
    runs = [
        best_of(found[first:end], range(first, end), k, metric)
        for first, end in zip([0, *ends], ends, strict=False)
        if first < end
    ]
    assert flat(best_of_runs(runs, k, metric)) == expected(found, k, metric)


def matching(rows: list[int], numbers: list[int]) -> Any:
    parts = [SimpleNamespace(data=SimpleNamespace(rows=n)) for n in rows]
    return SimpleNamespace(parts=parts, numbers=numbers)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 16), st.data())
def test_runs_hold_every_part_once_in_order(rows: list[int], most: int, data: st.DataObject) -> None:
    numbers = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    runs = cut(matching(rows, numbers), most)
    assert [n for run in runs for n in run] == numbers
    assert len(runs) <= most
    assert all(runs)


def test_runs_share_the_rows() -> None:
    runs = cut(matching([100] * 40, list(range(40))), 4)
    assert [len(run) for run in runs] == [10] * 4
    assert len(cut(matching([1] * 39 + [1000], list(range(40))), 4)) == 2
