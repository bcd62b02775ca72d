"""Which indexes are missing, what DDL left behind, and how manifests change when one comes or goes. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from core.catalog import Collection, Index
from core.ids import IndexId, PartitionId, SegmentId, ShardId
from core.manifest import IndexFile, Manifest, Segment
from core.schema import Field
from rpc.roles import IndexTask
from storage import names

EXACT_TYPES = frozenset({"FLAT", "BIN_FLAT"})
"""Declarations that ask for exact search: the segment's own vectors are all it takes."""


@dataclass(frozen=True)
class Build:
    """One index that is declared and not there."""

    shard: ShardId
    segment: Segment
    index: Index
    field: Field

    @property
    def key(self) -> tuple[SegmentId, IndexId]:
        return self.segment.id, self.index.id

    def task(self, id: int) -> IndexTask:
        """What an index node is asked; ``id`` is fresh and makes the target's name unique."""
        return IndexTask(
            source=self.segment.object,
            column=self.field.name,
            column_type=self.field.type,
            dim=self.field.dim,
            field_id=self.field.id,
            index_id=self.index.id,
            type=self.index.type,
            metric=self.index.metric,
            params=self.index.params,
            target=names.index(self.segment.object.name, self.index.id, id),
        )


def indexed(segment: Segment, index: Index, rows_min: int) -> bool:
    """Whether a segment has an index, or needs none: few rows are searched exactly."""
    if index.type in EXACT_TYPES or segment.rows < rows_min:
        return True
    file = segment.index_by_field.get(index.field_id)
    return file is not None and file.index_id == index.id


def missing(collection: Collection, manifests: Iterable[Manifest], rows_min: int) -> list[Build]:
    """The indexes to build for a collection."""
    return [
        Build(manifest.shard_id, segment, index, collection.schema.by_id[index.field_id])
        for manifest in manifests
        for segment in manifest.segments
        for index in collection.indexes
        if not indexed(segment, index, rows_min)
    ]


def with_index(manifest: Manifest, segment: SegmentId, file: IndexFile) -> Manifest | None:
    """The manifest with an index added to a segment; it replaces an older one over the same field.
    None: the segment was compacted away meanwhile."""
    if segment not in manifest.segment_by_id:
        return None

    def change(old: Segment) -> Segment:
        others = tuple(i for i in old.indexes if i.field_id != file.field_id)
        return replace(old, indexes=(*others, file))

    return _change_segment(manifest, segment, change)


def without_index(manifest: Manifest, segment: SegmentId, object_name: str) -> Manifest | None:
    """The manifest without one index object; None: it does not name it (any more)."""
    held = manifest.segment_by_id.get(segment)
    if held is None or all(i.object.name != object_name for i in held.indexes):
        return None

    def change(old: Segment) -> Segment:
        return replace(old, indexes=tuple(i for i in old.indexes if i.object.name != object_name))

    return _change_segment(manifest, segment, change)


class Undefined(NamedTuple):
    """What a manifest has segments and indexes of, and its collection has not."""

    partitions: frozenset[PartitionId]
    indexes: frozenset[IndexId]


def undefined(manifest: Manifest, collection: Collection) -> Undefined:
    """Dropped for good where the collection was read after the manifest, as no id is given twice; else it may be newer
    than what was read of the collection."""
    partitions = frozenset(s.partition for s in manifest.segments)
    indexes = frozenset(i.index_id for s in manifest.segments for i in s.indexes)
    return Undefined(partitions - collection.partition_ids, indexes - {i.id for i in collection.indexes})


def without(manifest: Manifest, dropped: Undefined) -> Manifest | None:
    """The manifest without segments of these partitions and without these indexes; None: there are none."""
    segments = tuple(
        replace(s, indexes=kept)
        if (kept := tuple(i for i in s.indexes if i.index_id not in dropped.indexes)) != s.indexes
        else s
        for s in manifest.segments
        if s.partition not in dropped.partitions
    )
    return None if segments == manifest.segments else manifest.bump(segments=segments)


def _change_segment(manifest: Manifest, id: SegmentId, change: Callable[[Segment], Segment]) -> Manifest:
    return manifest.bump(segments=tuple(change(s) if s.id == id else s for s in manifest.segments))
