"""The hand-off: opening what a newer manifest names while the present view serves, then one swap."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog

from core.catalog import Index
from core.errors import MemoryFull, ObjectNotFound, SheafError, Unavailable
from core.ids import NodeId, PartitionId, Position, SegmentId
from core.manifest import Manifest, Segment
from querynode.memory import needed_bytes
from querynode.opening import KilledKeys, Opener
from querynode.sealed import SealedSegment
from querynode.shard import ShardState
from querynode.spreading import Plan, Spreader
from querynode.waiting import LogEnd, until

FOREVER = float("inf")
RETRY_S = (0.2, 5.0)
"""First and longest pause before a hand-off that failed is tried again."""
ATTEMPTS_PASSING = 3
"""After so many a failure that may pass by itself is told."""

A = TypeVar("A")
B = TypeVar("B")

log = structlog.get_logger()


class Target(NamedTuple):
    """What is to be held, and where."""

    manifest: Manifest
    partitions: frozenset[PartitionId]
    indexes: tuple[Index, ...]
    plan: Plan


class HandOff:
    """Keeps one shard at its newest manifest, at the partitions that are to be loaded, and spread over
    the nodes that are to hold it.

    nodes: those of the replica, for whoever calls ``poke`` to set.
    """

    def __init__(self, shard: ShardState, opener: Opener, spreader: Spreader, end: LogEnd) -> None:
        self._shard, self._opener, self._spreader, self._end = shard, opener, spreader, end
        self.nodes: tuple[NodeId, ...] = ()
        self._manifest: Manifest | None = None
        self._done: object = None
        self._task: asyncio.Task[None] | None = None
        self._bad_indexes: set[str] = set()

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

    def _target(self) -> Target:
        assert self._manifest is not None
        shard, partitions = self._shard, self._shard.wanted(self._manifest)
        plan = self._spreader.plan(shard, self._manifest, partitions, self.nodes)
        return Target(self._manifest, partitions, shard.collection.indexes, plan)

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
                    await self._load(target)
                    self._done, attempts, self._shard.unloadable = target, 0, None
            except Exception as e:
                attempts += 1
                self._fail(e, attempts)
                if self._target() != target:
                    attempts = 0  # without the worker that was lost, or with a newer manifest
                await asyncio.sleep(min(RETRY_S[0] * 2**attempts, RETRY_S[1]) if attempts else 0)

    def _fail(self, error: Exception, attempts: int) -> None:
        # A missing object was most likely compacted and collected: the newer manifest is on its way.
        # A worker's room is known only once it has answered, and others may have taken it meanwhile.
        soon = isinstance(error, ObjectNotFound | MemoryFull) and attempts < ATTEMPTS_PASSING
        passing = isinstance(error, Unavailable) or soon
        if passing:
            log.warning("shard can't load its manifest yet", shard=str(self._shard.id), error=str(error))
            return
        if not isinstance(error, SheafError):
            log.error("shard can't load its manifest", shard=str(self._shard.id), exc_info=error)
            error = Unavailable(f"shard {self._shard.id}: {error}")
        elif str(error) != str(self._shard.unloadable):  # once, not at every attempt
            log.error("shard can't load its manifest", shard=str(self._shard.id), error=str(error))
        self._shard.unloadable = error
        self._shard.changed.notify()

    async def _load(self, target: Target) -> None:
        shard, manifest = self._shard, target.manifest
        away, unplaced = target.plan
        if unplaced:
            raise self._spreader.full(shard, manifest, target.partitions, self.nodes, unplaced)
        wanted = [s for s in manifest.segments if s.partition in target.partitions]
        here = [s for s in wanted if s.id not in away]
        missing = [s for s in here if s.id not in shard.sealed]
        kept = {s.id: shard.sealed[s.id] for s in here if s.id in shard.sealed}
        # Kills of the tail so far are applied in the opening thread, only the last ones in the swap.
        killed_before = shard.applied
        tail = shard.kills.since(Position(0))
        opened, remote = await _both(
            self._open(target, here, missing, kept, tail),
            self._spreader.hold(shard, manifest, [s for s in wanted if s.id in away], away, tail),
        )
        await until(
            lambda: shard.frontier >= manifest.checkpoint,
            lambda: shard.consumed.moved,
            FOREVER,
            f"channel {shard.channel} to reach the checkpoint",
        )
        shard.swap(manifest, target.partitions, kept, opened, killed_before, remote=remote)

    async def _open(
        self,
        target: Target,
        here: Sequence[Segment],
        missing: Sequence[Segment],
        kept: Mapping[SegmentId, SealedSegment],
        tail: KilledKeys | None,
    ) -> list[SealedSegment]:
        """Opens the segments that are missing here, and the indexes that any of them lacks."""
        collection = self._shard.collection
        opener = self._opener
        kills = await opener.tombstones(target.manifest.tombstones, missing)
        kills += [tail] if tail else []
        bytes = sum(needed_bytes(s, collection) for s in missing)
        replaced = self._spreader.replaced_here(self._shard, target.manifest)
        with opener.memory.opening(bytes, f"shard {self._shard.id} of collection {collection.name}", replaced):
            opened = await asyncio.gather(*(opener.segment(s, collection.schema, kills) for s in missing))
            held = {s.id: s for s in opened} | dict(kept)
            self._bad_indexes |= await opener.indexes(self._shard.id, collection, held, here, self._bad_indexes)
        return opened

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


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """The results; when one fails the other one ends."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        await asyncio.gather(*tasks)
        return tasks[0].result(), tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()
