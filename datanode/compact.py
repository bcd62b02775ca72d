"""Carries out compactions: looks at what is dead, merges segments, folds tombstones, commits.

Rows keep their positions, so newer tombstones, committed meanwhile or later, reach them as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import structlog

from core.catalog import Collection
from core.failpoints import failpoint
from core.ids import SegmentId, ShardId
from core.manifest import Manifest, Segment, TombstoneFile
from core.schema import Schema
from datanode.compaction_plan import Job, Policy, compacted, plan
from datanode.resources import Resources
from datanode.rows import Kills, dead_rows, newest_kills, sorted_order
from datanode.seal import PIECE_ROWS, segment_of, store_tombstones
from storage import names
from storage.manifests import Authority, commit_manifest, read_manifest
from storage.segment_file import POSITION, TS, SegmentFile, SegmentWriter, Written, read_tombstones

log = structlog.get_logger()


async def compact_once(resources: Resources, authority: Authority, shard: ShardId, policy: Policy) -> bool:
    """Does the most useful compaction of a shard; False when there is nothing to gain.

    Raises ``Fenced``, ``DiskFull``, ``Corrupted``, ``Unavailable``, ``ObjectNotFound`` (the manifest
    moved on meanwhile).
    """
    collection = await resources.collection(shard.collection)
    present = await read_manifest(resources.meta, shard)
    if collection is None or present is None:
        return False
    manifest, _ = present
    look = Look(resources, collection, manifest)
    kills = await look.kills()
    job = plan(manifest, await look.dead(kills, policy), policy)
    if job is None:
        return False
    merged = await _merge(resources, collection, shard, job, kills) if job.segments else None
    left = kills.filter(await look.still_needed(job, kills))
    # One file, of which everything is still needed, is as good as its copy.
    keep = len(manifest.tombstones) == 1 and len(left.keys) == manifest.tombstones[0].rows
    write = len(left.keys) > 0 and not keep
    folded = await store_tombstones(resources, collection, shard, left) if write else None
    failpoint("compact.before_commit")
    if not await _commit(resources, authority, shard, Done(job, merged, folded, keep)):
        return False
    failpoint("compact.committed")
    return True


@dataclass(frozen=True)
class Done:
    """A job and its objects, not yet named by a manifest."""

    job: Job
    merged: Segment | None
    folded: TombstoneFile | None
    keep_tombstones: bool


class Look:
    """What is dead in a shard, as far as one must know."""

    def __init__(self, resources: Resources, collection: Collection, manifest: Manifest) -> None:
        self._resources, self._manifest = resources, manifest
        self._primary = collection.schema.primary

    async def kills(self) -> Kills:
        """The kills of all tombstone files."""
        parts = []
        for file in self._manifest.tombstones:
            path = await self._resources.objects.fetch(file.object.name)
            parts.append(await self._resources.run(lambda p=path, f=file: read_tombstones(p, f.object)))
        return newest_kills(parts, self._primary.arrow_type)

    async def dead(self, kills: Kills, policy: Policy) -> dict[SegmentId, int]:
        """Dead rows of the segments that have too many; filters first, rows only where those say so."""
        dead: dict[SegmentId, int] = {}
        for segment in self._manifest.segments:
            suspects = kills.filter(await self._resources.key_filters.reach(segment, self._primary.id, kills))
            if len(suspects.keys) > policy.dead_ratio * segment.rows:
                mask, _ = await self._exact(segment, suspects)
                dead[segment.id] = int(mask.sum())
        return dead

    async def still_needed(self, job: Job, kills: Kills) -> np.ndarray:
        """bool [kills]: those that end a row of a segment the job leaves as it is."""
        needed = np.zeros(len(kills.keys), np.bool_)
        for segment in job.remaining:
            suspects = await self._resources.key_filters.reach(segment, self._primary.id, kills)
            suspects &= ~needed
            if suspects.any():
                _, did = await self._exact(segment, kills.filter(suspects))
                needed[np.flatnonzero(suspects)[did]] = True
        return needed

    async def _exact(self, segment: Segment, kills: Kills) -> tuple[np.ndarray, np.ndarray]:
        path = await self._resources.objects.fetch(segment.object.name)

        def look() -> tuple[np.ndarray, np.ndarray]:
            file = SegmentFile(path, segment.object)
            try:
                return dead_rows(file.keys(), file.positions(), kills)
            finally:
                file.close()

        return await self._resources.run(look)


async def _merge(
    resources: Resources, collection: Collection, shard: ShardId, job: Job, kills: Kills
) -> Segment | None:
    """The living rows of the job's segments as one stored segment; None when none lives."""
    paths = [await resources.objects.fetch(s.object.name) for s in job.segments]
    id = SegmentId(await resources.ids.next())
    target = resources.scratch / resources.scratch_name(shard, id)
    try:
        written = await resources.run(lambda: _write(target, paths, job.segments, collection.schema, kills))
        if written is None:
            return None
        failpoint("compact.before_put")
        name = names.segment(names.folder(collection), shard.number, id)
        ref = await resources.store(target, name, written)
    finally:
        resources.discard(shard, id)
    return segment_of(id, job.segments[0].partition, ref, written, collection.schema)


def _write(
    target: Path, paths: Sequence[Path], segments: Sequence[Segment], schema: Schema, kills: Kills
) -> Written | None:
    files = [SegmentFile(p, s.object, schema) for p, s in zip(paths, segments, strict=True)]
    try:
        source, row = _living(files, kills)
        if not len(row):
            return None
        with SegmentWriter(target, schema) as writer:
            done = 0
            while done < len(row):
                size = PIECE_ROWS // writer.group_rows * writer.group_rows if writer.group_rows else PIECE_ROWS
                writer.write(_gather(files, source[done : done + size], row[done : done + size], schema))
                done += size
            return writer.finish()
    finally:
        for file in files:
            file.close()


def _living(files: Sequence[SegmentFile], kills: Kills) -> tuple[np.ndarray, np.ndarray]:
    """(number of the file, row in it) of all living rows in primary key order."""
    keys, positions, sources, rows = [], [], [], []
    for n, file in enumerate(files):
        its_keys, its_positions = file.keys(), file.positions()
        dead, _ = dead_rows(its_keys, its_positions, kills)
        alive = np.flatnonzero(~dead)
        keys.append(its_keys.take(pa.array(alive)))
        positions.append(its_positions[alive])
        sources.append(np.full(len(alive), n))
        rows.append(alive)
    all_keys, position = pa.concat_arrays(keys), np.concatenate(positions)
    codes = all_keys.dictionary_encode().indices.to_numpy()
    # A key lives once in a shard (invariant 6); were it not so, the newest would have to win here.
    newest = np.full(int(codes.max(initial=-1)) + 1, -1, np.int64)
    np.maximum.at(newest, codes, position)
    kept = np.flatnonzero(position == newest[codes])
    order = kept[sorted_order(all_keys.take(pa.array(kept)))]
    return np.concatenate(sources)[order], np.concatenate(rows)[order]


def _gather(files: Sequence[SegmentFile], source: np.ndarray, row: np.ndarray, schema: Schema) -> pa.Table:
    """The rows in the order given. Rows of one file come in its own order: it is read forward."""
    used = np.unique(source).tolist()
    members = [np.flatnonzero(source == n) for n in used]
    back = pa.array(np.argsort(np.concatenate(members), kind="stable"))
    columns = {
        name: pa.concat_arrays([files[n].take(name, row[m]) for n, m in zip(used, members, strict=True)]).take(back)
        for name in (*schema.arrow.names, POSITION, TS)
    }
    return pa.table(columns)


async def _commit(resources: Resources, authority: Authority, shard: ShardId, done: Done) -> bool:
    def change(present: Manifest) -> Manifest | None:
        return compacted(present, done.job, done.merged, done.folded, keep_tombstones=done.keep_tombstones)

    new = await commit_manifest(resources.meta, shard, change, authority, resources.garbage_grace_s)
    if new is None:
        # Dropped meanwhile. Nobody was ever told these names.
        for made in (done.merged, done.folded):
            if made is not None:
                await resources.objects.delete(made.object.name)
        return False
    log.info(
        "compacted",
        shard=str(shard),
        version=new.version,
        segments=len(done.job.segments),
        rows_before=sum(s.rows for s in done.job.segments),
        rows=done.merged.rows if done.merged else 0,
        tombstone_files=len(new.tombstones),
    )
    return True
