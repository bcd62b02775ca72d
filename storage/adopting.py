"""Fills an unused store with what another one holds: a standalone folder's into a cluster, and back.

Objects, records and values are copied as they are; no row is decoded. A record keeps its position, for
the rows of segments, tombstones and checkpoints name positions. What belongs to nodes (owners,
placements, registrations) stays behind, and so does garbage.

The steps, each of which goes on where an interrupted one stopped: the target is claimed
(``storage.identity``); the objects that manifests name; per channel the start, then the records up to
the end; metadata; last the commit that makes the target usable. Why so: docs/decisions/0027.
"""

import asyncio
import mmap
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import xxhash

from core.catalog import ChannelCheckpoint
from core.errors import Corrupted, ObjectNotFound, Refused, StartRefused, Timeout
from core.failpoints import failpoint
from core.ids import Channel, Position
from core.manifest import Manifest, ObjectRef
from core.settings import LogSettings
from storage import keys
from storage.identity import Origin
from storage.log.port import FillableLog, Log, LogRecord
from storage.meta.port import Delete, Item, Put
from storage.meta.writes import COMMIT_BYTES_MAX, OPERATIONS_MAX
from storage.objects.port import ObjectStore
from storage.store import NewStore, Store

COPIED = (keys.NEXT_ID, keys.COLLECTIONS, keys.NAMES, keys.MANIFESTS, keys.CHECKPOINTS)
IN_USE = (keys.LEADER, keys.NODES)
"""Bound to leases: there while a process uses the store."""
LEFT = (
    *IN_USE,
    keys.CLUSTER,
    keys.CLUSTER_CREATING,
    keys.ADOPTING,
    keys.DEFINED,
    keys.PLACEMENTS,
    keys.OWNERS,
    keys.GARBAGE,
    keys.DRAINS,
    keys.CHANNEL_PINS,
    keys.SHARD_PINS,
    keys.PRESSURES,
)
READ_WAIT_S = 30.0
"""Longest wait for the next records of a channel that has some."""
COPIES = 4
"""Objects on their way at once."""
STEP_POSITIONS = 1_000_000
"""Positions passed between two words to whoever waits."""

FOREIGN = "something else wrote to it; use another kafka.topic or folder"

Progress = Callable[[str, int, int], None]
"""Is told what is copied, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Content:
    """What is to be copied. optional: names of index files, which can be built again. record_bytes: of the
    largest record of the log."""

    origin: Origin
    items: Mapping[str, bytes]
    objects: tuple[ObjectRef, ...]
    optional: frozenset[str]
    starts: tuple[Position, ...]
    ends: tuple[Position, ...]
    record_bytes: int = 0

    @property
    def object_bytes(self) -> int:
        return sum(ref.bytes for ref in self.objects)

    @property
    def records(self) -> int:
        return sum(end - start for start, end in zip(self.starts, self.ends, strict=True))


async def survey(source: Store) -> Content:
    """Looks at all that will be copied, the log's bytes included, before anything is.

    Raises ``StartRefused`` when a process uses the source or when it is not whole, ``Corrupted``."""
    content = await _content(source)
    _demand_checkpoints(source, content)
    present = {info.name: info.bytes async for info in source.objects.list("")}
    lost = [ref for ref in content.objects if present.get(ref.name) != ref.bytes]
    for ref in lost:
        if ref.name not in content.optional:
            found = f"has {present[ref.name]} bytes, not {ref.bytes}" if ref.name in present else "is missing"
            raise StartRefused(
                f"cluster {source.cluster.id} is not whole, object {ref.name} {found}: see sheafdb admin verify"
            )
    largest = 0
    for n, (start, end) in enumerate(zip(content.starts, content.ends, strict=True)):
        async with aclosing(_records(source.log, Channel(n), start, end)) as pieces:
            async for records in pieces:
                largest = max(largest, *(len(r.payload) for r in records))
    objects = tuple(ref for ref in content.objects if ref not in lost)
    return replace(content, objects=objects, record_bytes=largest)


def demand_fit(content: Content, target: LogSettings) -> None:
    """Raises ``StartRefused`` when a log with these settings can't take what is to be copied."""
    channels = len(content.starts)
    if target.channels != channels:
        raise StartRefused(
            f"the log to copy has {channels} channels, the target would have {target.channels}, fixed for its life:"
            f" set log.channels = {channels} for all its nodes"
        )
    if content.record_bytes > target.record_bytes_max:
        raise StartRefused(
            f"the log to copy has a record of {content.record_bytes} bytes, the target would take at most"
            f" {target.record_bytes_max}: set log.record_bytes_max = {content.record_bytes} or more for all its nodes"
        )


async def adopt(source: Store, content: Content, target: NewStore, progress: Progress) -> None:
    """Copies everything and makes the target usable. Cut off, the same call on the same stores goes on.

    Raises ``Refused`` when the source was used meanwhile or another process wrote to the target, ``Fenced``
    when another process fills the target, and what the stores raise."""
    failpoint("adopt.claimed")
    await _copy_objects(source.objects, content, target.objects, progress)
    done = 0
    for n, (start, end) in enumerate(zip(content.starts, content.ends, strict=True)):
        await _begin(target.log, Channel(n), start, end, progress)
        async with aclosing(_copy_records(source.log, Channel(n), end, target.log)) as frontiers:
            async for frontier in frontiers:
                progress("records of the log", done + frontier - start, content.records)
        done += end - start
    await _copy_metadata(content, target)
    if not _same(content, await _content(source)):
        raise Refused(f"cluster {source.cluster.id} was used while it was copied: stop its nodes and run this again")
    await target.claim.complete()
    failpoint("adopt.completed")


# --- what there is ---------------------------------------------------------------------------------
async def _content(source: Store) -> Content:
    """Without a look at the log's records and the list of objects."""
    items, revision = await source.meta.list("")
    _demand_idle(source, items)
    chosen = {item.key: item.value for item in items if _one_of(item.key, COPIED)}
    unknown = next((i.key for i in items if not _one_of(i.key, (*COPIED, *LEFT))), None)
    if unknown is not None:
        raise StartRefused(f"cluster {source.cluster.id} holds {unknown}, which this version does not know")
    manifests = [keys.decode(Manifest, value) for key, value in chosen.items() if key.startswith(keys.MANIFESTS)]
    numbers = [Channel(n) for n in range(source.log.channels)]
    return Content(
        Origin(source.cluster.id, revision),
        chosen,
        tuple({ref.name: ref for m in manifests for ref in m.objects()}.values()),
        frozenset(index.object.name for m in manifests for s in m.segments for index in s.indexes),
        tuple([await source.log.start(n) for n in numbers]),
        tuple(await source.log.end(numbers)),
    )


def _same(one: Content, other: Content) -> bool:
    return (one.items, one.starts, one.ends) == (other.items, other.starts, other.ends)


def _demand_idle(source: Store, items: Iterable[Item]) -> None:
    users = [item.key for item in items if _one_of(item.key, IN_USE)]
    if users:
        raise StartRefused(
            f"cluster {source.cluster.id} is in use, it has {', '.join(users)}: stop its nodes first"
            " (one that was killed is gone when its lease has ended)"
        )


def _demand_checkpoints(source: Store, content: Content) -> None:
    """Nobody reads what is before a checkpoint, so there a log may hold anything that fills it."""
    for n, start in enumerate(content.starts):
        value = content.items.get(keys.checkpoint(Channel(n)))
        checkpoint = keys.decode(ChannelCheckpoint, value).position if value else 0
        if checkpoint < start:
            raise StartRefused(
                f"cluster {source.cluster.id} is not whole, channel {n} begins at {start} but its checkpoint is"
                f" {checkpoint}: see sheafdb admin verify"
            )


def _one_of(key: str, names: Sequence[str]) -> bool:
    """names: keys, and beginnings of keys that end with a slash."""
    return any(key.startswith(name) if name.endswith("/") else key == name for name in names)


# --- objects ---------------------------------------------------------------------------------------
async def _copy_objects(source: ObjectStore, content: Content, target: ObjectStore, progress: Progress) -> None:
    """What a former run copied stays; what the source no longer names goes."""
    wanted = {ref.name: ref for ref in content.objects}
    present = {info.name: info.bytes async for info in target.list("")}
    for name in present.keys() - wanted.keys():
        await target.delete(name)
    missing = [ref for name, ref in wanted.items() if present.get(name) != ref.bytes]
    done = content.object_bytes - sum(ref.bytes for ref in missing)
    waiting = iter(missing)

    async def copier() -> None:
        nonlocal done
        for ref in waiting:
            await _copy_object(source, ref, target, optional=ref.name in content.optional)
            failpoint("adopt.object")
            done += ref.bytes
            progress("bytes of objects", done, content.object_bytes)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(COPIES):
                group.create_task(copier())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _copy_object(source: ObjectStore, ref: ObjectRef, target: ObjectStore, *, optional: bool) -> None:
    """Raises ``Corrupted`` when the bytes are not what was written; such an index is left out."""
    try:
        content = await asyncio.to_thread(_mapped, await source.fetch(ref.name))
        if await asyncio.to_thread(xxhash.xxh3_64_intdigest, content) != ref.digest:
            raise Corrupted(ref.name, "its bytes are not those that were written; see sheafdb admin verify --deep")
    except (Corrupted, ObjectNotFound):
        if optional:
            return
        raise
    await target.put(ref.name, content)


def _mapped(path: Path) -> memoryview:
    """A file's bytes, without a copy. Not its path: a store may link what it is given one of, and so
    change the file of the other."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")


# --- the log ---------------------------------------------------------------------------------------
async def _begin(target: FillableLog, channel: Channel, start: Position, end: Position, progress: Progress) -> None:
    """Has a channel begin where that of the source does."""
    [there] = await target.end([channel])
    if there > end:
        raise Refused(f"channel {channel} of the target ends at {there}, that of the source at {end}: {FOREIGN}")
    while there < start:
        there = Position(min(start, there + STEP_POSITIONS))
        await target.begin_at(channel, there)
        progress(f"positions before channel {channel} begins", there, start)
    await target.begin_at(channel, start)


async def _copy_records(source: Log, channel: Channel, end: Position, target: Log) -> AsyncGenerator[Position, None]:
    """What the channel still lacks; the position reached, piece by piece."""
    [there] = await target.end([channel])
    await _demand_equal(source, channel, await target.start(channel), there, target)
    async with aclosing(_records(source, channel, there, end)) as pieces:
        async for records in pieces:
            positions = await target.append([(channel, r.payload) for r in records])
            if positions != [r.position for r in records]:
                raise Refused(f"channel {channel} of the target grew at {records[0].position}: {FOREIGN}")
            failpoint("adopt.log")
            yield Position(records[-1].position + 1)


async def _demand_equal(source: Log, channel: Channel, start: Position, end: Position, target: Log) -> None:
    """That what an interrupted run left is what it copied."""
    async with (
        aclosing(_one_by_one(source, channel, start, end)) as expected,
        aclosing(_one_by_one(target, channel, start, end)) as found,
    ):
        async for record in found:
            if record != await anext(expected):
                raise Refused(f"channel {channel} of the target differs at {record.position}: {FOREIGN}")


async def _one_by_one(log: Log, channel: Channel, start: Position, end: Position) -> AsyncGenerator[LogRecord, None]:
    async with aclosing(_records(log, channel, start, end)) as pieces:
        async for records in pieces:
            for record in records:
                yield record


async def _records(
    log: Log, channel: Channel, start: Position, end: Position
) -> AsyncGenerator[Sequence[LogRecord], None]:
    """The records from ``start`` on, below ``end``. Raises ``Timeout``, ``Corrupted`` where one is missing."""
    async with aclosing(cast(Any, log.read(channel, start))) as batches:
        while start < end:
            try:
                async with asyncio.timeout(READ_WAIT_S):
                    batch = await anext(batches)
            except TimeoutError:
                raise Timeout(f"waited {READ_WAIT_S:g} s for position {start} of channel {channel}") from None
            records = [r for r in batch if r.position < end]
            if not records or [r.position for r in records] != list(range(start, start + len(records))):
                raise Corrupted(f"log channel {channel}", f"positions are missing after {start}")
            start = Position(start + len(records))
            yield records


# --- metadata --------------------------------------------------------------------------------------
async def _copy_metadata(content: Content, target: NewStore) -> None:
    items, _ = await target.claim.meta.list("")
    present = {item.key: item.value for item in items if item.key != keys.ADOPTING}
    writes: list[Put | Delete] = [Delete(key) for key in present.keys() - content.items.keys()]
    writes += [Put(key, value) for key, value in content.items.items() if present.get(key) != value]
    for commit in _commits(writes):
        await target.claim.commit(commit)
        failpoint("adopt.metadata")


def _commits(writes: Iterable[Put | Delete]) -> Iterator[list[Put | Delete]]:
    """As few commits as the store's bounds allow."""
    commit: list[Put | Delete] = []
    size = 0
    for write in writes:
        added = len(write.key) + (len(write.value) if isinstance(write, Put) else 0)
        # A key's length is left free for what the commit is conditional on.
        if commit and (len(commit) == OPERATIONS_MAX or size + added > COMMIT_BYTES_MAX - len(keys.ADOPTING)):
            yield commit
            commit, size = [], 0
        commit.append(write)
        size += added
    if commit:
        yield commit
