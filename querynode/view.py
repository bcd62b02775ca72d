"""What a reader pins for its whole request (invariant 4): segments, growing rows, a frontier."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from core.ids import FieldId, PartitionId, Position, SegmentId
from core.schema import Field
from engine.vector.index import VectorIndex
from engine.vector.metric import Metric
from querynode import keys as pk
from querynode.block import BLOCK_ROWS, Block, BlockView
from querynode.growing import Growing
from querynode.links import RemoteSegment
from querynode.sealed import SealedSegment

PINS_MAX = 1024
"""Views held for iterators and snapshots of one shard; the least recently used goes first."""


class PartData(Protocol):
    """Rows of one partition, numbered 0 .. rows-1: a sealed segment or a stretch of growing rows.

    ordered: they lie in primary key order.
    """

    ordered: bool
    partition: PartitionId
    rows: int

    @property
    def keys(self) -> pk.Keys: ...
    def visible(self, frontier: int) -> np.ndarray | None: ...
    def column(self, name: str) -> pa.Array: ...
    def vectors(self, field: Field) -> np.ndarray: ...
    def index(self, field: Field) -> VectorIndex | None: ...
    def exact(self, field: Field, metric: Metric) -> VectorIndex | None: ...
    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]: ...
    def resident(self, field: Field) -> bool: ...
    def take(self, field: Field, rows: np.ndarray) -> pa.Array: ...


class Part(NamedTuple):
    """Rows and which of them the view sees: bool [rows], None = all."""

    data: PartData
    visible: np.ndarray | None

    @property
    def live(self) -> int:
        return self.data.rows if self.visible is None else int(np.count_nonzero(self.visible))


class View:
    """One state of a shard: a manifest version and a frontier. Never changes; same view, same answer
    (invariant 7). What it holds lives as long as it does (invariant 5)."""

    def __init__(
        self,
        version: int,
        frontier: Position,
        *,
        partitions: frozenset[PartitionId],
        known: frozenset[PartitionId],
        sealed: tuple[SealedSegment, ...],
        growing: Growing,
        remote: tuple[RemoteSegment, ...] = (),
        order: tuple[SegmentId, ...] = (),
    ) -> None:
        """partitions: those it holds; known: those the catalog named when it was made. The growing
        rows may be ahead of the frontier, but have lost nothing since. order: of all segments, where
        some are on other nodes."""
        self.version, self.frontier, self.partitions, self.known = version, frontier, partitions, known
        self.sealed, self.remote, self.order = sealed, remote, order
        self._growing = growing
        # By partition, whichever was written to first: the order decides between equal scores (invariant 7).
        blocks = (b for _, held in sorted(growing.blocks.items()) for b in held)
        self._blocks = [BlockView(b, n) for b in blocks if (n := b.before(frontier))]
        newest = sum(b.rows for b in self._blocks) == growing.rows
        self._changes = growing.changes if newest else -1
        self._frozen = [f for f in growing.frozen.values() if f.blocks[-1].before(frontier) == BLOCK_ROWS]
        self.searches: dict[tuple[Any, ...] | None, Any] = {}
        """What was prepared over it, by shape, within a bound. Any thread may add to it."""
        self._parts: dict[tuple[tuple[PartitionId, ...], FieldId | None], list[Part]] = {}

    @cached_property
    def place(self) -> dict[SegmentId, int]:
        """Where in ``order`` each segment is."""
        return {id: n for n, id in enumerate(self.order)}

    @property
    def lost(self) -> RemoteSegment | None:
        """A segment whose worker is lost: the view can't be read any more."""
        return next((r for r in self.remote if r.link.failure), None)

    def lacks(self, partitions: Iterable[PartitionId]) -> bool:
        """Whether one of these partitions existed, but was not loaded."""
        return any(p in self.known and p not in self.partitions for p in partitions)

    def parts(self, partitions: tuple[PartitionId, ...], indexed: FieldId | None = None) -> list[Part]:
        """The rows of these partitions. Growing rows with an interim index over the field ``indexed``
        come as one part instead of as their blocks. Call it on the event loop."""
        found = self._parts.get((partitions, indexed))
        if found is None:
            found = [Part(d, d.visible(self.frontier)) for d in self._rows(frozenset(partitions), indexed)]
            self._parts[partitions, indexed] = found
        return found

    def made_parts(self, partitions: tuple[PartitionId, ...], indexed: FieldId | None) -> list[Part] | None:
        """As ``parts``, if they were asked for before; else None. Any thread may ask."""
        return self._parts.get((partitions, indexed))

    def _rows(self, partitions: frozenset[PartitionId], indexed: FieldId | None) -> Iterable[PartData]:
        yield from (s for s in self.sealed if s.partition in partitions)
        covered: set[Block] = set()
        for frozen in self._frozen:
            if indexed in frozen.indexes and frozen.partition in partitions:
                covered.update(frozen.blocks)
                yield frozen
        yield from (b for b in self._blocks if b.partition in partitions and b.block not in covered)

    def locate(self, parts: list[Part], keys: pk.Keys) -> list[np.ndarray | None]:
        """For each part the rows, int64, that may hold these keys; None when only a scan can tell.
        Call it on the event loop."""
        # Once the growing rows moved on, their newest row of a key need not be the one seen here.
        current = self._changes == self._growing.changes
        newest = {id(block): rows for block, rows in self._growing.locate(pk.to_list(keys))} if current else {}
        first, last = pk.span(keys) if len(keys) else (None, None)
        rows: list[np.ndarray | None] = []
        for data, _ in parts:
            if isinstance(data, SealedSegment):
                apart = first is None or data.last < first or last < data.first
                rows.append(np.empty(0, np.int64) if apart else pk.find(data.keys, keys)[0])
            elif current and isinstance(data, BlockView):
                rows.append(newest.get(id(data.block), np.empty(0, np.int64)))
            else:
                rows.append(None)
        return rows


class Pins:
    """Views held under the time stamp of the barrier that fixed them, for a while since last use."""

    def __init__(self, ttl_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s, self._now = ttl_s, now
        self._held: OrderedDict[int, tuple[View, float]] = OrderedDict()

    def add(self, timestamp: int, view: View) -> None:
        self._held[timestamp] = (view, self._now())
        self.expire()
        while len(self._held) > PINS_MAX:
            self._held.popitem(last=False)

    def use(self, timestamp: int) -> View | None:
        """The view of this barrier, held anew."""
        found = self._held.get(timestamp)
        if found is None:
            return None
        self._held[timestamp] = (found[0], self._now())
        self._held.move_to_end(timestamp)
        return found[0]

    def mend(self, view_at: Callable[[Position], View], oldest: Position) -> None:
        """Makes those anew that lost a worker and are not older than that frontier."""
        for timestamp, (view, used_s) in self._held.items():
            if view.lost and view.frontier >= oldest:
                self._held[timestamp] = (view_at(view.frontier), used_s)

    def expire(self) -> None:
        """Lets go of views not used for longer than the time allowed."""
        oldest_allowed = self._now() - self._ttl_s
        while self._held and next(iter(self._held.values()))[1] < oldest_allowed:
            self._held.popitem(last=False)

    def __len__(self) -> int:
        return len(self._held)
