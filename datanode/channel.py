"""One owned channel: tails the log, buffers what must be sealed, seals it, trims the log.

The buffers are a copy of the log from the channel's checkpoint on: whatever fails here, tailing
starts again from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, cast
from weakref import WeakValueDictionary

import structlog

from core.background import Background
from core.catalog import ChannelCheckpoint, Collection
from core.errors import Fenced, LogTruncated, SheafError, Timeout, Unavailable
from core.failpoints import failpoint
from core.ids import Channel, CollectionId, Position, SegmentId, ShardId
from datanode.resources import Resources
from datanode.seal import seal
from datanode.state import ChannelState, Entry
from storage import keys
from storage.log.port import LogRecord
from storage.manifests import Authority, read_manifest
from storage.meta.mirror import Mirror
from storage.meta.port import Condition, Put
from storage.record import BARRIER, decode

FLUSH_DEADLINE_S = 60.0
RETRY_S = (1.0, 10.0)
"""Pause where the log can't be reached; where it is damaged it doubles, up to the second."""
TICK_S = 1.0
"""Longest pause between looks at the age of buffers."""

log = structlog.get_logger()


class OwnedChannel:
    """Keeps the shards of one channel sealed for as long as this node owns it.

    make_room: awaited after records were buffered; may start seals of any channel, and returns when
    more may be buffered.
    """

    def __init__(
        self,
        resources: Resources,
        channel: Channel,
        authority: Authority,
        collections: Mirror[Collection],
        make_room: Callable[[], Awaitable[None]],
    ) -> None:
        self._resources, self.channel, self.authority = resources, channel, authority
        self._collections, self._make_room = collections, make_room
        self._settings = resources.settings
        self.state = ChannelState(self._settings, channel, Position(0))
        self._replayed = Position(0)
        self._inherited: Position | None = None
        """End of the log when this node took the channel: what is before it is no backlog of its own."""
        self._records = self._record_bytes = 0
        self._stored = Position(-1)
        self._floors: dict[ShardId, Position | None] = {}
        self._gone: set[CollectionId] = set()
        self._locks: WeakValueDictionary[ShardId, asyncio.Lock] = WeakValueDictionary()
        self._moved = asyncio.Event()
        self._failure: Exception | None = None
        """Why tailing ended, until all that was in the log when it began again is read."""
        self.seals: set[asyncio.Task[None]] = set()
        """Those started in the background that still run."""
        tick_s = min(TICK_S, self._settings.seal_age_s / 2)
        self._tailing: asyncio.Task[None] | None = None
        self._sealing = Background(f"sealing of channel {channel}", self._seal_due, tick_s)
        self._trimming = Background(f"trimming of channel {channel}", self._trim, self._settings.trim_interval_s)

    def start(self) -> None:
        self._tailing = asyncio.create_task(self._tail(), name=f"tail of channel {self.channel}")
        self._sealing.start()
        self._trimming.start()

    async def close(self) -> None:
        """Stops at once; what is not sealed is in the log. Flushes that wait end with ``Fenced``: another
        owner can do them."""
        await self._sealing.close()
        await self._trimming.close()
        await self._cancel([*self.seals, *([self._tailing] if self._tailing else [])])
        self._failure = Fenced(f"channel {self.channel} is no longer owned here")
        self._wake_waiting()

    @staticmethod
    async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    # --- asked for by the service -------------------------------------------------------------
    def backlog(self, end: Position) -> int:
        """Bytes that wait to be sealed, with the log's end there; those not read yet are as large as the
        others were."""
        unread = max(0, end - max(self.state.frontier, end if self._inherited is None else self._inherited))
        return self.state.bytes + unread * self._record_bytes // max(1, self._records)

    async def flush(self, shards: Sequence[ShardId], timestamp: int) -> dict[ShardId, list[SegmentId]]:
        """Seals what was in the log at the time of the call, and notes it in the manifests."""
        (end,) = await self._resources.log.end([self.channel])
        await self._until_frontier(end)
        results = await asyncio.gather(*(self._seal(s, timestamp) for s in shards), return_exceptions=True)
        self._trimming.wake()
        if errors := [r for r in results if isinstance(r, BaseException)]:
            raise errors[0]
        return dict(zip(shards, cast("list[list[SegmentId]]", results), strict=True))

    def seal_soon(self, shard: ShardId) -> None:
        """Starts a seal in the background; a failure is logged and tried again later."""
        self.state.buffers[shard].sealing = True
        task = asyncio.create_task(self._seal_and_log(shard), name=f"seal of shard {shard}")
        self.seals.add(task)
        task.add_done_callback(self.seals.discard)

    # --- tailing ------------------------------------------------------------------------------
    async def _tail(self) -> None:
        failures, trimmed = 0, -1
        while True:
            try:
                await self._tail_once()
            except Fenced as e:
                log.info("channel lost", channel=self.channel, error=str(e))
                return
            except Exception as e:
                if isinstance(e, LogTruncated) and e.asked > trimmed:
                    # By the owner after this one, or by this one's own trim, after the checkpoint was read here:
                    # there is a newer checkpoint. Were it the same again, records would be lost.
                    trimmed = e.asked
                    continue
                self._fail(e)
                failures = 0 if isinstance(e, Unavailable) else min(failures + 1, 10)
                await asyncio.sleep(min(RETRY_S[0] * 2**failures, RETRY_S[1]))

    def _fail(self, error: Exception) -> None:
        if str(error) != str(self._failure):  # once, not at every attempt
            say = log.warning if isinstance(error, Unavailable) else log.error
            say("tailing failed, starting again from the checkpoint", channel=self.channel, error=str(error))
        self._failure = error
        self._wake_waiting()

    async def _tail_once(self) -> None:
        log_, meta = self._resources.log, self._resources.meta
        item = await meta.get(keys.checkpoint(self.channel))
        kept = await log_.start(self.channel)
        start = keys.decode(ChannelCheckpoint, item.value).position if item else kept
        self._stored = Position(start if item else -1)
        (self._replayed,) = await log_.end([self.channel])
        if self._inherited is None:
            self._inherited = self._replayed
        self._floors.clear()
        await self._cancel(self.seals)
        self.state = ChannelState(self._settings, self.channel, Position(start))
        self._caught_up()
        if kept < start:
            # The crash was between the checkpoint's commit and the trim.
            await log_.trim(self.channel, Position(start))
        async with aclosing(cast(Any, log_.read(self.channel, Position(start)))) as batches:
            async for records in batches:
                for record in records:
                    await self._take(record)
                self._caught_up()
                await self._make_room()
                if self.state.due(time.monotonic()):
                    self._sealing.wake()

    async def _take(self, log_record: LogRecord) -> None:
        position = log_record.position
        self._records += 1
        self._record_bytes += len(log_record.payload)
        record = decode(log_record.payload)
        if record.kind == BARRIER or not await self._wanted(record.shard, position):
            self.state.skip(position)
        else:
            self.state.add(Entry(position, record), time.monotonic())

    async def _wanted(self, shard: ShardId, position: Position) -> bool:
        """Whether a record is to be sealed: not if its collection is gone, or a manifest has it."""
        if shard.collection in self._gone:
            return False
        if position < self._replayed:
            # From before this ownership: an earlier seal, of another owner perhaps, may have it.
            if shard not in self._floors:
                present = await read_manifest(self._resources.meta, shard)
                self._floors[shard] = present[0].checkpoint if present else None
            floor = self._floors[shard]
            return floor is not None and position >= floor
        if self._floors:
            self._floors.clear()
        mirrored = self._collections.values.get(keys.collection(shard.collection))
        if mirrored is not None and not mirrored.dropped:
            return True
        # The mirror may lag behind a collection that is brand new.
        if await self._resources.collection(shard.collection) is None:
            self._gone.add(shard.collection)
            return False
        return True

    # --- sealing ------------------------------------------------------------------------------
    async def _seal_due(self) -> None:
        for shard in self.state.due(time.monotonic()):
            self.seal_soon(shard)
        for shard in list(self.state.buffers):
            mirrored = self._collections.values.get(keys.collection(shard.collection))
            gone = mirrored is None or mirrored.dropped
            if gone and await self._resources.collection(shard.collection) is None:
                self._gone.add(shard.collection)
                self.state.sealed(shard, self.state.frontier, time.monotonic())

    async def _seal_and_log(self, shard: ShardId) -> None:
        try:
            await self._seal(shard, 0)
        except Exception as e:
            expected = isinstance(e, SheafError | OSError)
            (log.warning if expected else log.exception)("seal failed, trying again", shard=str(shard), error=str(e))

    async def _seal(self, shard: ShardId, flushed_ts: int) -> list[SegmentId]:
        lock = self._locks.setdefault(shard, asyncio.Lock())
        async with lock:
            state = self.state
            cut = state.cut(shard)
            try:
                segments = await seal(self._resources, self.authority, shard, cut, flushed_ts)
            except BaseException:
                state.failed(shard, time.monotonic())
                raise
            state.sealed(shard, cut.frontier, time.monotonic())
            return segments

    # --- checkpoint and trim --------------------------------------------------------------------
    async def _trim(self) -> None:
        checkpoint = self.state.checkpoint
        if checkpoint <= max(self._stored, 0):
            return
        key = keys.checkpoint(self.channel)
        item = await self._resources.meta.get(key)
        conditions = [Condition(key, item.revision if item else cast(Any, 0)), self.authority.condition]
        await self._resources.meta.commit(conditions, [Put(key, keys.encode(ChannelCheckpoint(checkpoint)))])
        self._stored = checkpoint
        failpoint("trim.before")
        await self._resources.log.trim(self.channel, checkpoint)
        failpoint("trim.done")

    # --- waiting ------------------------------------------------------------------------------
    def _caught_up(self) -> None:
        """The frontier has moved; what stopped tailing is over once all that was there then is read."""
        if self.state.frontier >= self._replayed:
            self._failure = None
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _until_frontier(self, frontier: Position) -> None:
        try:
            async with asyncio.timeout(FLUSH_DEADLINE_S):
                while self.state.frontier < frontier:
                    if self._failure is not None:
                        raise self._failure
                    await self._moved.wait()
        except TimeoutError:
            raise Timeout(
                f"waited {FLUSH_DEADLINE_S} s for channel {self.channel} to be read up to {frontier}"
            ) from None
