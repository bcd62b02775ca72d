"""Who gets what: evenly, with few moves, the same everywhere."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.rendezvous import SLACK, spread_bytes, spread_evenly

NODES = st.frozensets(st.sampled_from([f"n{i}" for i in range(8)]), min_size=1)
THINGS = st.frozensets(st.integers(0, 99), max_size=40)
SIZES = st.dictionaries(st.integers(0, 99), st.integers(1, 1000), max_size=40)
STEPS = st.lists(st.tuples(NODES, THINGS), min_size=1, max_size=5)
SIZED_STEPS = st.lists(st.tuples(NODES, SIZES), min_size=1, max_size=5)


def shuffled(items: list, seed: int) -> list:
    return random.Random(seed).sample(items, len(items))


@given(STEPS)
def test_even_loads_differ_by_one_at_most(steps) -> None:
    present: dict[int, str] = {}
    for nodes, things in steps:
        present = spread_evenly(things, nodes, present)
        assert present.keys() == things
        loads = Counter(dict.fromkeys(nodes, 0))
        loads.update(present.values())
        assert loads.keys() == nodes
        assert max(loads.values()) - min(loads.values()) <= 1
        assert spread_evenly(things, nodes, present) == present, "nothing moves without a reason"


@given(NODES, THINGS, st.sampled_from([f"n{i}" for i in range(8)]))
def test_a_node_that_comes_gets_only_its_share_and_one_that_goes_gives_only_its_own(nodes, things, node) -> None:
    less, more = nodes - {node}, nodes | {node}
    if not less:
        return
    before = spread_evenly(things, less, {})
    after = spread_evenly(things, more, before)
    moved = {t for t in things if before[t] != after[t]}
    assert {after[t] for t in moved} <= {node}
    assert len(moved) <= -(-len(things) // len(more))
    again = spread_evenly(things, less, after)
    assert {t for t in things if again[t] != after[t]} == {t for t in things if after[t] == node}


@given(NODES, THINGS, SIZES, st.integers(0, 9))
def test_the_order_of_arguments_does_not_matter(nodes, things, sizes, seed) -> None:
    mixed = shuffled(sorted(nodes), seed)
    assert spread_evenly(things, nodes, {}) == spread_evenly(shuffled(sorted(things), seed), mixed, {})
    assert spread_bytes(sizes, nodes, {}) == spread_bytes(dict(shuffled(sorted(sizes.items()), seed)), mixed, {})


def loads_of(sizes, nodes, given) -> dict[str, int]:
    return {n: sum(size for t, size in sizes.items() if given[t] == n) for n in nodes}


@given(SIZED_STEPS)
def test_bytes_are_bounded_as_far_as_whole_things_allow(steps) -> None:
    present: dict[int, str] = {}
    for nodes, sizes in steps:
        present = spread_bytes(sizes, nodes, present)
        assert present.keys() == sizes.keys()
        loads = loads_of(sizes, nodes, present)
        mean = sum(sizes.values()) / len(nodes)
        assert max(loads.values()) <= max((1 + SLACK) * mean, mean + max(sizes.values(), default=0))
        assert spread_bytes(sizes, nodes, present) == present, "nothing moves without a reason"


@given(st.integers(1, 7), st.integers(10, 40), st.integers(0, 99))
def test_a_node_that_comes_gets_about_its_share_of_the_bytes(count, per_node, seed) -> None:
    rng = random.Random(seed)
    sizes = {i: rng.randint(900, 1100) for i in range(per_node * count)}
    nodes = [f"n{i}" for i in range(count)]
    before = spread_bytes(sizes, nodes, {})
    after = spread_bytes(sizes, [*nodes, "new"], before)
    moved = {t for t in sizes if before[t] != after[t]}
    share = sum(sizes.values()) / (count + 1)
    assert sum(sizes[t] for t in moved) <= (1 + SLACK) * share + 1100, "its share, and nothing else, moves"
    assert loads_of(sizes, ["new"], after)["new"] >= (1 - count * SLACK) * share - 1100
    gone = spread_bytes(sizes, nodes, after)
    assert sum(sizes[t] for t in sizes if gone[t] != after[t]) <= (1 + SLACK) * share + 1100
    assert max(loads_of(sizes, nodes, gone).values()) <= (1 + SLACK) * sum(sizes.values()) / count + 1100


@given(SIZES, NODES, st.data())
def test_nobody_gets_more_than_there_is_room_for(sizes, nodes, data) -> None:
    settled = spread_bytes(sizes, nodes, {})
    present = {t: n for t, n in settled.items() if data.draw(st.booleans())}
    room = {n: data.draw(st.integers(0, 2000)) for n in sorted(nodes) if data.draw(st.booleans())}
    after = spread_bytes(sizes, nodes, present, room)
    assert present.keys() <= after.keys(), "what lies somewhere stays held"
    added = {n: sum(sizes[t] for t in after if after[t] == n and present.get(t) != n) for n in nodes}
    assert all(added[n] <= room[n] for n in room)
    for thing in sizes.keys() - after.keys():
        assert all(n in room and room[n] - added[n] < sizes[thing] for n in nodes), "left out only when nobody can"
    # Those that were put there have used the room up.
    left = {n: free - added[n] for n, free in room.items()}
    assert spread_bytes(sizes, nodes, after, left) == after, "nothing moves without a reason"
