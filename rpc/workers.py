"""What the leader of a shard asks the nodes that hold a share of its sealed segments.

The leader alone decides who holds what, and answers for the whole; a worker opens what it is told
to hold and searches it. All the kills a leader's shards meet go to a worker in one stream of
numbered ``Forward`` messages, sent one at a time and in order. A read names the last message it
depends on and waits for it: so it sees every kill below its frontier, however the messages between
two nodes overtake each other (DESIGN section 5, "Deletes on sealed segments").

What a worker holds for a leader lives in a session: it ends when the leader opens the next one or
is silent for ``SESSION_TTL_S``. Nothing of it is stored.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from core.catalog import Collection
from core.ids import NodeId, Position, SegmentId, ShardId
from core.manifest import Segment, TombstoneFile
from rpc.newest import Prepared
from rpc.reads import QueryReply, QueryRequest, SearchReply, SearchRequest

SESSION_TTL_S = 10.0
"""A worker lets go of what it holds for a leader that sent nothing for this long. A leader that has
nothing to send sends an empty ``Forward`` much more often."""


class Session(NamedTuple):
    """One connection's life between a leader and a worker. ``life`` is unique for ever."""

    leader: NodeId
    life: str


class Room(NamedTuple):
    """Memory of a node for sealed segments: bytes that are free, and all there is."""

    free: int
    limit: int


@dataclass(frozen=True, slots=True)
class Kills:
    """Keys ended by records of one shard. keys: int64 or string [n]; positions: int64 [n], those of
    the records; a kill ends the rows of its key with a smaller position."""

    shard: ShardId
    keys: pa.Array
    positions: np.ndarray


@dataclass(frozen=True, slots=True)
class Release:
    """Segments of a shard that no view of its leader needs any more."""

    shard: ShardId
    segments: tuple[SegmentId, ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """The next message of a session's stream. Repeating one that was applied changes nothing.

    number: 0 opens the session and ends older ones of the same leader; then 1, 2, ... The stream is
    the leader's sign of life, so it may be empty. kills are applied before segments are released.
    """

    session: Session
    number: int
    kills: tuple[Kills, ...] = ()
    releases: tuple[Release, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Segments to open, with the indexes their manifest names, and keep.

    A segment already held gets the indexes it lacks. ``shard_number`` is that of the collection.
    after: number of the message that must have been applied first.
    tombstones: the manifest's files that may reach one of the segments.
    kills: of the log since the manifest's checkpoint, as far as the leader has applied it; None =
    none. Later ones follow by ``Forward`` once the worker has answered.
    replaced_bytes: memory of segments held here for the leader that are released once these are open.
    """

    session: Session
    after: int
    collection: Collection
    shard_number: int
    segments: tuple[Segment, ...]
    tombstones: tuple[TombstoneFile, ...] = ()
    kills: Kills | None = None
    replaced_bytes: int = 0

    @property
    def shard(self) -> ShardId:
        return ShardId(self.collection.id, self.shard_number)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a read that one worker answers: these segments, as a view at ``frontier`` sees them.

    after: number of the last message the answer depends on; it is waited for, within the deadline of
    the request. The request's consistency and snapshot are the leader's affair.
    """

    session: Session
    after: int
    segments: tuple[SegmentId, ...]
    frontier: Position


@dataclass(frozen=True, slots=True)
class SearchShare(Share):
    """request: without ``group_by``: the leader chooses groups from whole rows."""

    request: SearchRequest

    @property
    def shard(self) -> ShardId:
        return self.request.shard_id


@dataclass(frozen=True, slots=True)
class QueryShare(Share):
    request: QueryRequest

    @property
    def shard(self) -> ShardId:
        return self.request.shard_id


@dataclass(frozen=True, slots=True)
class SearchShareReply:
    """places: int32 [sum(counts)], of each row the place of its segment in ``Share.segments``: among
    rows of equal score the order of segments decides, whoever holds them (invariant 7)."""

    reply: SearchReply
    places: np.ndarray


class PreparedShare(Prepared, Protocol):
    """A share of a search of which only the vectors are still unknown."""

    @property
    def queries_max(self) -> int:
        """As of ``rpc.reads.PreparedSearch``."""
        ...

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchShareReply | None]:
        """As of ``rpc.reads.PreparedSearch``."""
        ...


class Worker(Protocol):
    """Implemented by every query node. All raise ``NotHeld`` for a session or segment that is not
    there (any more), and ``Unavailable`` when the node is lost; shares of a read ``Timeout`` at its deadline."""

    async def forward(self, message: Forward) -> Room:
        """Applied when it returns; tells how much the node can still hold."""
        ...

    async def hold(self, hold: Hold) -> None:
        """Returns when all are open and can be searched. May take as long as reading the files does.
        Raises what opening them does (``Corrupted``, ``ObjectNotFound``), and ``MemoryFull``."""
        ...

    def search_share_at_once(self, share: SearchShare) -> SearchShareReply | None:
        """As ``search_share``; None when it has to be asked. Call it on the event loop. A node at the other end of a
        connection always says None."""
        ...

    def prepare_share(self, share: SearchShare) -> PreparedShare | None:
        """What is known of a share before its vectors are; None when the worker has to be asked. Any thread."""
        ...

    def search_share(self, share: SearchShare) -> Awaitable[SearchShareReply]:
        """A node at the other end of a connection is on its way to know when this returns: what the caller does
        meanwhile, both do at the same time."""
        ...

    def query_share(self, share: QueryShare) -> Awaitable[QueryReply]:
        """The matching rows in key order, at most ``limit``. The rest as ``search_share``."""
        ...


FindWorker = Callable[[NodeId], Worker]
"""Raises ``Unavailable`` when the node is not known (any more)."""
