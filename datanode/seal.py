"""Seals what is buffered of a shard: segments and tombstones into the object store, then one commit."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import structlog

from core.catalog import Collection
from core.errors import Conflict, ObjectNotFound
from core.failpoints import failpoint
from core.ids import PartitionId, SegmentId, ShardId
from core.manifest import Manifest, ObjectRef, Segment, TombstoneFile
from core.schema import Schema
from datanode.resources import Resources
from datanode.rows import Kills, Reduced, Survivors, reduce
from datanode.state import Cut
from storage import names
from storage.manifests import Authority, commit_manifest, read_manifest
from storage.segment_file import SegmentWriter, Written, write_tombstones

ATTEMPTS_MAX = 5
PIECE_ROWS = 8192
"""Rows gathered at a time while a segment is written: bounds the copy in memory."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """The objects of one seal, not yet named by a manifest."""

    segments: tuple[Segment, ...] = ()
    tombstones: TombstoneFile | None = None


async def seal(
    resources: Resources, authority: Authority, shard: ShardId, cut: Cut, flushed_ts: int
) -> list[SegmentId]:
    """Makes everything in the cut durable in files; the ids of the new segments.

    When it returns, the manifest's checkpoint is not below the cut's frontier, or the shard is
    dropped. Safe to repeat after any failure: what a commit has taken in is not taken in again.
    Raises ``Fenced``, ``DiskFull``, ``Corrupted``, ``Unavailable``.
    """
    for attempt in range(ATTEMPTS_MAX):
        try:
            async with resources.sealing:
                return await _seal_once(resources, authority, shard, cut, flushed_ts)
        except (Conflict, ObjectNotFound):
            # The manifest moved on meanwhile: an older segment was compacted away, say.
            if attempt == ATTEMPTS_MAX - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _seal_once(
    resources: Resources, authority: Authority, shard: ShardId, cut: Cut, flushed_ts: int
) -> list[SegmentId]:
    collection = await resources.collection(shard.collection)
    present = await read_manifest(resources.meta, shard)
    if collection is None or present is None:
        return []
    manifest, _ = present
    entries = tuple(e for e in cut.entries if e.position >= manifest.checkpoint)
    if not entries and manifest.flushed_ts >= flushed_ts:
        return []
    outcome = Outcome()
    if entries:
        partitions = collection.partition_ids
        reduced = await resources.run(lambda: reduce(entries, collection.schema, partitions))
        outcome = await _store(resources, collection, shard, manifest, reduced)
    failpoint("seal.before_commit")

    def change(now: Manifest) -> Manifest | None:
        # A seal of this shard that was cancelled may have been committed after all.
        if now.checkpoint != manifest.checkpoint:
            raise Conflict(f"shard {shard}: checkpoint moved to {now.checkpoint}")
        tombstones = (*now.tombstones, outcome.tombstones) if outcome.tombstones else now.tombstones
        return now.bump(
            segments=(*now.segments, *outcome.segments),
            tombstones=tombstones,
            checkpoint=max(now.checkpoint, cut.frontier),
            flushed_ts=max(now.flushed_ts, flushed_ts),
        )

    new = await commit_manifest(resources.meta, shard, change, authority, resources.garbage_grace_s)
    failpoint("seal.committed")
    if new is None:
        return []
    log.info(
        "sealed",
        shard=str(shard),
        version=new.version,
        checkpoint=new.checkpoint,
        rows=sum(s.rows for s in outcome.segments),
        tombstones=outcome.tombstones.rows if outcome.tombstones else 0,
    )
    return [s.id for s in outcome.segments]


async def _store(
    resources: Resources, collection: Collection, shard: ShardId, manifest: Manifest, reduced: Reduced
) -> Outcome:
    """Writes and stores the files of what is left of the buffer."""
    schema = collection.schema
    needed = await resources.key_filters.needed(manifest.segments, schema.primary.id, reduced.kills)
    kills = reduced.kills.filter(needed)
    stores = (_store_segment(resources, collection, shard, p, rows) for p, rows in reduced.survivors.items())
    # All run to their end: none may go on writing after the seal has failed.
    results = await asyncio.gather(*stores, return_exceptions=True)
    segments: list[Segment] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        segments.append(result)
    tombstones = await store_tombstones(resources, collection, shard, kills) if len(kills.keys) else None
    return Outcome(tuple(segments), tombstones)


async def _store_segment(
    resources: Resources, collection: Collection, shard: ShardId, partition: PartitionId, rows: Survivors
) -> Segment:
    schema = collection.schema
    id = SegmentId(await resources.ids.next())
    path = resources.scratch / resources.scratch_name(shard, id)
    try:
        written = await resources.run(lambda: _write(path, rows, schema))
        failpoint("seal.before_put")
        ref = await resources.store(path, names.segment(names.folder(collection), shard.number, id), written)
    finally:
        resources.discard(shard, id)
    return segment_of(id, partition, ref, written, schema)


async def store_tombstones(resources: Resources, collection: Collection, shard: ShardId, kills: Kills) -> TombstoneFile:
    """A durable tombstone file of these kills, at least one."""
    id = await resources.ids.next()
    path = resources.scratch / resources.scratch_name(shard, id)
    try:
        written = await resources.run(lambda: write_tombstones(path, kills.keys, kills.positions))
        ref = await resources.store(path, names.tombstones(names.folder(collection), shard.number, id), written)
    finally:
        resources.discard(shard, id)
    return TombstoneFile(ref, written.rows, written.min_position, written.max_position)


def segment_of(id: SegmentId, partition: PartitionId, ref: ObjectRef, written: Written, schema: Schema) -> Segment:
    """How a manifest describes a stored segment."""
    return Segment(
        id=id,
        partition=partition,
        object=ref,
        rows=written.rows,
        min_position=written.min_position,
        max_position=written.max_position,
        stats=written.stats,
        schema_version=schema.version,
    )


def _write(path: Path, rows: Survivors, schema: Schema) -> Written:
    with SegmentWriter(path, schema) as writer:
        done = 0
        while done < len(rows.order):
            # Whole row groups after the first piece, which tells how long they are.
            size = PIECE_ROWS // writer.group_rows * writer.group_rows if writer.group_rows else PIECE_ROWS
            writer.write(rows.table.take(pa.array(rows.order[done : done + size])))
            done += size
        return writer.finish()
