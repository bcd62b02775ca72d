"""Where replicas, leaders and channels go: apart, evenly, make before break, with few moves."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.placement import MEMBERS, NO_PINS, RoleNodes, channel_owners, place, waits_for
from core.catalog import Collection, Partition, Placement, Shard
from core.ids import Channel, CollectionId, NodeId, PartitionId, ShardId
from core.schema import Schema

ALL = [NodeId(f"n{i}") for i in range(7)]
NODES = st.frozensets(st.sampled_from(ALL), min_size=1)


def loaded(shards: int, replicas: int) -> Collection:
    return Collection(
        id=CollectionId(1),
        database="default",
        name="c",
        schema=Schema(()),
        shards=tuple(Shard(n, Channel(n)) for n in range(shards)),
        partitions=(Partition(PartitionId(2), "_default", 0),),
        loaded=(PartitionId(2),),
        replicas=replicas,
    )


def settle(nodes: RoleNodes, collection: Collection, present: Placement | None, **how) -> Placement:
    """The placement once every coming leader has loaded its shards. how: pinned, large."""
    placement = place(nodes, collection, present, **how)
    assert placement is not None
    while awaited := waits_for(placement):
        after = place(nodes, collection, placement, awaited, **how)
        assert after is not None
        assert waits_for(after) < awaited
        placement = after
    return placement


def serving(placement: Placement, number: int) -> set[NodeId]:
    return {r.leaders[number] for r in placement.replicas}


def check_settled(
    placement: Placement, nodes: RoleNodes, collection: Collection, pinned=NO_PINS, large: bool = False
) -> None:
    replicas, shards = placement.replicas, len(collection.shards)
    count = min(collection.replicas, len(nodes.usable))
    assert len(replicas) == count
    members = [n for r in replicas for n in r.nodes]
    assert len(set(members)) == len(members), "no node in two replicas"
    assert nodes.usable.issuperset(members)
    few = count * max(MEMBERS, shards)
    assert len(members) == (len(nodes.usable) if large else min(few, len(nodes.usable)))
    sizes = [len(r.nodes) for r in replicas]
    assert max(sizes) - min(sizes) <= 1
    pins = {s: n for s, n in pinned.items() if n in nodes.usable}
    assert all(n in serving(placement, s.number) for s, n in pins.items())
    for r in replicas:
        assert r.leaders == r.coming
        assert set(r.leaders) <= set(r.nodes), "led from within"
        led = Counter(r.leaders)
        if not pins:
            assert len(led) == min(shards, len(r.nodes))
            assert max(led.values()) - min(led.values()) <= 1
    assert place(nodes, collection, placement, (), pinned, large) == placement


PINS = st.dictionaries(st.integers(0, 5).map(lambda n: ShardId(CollectionId(1), n)), st.sampled_from(ALL), max_size=3)
STEPS = st.lists(st.tuples(NODES, NODES, PINS, st.booleans(), st.booleans()), min_size=1, max_size=6)


@given(STEPS, st.integers(1, 6), st.integers(1, 3))
def test_replicas_are_apart_leaders_even_and_changes_make_before_break(steps, shards, replicas) -> None:
    collection = loaded(shards, replicas)
    present: Placement | None = None
    for living, draining, pins, large, in_time in steps:
        nodes = RoleNodes(living, living & draining)
        how = {"pinned": {s: n for s, n in pins.items() if s.number < shards}, "large": large}
        after = place(nodes, collection, present, **how)
        assert after is not None
        for n in range(shards):
            before = serving(present, n) & living if present else set()
            assert not before or serving(after, n) & before, "a shard that could be read still can"
        present = settle(nodes, collection, after, **how) if in_time else after
        if in_time:
            check_settled(present, nodes, collection, **how)


@given(NODES, st.integers(1, 6), st.integers(1, 3), st.integers(1, 3))
def test_the_number_of_replicas_may_change(living, shards, first, then) -> None:
    nodes = RoleNodes(living)
    before = settle(nodes, loaded(shards, first), None)
    collection = replace(loaded(shards, first), replicas=then)
    after = place(nodes, collection, before)
    assert after is not None
    assert all(serving(after, n) & serving(before, n) for n in range(shards))
    check_settled(settle(nodes, collection, after), nodes, collection)


@given(NODES, st.integers(1, 12))
def test_a_node_that_drains_leads_until_another_is_ready(living, shards) -> None:
    collection = loaded(shards, 1)
    before = settle(RoleNodes(living), collection, None)
    gone = before.replicas[0].leaders[0]
    nodes = RoleNodes(living, frozenset({gone}))
    after = place(nodes, collection, before)
    assert after is not None
    assert after.replicas[0].leaders == before.replicas[0].leaders
    if len(living) > 1:
        assert gone not in after.replicas[0].coming
        assert gone not in after.replicas[0].nodes
        moved = [n for n in range(shards) if after.replicas[0].coming[n] != before.replicas[0].leaders[n]]
        assert {before.replicas[0].leaders[n] for n in moved} == {gone}
    check_settled(settle(nodes, collection, after), nodes, collection)


MANY = 600


def many(nodes: RoleNodes, shards: int, replicas: int, before: dict[CollectionId, Placement] | None = None):
    """The placements of many collections, settled."""
    all = (replace(loaded(shards, replicas), id=CollectionId(id)) for id in range(MANY))
    return {c.id: settle(nodes, c, before[c.id] if before else None) for c in all}


def leading(placements: dict[CollectionId, Placement]) -> Counter[NodeId]:
    return Counter(n for p in placements.values() for r in p.replicas for n in r.leaders)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_node_that_comes_gets_its_share_and_touches_little_else(replicas: int) -> None:
    nodes = [NodeId(f"n{i}") for i in range(20)]
    less, more = RoleNodes(frozenset(nodes[:-1])), RoleNodes(frozenset(nodes))
    before = many(less, 1, replicas)
    after = many(more, 1, replicas, before)
    mean = MANY * replicas / 20
    assert 0.5 * mean < min(leading(after).values()) <= max(leading(after).values()) < 1.6 * mean
    moved = sum(
        r.leaders != old.leaders for c in after for r, old in zip(_sorted(after[c]), _sorted(before[c]), strict=True)
    )
    assert moved < 1.7 * mean, "about what the new node leads now"
    touched = sum(after[c] != before[c] for c in after)
    assert touched < 1.5 * MANY * MEMBERS * replicas / 20
    # And all of it comes back to where it was when the node goes: a restart of each node leaves no trace.
    again = many(less, 1, replicas, after)
    assert replicas > 1 or again == before


def _sorted(placement: Placement):
    return sorted(placement.replicas, key=lambda r: r.leaders)


def test_the_leader_of_a_large_collection_stays_when_a_node_comes() -> None:
    for id in range(50):
        collection = replace(loaded(2, 1), id=CollectionId(id))
        before = settle(RoleNodes(frozenset(ALL[:3])), collection, None, large=True)
        after = settle(RoleNodes(frozenset(ALL[:4])), collection, before, large=True)
        assert after.replicas[0].leaders == before.replicas[0].leaders
        assert after.replicas[0].nodes == tuple(ALL[:4])


@given(NODES, NODES, st.integers(1, 6), st.integers(1, 3), st.booleans(), st.data())
def test_a_pinned_shard_is_moved_make_before_break_and_stays(living, then, shards, replicas, large, data) -> None:
    collection, nodes = loaded(shards, replicas), RoleNodes(living)
    before = settle(nodes, collection, None, large=large)
    shard = ShardId(collection.id, data.draw(st.integers(0, shards - 1)))
    target = data.draw(st.sampled_from(sorted(living)))
    after = place(nodes, collection, before, (), {shard: target}, large)
    assert after is not None
    assert all(serving(after, n) & serving(before, n) for n in range(shards))
    moved = settle(nodes, collection, after, pinned={shard: target}, large=large)
    check_settled(moved, nodes, collection, {shard: target}, large)
    assert target in serving(moved, shard.number)
    # Other nodes come and go: it stays while its node is there, and is served in any case.
    after = settle(RoleNodes(then), collection, moved, pinned={shard: target}, large=large)
    check_settled(after, RoleNodes(then), collection, {shard: target}, large)
    unpinned = settle(RoleNodes(then), collection, after, large=large)
    check_settled(unpinned, RoleNodes(then), collection, large=large)


def test_a_dead_leader_is_replaced_at_once() -> None:
    collection = loaded(4, 1)
    before = settle(RoleNodes(frozenset(ALL[:2])), collection, None)
    after = place(RoleNodes(frozenset(ALL[:1])), collection, before)
    assert after is not None
    assert after.replicas[0].leaders == (ALL[0],) * 4


def test_nothing_is_placed_without_nodes() -> None:
    assert place(RoleNodes(), loaded(1, 1)) is None


@given(NODES, NODES, st.integers(1, 16), st.dictionaries(st.integers(0, 15).map(Channel), st.sampled_from(ALL)))
def test_channels_are_even_and_an_owner_that_stays_keeps_its_channels(first, then, channels, pins) -> None:
    before = channel_owners(RoleNodes(first), channels, {})
    after = channel_owners(RoleNodes(then), channels, before)
    for nodes, owners in ((first, before), (then, after)):
        loads = [sum(o == n for o in owners.values()) for n in nodes]
        assert sum(loads) == channels
        assert max(loads) - min(loads) <= 1
    most = -(-channels // len(then))
    kept = Counter(before[c] for c in before if before[c] == after[c])
    for node in first & then:
        had = sum(o == node for o in before.values())
        assert kept[node] >= min(had, most - 1)
    pinned = channel_owners(RoleNodes(then), channels, after, pins)
    assert pinned.keys() == after.keys()
    assert all(pinned[c] == n for c, n in pins.items() if c in pinned and n in then)
    assert channel_owners(RoleNodes(then), channels, pinned, pins) == pinned
    loads = Counter(dict.fromkeys(then, 0)) + Counter(pinned.values())
    free = [loads[n] for n in then if not any(pins.get(c) == n for c in pinned)]
    assert not free or max(free) - min(free) <= 1, "the others share the rest evenly"
