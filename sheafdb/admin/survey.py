"""Reads what ``findings`` judges: the metadata, the list of objects, the log; and their bytes when asked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

import xxhash

from coordinator.garbage import OURS
from core.clock import wall_ms
from core.errors import LogTruncated, ObjectNotFound, SheafError
from core.ids import Channel, Position
from sheafdb.admin import findings
from sheafdb.admin.findings import ChannelState, Finding, NamedObject
from sheafdb.admin.picture import Picture, read
from storage.log.port import Log
from storage.objects.port import ObjectInfo, ObjectStore
from storage.record import decode
from storage.store import Store

READ_WAIT_S = 30.0
"""Longest wait for the next records of a channel that has some."""
PIECE_BYTES = 8 * 1024 * 1024
READERS = 4
"""Objects whose bytes are read at once."""


@dataclass(frozen=True)
class Report:
    """deep: whether the bytes of objects were compared with their digests. positions: of the log, read."""

    findings: tuple[Finding, ...]
    manifests: int
    objects: int
    bytes: int
    channels: int
    positions: int
    deep: bool


Progress = Callable[[int, int], None]
"""Is told how many bytes of objects have been read, of how many."""


def _silent(done: int, of: int) -> None:
    """Tells nobody."""


async def verify(store: Store, orphan_grace_s: float, deep: bool, progress: Progress = _silent) -> Report:
    """Looks at everything and changes nothing; also on a store in use.

    orphan_grace_s: age from which an object that nothing names is an orphan. deep: also compares the bytes
    of objects with their digests, which reads them all. Raises what the stores raise
    when they do not answer; what they do not hold is a finding.
    """
    report, picture = await _round(store, orphan_grace_s)
    if report.findings:
        # The stores are not read at one instant. What a cluster at work only seems to lack differs next time.
        seen = {(f.what, f.subject) for f in report.findings}
        again, picture = await _round(store, orphan_grace_s)
        report = replace(again, findings=tuple(f for f in again.findings if (f.what, f.subject) in seen))
    if deep:
        spoilt = {f.subject for f in report.findings}
        objects = [n for n in findings.named_objects(picture) if n.ref.name not in spoilt]
        report = replace(report, findings=(*report.findings, *await _altered(store, objects, progress)), deep=True)
    return report


async def _round(store: Store, orphan_grace_s: float) -> tuple[Report, Picture]:
    before_ms = wall_ms() - int(orphan_grace_s * 1000)
    numbers = [Channel(c) for c in range(store.log.channels)]
    objects = {info.name: info async for info in store.objects.list("")}
    # A checkpoint is committed before the log is trimmed, and after the log has what it covers.
    starts = [await store.log.start(c) for c in numbers]
    picture = await read(store.meta)
    ends = await store.log.end(numbers)
    channels = [await _channel(store.log, picture, *c) for c in zip(numbers, starts, ends, strict=True)]
    found = (
        *findings.of_metadata(picture),
        *findings.of_objects(picture, objects),
        *findings.of_log(picture, channels),
        *findings.orphans(picture, _ours(objects.values()), before_ms),
    )
    named = list(findings.named_objects(picture))
    positions = sum(c.end - min(_first(picture, c), c.end) for c in channels)
    size = sum(n.ref.bytes for n in named)
    return Report(found, len(picture.manifests), len(named), size, len(channels), positions, False), picture


def _ours(objects: Iterable[ObjectInfo]) -> Sequence[ObjectInfo]:
    return [info for info in objects if OURS.fullmatch(info.name)]


# --- the log ---------------------------------------------------------------------------------------
def _first(picture: Picture, state: ChannelState) -> Position:
    """Where a restart begins to read."""
    return max(state.start, picture.checkpoints.get(state.channel, state.start))


async def _channel(log: Log, picture: Picture, channel: Channel, start: Position, end: Position) -> ChannelState:
    state = ChannelState(channel, start, end)
    position = _first(picture, state)
    while position < end:
        try:
            async with aclosing(cast(Any, _records(log, channel, position, end))) as reached:
                async for frontier in reached:
                    position = frontier
        except LogTruncated as e:
            # Sealed meanwhile. Had it not been, the checkpoint would tell in the next round.
            position = Position(e.start)
        except SheafError as e:
            return replace(state, damage=f"from position {position} on: {e}")
        except TimeoutError:
            return replace(state, damage=f"from position {position} on: nothing came for {READ_WAIT_S:g} s")
    return state


async def _records(log: Log, channel: Channel, start: Position, end: Position) -> AsyncIterator[Position]:
    """Decodes what is below ``end``; the position reached, batch by batch."""
    async with aclosing(cast(Any, log.read(channel, start))) as batches:
        while start < end:
            async with asyncio.timeout(READ_WAIT_S):
                records = await anext(batches)
            for record in records:
                decode(record.payload)
                start = Position(record.position + 1)
            yield start


# --- the bytes of objects --------------------------------------------------------------------------
async def _altered(store: Store, objects: Sequence[NamedObject], progress: Progress) -> list[Finding]:
    """Findings of objects whose bytes are not what was written."""
    wrong: dict[str, str] = {}
    waiting = iter(objects)
    done, total = 0, sum(n.ref.bytes for n in objects)

    async def reader() -> None:
        nonlocal done
        for named in waiting:
            if why := await _difference(store.objects, named):
                wrong[named.ref.name] = why
            done += named.ref.bytes
            progress(done, total)

    await asyncio.gather(*(reader() for _ in range(READERS)))
    if not wrong:
        return []
    # Those that left their manifest meanwhile may have been deleted.
    picture = await read(store.meta)
    return [
        findings.damaged(picture, named, "object altered", wrong[named.ref.name])
        for named in findings.named_objects(picture)
        if named.ref.name in wrong
    ]


async def _difference(objects: ObjectStore, named: NamedObject) -> str:
    """How an object differs from what was written; "" = it does not."""
    hasher, start, ref = xxhash.xxh3_64(), 0, named.ref
    try:
        while start < ref.bytes:
            piece = await objects.get(ref.name, start, min(PIECE_BYTES, ref.bytes - start))
            if not piece:
                return f"it ends after {start} bytes, {ref.bytes} expected"
            hasher.update(piece)
            start += len(piece)
    except ObjectNotFound:
        return "it is gone"
    found = hasher.intdigest()
    return "" if found == ref.digest else f"digest {found:016x}, {ref.digest:016x} expected"
