"""What the metadata store says about collections: the catalog, as immutable values.

One ``Collection`` value holds all that DDL changes; it lives under one key, so one
compare-and-swap makes any change atomic. The time stamps are hybrid (``core.clock``).
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, ShardId
from core.schema import Schema

DEFAULT_DATABASE = "default"
DEFAULT_PARTITION = "_default"


class Consistency(IntEnum):
    """Numbers of the public protocol."""

    STRONG = 0
    SESSION = 1
    BOUNDED = 2
    EVENTUALLY = 3
    CUSTOMIZED = 4


@dataclass(frozen=True)
class Partition:
    id: PartitionId
    name: str
    created_ts: int


@dataclass(frozen=True)
class Shard:
    number: int
    channel: Channel


@dataclass(frozen=True)
class Index:
    """An index declaration. ``type`` and ``metric`` upper case; ``params`` as the client gave them
    (strings), without index_type and metric_type."""

    id: IndexId
    name: str
    field_id: FieldId
    type: str
    metric: str
    params: tuple[tuple[str, str], ...] = ()
    created_ts: int = 0


@dataclass(frozen=True)
class Collection:
    """One collection. ``loaded`` names the loaded partitions; empty = released.

    load_all: the collection as a whole was loaded, so new partitions are loaded too.
    """

    id: CollectionId
    database: str
    name: str
    schema: Schema
    shards: tuple[Shard, ...]
    partitions: tuple[Partition, ...]
    indexes: tuple[Index, ...] = ()
    consistency: Consistency = Consistency.BOUNDED
    properties: tuple[tuple[str, str], ...] = ()
    loaded: tuple[PartitionId, ...] = ()
    load_all: bool = False
    replicas: int = 1
    created_ts: int = 0
    updated_ts: int = 0
    dropped: bool = False
    """Dropped by DDL; the value stays until its objects are collected."""

    @cached_property
    def partition_by_name(self) -> dict[str, Partition]:
        return {p.name: p for p in self.partitions}

    @cached_property
    def partition_ids(self) -> frozenset[PartitionId]:
        return frozenset(p.id for p in self.partitions)

    @cached_property
    def index_by_field(self) -> dict[FieldId, Index]:
        return {i.field_id: i for i in self.indexes}

    @property
    def shard_ids(self) -> tuple[ShardId, ...]:
        return tuple(ShardId(self.id, s.number) for s in self.shards)


@dataclass(frozen=True)
class Replica:
    """One whole copy of a loaded collection in the memory of query nodes.

    nodes: its members, among which each leader spreads its shard's sealed segments.
    leaders: ``leaders[n]`` answers for shard n now.
    coming: ``coming[n]`` is to lead shard n; where it differs it loads the shard, and becomes the
    leader once it is ready or the present one is dead.
    """

    nodes: tuple[NodeId, ...]
    leaders: tuple[NodeId, ...]
    coming: tuple[NodeId, ...]


@dataclass(frozen=True)
class Placement:
    """The query nodes a loaded collection is on, replica by replica. No two replicas share a node."""

    collection: CollectionId
    replicas: tuple[Replica, ...]


@dataclass(frozen=True)
class ChannelOwner:
    """The data node that seals a channel. The owner's epoch is the revision of this key:
    every manifest commit of the owner is conditional on it.

    process: which one of that id, as it says itself when it takes the channel up; "" before. So two
    processes of one id, a paused one and its successor, never share an epoch."""

    node: NodeId
    process: str = ""


@dataclass(frozen=True)
class ChannelCheckpoint:
    """Everything of the channel before ``position`` is sealed or belongs to nobody."""

    position: int


@dataclass(frozen=True)
class Garbage:
    """Objects that no manifest names any more; they are deleted once ``not_before_ms`` is past."""

    objects: tuple[str, ...]
    not_before_ms: int


@dataclass(frozen=True)
class Cluster:
    """Identity of the store: written once, compared at every start."""

    id: str
    format: int


@dataclass(frozen=True)
class Adoption:
    """Says of a store that it is being filled from another one and must not be used yet.

    cluster: the identity it will have. source: the cluster id of the other. revision: of the other's
    metadata store when the copying began, or began again.
    """

    cluster: Cluster
    source: str
    revision: int
