"""The manifest of a shard: the immutable files that, with the log from the checkpoint on, are its state.

Guarantees (numbers are those of ARCHITECTURE.md's invariants):
 2. manifest and checkpoint move together: they are one value under one key.
 3. an object is visible only if a manifest names it; names are never reused.
 6. within one segment a primary key occurs once; rows are sorted by primary key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from core.ids import CollectionId, FieldId, IndexId, PartitionId, Position, SegmentId, ShardId


@dataclass(frozen=True)
class ObjectRef:
    """An object of the object store; ``digest`` is xxh3-64 of its bytes, checked when it is opened."""

    name: str
    bytes: int
    digest: int


@dataclass(frozen=True)
class IndexFile:
    """An index over one vector field of one segment. ``engine`` names library and version.

    A cache: unreadable, missing or of an unknown engine, it is dropped and built again.
    """

    field_id: FieldId
    index_id: IndexId
    object: ObjectRef
    engine: str


@dataclass(frozen=True)
class FieldStats:
    """Bounds of a scalar field in a segment as JSON values; "" where there are none."""

    field_id: FieldId
    min: str
    max: str
    nulls: int


@dataclass(frozen=True)
class Segment:
    """Immutable rows of one shard and partition. Positions: ``min_position <= p <= max_position``."""

    id: SegmentId
    partition: PartitionId
    object: ObjectRef
    rows: int
    min_position: Position
    max_position: Position
    stats: tuple[FieldStats, ...] = ()
    indexes: tuple[IndexFile, ...] = ()
    schema_version: int = 1

    @cached_property
    def index_by_field(self) -> dict[FieldId, IndexFile]:
        return {i.field_id: i for i in self.indexes}


@dataclass(frozen=True)
class TombstoneFile:
    """Parquet (pk, position): every older row of pk in an older segment is dead.

    A tombstone reaches the segments with ``min_position`` below its own position.
    """

    object: ObjectRef
    rows: int
    min_position: Position
    max_position: Position


@dataclass(frozen=True)
class Manifest:
    """checkpoint: exclusive; every record of this shard before it is in the files named here.

    flushed_ts: hybrid time stamp up to which Flush was asked for and done.
    """

    collection: CollectionId
    shard: int
    version: int = 0
    checkpoint: Position = Position(0)
    segments: tuple[Segment, ...] = ()
    tombstones: tuple[TombstoneFile, ...] = ()
    flushed_ts: int = 0

    @property
    def shard_id(self) -> ShardId:
        return ShardId(self.collection, self.shard)

    @cached_property
    def segment_by_id(self) -> dict[SegmentId, Segment]:
        return {s.id: s for s in self.segments}

    def objects(self) -> Iterable[ObjectRef]:
        """Every object this manifest keeps alive."""
        for segment in self.segments:
            yield segment.object
            yield from (i.object for i in segment.indexes)
        yield from (t.object for t in self.tombstones)

    def bump(self, **changes: object) -> "Manifest":
        """The next version, with the changes."""
        return replace(self, version=self.version + 1, **changes)  # type: ignore[arg-type]  # any field
