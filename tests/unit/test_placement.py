"""Where replicas, leaders and channels go: apart, evenly, make before break, with few moves."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.placement import RoleNodes, channel_owners, place, waits_for
from core.catalog import Collection, Partition, Placement, Shard
from core.ids import Channel, CollectionId, NodeId, PartitionId
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


def settle(nodes: RoleNodes, collection: Collection, present: Placement | None) -> Placement:
    """The placement once every coming leader has loaded its shards."""
    placement = place(nodes, collection, present)
    assert placement is not None
    while awaited := waits_for(placement):
        after = place(nodes, collection, placement, awaited)
        assert after is not None
        assert waits_for(after) < awaited
        placement = after
    return placement


def serving(placement: Placement, number: int) -> set[NodeId]:
    return {r.leaders[number] for r in placement.replicas}


def check_settled(placement: Placement, nodes: RoleNodes, collection: Collection) -> None:
    replicas = placement.replicas
    assert len(replicas) == min(collection.replicas, len(nodes.usable))
    members = [n for r in replicas for n in r.nodes]
    assert sorted(members) == sorted(nodes.usable), "every node in one replica"
    sizes = [len(r.nodes) for r in replicas]
    assert max(sizes) - min(sizes) <= 1
    for r in replicas:
        assert r.leaders == r.coming
        led = Counter(dict.fromkeys(r.nodes, 0))
        led.update(r.leaders)
        assert led.keys() == set(r.nodes), "led from within"
        assert max(led.values()) - min(led.values()) <= 1
    assert place(nodes, collection, placement) == placement


STEPS = st.lists(st.tuples(NODES, NODES, st.booleans()), min_size=1, max_size=6)


@given(STEPS, st.integers(1, 6), st.integers(1, 3))
def test_replicas_are_apart_leaders_even_and_changes_make_before_break(steps, shards, replicas) -> None:
    collection = loaded(shards, replicas)
    present: Placement | None = None
    for living, draining, in_time in steps:
        nodes = RoleNodes(living, living & draining)
        after = place(nodes, collection, present)
        assert after is not None
        for n in range(shards):
            before = serving(present, n) & living if present else set()
            assert not before or serving(after, n) & before, "a shard that could be read still can"
        present = settle(nodes, collection, after) if in_time else after
        if in_time:
            check_settled(present, nodes, collection)


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


@given(st.integers(1, 3))
def test_many_small_collections_spread_over_all_nodes(replicas) -> None:
    nodes = RoleNodes(frozenset(ALL[:4]))
    led = Counter()
    for id in range(400):
        placement = place(nodes, replace(loaded(1, replicas), id=CollectionId(id)))
        assert placement is not None
        led.update(n for r in placement.replicas for n in r.leaders)
    assert min(led.values()) > 0.8 * 400 * replicas / 4


def test_a_dead_leader_is_replaced_at_once() -> None:
    collection = loaded(4, 1)
    before = settle(RoleNodes(frozenset(ALL[:2])), collection, None)
    after = place(RoleNodes(frozenset(ALL[:1])), collection, before)
    assert after is not None
    assert after.replicas[0].leaders == (ALL[0],) * 4


def test_nothing_is_placed_without_nodes() -> None:
    assert place(RoleNodes(), loaded(1, 1)) is None


@given(NODES, NODES, st.integers(1, 16))
def test_channels_are_even_and_an_owner_that_stays_keeps_its_channels(first, then, channels) -> None:
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
