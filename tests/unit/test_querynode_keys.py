"""Primary keys as arrays, int64 and string alike, against plain Python."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from querynode import keys as pk

INTS = st.integers(-(2**63), 2**63 - 1)
STRINGS = st.text(max_size=5)


@given(st.one_of(st.tuples(st.lists(t, unique=True), st.lists(t)) for t in (INTS, STRINGS)))
def test_find_gives_every_wanted_key_that_is_stored(case: tuple[list, list]) -> None:
    stored, extra = sorted(case[0], key=lambda k: k.encode() if isinstance(k, str) else k), case[1]
    wanted = extra + stored[::2]
    kind = pa.string() if any(isinstance(k, str) for k in wanted + stored) else pa.int64()
    rows, which = pk.find(pk.keys_of(pa.array(stored, kind)), pk.keys_of(pa.array(wanted, kind)))
    found = {(stored[r], wanted[w]) for r, w in zip(rows.tolist(), which.tolist(), strict=True)}
    assert found == {(k, k) for k in wanted if k in stored}
    assert sorted(which.tolist()) == [i for i, k in enumerate(wanted) if k in stored]


@given(st.one_of(st.lists(t, min_size=1) for t in (INTS, STRINGS)))
def test_order_span_and_concat_follow_the_bytes(values: list) -> None:
    kind = pa.string() if isinstance(values[0], str) else pa.int64()
    keys = pk.concat([pk.keys_of(pa.array(values, kind)), pk.keys_of(pa.array(values[:1], kind))])
    expected = sorted([*values, values[0]], key=lambda k: k.encode() if isinstance(k, str) else k)
    assert pk.to_list(pk.take(keys, pk.order(keys))) == expected
    assert pk.span(keys) == (expected[0], expected[-1])


def test_find_in_slices() -> None:
    """Columns of a batch often are slices of larger ones."""
    stored = pa.array([f"k{i}" for i in range(9)])[2:7]
    rows, which = pk.find(pk.keys_of(stored), pk.keys_of(pa.array(["k0", "k3", "k6", "k8"])[1:3]))
    assert (rows.tolist(), which.tolist()) == ([1, 4], [0, 1])


def test_owned_copies() -> None:
    source = np.arange(4)
    kept = pk.owned(pa.array(source)[1:3])
    source[:] = 7
    assert kept.to_pylist() == [1, 2]
