"""Opening stored segments, tombstone files and indexes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import structlog

from core import catalog
from core.errors import Corrupted, ObjectNotFound
from core.ids import FieldId, SegmentId, ShardId
from core.manifest import IndexFile, Segment, TombstoneFile
from core.schema import Schema
from engine.vector.build import open_index
from engine.vector.index import VectorIndex
from querynode import keys as pk
from querynode.cache import ByteCache
from querynode.memory import HeldMemory, needed_bytes
from querynode.sealed import SealedSegment
from storage.objects.port import ObjectStore
from storage.segment_file import SegmentFile, read_tombstones

KilledKeys = tuple[pk.Keys, np.ndarray]
"""Keys and the positions, int64, at which they ended."""
ReportBadIndex = Callable[[ShardId, SegmentId, str], Awaitable[None]]
"""Told (shard, segment, name of the index object) when an index could not be opened."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opener:
    """What all shards of a node share: the objects, threads to open them in, the column cache, memory."""

    objects: ObjectStore
    threads: Executor
    columns: ByteCache[pa.Array]
    memory: HeldMemory
    report_bad_index: ReportBadIndex | None = None

    async def segment(self, segment: Segment, schema: Schema, kills: Sequence[KilledKeys]) -> SealedSegment:
        """The opened segment, with these kills applied. Raises ``Corrupted``, ``ObjectNotFound``."""
        path = await self.objects.fetch(segment.object.name)

        def load() -> SealedSegment:
            sealed = SealedSegment(segment, SegmentFile(path, segment.object, schema), schema, self.columns)
            for keys, positions in kills:
                sealed.kill(keys, positions)
            return sealed

        return await asyncio.get_running_loop().run_in_executor(self.threads, load)

    async def tombstones(self, files: Sequence[TombstoneFile], segments: Sequence[Segment]) -> list[KilledKeys]:
        """The kills of all those files that reach one of the segments."""
        if not segments:
            return []
        oldest = min(s.min_position for s in segments)
        wanted = [t.object for t in files if t.max_position > oldest]
        paths = [await self.objects.fetch(f.name) for f in wanted]
        loop = asyncio.get_running_loop()
        reads = (loop.run_in_executor(self.threads, read_tombstones, p, f) for p, f in zip(paths, wanted, strict=True))
        return [(pk.keys_of(keys), positions) for keys, positions in await asyncio.gather(*reads)]

    async def indexes(
        self,
        shard: ShardId,
        collection: catalog.Collection,
        held: Mapping[SegmentId, SealedSegment],
        wanted: Sequence[Segment],
        bad: Collection[str],
    ) -> set[str]:
        """Opens the declared indexes that the segments lack, but for the bad ones; names of those that
        can't be opened: their rows are searched exactly. From now on all take their memory."""
        waiting: list[tuple[SealedSegment, FieldId, IndexFile]] = [
            (held[s.id], f.field_id, f)
            for s in wanted
            for f in declared_indexes(s, collection)
            if f.object.name not in bad and held[s.id].index_name(f.field_id) != f.object.name
        ]
        found = await asyncio.gather(*(self._index(shard, s, f) for s, _, f in waiting))
        for (segment, field, file), index in zip(waiting, found, strict=True):
            if index is not None:
                segment.set_index(field, file.object.name, index)
        for s in wanted:
            self.memory.hold(held[s.id], needed_bytes(s, collection))
        return {file.object.name for (_, _, file), index in zip(waiting, found, strict=True) if index is None}

    async def _index(self, shard: ShardId, segment: SealedSegment, file: IndexFile) -> VectorIndex | None:
        try:
            path = await self.objects.fetch(file.object.name)
            index = await asyncio.get_running_loop().run_in_executor(self.threads, open_index, path)
            if index.rows != segment.rows:
                raise Corrupted(file.object.name, f"{index.rows} rows, its segment has {segment.rows}")
            return index
        except (Corrupted, ObjectNotFound) as e:
            log.warning("index not usable, searching exactly", shard=str(shard), index=file.object.name, error=str(e))
            if self.report_bad_index:
                await self.report_bad_index(shard, segment.id, file.object.name)
            return None


def declared_indexes(segment: Segment, collection: catalog.Collection) -> list[IndexFile]:
    """The index files of a segment that the collection still declares."""
    declared = {i.field_id: i.id for i in collection.indexes}
    return [f for f in segment.indexes if declared.get(f.field_id) == f.index_id]
