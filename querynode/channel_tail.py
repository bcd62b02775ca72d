"""Tails of channels: each channel is read once, whatever the number of its shards placed here.

A shard that joins a channel already being read needs older records first. A second tail reads those
and hands its shards over when it meets the first.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

import structlog

from core.errors import LogTruncated, SheafError, Unavailable
from core.ids import Channel, Position, ShardId
from querynode.shard import Consumed, ShardState
from storage.log.port import Log, LogRecord
from storage.record import decode

RETRY_S = (0.5, 10.0)
"""Pause before an unreachable log is tried again; before a damaged one it doubles, up to the second."""

log = structlog.get_logger()


class ChannelTail(Consumed):
    """One reader of a channel and the shards it feeds."""

    def __init__(self, channel: Channel, start: Position) -> None:
        super().__init__(start)
        self.channel = channel
        self.shards: dict[ShardId, ShardState] = {}
        self.reading = False
        self.task: asyncio.Task[None] | None = None

    def attach(self, shard: ShardState) -> None:
        self.shards[shard.id] = shard
        shard.follow(self)

    def deliver(self, batch: Sequence[LogRecord]) -> None:
        """Applies a whole batch in one go: no read sees a part of what was appended together."""
        try:
            for entry in batch:
                if entry.position < self.frontier:
                    continue
                record = decode(entry.payload)
                shard = self.shards.get(record.shard)
                if shard is not None:
                    shard.apply(entry.position, record)
                self.frontier = Position(entry.position + 1)
        finally:
            self.moved.notify()


class ChannelTails:
    """All tails of a node.

    truncated: called with shards whose next records the log no longer holds: they have left their
    tail and must start again from their manifests.
    """

    def __init__(self, log: Log, truncated: Callable[[list[ShardState]], None]) -> None:
        self._log, self._truncated = log, truncated
        self._tails: dict[Channel, list[ChannelTail]] = {}

    def join(self, shard: ShardState, start: Position) -> None:
        """Feeds the shard every record of its channel from ``start`` on (and maybe earlier ones)."""
        tails = self._tails.setdefault(shard.channel, [])
        behind = [t for t in tails if t.frontier <= start]
        unstarted = [t for t in tails if not t.reading]
        if behind:
            max(behind, key=lambda t: t.frontier).attach(shard)
        elif unstarted:
            unstarted[0].frontier = start
            unstarted[0].attach(shard)
        else:
            tail = ChannelTail(shard.channel, start)
            tail.attach(shard)
            tails.append(tail)
            tail.task = asyncio.create_task(self._follow(tail), name=f"tail of channel {shard.channel}")

    def leave(self, shard: ShardState) -> None:
        """Stops feeding a shard; a tail without shards ends."""
        for tail in list(self._tails.get(shard.channel, ())):
            if tail.shards.get(shard.id) is shard:
                del tail.shards[shard.id]
                if not tail.shards:
                    self._end(tail)

    async def close(self) -> None:
        tasks = [t.task for tails in self._tails.values() for t in tails if t.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tails.clear()

    def _end(self, tail: ChannelTail) -> None:
        self._tails[tail.channel].remove(tail)
        tail.moved.notify()
        if tail.task and tail.task is not asyncio.current_task():
            tail.task.cancel()

    async def _follow(self, tail: ChannelTail) -> None:
        tail.reading = True
        failures = 0
        while tail.shards:
            try:
                reader = cast(AsyncGenerator[Sequence[LogRecord], None], self._log.read(tail.channel, tail.frontier))
                async with aclosing(reader):
                    async for batch in reader:
                        tail.deliver(batch)
                        tail.failure, failures = None, 0
                        self._hand_over(tail)
                        if not tail.shards:
                            return
            except LogTruncated as e:
                log.warning("log was trimmed past this reader, loading again", channel=tail.channel, start=e.start)
                lost, tail.shards = list(tail.shards.values()), {}
                self._end(tail)
                self._truncated(lost)
                return
            except Unavailable as e:
                log.warning("log not readable, trying again", channel=tail.channel, error=str(e))
                failures = 0
            except Exception as e:
                # The next record can't be applied: reads that need it must fail, not hang.
                self._fail(tail, e)
                failures = min(failures + 1, 10)
            await asyncio.sleep(min(RETRY_S[0] * 2**failures, RETRY_S[1]))

    @staticmethod
    def _fail(tail: ChannelTail, error: Exception) -> None:
        if not isinstance(error, SheafError):
            log.error("log record not readable", channel=tail.channel, position=tail.frontier, exc_info=error)
            error = Unavailable(f"channel {tail.channel}: {error}")
        elif str(error) != str(tail.failure):  # once, not at every attempt
            log.error("log record not readable", channel=tail.channel, position=tail.frontier, error=str(error))
        tail.failure = error
        tail.moved.notify()

    def _hand_over(self, tail: ChannelTail) -> None:
        """Moves the shards of a tail that has reached an older one."""
        tails = self._tails[tail.channel]
        older = tails[: tails.index(tail)]
        reached = next((t for t in older if t.frontier <= tail.frontier), None)
        if reached is None:
            return
        for shard in tail.shards.values():
            shard.applied = max(shard.applied, tail.frontier)
            reached.attach(shard)
        tail.shards = {}
        self._end(tail)
