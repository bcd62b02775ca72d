"""Which node gets what: channels to data nodes, replicas and leaders to query nodes. Pure functions.

A collection is on the few nodes that rank highest for it (``core.rendezvous``), and the first of them
lead: a node that comes touches only collections where it ranks high, and all nodes lead about as many
shards. A large collection is on all nodes, its shards spread their segments over them; a leader that is
there stays, for it would have to spread anew.

A shard changes its leader make before break: the new one is named as coming, loads, and takes over
once it is ready. Only a leader that is dead is replaced at once. What an operator pinned to a node is
there as long as the node is usable; otherwise it is placed as if it were not pinned.
"""

from collections import Counter
from collections.abc import Collection as Group
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from core.catalog import Collection, Placement, Replica
from core.ids import Channel, CollectionId, NodeId, ShardId
from core.rendezvous import spread_evenly, weight

Ready = Group[tuple[NodeId, ShardId]]
"""Nodes that could lead a shard at once: they have loaded it."""
MEMBERS = 4
"""Nodes of a replica, at least, while there are as many: what a leader has no room for goes to the others."""
NO_PINS: Mapping[Any, NodeId] = MappingProxyType({})


@dataclass(frozen=True)
class RoleNodes:
    """The nodes of a role whose registration is alive, and which of them drain."""

    living: frozenset[NodeId] = frozenset()
    draining: frozenset[NodeId] = frozenset()

    @property
    def usable(self) -> frozenset[NodeId]:
        """The nodes to give things to. While all drain, draining is not the most urgent need."""
        return self.living - self.draining or self.living


def channel_owners(
    nodes: RoleNodes, channels: int, present: Mapping[Channel, NodeId], pinned: Mapping[Channel, NodeId] = NO_PINS
) -> dict[Channel, NodeId]:
    """The data node that seals each channel; empty when there is none. The log holds everything, so
    an owner is replaced without a hand-over."""
    return spread_evenly([Channel(n) for n in range(channels)], nodes.usable, present, pinned)


def place(  # noqa: PLR0917 -- all that a placement depends on
    nodes: RoleNodes,
    collection: Collection,
    present: Placement | None = None,
    ready: Ready = (),
    pinned: Mapping[ShardId, NodeId] = NO_PINS,
    large: bool = False,
) -> Placement | None:
    """Where a loaded collection is to be, given where it is; None when no query node lives.

    Replicas share no node; with fewer nodes than replicas there are as many replicas as nodes.
    A pinned shard is led by its node in the one replica that has the node.
    """
    usable = nodes.usable
    if not usable:
        return None
    held = present.replicas if present else ()
    count = min(collection.replicas, len(usable))
    pins = {s: node for s in collection.shard_ids if (node := pinned.get(s)) in usable and node is not None}
    few = count * max(MEMBERS, len(collection.shards))
    among = usable if large else _first(few, usable, collection, pins)
    if not pins and len(held) == count and _settled(held, among, collection, large):
        return present
    members = _members(nodes.living, among, count, held, collection.id)
    replicas = (
        _replica(group, _leading(group, collection, pins, large), old, collection, nodes.living, ready, pins)
        for group, old in members
    )
    return Placement(collection.id, tuple(replicas))


def waits_for(placement: Placement) -> set[tuple[NodeId, ShardId]]:
    """The nodes that are to lead a shard, and do not lead it yet."""
    return {
        (node, ShardId(placement.collection, number))
        for replica in placement.replicas
        if replica.coming != replica.leaders
        for number, node in enumerate(replica.coming)
        if node != replica.leaders[number]
    }


def _first(
    count: int, nodes: Group[NodeId], collection: Collection, pins: Mapping[ShardId, NodeId]
) -> frozenset[NodeId]:
    """The nodes that rank highest for a collection. Those that something is pinned to come first."""
    if count >= len(nodes):
        return frozenset(nodes)
    wanted = frozenset(pins.values())
    ranked = sorted(nodes, key=lambda n: (n not in wanted, -weight(n, collection.id), n))
    return frozenset(ranked[:count])


def _leading(
    nodes: Group[NodeId], collection: Collection, pins: Mapping[ShardId, NodeId], large: bool
) -> frozenset[NodeId]:
    """The members of a replica that may lead its shards."""
    return frozenset(nodes) if large else _first(len(collection.shards), nodes, collection, pins)


def _settled(held: tuple[Replica, ...], among: frozenset[NodeId], collection: Collection, large: bool) -> bool:
    """Whether nothing is to do, told without spreading: it is so for nearly all collections."""
    sizes = [len(r.nodes) for r in held]
    return (
        sum(sizes) == len(among)
        and max(sizes) - min(sizes) <= 1
        and among.issuperset(n for r in held for n in r.nodes)
        and all(r.leaders == r.coming and len(r.leaders) == len(collection.shards) for r in held)
        and all(_evenly_led(r.leaders, _leading(r.nodes, collection, {}, large)) for r in held)
    )


def _evenly_led(leaders: tuple[NodeId, ...], nodes: frozenset[NodeId]) -> bool:
    loads = Counter(leaders).values()
    return nodes.issuperset(leaders) and (
        len(loads) == len(leaders) or (len(loads) == len(nodes) and max(loads) - min(loads) <= 1)
    )


def _members(
    living: frozenset[NodeId],
    among: frozenset[NodeId],
    count: int,
    held: tuple[Replica, ...],
    collection: CollectionId,
) -> list[tuple[tuple[NodeId, ...], Replica | None]]:
    """The nodes of each replica, with the present replica it goes on from."""
    kept = _kept(held, count, living)
    olds = [*kept, *[None] * (count - len(kept))]
    # Named after the collection: not the same nodes are together, and alone, for all of them.
    names = [f"{collection}/{n}" for n in range(count)]
    present = {node: name for name, old in zip(names, olds, strict=True) if old for node in old.nodes}
    given = spread_evenly(among, names, present)
    return [(tuple(sorted(n for n in given if given[n] == name)), old) for name, old in zip(names, olds, strict=True)]


def _kept(held: tuple[Replica, ...], count: int, living: frozenset[NodeId]) -> list[Replica]:
    """The replicas to go on from, at most ``count``: those that can be read, even on nodes that drain."""
    ranked = sorted(held, key=lambda r: -sum(n in living for n in r.leaders))
    spare = {number: n for r in ranked[count:] for number, n in enumerate(r.leaders) if n in living}

    # A leader of a replica that goes hands over to one that stays, where that has lost its own.
    def leader(number: int, node: NodeId) -> NodeId:
        return node if node in living else spare.pop(number, node)

    return [replace(r, leaders=tuple(leader(i, n) for i, n in enumerate(r.leaders))) for r in ranked[:count]]


def _replica(  # noqa: PLR0917 -- as place
    nodes: tuple[NodeId, ...],
    leading: frozenset[NodeId],
    old: Replica | None,
    collection: Collection,
    living: frozenset[NodeId],
    ready: Ready,
    pins: Mapping[ShardId, NodeId],
) -> Replica:
    shards = collection.shard_ids
    before = dict(zip(shards, old.leaders, strict=False)) if old else {}
    wanted = spread_evenly(shards, leading, dict(zip(shards, old.coming, strict=False)) if old else {}, pins)
    leaders: list[NodeId] = []
    for shard in shards:
        leader = before.get(shard)
        stays = leader in living and (wanted[shard], shard) not in ready
        leaders.append(leader if leader and stays else wanted[shard])
    return Replica(nodes, tuple(leaders), tuple(wanted[s] for s in shards))
