"""The layout of the metadata store: every key, and the value kept under it."""

from collections.abc import Callable
from typing import Any, TypeVar

from core.catalog import Adoption, ChannelCheckpoint, ChannelOwner, Cluster, Collection, Garbage, Placement, Replica
from core.ids import Channel, CollectionId, NodeId, ShardId
from core.manifest import Manifest
from core.messages import from_message, to_message
from rpc.pb import catalog_pb2, manifest_pb2

T = TypeVar("T")

CLUSTER = "cluster"
CLUSTER_CREATING = "cluster_creating"
"""The identity a store is being created with (``storage.identity``)."""
ADOPTING = "adopting"
"""In a store that is being filled from another one; the key's revision is the epoch of who fills it."""
NEXT_ID = "next_id"
"""Decimal text: the first id not leased yet (``coordinator.ids``)."""
DEFINED = "defined"
"""Empty, written by every change of definitions (``Coordinator.change``): its revision is that of the last one."""
LEADER = "leader"
"""The leading coordinator's node id, bound to its lease."""

COLLECTIONS = "collections/"
NAMES = "names/"
MANIFESTS = "manifests/"
PLACEMENTS = "placements/"
OWNERS = "owners/"
CHECKPOINTS = "checkpoints/"
GARBAGE = "garbage/"
NODES = "nodes/"
DRAINS = "drains/"
CHANNEL_PINS = "pins/channel/"
SHARD_PINS = "pins/shard/"
PRESSURES = "pressures/"


def collection(id: CollectionId) -> str:
    return f"{COLLECTIONS}{id}"


def name(database: str, collection_name: str) -> str:
    """Holds the collection's id as decimal text: makes names unique."""
    return f"{NAMES}{database}/{collection_name}"


def manifest(shard: ShardId) -> str:
    return f"{MANIFESTS}{shard.collection}/{shard.number}"


def placement(id: CollectionId) -> str:
    return f"{PLACEMENTS}{id}"


def owner(channel: Channel) -> str:
    return f"{OWNERS}{channel}"


def checkpoint(channel: Channel) -> str:
    return f"{CHECKPOINTS}{channel}"


def garbage(id: int) -> str:
    return f"{GARBAGE}{id}"


def garbage_of(shard: ShardId, version: int, page: int) -> str:
    """What a version of a manifest no longer names. Versions rise, so the key is new."""
    return f"{GARBAGE}{shard}/{version}/{page}"


def node(role: str, id: NodeId) -> str:
    """Holds the node's address, bound to its lease. role: proxy, coordinator, querynode, ..."""
    return f"{NODES}{role}/{id}"


def drain(role: str, id: NodeId) -> str:
    """Its presence asks that the node gets nothing new and loses what it has. Written by an operator,
    or by a node that is about to end, bound to its registration's lease."""
    return f"{DRAINS}{role}/{id}"


def channel_pin(channel: Channel) -> str:
    """Holds the id of the data node that an operator wants to own the channel while it is usable."""
    return f"{CHANNEL_PINS}{channel}"


def shard_pin(shard: ShardId) -> str:
    """Holds the id of the query node that an operator wants to lead the shard while it is usable."""
    return f"{SHARD_PINS}{shard.collection}/{shard.number}"


def pressure(role: str, id: NodeId) -> str:
    """What a node that fills up says (``core.pressure``), bound to a lease; not there while all is well."""
    return f"{PRESSURES}{role}/{id}"


MESSAGES = {
    Collection: catalog_pb2.Collection,
    Placement: catalog_pb2.Placement,
    ChannelOwner: catalog_pb2.ChannelOwner,
    ChannelCheckpoint: catalog_pb2.ChannelCheckpoint,
    Garbage: catalog_pb2.Garbage,
    Cluster: catalog_pb2.Cluster,
    Adoption: catalog_pb2.Adoption,
    Manifest: manifest_pb2.Manifest,
}
"""The stored form of each value type; ``encode``/``decode`` below use it."""


def encode(value: object) -> bytes:
    """The stored bytes of a value of one of the types in ``MESSAGES``; of a string (a node's
    address, an id as decimal text) its UTF-8."""
    if isinstance(value, str):
        return value.encode()
    return to_message(value, MESSAGES[type(value)]).SerializeToString(deterministic=True)


def decode(cls: type[T], data: bytes) -> T:
    """The value its stored bytes hold."""
    if cls is str:
        return data.decode()  # type: ignore[return-value]  # T is str here
    read = _READERS.get(cls)
    return read(data) if read else from_message(cls, MESSAGES[cls].FromString(data))


def _read_placement(data: bytes) -> Placement:
    message = catalog_pb2.Placement.FromString(data)
    if message.replicas:
        return from_message(Placement, message)
    old = catalog_pb2.PlacementV1.FromString(data)
    leaders = tuple(map(NodeId, old.leaders))
    replica = Replica(tuple(sorted(set(leaders))), leaders, leaders)
    return Placement(CollectionId(old.collection), (replica,) if leaders else ())


_READERS: dict[type, Callable[[bytes], Any]] = {Placement: _read_placement}
"""Of values whose present form is not the only one in stores."""
