"""Who should own and lead what, given who lives: a pure function from the cluster's state to commits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.placement import channel_owner, place
from core.catalog import ChannelOwner, Collection, Placement
from core.ids import Channel, CollectionId, NodeId, Revision
from storage import keys
from storage.meta.port import Condition, Delete, Put


@dataclass(frozen=True)
class ClusterState:
    """What is known. Each value comes with the revision of its key.

    Nodes are those whose registration is alive.
    """

    channels: int
    data_nodes: frozenset[NodeId]
    query_nodes: frozenset[NodeId]
    owners: Mapping[Channel, tuple[ChannelOwner, Revision]]
    collections: Mapping[CollectionId, tuple[Collection, Revision]]
    placements: Mapping[CollectionId, tuple[Placement, Revision]]


@dataclass(frozen=True)
class Move:
    """One write and what it is conditional on."""

    conditions: tuple[Condition, ...]
    write: Put | Delete


def reconcile(state: ClusterState) -> list[Move]:
    """The moves that bring owners and placements in line with the living nodes; none = all is well.

    Without a living node of a role nothing of that role moves: the old owner may only be slow to
    register again, and nobody could do better.
    """
    return [*_owners(state), *_placements(state)]


def _owners(state: ClusterState) -> Iterable[Move]:
    for number in range(state.channels):
        channel = Channel(number)
        node = channel_owner(state.data_nodes, channel)
        present, revision = state.owners.get(channel, (None, Revision(0)))
        # A new revision is a new epoch and stops the owner: never write what is already there.
        if node is not None and present != ChannelOwner(node):
            key = keys.owner(channel)
            yield Move((Condition(key, revision),), Put(key, keys.encode(ChannelOwner(node))))


def _placements(state: ClusterState) -> Iterable[Move]:
    for id, (collection, collection_revision) in state.collections.items():
        present, revision = state.placements.get(id, (None, Revision(0)))
        wanted = place(state.query_nodes, collection) if collection.loaded and not collection.dropped else None
        if wanted == present or (wanted is None and collection.loaded):
            continue
        key = keys.placement(id)
        conditions = (Condition(keys.collection(id), collection_revision), Condition(key, revision))
        yield Move(conditions, Delete(key) if wanted is None else Put(key, keys.encode(wanted)))
    for id, (_, revision) in state.placements.items():
        if id not in state.collections:
            yield Move((Condition(keys.placement(id), revision),), Delete(keys.placement(id)))
