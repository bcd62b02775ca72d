"""How full a node is: rises at once, falls late, and what writers are told follows from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Corrupted
from core.ids import Channel
from core.pressure import DELAY_MAX_S, LEVELS, SLACK, Pressure, level

BUDGETS = st.integers(1, 1 << 40)
SHARES = st.floats(0, 3)
PRESENT = st.integers(0, LEVELS)


@given(BUDGETS, SHARES, PRESENT)
def test_writes_go_on_below_half_of_the_budget_and_are_refused_from_the_whole_of_it_on(budget, share, present) -> None:
    used = share * budget
    now = level(used, budget, present)
    assert 0 <= now <= LEVELS
    assert (level(used, budget, 0) == LEVELS) == (used >= budget)
    if used <= (0.5 - SLACK) * budget:
        assert now == 0
    if now > present or (now == present and share > 1):
        assert used > budget / 2, "nothing but use raises it"


@given(BUDGETS, SHARES, SHARES, PRESENT)
def test_more_use_never_lowers_it_and_the_same_use_leaves_it(budget, one, other, present) -> None:
    less, more = sorted((one * budget, other * budget))
    assert level(less, budget, present) <= level(more, budget, present)
    settled = level(more, budget, present)
    assert level(more, budget, settled) == settled


@given(BUDGETS, SHARES, st.floats(-SLACK * 0.99, SLACK * 0.99))
def test_it_does_not_flicker_when_use_wavers_by_less_than_the_slack(budget, share, waver) -> None:
    top = level(share * budget, budget, 0)
    wavered = level((share - abs(waver)) * budget, budget, top)
    assert wavered == top
    assert level(share * budget, budget, wavered) == top


def test_writes_wait_longer_the_fuller_it_is_and_never_longer_than_the_bound() -> None:
    waits = [Pressure(n, (), "").delay_s for n in range(LEVELS)]
    assert waits[0] == 0
    assert waits == sorted(set(waits))
    assert waits[-1] < DELAY_MAX_S
    assert [Pressure(n, (), "").refuses for n in range(LEVELS + 1)] == [False] * LEVELS + [True]


def test_what_is_stored_comes_back_and_other_bytes_are_told() -> None:
    said = Pressure(3, (Channel(0), Channel(7)), "growing rows take 5 bytes of 6")
    assert Pressure.parse(said.text()) == said
    for text in ("", "{}", "[1]", '{"level": "x", "channels": [], "reason": ""}'):
        with pytest.raises(Corrupted):
            Pressure.parse(text)
