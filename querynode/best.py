"""The best rows over several parts: of each part's best, in the order of the parts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.vector.metric import Metric
from querynode.view import Part

Found = tuple[np.ndarray, np.ndarray]
"""scores float32 and rows int64 of one part, [nq, width]; row -1 = nothing there. width: k, or all its rows."""


class Best(NamedTuple):
    """The best rows of each query over some parts, best first: scores float32, rows and part_of int64, [nq, width]
    each. Row -1 = nothing there; part_of None = all of part 0."""

    scores: np.ndarray
    rows: np.ndarray
    part_of: np.ndarray | None


def best_of(found: Sequence[Found], numbers: Sequence[int], k: int, metric: Metric) -> Best:
    """The ``k`` best over these parts, at least one."""
    if len(found) == 1:
        scores, rows = found[0]
        return Best(scores, rows, np.full(rows.shape, numbers[0]) if numbers[0] else None)
    scores = np.concatenate([s for s, _ in found], axis=1)
    rows = np.concatenate([r for _, r in found], axis=1)
    part_of = np.repeat(numbers, [r.shape[1] for _, r in found])
    best = _first(scores, rows, k, metric)
    at = flat(best, rows)
    return Best(scores.take(at), rows.take(at), part_of[best])


def best_of_runs(runs: Sequence[Best], k: int, metric: Metric) -> Best:
    """The ``k`` best over the parts of all runs, which are in the order of their parts."""
    if len(runs) == 1:
        return runs[0]
    scores, rows = (np.concatenate(column, axis=1) for column in ([r.scores for r in runs], [r.rows for r in runs]))
    part_of = np.concatenate([np.zeros_like(r.rows) if r.part_of is None else r.part_of for r in runs], axis=1)
    at = flat(_first(scores, rows, k, metric), rows)
    return Best(scores.take(at), rows.take(at), part_of.take(at))


def _first(scores: np.ndarray, rows: np.ndarray, k: int, metric: Metric) -> np.ndarray:
    """int64 [nq, up to k]: the places of the best, those where nothing is last."""
    distance = np.where(rows < 0, np.inf, -scores if metric.larger_is_better else scores)
    # Stable: of equal scores the order of the parts decides, the same on every replica.
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def flat(places: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The places in each row of ``of`` as places in its memory: a third of the price of take_along_axis()."""
    return places if len(of) == 1 else places + of.shape[1] * np.arange(len(of))[:, None]


class Merged:
    """The best rows of each query, flat: query by query, best first.

    counts int64 [nq]; scores float32, part_of and rows int64 [sum(counts)]; part_of None = all of part 0.
    """

    def __init__(self, best: Best) -> None:
        scores, rows, part_of = best
        nq, width = rows.shape
        # What is missing is at the end. One query is by far the most frequent case, and item() the cheapest look.
        if width and ((rows.item(-1) >= 0) if nq == 1 else (rows[:, -1] >= 0).all()):
            self.counts = np.full(nq, width)
            self.scores, self.rows = scores.ravel(), rows.ravel()
            self.part_of = None if part_of is None else part_of.ravel()
        else:
            held = rows >= 0
            self.counts = np.count_nonzero(held, axis=1)
            self.scores, self.rows = scores[held], rows[held]
            self.part_of = None if part_of is None else part_of[held]

    def used(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that some of the rows are of."""
        return [parts[0]] if self.part_of is None else [parts[n] for n in np.unique(self.part_of)]
