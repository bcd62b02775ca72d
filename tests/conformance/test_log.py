"""Every promise of ``storage.log.port``, on every backend."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from core.errors import Corrupted, LogTruncated, TooLarge, Unavailable
from core.ids import Channel, Position
from storage.log.port import Log, LogRecord

from .conftest import RECORD_BYTES_MAX, LogBackend

A, B, C = Channel(0), Channel(1), Channel(2)
PATIENCE_S = 20


async def collect(
    log: Log, channel: Channel, start: int = 0, count: int | None = None, until: int | None = None
) -> list[LogRecord]:
    """Records from ``start``: ``count`` of them, or those below ``until`` (the end if not given)."""
    if count is None and until is None:
        [until] = await log.end([channel])
    out: list[LogRecord] = []
    async with asyncio.timeout(PATIENCE_S):
        async with aclosing(log.read(channel, Position(start))) as batches:
            while (count is not None and len(out) < count) or (until is not None and start < until):
                batch = await anext(batches)
                assert batch
                out.extend(batch)
                start = out[-1].position + 1
    return out


def payloads(records: Sequence[LogRecord]) -> list[bytes]:
    return [r.payload for r in records]


async def test_append_gives_positions_in_order_from_zero(log: Log, log_backend: LogBackend):
    first = await log.append([(A, b"a0"), (B, b"b0"), (A, b"a1")])
    second = await log.append([(A, b"a2")])
    assert first[0] < first[2] < second[0]
    if log_backend.gapless:
        assert [*first, *second] == [0, 0, 1, 2]
    assert payloads(await collect(log, A)) == [b"a0", b"a1", b"a2"]
    assert payloads(await collect(log, B)) == [b"b0"]
    assert await log.append([]) == []


async def test_read_starts_where_asked_and_follows_the_end(log: Log):
    positions = await log.append([(A, bytes([i])) for i in range(10)])
    async with asyncio.timeout(PATIENCE_S), aclosing(log.read(A, positions[7])) as batches:
        seen: list[LogRecord] = []
        while len(seen) < 3:
            seen.extend(await anext(batches))
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await log.append([(A, b"new"), (B, b"other")])
        seen.extend(await waiting)
    assert payloads(seen) == [b"\7", b"\x08", b"\x09", b"new"]


async def test_end_is_not_below_any_finished_append(log: Log):
    assert await log.end([A, B]) == [0, 0]
    [position] = await log.append([(B, b"x")])
    assert await log.end([B, A]) == [position + 1, 0]


async def test_concurrent_appends_keep_each_callers_order_and_lose_nothing(log: Log):
    async def write(caller: int) -> list[tuple[Position, bytes]]:
        mine = []
        for i in range(20):
            entries = [(A, b"%d:%d:%d" % (caller, i, j)) for j in range(caller % 3 + 1)]
            mine += zip(await log.append(entries), [p for _, p in entries], strict=True)
        return mine

    tailing = asyncio.create_task(collect(log, A, count=20 * sum(c % 3 + 1 for c in range(16))))
    told = [pair for mine in await asyncio.gather(*map(write, range(16))) for pair in mine]
    found = [(r.position, r.payload) for r in await collect(log, A)]
    assert found == sorted(told)
    assert [(r.position, r.payload) for r in await tailing] == found
    for caller in range(16):
        mine = [p for _, p in found if p.startswith(b"%d:" % caller)]
        assert mine == sorted(mine, key=lambda p: [int(n) for n in p.split(b":")])


async def test_slow_and_late_readers_get_everything(log: Log):
    rng = random.Random(7)
    sent = [rng.randbytes(rng.choice([0, 1, 100, 100_000, RECORD_BYTES_MAX])) for _ in range(60)]

    async def slow() -> list[bytes]:
        seen: list[bytes] = []
        async with aclosing(log.read(A, Position(0))) as batches:
            while len(seen) < len(sent):
                seen.extend(payloads(await anext(batches)))
                await asyncio.sleep(0.02)
        return seen

    reader = asyncio.create_task(slow())
    for payload in sent:
        await log.append([(A, payload)])
    assert await asyncio.wait_for(reader, PATIENCE_S) == sent
    assert payloads(await collect(log, A)) == sent


async def test_too_large_a_record_is_refused_and_nothing_is_appended(log: Log):
    with pytest.raises(TooLarge):
        await log.append([(A, b"fits"), (A, b"x" * (RECORD_BYTES_MAX + 1))])
    assert await log.end([A]) == [0]
    await log.append([(A, b"x" * RECORD_BYTES_MAX)])


async def test_reopening_keeps_records_and_positions(log_backend: LogBackend):
    log = await log_backend.open()
    await log.append([(A, b"0"), (B, b"0"), (A, b"1")])
    await log.trim(A, Position(1))
    ends = await log.end([A, B, C])
    await log.close()
    log = await log_backend.open()
    assert await log.end([A, B, C]) == ends
    assert await log.start(A) == 1
    assert payloads(await collect(log, A, 1)) == [b"1"]
    [position] = await log.append([(A, b"2")])
    assert position >= ends[0]
    await log.close()


async def test_trim(log: Log):
    await log.append([(A, b"%d" % i) for i in range(10)] + [(B, b"b")])
    await log.trim(A, Position(4))
    assert await log.start(A) == 4
    assert payloads(await collect(log, A, 4)) == [b"%d" % i for i in range(4, 10)]
    with pytest.raises(LogTruncated) as e:
        await collect(log, A, 3)
    assert (e.value.channel, e.value.asked, e.value.start) == (A, 3, 4)
    await log.trim(A, Position(2))
    assert await log.start(A) == 4, "never moves back"
    [end] = await log.end([A])
    await log.trim(A, Position(end + 100))
    assert await log.start(A) == end, "capped at the end"
    assert payloads(await collect(log, B)) == [b"b"], "other channels are not touched"
    [position] = await log.append([(A, b"next")])
    assert position == end, "positions go on after a trim"
    assert payloads(await collect(log, A, position)) == [b"next"]


async def test_the_end_is_reached_by_its_last_record_or_is_the_start(log: Log):
    await log.append([(A, b"%d" % i) for i in range(5)])
    [end] = await log.end([A])
    assert (await collect(log, A))[-1].position == end - 1
    await log.trim(A, end)
    assert await log.start(A) == end == (await log.end([A]))[0], "nothing is kept, nothing to wait for"
    async with asyncio.timeout(PATIENCE_S), aclosing(log.read(A, end)) as batches:
        reading = asyncio.ensure_future(anext(batches))
        [position] = await log.append([(A, b"next")])
        assert [(r.position, r.payload) for r in await reading] == [(position, b"next")]


async def test_a_reader_that_is_ahead_of_the_log_is_told(log: Log):
    await log.append([(A, b"x")])
    with pytest.raises(Corrupted, match=r"ends at 1, 7 was asked for"):
        await collect(log, A, 7, count=1)


async def test_trimming_under_readers_gives_records_or_truncation_never_a_gap(log: Log):
    await log.append([(A, b"x" * 50_000) for _ in range(400)])

    async def read(start: int) -> None:
        position = start
        async with aclosing(log.read(A, Position(start))) as batches:
            while position < 400:
                try:
                    batch = await anext(batches)
                except LogTruncated:
                    assert await log.start(A) > position
                    return
                for record in batch:
                    assert record.position == position
                    position += 1

    async def trim() -> None:
        for before in range(0, 400, 20):
            await log.trim(A, Position(before))
            await asyncio.sleep(0.002)

    await asyncio.wait_for(asyncio.gather(trim(), *(read(s) for s in range(0, 400, 50))), PATIENCE_S)


async def test_a_cancelled_append_is_whole_or_absent(log: Log):
    tasks = [asyncio.create_task(log.append([(A, b"%d" % i), (A, b"%d" % i)])) for i in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await log.append([(A, b"last")])
    found = payloads(await collect(log, A))
    for i, task in enumerate(tasks):
        assert found.count(b"%d" % i) in ((0, 2) if task.cancelled() else (2,))


async def test_close_ends_readers_and_is_idempotent(log_backend: LogBackend):
    log = await log_backend.open()
    await log.append([(A, b"x")])

    async def tail(batches: AsyncIterator[Sequence[LogRecord]]) -> None:
        async for _ in batches:
            pass

    tails = [asyncio.create_task(tail(log.read(c, Position(0)))) for c in (A, B)]
    appends = [asyncio.create_task(log.append([(A, b"y")])) for _ in range(5)]
    await asyncio.sleep(0.01)
    await asyncio.gather(log.close(), log.close())
    for result in await asyncio.wait_for(asyncio.gather(*tails, *appends, return_exceptions=True), PATIENCE_S):
        assert isinstance(result, Unavailable | list)
    with pytest.raises(Unavailable):
        await log.append([(A, b"z")])
    with pytest.raises(Unavailable):
        await collect(log, A, count=1)
