"""The state of one shard, changed only by log records and hand-offs. No I/O here.

Guarantees (numbers are those of ARCHITECTURE.md's invariants):
 4. ``view`` gives readers one immutable state.
 6. of a primary key at most one row is visible: every record ends the older rows of its keys in
    sealed and growing rows alike, before its own rows appear.
 7. the state is a function of (manifest, records up to the frontier): records before ``applied``
    are ignored, so delivery may repeat.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from core.catalog import Collection
from core.errors import SheafError
from core.ids import PartitionId, Position, SegmentId, ShardId
from core.manifest import Manifest
from querynode import keys as pk
from querynode.growing import Growing
from querynode.interim import FrozenBlocks
from querynode.links import RemoteSegment
from querynode.sealed import SealedSegment
from querynode.view import PINS_MAX, Pins, View
from querynode.waiting import Signal
from rpc.workers import Kills
from storage.record import BARRIER, DELETE, INSERT, Record


class TailKills:
    """Keys ended by records since the manifest's checkpoint: segments loaded later need them."""

    def __init__(self) -> None:
        self._records: list[tuple[Position, pk.Keys]] = []

    def add(self, position: Position, keys: pk.Keys) -> None:
        if len(keys):
            self._records.append((position, keys))

    def drop(self, before: Position) -> None:
        self._records = [r for r in self._records if r[0] >= before]

    def since(self, start: Position) -> tuple[pk.Keys, np.ndarray] | None:
        """(keys, positions int64) of the records from ``start`` on; None when there are none."""
        records = [r for r in self._records if r[0] >= start]
        if not records:
            return None
        positions = np.repeat([p for p, _ in records], [len(k) for _, k in records])
        return pk.concat([k for _, k in records]), positions


class ShardState:
    """Sealed segments, growing rows and the position they are true at.

    applied: every record of this shard before it is in the state. frontier: as far as the channel is
    known to be consumed, at least ``applied``.
    ready: it once was as far as the log was when loading began. unloadable: why its manifest can't be
    loaded.
    changed: fires when any of these may have changed; the frontier has ``Consumed.moved``.
    """

    def __init__(self, collection: Collection, number: int, session_ttl_s: float) -> None:
        self.id = ShardId(collection.id, number)
        self.channel = next(s.channel for s in collection.shards if s.number == number)
        self.changed = Signal()
        self._known: set[PartitionId] = set()
        self.describe(collection)
        self.pins = Pins(session_ttl_s)
        self.consumed = Consumed(Position(0))
        self.released = False
        self.unloadable: SheafError | None = None
        self.reset(Position(0))

    def follow(self, consumed: "Consumed") -> None:
        """From now on that reader of the channel feeds the shard."""
        previous, self.consumed = self.consumed, consumed
        previous.moved.notify()

    def release(self) -> None:
        """The shard is no longer placed here: whoever waits for it is told."""
        self.released = True
        self.changed.notify()
        self.consumed.moved.notify()

    def describe(self, collection: Collection) -> None:
        """The catalog's newest word on the collection."""
        self.collection, self.loaded = collection, frozenset(collection.loaded)
        self._known.update(collection.partition_ids)
        self.changed.notify()

    def reset(self, start: Position) -> None:
        """Forgets all but the pinned views; the state will be that of a manifest and the log from
        ``start`` on."""
        self.manifest = Manifest(self.id.collection, self.id.number)
        self.partitions: frozenset[PartitionId] = frozenset()
        self.sealed: dict[SegmentId, SealedSegment] = {}
        self.remote: dict[SegmentId, RemoteSegment] = {}
        self.growing = Growing(self.collection.schema)
        self.kills = TailKills()
        self.applied = start
        self.ready = False
        # Barriers consumed while partitions are loading: the next swap completes their views.
        self._unfixed: list[tuple[int, Position]] = []
        self._view: View | None = None

    @property
    def failure(self) -> SheafError | None:
        """What keeps the shard from getting ready, or further: its files, or the log."""
        return self.unloadable or self.consumed.failure

    @property
    def frontier(self) -> Position:
        return max(self.applied, self.consumed.frontier)

    @property
    def view(self) -> View:
        """The newest state."""
        if self._view is None:
            self._view = self._view_at(self.frontier)
        return self._view

    @property
    def made_view(self) -> View | None:
        """The newest state, if a read on the event loop has already asked for it. Any thread may ask."""
        return self._view

    def _view_at(self, frontier: Position) -> View:
        return View(
            self.manifest.version,
            frontier,
            partitions=self.partitions,
            known=self.collection.partition_ids,
            sealed=tuple(self.sealed.values()),
            growing=self.growing,
            remote=tuple(self.remote.values()),
            order=tuple(s.id for s in self.manifest.segments) if self.remote else (),
        )

    def apply(self, position: Position, record: Record) -> None:
        """Consumes the next record of the shard; one already consumed is ignored."""
        if position < self.applied:
            return
        self.applied = position
        batch = record.batch
        if record.kind == BARRIER:
            self._fix(record.timestamp, position)
        elif batch is not None:
            name = "pk" if record.kind == DELETE else self.collection.schema.primary.name
            keys = pk.keys_of(pk.owned(batch.column(name)))
            if record.kind != INSERT:
                self._kill(keys, position)
            if record.kind == DELETE:
                self.growing.kill(pk.to_list(keys), position)
            else:
                self.growing.append(record.partition, batch, position)
            self._view = None
        self.applied = Position(position + 1)

    def _fix(self, timestamp: int, position: Position) -> None:
        self.pins.add(timestamp, self.view)
        if not self.covers(self.loaded) and len(self._unfixed) < PINS_MAX:
            self._unfixed.append((timestamp, position))

    def _kill(self, keys: pk.Keys, position: Position) -> None:
        if not len(keys):
            return
        self.kills.add(position, keys)
        first, last = pk.span(keys)
        for segment in self.sealed.values():
            if segment.first <= last and first <= segment.last:
                segment.kill(keys, position)
        for link in {r.link for r in self.remote.values() if r.may_hold(first, last)}:
            link.kill(Kills(self.id, pk.to_arrow(keys), np.full(len(keys), position)))

    def swap(
        self,
        manifest: Manifest,
        partitions: frozenset[PartitionId],
        kept: Mapping[SegmentId, SealedSegment],
        opened: Iterable[SealedSegment],
        killed_before: Position,
        *,
        remote: Mapping[SegmentId, RemoteSegment] = MappingProxyType({}),
    ) -> None:
        """The hand-off: the new manifest's segments take the place of the growing rows they hold.

        opened: segments with the kills of the manifest's tombstones, and of the tail up to
        ``killed_before``; so have those of ``remote`` that are new, on their workers. Running reads
        keep the view they pinned.
        """
        assert manifest.version >= self.manifest.version, "manifests only move on"
        assert manifest.checkpoint <= self.frontier, "no record between checkpoint and frontier is missed (invariant 4)"
        late = self.kills.since(killed_before)
        held = dict(kept)
        for segment in opened:
            if late:
                segment.kill(*late)
            held[segment.id] = segment
        # In the manifest's order, however they came here: it decides between equal scores (invariant 7).
        self.sealed = {s.id: held[s.id] for s in manifest.segments if s.id in held}
        if late:
            for link in {r.link for id, r in remote.items() if self.remote.get(id) is not r}:
                link.kill(Kills(self.id, pk.to_arrow(late[0]), late[1]))
        self.remote = {s.id: remote[s.id] for s in manifest.segments if s.id in remote}
        self.growing.drop(manifest.checkpoint)
        self.kills.drop(manifest.checkpoint)
        self.applied = max(self.applied, manifest.checkpoint)
        self.manifest, self.partitions = manifest, partitions
        self._view = None
        for timestamp, position in self._unfixed:
            if position >= manifest.checkpoint:
                self.pins.add(timestamp, self._view_at(position))
        self._unfixed.clear()
        # What is sealed below their frontier was so when they were made, or is not needed by them.
        self.pins.mend(self._view_at, manifest.checkpoint)
        self.changed.notify()

    def freeze(self, frozen: FrozenBlocks) -> None:
        """Reads from now on use these interim indexes."""
        self.growing.freeze(frozen)
        self._view = None

    def covers(self, partitions: Iterable[PartitionId]) -> bool:
        """Whether all of these that are to be loaded are."""
        return self.partitions.issuperset(partitions) or self.partitions.issuperset(
            self.loaded.intersection(partitions)
        )

    def excludes(self, partitions: tuple[PartitionId, ...]) -> bool:
        """Whether the catalog seen here has one of these and does not load it."""
        return len(self.readable(partitions)) < len(partitions)

    def readable(self, partitions: tuple[PartitionId, ...]) -> tuple[PartitionId, ...]:
        """Those that are loaded, or newer than the catalog seen here."""
        if self.loaded.issuperset(partitions):
            return partitions
        return tuple(p for p in partitions if p in self.loaded or p not in self._known)

    def wanted(self, manifest: Manifest) -> frozenset[PartitionId]:
        """Partitions to load: the loaded ones, and those newer than the catalog seen here."""
        return self.loaded.union({s.partition for s in manifest.segments} - self._known)


class Consumed:
    """How far a channel is consumed, and when that was last known to be its end."""

    def __init__(self, frontier: Position) -> None:
        self.frontier = frontier
        self.moved = Signal()
        self.at_end_s = float("-inf")
        """``time.monotonic()`` of a moment at which everything then in the log was consumed."""
        self.failure: SheafError | None = None

    def was_at_end(self, end: Position, asked_s: float) -> None:
        """At ``asked_s`` the log ended at ``end`` or before it."""
        if self.frontier >= end:  # a shard alone may be ahead of its channel
            self.at_end_s = max(self.at_end_s, asked_s)
