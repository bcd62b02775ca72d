"""Which node gets what: channels to data nodes, replicas and leaders to query nodes. Pure functions.

Everything is spread evenly and moves little (``core.rendezvous``). A shard changes its leader make
before break: the new one is named as coming, loads, and takes over once it is ready. Only a leader
that is dead is replaced at once.
"""

from collections.abc import Collection as Group
from collections.abc import Mapping
from dataclasses import dataclass

from core.catalog import Collection, Placement, Replica
from core.ids import Channel, CollectionId, NodeId, ShardId
from core.rendezvous import spread_evenly

Ready = Group[tuple[NodeId, ShardId]]
"""Nodes that could lead a shard at once: they have loaded it."""


@dataclass(frozen=True)
class RoleNodes:
    """The nodes of a role whose registration is alive, and which of them drain."""

    living: frozenset[NodeId] = frozenset()
    draining: frozenset[NodeId] = frozenset()

    @property
    def usable(self) -> frozenset[NodeId]:
        """The nodes to give things to. While all drain, draining is not the most urgent need."""
        return self.living - self.draining or self.living


def channel_owners(nodes: RoleNodes, channels: int, present: Mapping[Channel, NodeId]) -> dict[Channel, NodeId]:
    """The data node that seals each channel; empty when there is none. The log holds everything, so
    an owner is replaced without a hand-over."""
    return spread_evenly([Channel(n) for n in range(channels)], nodes.usable, present)


def place(
    nodes: RoleNodes, collection: Collection, present: Placement | None = None, ready: Ready = ()
) -> Placement | None:
    """Where a loaded collection is to be, given where it is; None when no query node lives.

    Replicas share no node; with fewer nodes than replicas there are as many replicas as nodes.
    """
    usable = nodes.usable
    if not usable:
        return None
    held = present.replicas if present else ()
    if _settled(held, usable, collection):
        return present
    members = _members(nodes, min(collection.replicas, len(usable)), held, collection.id)
    replicas = (_replica(group, old, collection, nodes.living, ready) for group, old in members)
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


def _settled(held: tuple[Replica, ...], usable: frozenset[NodeId], collection: Collection) -> bool:
    """Whether nothing is to do, told without hashing: it is so for nearly all collections."""
    return (
        len(held) == min(collection.replicas, len(usable))
        and sum(len(r.nodes) for r in held) == len(usable)
        and usable.issuperset(n for r in held for n in r.nodes)
        and max(len(r.nodes) for r in held) - min(len(r.nodes) for r in held) <= 1
        and all(r.leaders == r.coming and len(r.leaders) == len(collection.shards) for r in held)
        and all(set(r.leaders) <= set(r.nodes) for r in held)
    )


def _members(
    nodes: RoleNodes, count: int, held: tuple[Replica, ...], collection: CollectionId
) -> list[tuple[tuple[NodeId, ...], Replica | None]]:
    """The nodes of each replica, with the present replica it goes on from."""
    # Those that can be read stay, even on nodes that drain: they will hand over.
    kept = sorted(held, key=lambda r: -sum(n in nodes.living for n in r.leaders))[:count]
    olds = [*kept, *[None] * (count - len(kept))]
    # Named after the collection: not the same nodes are together, and alone, for all of them.
    names = [f"{collection}/{n}" for n in range(count)]
    present = {node: name for name, old in zip(names, olds, strict=True) if old for node in old.nodes}
    given = spread_evenly(nodes.usable, names, present)
    return [(tuple(sorted(n for n in given if given[n] == name)), old) for name, old in zip(names, olds, strict=True)]


def _replica(
    nodes: tuple[NodeId, ...], old: Replica | None, collection: Collection, living: frozenset[NodeId], ready: Ready
) -> Replica:
    shards = collection.shard_ids
    before = dict(zip(shards, old.leaders, strict=False)) if old else {}
    wanted = spread_evenly(shards, nodes, dict(zip(shards, old.coming, strict=False)) if old else {})
    leaders: list[NodeId] = []
    for shard in shards:
        leader = before.get(shard)
        stays = leader in living and (wanted[shard], shard) not in ready
        leaders.append(leader if leader and stays else wanted[shard])
    return Replica(nodes, tuple(leaders), tuple(wanted[s] for s in shards))
