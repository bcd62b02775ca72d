"""Merging the answers of shards, against the same done row by row."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.search_merge import head, merge, merge_groups
from proxy.search_pages import behind
from rpc.reads import Rows, SearchReply

Row = tuple[float, int, str | None]
"""score, key, group"""


@st.composite
def shards(draw: st.DrawFn) -> tuple[int, bool, list[list[list[Row]]]]:
    """(nq, larger is better, per shard per query its rows, best first)"""
    nq, larger = draw(st.integers(1, 3)), draw(st.booleans())
    keys = iter(range(10_000))
    score = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, -3.0])
    group = st.sampled_from(["a", "b", "c", None])
    made = []
    for _ in range(draw(st.integers(1, 4))):
        queries = []
        for _ in range(nq):
            rows = [(s, next(keys), g) for s, g in draw(st.lists(st.tuples(score, group), max_size=8))]
            queries.append(sorted(rows, key=lambda r: -r[0] if larger else r[0]))
        made.append(queries)
    return nq, larger, made


def reply(queries: list[list[Row]]) -> SearchReply:
    rows = [r for q in queries for r in q]
    keys, groups = pa.array([r[1] for r in rows], pa.int64()), pa.array([r[2] for r in rows], pa.string())
    scores = np.array([r[0] for r in rows], np.float32)
    return SearchReply(np.array([len(q) for q in queries]), scores, Rows(keys, {"group": groups}), groups)


@given(shards(), st.integers(1, 6), st.integers(0, 4))
def test_merge(given_: tuple[int, bool, list[list[list[Row]]]], limit: int, offset: int) -> None:
    nq, larger, made = given_
    cut = [[q[: limit + offset] for q in queries] for queries in made]
    hits = merge([reply(queries) for queries in cut], limit, offset, larger)
    expected = []
    for n in range(nq):
        rows = sorted((r for queries in cut for r in queries[n]), key=lambda r: -r[0] if larger else r[0])
        expected.append(rows[offset : offset + limit])
    assert hits.counts.tolist() == [len(q) for q in expected]
    assert hits.scores.tolist() == [r[0] for q in expected for r in q]
    assert hits.rows.pks.to_pylist() == [r[1] for q in expected for r in q]
    assert hits.rows.columns["group"].to_pylist() == [r[2] for q in expected for r in q]


@given(shards(), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3))
def test_merge_groups(given_: tuple[int, bool, list[list[list[Row]]]], limit: int, offset: int, size: int) -> None:
    nq, larger, made = given_
    hits = merge_groups([reply(queries) for queries in made], limit, offset, size, larger)
    expected: list[int] = []
    counts = []
    for n in range(nq):
        groups: dict[str | None, list[int]] = {}
        for _, key, group in sorted((r for qs in made for r in qs[n]), key=lambda r: -r[0] if larger else r[0]):
            groups.setdefault(group, []).append(key)
        chosen = [key for keys in list(groups.values())[offset : offset + limit] for key in keys[:size]]
        counts.append(len(chosen))
        expected += chosen
    assert hits.rows.pks.to_pylist() == expected
    assert hits.counts.tolist() == counts


def test_head() -> None:
    hits = merge([reply([[(1.0, 1, "a"), (2.0, 2, "b"), (3.0, 3, None)]])], 3, 0, False)
    cut = head(hits, 2)
    assert (cut.counts.tolist(), cut.rows.pks.to_pylist(), cut.scores.tolist()) == ([2], [1, 2], [1.0, 2.0])
    assert head(hits, 3) is hits


@pytest.mark.parametrize("larger", [True, False])
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100))
def test_a_page_starts_strictly_behind_the_last(larger: bool, bound: float) -> None:
    near = behind(bound, None, larger)
    assert near < bound if larger else near > bound
    assert np.float32(near) == near, "the bound is a float32: the next score, nothing in between is lost"
    assert behind(None, None, larger) == (np.inf if larger else -np.inf)
    assert behind(bound, near, larger) == near
