"""Who should own and lead what, given who lives: a pure function from the cluster's state to commits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.placement import Ready, RoleNodes, channel_owners, place
from core.catalog import ChannelOwner, Collection, Placement
from core.ids import Channel, CollectionId, NodeId, Revision, ShardId
from storage import keys
from storage.meta.port import Condition, Delete, Put


@dataclass(frozen=True)
class ClusterState:
    """What is known, of all collections or of some. Each value comes with the revision of its key.

    ready: of the query nodes that are to lead a shard, those that have loaded it.
    large: collections to spread over all query nodes.
    channel_pins, shard_pins: where an operator wants them to be.
    """

    channels: int
    data_nodes: RoleNodes
    query_nodes: RoleNodes
    owners: Mapping[Channel, tuple[ChannelOwner, Revision]]
    collections: Mapping[CollectionId, tuple[Collection, Revision]]
    placements: Mapping[CollectionId, tuple[Placement, Revision]]
    ready: Ready = ()
    large: frozenset[CollectionId] = frozenset()
    channel_pins: Mapping[Channel, NodeId] = field(default_factory=dict)
    shard_pins: Mapping[ShardId, tuple[NodeId, Revision]] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """One write and what it is conditional on."""

    conditions: tuple[Condition, ...]
    write: Put | Delete


def reconcile(state: ClusterState) -> Iterator[Move]:
    """The moves, decided as they are taken, that bring owners and placements in line with the living
    nodes; none = all is well.

    Without a living node of a role nothing of that role moves: the old owner may only be slow to
    register again, and nobody could do better.
    """
    yield from owner_moves(state)
    yield from placement_moves(state)


def owner_moves(state: ClusterState) -> Iterator[Move]:
    """Those of ``reconcile`` that are about channels."""
    held = {channel: owner.node for channel, (owner, _) in state.owners.items()}
    for channel, node in channel_owners(state.data_nodes, state.channels, held, state.channel_pins).items():
        revision = state.owners[channel][1] if channel in held else Revision(0)
        # A new revision is a new epoch and stops the owner: never write what is already there.
        if held.get(channel) != node:
            key = keys.owner(channel)
            yield Move((Condition(key, revision),), Put(key, keys.encode(ChannelOwner(node))))


def placement_moves(state: ClusterState) -> Iterator[Move]:
    """Those of ``reconcile`` that are about collections; what is left of those that are gone is deleted."""
    pinned = {shard: node for shard, (node, _) in state.shard_pins.items()}
    for id, (collection, collection_revision) in state.collections.items():
        present, revision = state.placements.get(id, (None, Revision(0)))
        loaded = collection.loaded and not collection.dropped
        large = id in state.large
        wanted = place(state.query_nodes, collection, present, state.ready, pinned, large) if loaded else None
        if wanted == present or (wanted is None and collection.loaded):
            continue
        key = keys.placement(id)
        conditions = (Condition(keys.collection(id), collection_revision), Condition(key, revision))
        yield Move(conditions, Delete(key) if wanted is None else Put(key, keys.encode(wanted)))
    left = {
        keys.placement(id): revision for id, (_, revision) in state.placements.items() if id not in state.collections
    }
    left |= {
        keys.shard_pin(shard): revision
        for shard, (_, revision) in state.shard_pins.items()
        if shard.collection not in state.collections
    }
    for key, revision in left.items():
        yield Move((Condition(key, revision),), Delete(key))
