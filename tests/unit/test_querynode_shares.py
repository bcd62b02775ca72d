"""The answers of several nodes merged: as if one of them held all the segments."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.vector.metric import Metric
from querynode.shares import merge_best
from rpc.reads import Rows, SearchReply

HIT = st.tuples(st.integers(0, 3).map(float) | st.just(float("inf")), st.integers(0, 5))
"""Score and place of a row: few of them, so that many are equal."""
BY_QUERY = st.lists(st.lists(HIT, max_size=4), min_size=2, max_size=2)


@given(st.lists(BY_QUERY, min_size=1, max_size=3), st.integers(1, 5), st.sampled_from([Metric.L2, Metric.IP]))
def test_the_best_of_all_by_score_then_by_place_of_their_segment(
    nodes: list[list[list[tuple[float, int]]]], k: int, metric: Metric
) -> None:
    sign = -1 if metric.larger_is_better else 1
    answers, every, key = [], [[], []], 0
    for queries in nodes:
        # No two nodes hold the same segment.
        ranked = [sorted((sign * s, len(nodes) * p + len(answers)) for s, p in hits) for hits in queries]
        flat = [hit for hits in ranked for hit in hits]
        keys = list(range(key, key + len(flat)))
        key += len(flat)
        scores = np.array([sign * s for s, _ in flat], np.float32)
        rows = Rows(pa.array(keys, pa.int64()), {"x": pa.array([str(key) for key in keys], pa.string())})
        counts = np.array([len(hits) for hits in ranked])
        answers.append((SearchReply(counts, scores, rows), np.array([p for _, p in flat], np.int32)))
        numbers = iter(keys)
        for hits, found in zip(ranked, every, strict=True):
            found += [(distance, place, next(numbers)) for distance, place in hits]
    best = [sorted(found)[:k] for found in every]

    merged = merge_best(answers, k, metric)

    assert merged.counts.tolist() == list(map(len, best))
    assert merged.scores.tolist() == [sign * distance for found in best for distance, _, _ in found]
    assert merged.rows.pks.to_pylist() == [key for found in best for _, _, key in found]
    assert merged.rows.columns["x"].to_pylist() == [str(key) for found in best for _, _, key in found]
