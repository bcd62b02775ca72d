"""Who should own and lead what, given who lives: a pure function from the cluster's state to commits."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from coordinator.placement import Ready, RoleNodes, channel_owners, place
from core.catalog import ChannelOwner, Collection, Placement
from core.ids import Channel, CollectionId, Revision
from storage import keys
from storage.meta.port import Condition, Delete, Put


@dataclass(frozen=True)
class ClusterState:
    """What is known. Each value comes with the revision of its key.

    ready: of the query nodes that are to lead a shard, those that have loaded it.
    """

    channels: int
    data_nodes: RoleNodes
    query_nodes: RoleNodes
    owners: Mapping[Channel, tuple[ChannelOwner, Revision]]
    collections: Mapping[CollectionId, tuple[Collection, Revision]]
    placements: Mapping[CollectionId, tuple[Placement, Revision]]
    ready: Ready = ()


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
    yield from _owners(state)
    yield from _placements(state)


def _owners(state: ClusterState) -> Iterable[Move]:
    held = {channel: owner.node for channel, (owner, _) in state.owners.items()}
    for channel, node in channel_owners(state.data_nodes, state.channels, held).items():
        revision = state.owners[channel][1] if channel in held else Revision(0)
        # A new revision is a new epoch and stops the owner: never write what is already there.
        if held.get(channel) != node:
            key = keys.owner(channel)
            yield Move((Condition(key, revision),), Put(key, keys.encode(ChannelOwner(node))))


def _placements(state: ClusterState) -> Iterable[Move]:
    for id, (collection, collection_revision) in state.collections.items():
        present, revision = state.placements.get(id, (None, Revision(0)))
        loaded = collection.loaded and not collection.dropped
        wanted = place(state.query_nodes, collection, present, state.ready) if loaded else None
        if wanted == present or (wanted is None and collection.loaded):
            continue
        key = keys.placement(id)
        conditions = (Condition(keys.collection(id), collection_revision), Condition(key, revision))
        yield Move(conditions, Delete(key) if wanted is None else Put(key, keys.encode(wanted)))
    for id, (_, revision) in state.placements.items():
        if id not in state.collections:
            yield Move((Condition(keys.placement(id), revision),), Delete(keys.placement(id)))
