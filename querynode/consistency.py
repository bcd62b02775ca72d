"""How fresh a read must be (DESIGN section 5), and the waiting until it is."""

import time

from core.catalog import Consistency
from core.errors import CollectionNotLoaded, SnapshotExpired
from core.ids import PartitionId, Position
from querynode.shard import ShardState
from querynode.view import View
from querynode.waiting import LogEnd, until, within
from rpc.reads import Read


def fresh(shard: ShardState, read: Read, bounded_staleness_s: float) -> bool:
    """Whether the newest view answers the read as it is, with no wait."""
    if not shard.ready or read.snapshot_ts or not shard.covers(read.partitions):
        return False
    if read.consistency is Consistency.BOUNDED:
        return time.monotonic() - shard.consumed.at_end_s <= bounded_staleness_s
    return read.consistency is Consistency.EVENTUALLY


async def admit(shard: ShardState, read: Read, end: LogEnd, bounded_staleness_s: float) -> View:
    """The view the read is answered from, waited for within its deadline.

    Raises ``Timeout``, ``CollectionNotLoaded`` when the shard is released meanwhile,
    ``SnapshotExpired``, and what keeps the shard from being read (``Corrupted``, ...).
    """
    await _load(shard, read)
    if read.snapshot_ts:
        return await _pinned(shard, read, end)
    if not fresh(shard, read, bounded_staleness_s):
        await _consume(shard, read, end)
        # Log and manifest may have been loaded anew meanwhile; ready again means past that end.
        await _load(shard, read)
    return shard.view


async def _load(shard: ShardState, read: Read) -> None:
    await until(
        lambda: _loaded(shard, read.partitions), lambda: shard.changed, read.deadline, f"shard {shard.id} to load"
    )


async def _pinned(shard: ShardState, read: Read, end: LogEnd) -> View:
    view = shard.pins.use(read.snapshot_ts)
    if view is None:
        await _consume(shard, read, end)
        view = shard.pins.use(read.snapshot_ts)
    if view is None or view.lacks(shard.loaded.intersection(read.partitions)):
        raise SnapshotExpired(f"the view of time stamp {read.snapshot_ts} is no longer held; start the iterator again")
    return view


async def _consume(shard: ShardState, read: Read, end: LogEnd) -> None:
    """Waits until all that was in the log when asked is applied."""
    asked_s = time.monotonic()
    target = await within(read.deadline, end.ask(), f"the end of log channel {shard.channel}")
    await until(
        lambda: _consumed(shard, target),
        lambda: shard.consumed.moved,
        read.deadline,
        f"log channel {shard.channel} to be consumed up to {target}",
    )
    shard.consumed.was_at_end(target, asked_s)


def _loaded(shard: ShardState, partitions: tuple[PartitionId, ...]) -> bool:
    if shard.released:
        raise CollectionNotLoaded(shard.collection.name)
    if shard.ready and shard.covers(partitions):
        return True
    # What the log can't give back would keep the shard from ever being ready.
    if shard.failure:
        raise shard.failure
    return False


def _consumed(shard: ShardState, target: Position) -> bool:
    if shard.released:
        raise CollectionNotLoaded(shard.collection.name)
    if shard.frontier >= target:
        return True
    if shard.consumed.failure:
        raise shard.consumed.failure
    return False
