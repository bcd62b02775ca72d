"""What a proxy asks a query node, and what it answers: one shard, one view, one reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from core.catalog import Consistency
from core.ids import CollectionId, FieldId, NodeId, PartitionId, SegmentId, ShardId
from rpc.newest import Prepared

INLINE_SHARE_MAX = 4


@dataclass(frozen=True, slots=True)
class Read:
    """Common part of every read of one shard.

    partitions: the partitions to read, never empty; the proxy names them all when the client named none.
    filter: text in the filter language, "" = all rows; filter_params: values of its ``{name}`` templates.
    output: names of fields to return, in order; the primary key need not be among them.
    snapshot_ts: time stamp of a barrier to read exactly at; 0 = now, as ``consistency`` says.
    deadline: ``time.monotonic()`` value after which nobody waits for the answer.
    """

    collection: CollectionId
    shard: int
    partitions: tuple[PartitionId, ...]
    filter: str = ""
    filter_params: dict[str, Any] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    consistency: Consistency = Consistency.BOUNDED
    snapshot_ts: int = 0
    deadline: float = float("inf")

    @property
    def shard_id(self) -> ShardId:
        return ShardId(self.collection, self.shard)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest(Read):
    """Nearest rows of each query.

    queries: float32 [nq, dim], or uint8 [nq, dim/8] for binary vectors; C-contiguous.
    metric: upper case; equal to that of the field's index.
    k: rows wanted per query (offset included by the proxy).
    params: index parameters of the request (``ef``, ``nprobe``, ...) as numbers.
    radius, range_filter: bounds on the score as Milvus defines them (radius is the far bound and
        excluded, range_filter the near bound and included); None = unbounded.
    group_by: field whose values may occur ``group_size`` times per query; "" = off.
    sizes: how many queries are of each of the requests that are asked as one, () = it is one. Which others
        a request is asked with changes nothing about its answer (invariant 7).
    """

    field_id: FieldId
    queries: np.ndarray
    metric: str
    k: int
    params: dict[str, float] = field(default_factory=dict)
    radius: float | None = None
    range_filter: float | None = None
    group_by: str = ""
    group_size: int = 1
    sizes: tuple[int, ...] = ()


def inline_share(requests: int) -> int:
    """How many times as long as one request so many that are asked as one may keep the event loop: one by
    one they would keep it, too, but with breaks."""
    return min(max(requests, 1), INLINE_SHARE_MAX)


def is_short(queries: int, requests: int, queries_max: int) -> bool:
    """Whether so many queries of so many requests that are asked as one may run on the event loop, where
    ``queries_max`` of one may."""
    return queries <= queries_max * inline_share(requests)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of an answer: ``pks`` int64 or string [n]; ``columns`` the output fields, each [n]."""

    pks: pa.Array
    columns: dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class SearchReply:
    """counts: int64 [nq], rows of each query, best first; scores: float32 [sum(counts)], as the
    client sees them (L2 squared, HAMMING, JACCARD: smaller is better; IP, COSINE: larger);
    groups: the group_by values [sum(counts)] when asked for."""

    counts: np.ndarray
    scores: np.ndarray
    rows: Rows
    groups: pa.Array | None = None


class PreparedSearch(Prepared, Protocol):
    """A search over one view of a shard of which only the vectors are still unknown."""

    @property
    def queries_max(self) -> int:
        """How many queries a request may have for the answer to be short work."""
        ...

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchReply | None]:
        """As ``QueryNode.search`` with these queries, by the calling thread (any thread), which has to call what this
        returns for the answer: None when the node has to be asked after all. A node at the other end of a connection
        searches meanwhile. sizes: as in ``SearchRequest``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest(Read):
    """Rows by filter, in primary key order, at most ``limit`` of them (None = all).

    count_only: the reply has the number of matching rows and no row.
    """

    limit: int | None = None
    count_only: bool = False


@dataclass(frozen=True, slots=True)
class QueryReply:
    count: int
    rows: Rows


class ShardPhase(IntEnum):
    LOADING = 1
    READY = 2


@dataclass(frozen=True, slots=True)
class Holder:
    """The sealed segments of a shard that one worker holds; bytes of memory they take."""

    node: NodeId
    segments: tuple[SegmentId, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """State of one shard on the query node that leads it.

    sealed_rows: wherever they are held. bytes: memory taken on this node. failure: why the shard
    can't be loaded, "" while it may be. holders: the other nodes that hold a share of it.
    """

    shard: ShardId
    phase: ShardPhase
    manifest_version: int
    frontier: int
    sealed_rows: int
    growing_rows: int
    bytes: int
    failure: str = ""
    holders: tuple[Holder, ...] = ()
