"""Groups of a search against a plain loop."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from querynode.grouping import best_of_groups

VALUES = st.one_of(st.none(), st.integers(0, 4))


@given(st.lists(st.lists(VALUES, max_size=12), max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_best_rows_of_best_groups(queries: list[list[int | None]], groups: int, size: int) -> None:
    chosen, found = best_of_groups(
        np.array([len(q) for q in queries], np.int64),
        pa.array([v for q in queries for v in q], pa.int64()),
        groups,
        size,
    )
    expected, counts = [], []
    for values in queries:
        best = list(dict.fromkeys(values))[:groups]
        counts.append(len(best))
        expected += [v in best and values[:i].count(v) < size for i, v in enumerate(values)]
    assert chosen.tolist() == expected
    assert found.tolist() == counts
