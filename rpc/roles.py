"""One Protocol per role. The caller can't tell whether it holds the role itself or a connection.

All raise errors of ``core.errors``; a lost node is ``Unavailable``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.catalog import Consistency, Index
from core.ids import CollectionId, FieldId, IndexId, NodeId, PartitionId, Revision, SegmentId, ShardId
from core.manifest import IndexFile, ObjectRef
from core.schema import Schema
from core.types import DataType
from rpc.reads import PreparedSearch, QueryReply, QueryRequest, SearchReply, SearchRequest, ShardStatus


# --- catalog changes (DDL): what a proxy asks, decided by pure functions in coordinator/changes.py
@dataclass(frozen=True, slots=True)
class CreateCollection:
    """Same name with the same schema = success without a change; field ids in ``schema`` are 0 and
    get assigned, so are those of the dynamic field."""

    database: str
    name: str
    schema: Schema
    shards: int = 1
    partitions: int = 0
    """Number of partitions of a partition-key collection; 0 = one, ``_default``."""
    consistency: Consistency = Consistency.BOUNDED
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DropCollection:
    """An unknown name is success."""

    database: str
    name: str


@dataclass(frozen=True, slots=True)
class CreatePartition:
    database: str
    collection: str
    name: str


@dataclass(frozen=True, slots=True)
class DropPartition:
    """An unknown partition is success; a loaded one is refused."""

    database: str
    collection: str
    name: str


@dataclass(frozen=True, slots=True)
class Load:
    """partitions: names; empty = the whole collection. Every vector field needs an index.
    replicas: 0 = as many as are loaded, else one."""

    database: str
    collection: str
    partitions: tuple[str, ...] = ()
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    database: str
    collection: str
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """name "" = the field's name; type "" = AUTOINDEX. The same declaration again is success."""

    database: str
    collection: str
    field: str
    name: str = ""
    type: str = ""
    metric: str = ""
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DropIndex:
    database: str
    collection: str
    name: str


CatalogChange = (
    CreateCollection | DropCollection | CreatePartition | DropPartition | Load | Release | CreateIndex | DropIndex
)


@dataclass(frozen=True, slots=True)
class CompactionState:
    """State of the compaction a ``compact`` call started."""

    executing: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Rows of sealed segments that have (or, being few, need) no index and those that wait for one."""

    index: Index
    indexed_rows: int
    total_rows: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """rows: sealed, per partition, deletes not subtracted (as Milvus counts them)."""

    rows: dict[PartitionId, int] = field(default_factory=dict)


class Coordinator(Protocol):
    async def change(self, change: CatalogChange) -> Revision:
        """Carries out a DDL change; returns the revision at which the catalog shows it."""
        ...

    async def defined(self) -> Revision:
        """That of the last change of definitions that anyone committed before the call, leading or not."""
        ...

    async def lease_ids(self, count: int) -> range:
        """Ids that nobody else ever gets."""
        ...

    async def load_progress(self, collection: CollectionId, partitions: Sequence[PartitionId]) -> int:
        """Percent of what is to be loaded that query nodes serve; 100 = searchable. Raises
        ``LoadFailed`` when what is stored keeps a shard from ever being served."""
        ...

    async def flush(self, collection: CollectionId, timestamp: int) -> dict[ShardId, list[SegmentId]]:
        """Seals every row in the log at the time of the call; returns when the manifests show it.
        ``timestamp`` is kept as the manifests' ``flushed_ts``. Gives the segments each shard got."""
        ...

    async def flushed(self, collection: CollectionId, timestamp: int) -> bool:
        """Whether a flush with this time stamp is done for all shards."""
        ...

    async def compact(self, collection: CollectionId) -> int:
        """Starts a compaction of all shards; its id."""
        ...

    async def compaction_state(self, id: int) -> CompactionState: ...

    async def index_progress(self, collection: CollectionId) -> list[IndexProgress]: ...

    async def stats(self, collection: CollectionId) -> CollectionStats: ...

    async def report_bad_index(self, shard: ShardId, segment: SegmentId, object_name: str) -> None:
        """Told that an index object can't be read: it is dropped from the manifest and built again."""
        ...


class DataNode(Protocol):
    async def flush(self, shards: Sequence[ShardId], timestamp: int) -> dict[ShardId, list[SegmentId]]:
        """As ``Coordinator.flush`` for shards of channels this node owns; ``Fenced`` for others."""
        ...

    async def compact(self, shard: ShardId) -> int:
        """Compacts a shard until there is nothing more to gain; the number of merges done."""
        ...


@dataclass(frozen=True, slots=True)
class IndexTask:
    """Build one index over one vector column of one stored segment.

    target: name of the object to write. params: as in the index declaration.
    """

    source: ObjectRef
    column: str
    column_type: DataType
    dim: int
    field_id: FieldId
    index_id: IndexId
    type: str
    metric: str
    params: tuple[tuple[str, str], ...]
    target: str


class IndexNode(Protocol):
    async def build(self, task: IndexTask) -> IndexFile:
        """Builds and stores the index object; durable when it returns."""
        ...


class QueryNode(Protocol):
    async def search(self, request: SearchRequest) -> SearchReply:
        """Waits for the shard to be ready and for the consistency asked for, within the deadline.
        ``CollectionNotLoaded`` if the shard is not placed here."""
        ...

    def prepare(self, request: SearchRequest) -> PreparedSearch | None:
        """The request's search without its queries (they may be empty), ready to be run by any thread;
        None when each one has to be asked by ``search``, as where a single query is no short work. A node
        at the other end of a connection always says None."""
        ...

    async def query(self, request: QueryRequest) -> QueryReply: ...

    async def shards(self) -> list[ShardStatus]: ...


class Nodes(Protocol):
    """Finds the roles' instances: a dict in one process, connections in a cluster."""

    def query_node(self, id: NodeId) -> QueryNode:
        """Raises ``Unavailable`` when the node is not known (any more)."""
        ...

    def data_node(self, id: NodeId) -> DataNode: ...

    def index_nodes(self) -> Sequence[IndexNode]: ...
