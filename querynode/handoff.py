"""The hand-off: opening what a newer manifest names while the present view serves, then one swap."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import structlog

from core.catalog import Index
from core.errors import Corrupted, ObjectNotFound, SheafError, Unavailable
from core.ids import FieldId, PartitionId, Position, SegmentId, ShardId
from core.manifest import IndexFile, Manifest, Segment
from core.schema import Schema
from engine.vector.build import open_index
from engine.vector.index import VectorIndex
from querynode import keys as pk
from querynode.cache import ByteCache
from querynode.sealed import SealedSegment
from querynode.shard import ShardState
from querynode.waiting import LogEnd, until
from storage.objects.port import ObjectStore
from storage.segment_file import SegmentFile, read_tombstones

FOREVER = float("inf")
RETRY_S = (0.2, 5.0)
"""First and longest pause before a hand-off that failed is tried again."""

ReportBadIndex = Callable[[ShardId, SegmentId, str], Awaitable[None]]
"""Told (shard, segment, name of the index object) when an index could not be opened."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opener:
    """What hand-offs of all shards share: the objects, threads to open them in, the column cache."""

    objects: ObjectStore
    threads: Executor
    columns: ByteCache[pa.Array]
    report_bad_index: ReportBadIndex | None = None

    async def segment(
        self, segment: Segment, schema: Schema, kills: Sequence[tuple[pk.Keys, np.ndarray]]
    ) -> SealedSegment:
        """The opened segment, with these kills applied. Raises ``Corrupted``, ``ObjectNotFound``."""
        path = await self.objects.fetch(segment.object.name)

        def load() -> SealedSegment:
            sealed = SealedSegment(segment, SegmentFile(path, segment.object, schema), schema, self.columns)
            for keys, positions in kills:
                sealed.kill(keys, positions)
            return sealed

        return await asyncio.get_running_loop().run_in_executor(self.threads, load)

    async def tombstones(self, manifest: Manifest, segments: Sequence[Segment]) -> list[tuple[pk.Keys, np.ndarray]]:
        """The kills of all tombstone files that reach one of the segments."""
        if not segments:
            return []
        oldest = min(s.min_position for s in segments)
        files = [t.object for t in manifest.tombstones if t.max_position > oldest]
        paths = [await self.objects.fetch(f.name) for f in files]
        loop = asyncio.get_running_loop()
        reads = (loop.run_in_executor(self.threads, read_tombstones, p, f) for p, f in zip(paths, files, strict=True))
        return [(pk.keys_of(keys), positions) for keys, positions in await asyncio.gather(*reads)]

    async def index(self, shard: ShardId, segment: SealedSegment, file: IndexFile) -> VectorIndex | None:
        """The opened index; None if its object is damaged or missing: rows are then searched exactly."""
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


class HandOff:
    """Keeps one shard at its newest manifest and at the partitions that are to be loaded."""

    def __init__(self, shard: ShardState, opener: Opener, end: LogEnd) -> None:
        self._shard, self._opener, self._end = shard, opener, end
        self._manifest: Manifest | None = None
        self._done: object = None
        self._task: asyncio.Task[None] | None = None
        self._bad: set[str] = set()

    def offer(self, manifest: Manifest) -> None:
        """A manifest was seen; only the newest is ever loaded."""
        if self._manifest is None or manifest.version > self._manifest.version:
            self._manifest = manifest
        self.poke()

    def poke(self) -> None:
        """Something that decides what is to be loaded may have changed."""
        if self._manifest and self._target() != self._done and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name=f"hand-off of shard {self._shard.id}")

    @property
    def started(self) -> bool:
        """Whether it has a manifest, and so wants the newer ones."""
        return self._manifest is not None

    def stop(self) -> asyncio.Task[None] | None:
        """Stops and forgets; gives the task that is ending. A later ``offer`` starts anew."""
        task, self._task = self._task, None
        if task:
            task.cancel()
        self._manifest = self._done = None
        return task

    def _target(self) -> tuple[Manifest, frozenset[PartitionId], tuple[Index, ...]]:
        assert self._manifest is not None
        return self._manifest, self._shard.wanted(self._manifest), self._shard.collection.indexes

    async def _run(self) -> None:
        attempts = 0
        while True:
            target = self._target()
            if target == self._done and self._shard.ready:
                return
            try:
                if target == self._done:
                    await self._become_ready()
                else:
                    await self._load(target[0], target[1])
                    self._done, attempts, self._shard.failure = target, 0, None
            except Exception as e:
                attempts += 1
                self._fail(e, attempts)
                await asyncio.sleep(min(RETRY_S[0] * 2**attempts, RETRY_S[1]))

    def _fail(self, error: Exception, attempts: int) -> None:
        # A missing object was most likely compacted and collected: the newer manifest is on its way.
        passing = isinstance(error, Unavailable) or (isinstance(error, ObjectNotFound) and attempts < 3)
        if passing:
            log.warning("shard can't load its manifest yet", shard=str(self._shard.id), error=str(error))
            return
        if not isinstance(error, SheafError):
            log.error("shard can't load its manifest", shard=str(self._shard.id), exc_info=error)
            error = Unavailable(f"shard {self._shard.id}: {error}")
        elif str(error) != str(self._shard.failure):  # once, not at every attempt
            log.error("shard can't load its manifest", shard=str(self._shard.id), error=str(error))
        self._shard.failure = error
        self._shard.changed.notify()

    async def _load(self, manifest: Manifest, partitions: frozenset[PartitionId]) -> None:
        shard = self._shard
        wanted = [s for s in manifest.segments if s.partition in partitions]
        missing = [s for s in wanted if s.id not in shard.sealed]
        kept = [s.id for s in wanted if s.id in shard.sealed]
        # Kills of the tail so far are applied in the opening thread, only the last ones in the swap.
        kills = await self._opener.tombstones(manifest, missing)
        killed_before = shard.applied
        tail = shard.kills.since(Position(0))
        kills += [tail] if tail else []
        opened = await asyncio.gather(*(self._opener.segment(s, shard.collection.schema, kills) for s in missing))
        held = {s.id: s for s in opened} | {id: shard.sealed[id] for id in kept}
        await self._open_indexes(held, wanted)
        await until(
            lambda: shard.frontier >= manifest.checkpoint,
            lambda: shard.consumed.moved,
            FOREVER,
            f"channel {shard.channel} to reach the checkpoint",
        )
        shard.swap(manifest, partitions, kept, opened, killed_before)

    async def _open_indexes(self, held: dict[SegmentId, SealedSegment], wanted: Sequence[Segment]) -> None:
        declared = {i.field_id: i.id for i in self._shard.collection.indexes}
        waiting: list[tuple[SealedSegment, FieldId, IndexFile]] = [
            (held[s.id], f.field_id, f)
            for s in wanted
            for f in s.indexes
            if declared.get(f.field_id) == f.index_id
            and f.object.name not in self._bad
            and held[s.id].index_name(f.field_id) != f.object.name
        ]
        found = await asyncio.gather(*(self._opener.index(self._shard.id, s, f) for s, _, f in waiting))
        for (segment, field, file), index in zip(waiting, found, strict=True):
            if index is None:
                self._bad.add(file.object.name)
            else:
                segment.set_index(field, file.object.name, index)

    async def _become_ready(self) -> None:
        shard = self._shard
        asked_s = time.monotonic()
        end = await self._end.ask()
        await until(
            lambda: shard.frontier >= end,
            lambda: shard.consumed.moved,
            FOREVER,
            f"channel {shard.channel} to be consumed",
        )
        shard.consumed.was_at_end(end, asked_s)
        shard.ready = True
        shard.changed.notify()
