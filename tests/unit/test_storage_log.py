"""What the embedded log promises beyond its port: shared commits, bounded file, memory and queue."""

import asyncio
import random
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from core import failpoints
from core.errors import Unavailable
from core.ids import Channel, Position
from storage.log import record_file
from storage.log.admission import Admission
from storage.log.port import LogRecord
from storage.log.record_file import RecordFile
from storage.log.sqlite import SqliteLog
from storage.log.tail import TAIL_BYTES_MAX, Tail

A = Channel(0)
PATIENCE_S = 20


async def test_concurrent_small_appends_share_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commits = 0
    append = RecordFile.append

    def counted(self: RecordFile, entries: list) -> list[Position]:
        nonlocal commits
        commits += 1
        return append(self, entries)

    monkeypatch.setattr(RecordFile, "append", counted)
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1 << 20)

    async def write() -> None:
        for _ in range(25):
            await log.append([(A, b"x" * 100)])

    await asyncio.gather(*(write() for _ in range(32)))
    assert await log.end([A]) == [800]
    assert commits < 200, "32 callers, at most a few commits a round"
    await log.close()


async def test_tailing_readers_have_the_records_before_the_append_returns(tmp_path: Path):
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1 << 20)
    seen: list[bytes] = []

    async def tail() -> None:
        async for batch in log.read(A, Position(0)):
            seen.extend(r.payload for r in batch)

    task = asyncio.create_task(tail())
    await log.append([(A, b"warm")])
    for i in range(50):
        await log.append([(A, b"%d" % i)])
        assert seen[-1] == b"%d" % i
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await log.close()


async def test_the_file_stays_bounded_and_shrinks(tmp_path: Path):
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path, 1, 1 << 20)
    payload = random.Random(1).randbytes(1 << 20)
    sizes = []
    for _ in range(6):
        await log.append([(A, payload)] * 24)
        [end] = await log.end([A])
        await log.trim(A, Position(end - 1))
        sizes.append(path.stat().st_size)
    assert max(sizes) < 70 << 20, "144 MB were written, 24 at a time"
    deadline = time.monotonic() + PATIENCE_S
    while path.stat().st_size > 4 << 20 and time.monotonic() < deadline:  # noqa: ASYNC110, only the file tells
        await asyncio.sleep(0.05)
    assert path.stat().st_size <= 4 << 20, "one record of 1 MB is kept"
    assert (tmp_path / "log.db-wal").stat().st_size <= 16 << 20
    await log.append([(A, b"after")])
    await log.close()


async def test_a_large_call_is_atomic_and_in_order(tmp_path: Path):
    log = await SqliteLog.open(tmp_path / "log.db", 2, 1 << 20)
    entries = [(Channel(i % 2), b"%d" % i) for i in range(1000)]
    positions = await log.append(entries)
    assert positions == [i // 2 for i in range(1000)]
    failpoints.arm("log.before_commit=fail")
    with pytest.raises(Unavailable):
        await log.append(entries)
    failpoints.arm("log.before_commit=fail")
    with pytest.raises(Unavailable):
        await log.append(entries[:1])
    assert await log.end([A, Channel(1)]) == [500, 500]
    assert await log.append(entries[:2]) == [500, 500]
    await log.close()


async def test_a_lost_answer_leaves_the_log_consistent(tmp_path: Path):
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1 << 20)
    seen: list[LogRecord] = []

    async def tail() -> None:
        async for batch in log.read(A, Position(0)):
            seen.extend(batch)

    task = asyncio.create_task(tail())
    await log.append([(A, b"0")])
    failpoints.arm("log.committed=fail")
    with pytest.raises(Unavailable):
        await log.append([(A, b"1")])
    await log.append([(A, b"2")])
    assert [(r.position, r.payload) for r in seen] == [(0, b"0"), (1, b"1"), (2, b"2")]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await log.close()


async def test_a_failing_commit_fails_its_callers_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the file raises, nobody waits for ever."""
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1 << 20)
    monkeypatch.setattr(record_file, "_checksum", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(log.append([(A, b"x")]), PATIENCE_S)
    monkeypatch.undo()
    assert await log.append([(A, b"x")]) == [0]
    await log.close()


async def test_following_costs_no_read_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1 << 20)

    def no_read(*_: object) -> list[LogRecord]:
        raise AssertionError("read from the file")

    monkeypatch.setattr(RecordFile, "read", no_read)
    payload = b"the very object"
    async with asyncio.timeout(PATIENCE_S), aclosing(log.read(A, Position(0))) as batches:
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            await log.append([(A, payload)])
            [record] = await waiting
            assert record.payload is payload
    await log.close()


def test_a_tail_that_falls_behind_lets_go_of_memory():
    tail = Tail(Position(5))
    tail.follow()
    record = LogRecord(Position(5), bytes(TAIL_BYTES_MAX // 2))
    tail.push([record])
    assert tail.following
    tail.push([LogRecord(Position(6), bytes(TAIL_BYTES_MAX // 2 + 1))])
    assert not tail.following
    assert tail.position == 5, "it reads the file from where it was"


async def test_admission_is_bounded_fair_and_survives_cancellation():
    admission = Admission(10)
    order: list[int] = []

    async def enter(size: int) -> None:
        await admission.enter(size)
        order.append(size)

    await enter(8)
    waiting = [asyncio.create_task(enter(size)) for size in (7, 1, 25)]
    await asyncio.sleep(0)
    assert order == [8], "1 would fit, but 7 came first"
    waiting[0].cancel()
    admission.leave(8)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [8, 1]
    admission.leave(1)
    await asyncio.wait_for(waiting[2], PATIENCE_S)
    assert order == [8, 1, 25], "more than the bound enters alone"
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_caller_cancelled_as_it_is_admitted_takes_no_room():
    admission = Admission(10)
    await admission.enter(10)
    task = asyncio.create_task(admission.enter(10))
    await asyncio.sleep(0)
    admission.leave(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(admission.enter(10), PATIENCE_S)
