"""The embedded log: one SQLite file, one writing thread, group commit, push to tailing readers."""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.errors import Corrupted, InvalidArgument, LogTruncated, TooLarge, Unavailable
from core.failpoints import failpoint
from core.ids import Channel, Position
from storage.log.admission import Admission
from storage.log.port import LogRecord
from storage.log.record_file import RecordFile
from storage.log.space import Space
from storage.log.tail import Tail
from storage.sqlite_file import typed_errors

GROUP_BYTES_MAX = 16 * 1024 * 1024
"""Payload bytes that share one commit; a larger call is a commit of its own."""
QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Payload bytes waiting for a commit above which callers wait to enter the queue."""


@dataclass(slots=True)
class _Append:
    entries: Sequence[tuple[Channel, bytes]]
    bytes: int
    done: asyncio.Future[list[Position]]


@dataclass(slots=True)
class _Task:
    """Something else for the writing thread: it runs alone, between commits."""

    run: Callable[[], None]
    done: asyncio.Future[None]


class SqliteLog:
    """``Log`` in one local file; positions have no holes. Belongs to the event loop it was opened on."""

    def __init__(self, file: RecordFile, record_bytes_max: int) -> None:
        self.channels = len(file.ends)
        self.record_bytes_max = record_bytes_max
        self._file = file
        self._loop = asyncio.get_running_loop()
        # As published: they move on the event loop, after the commit.
        self._starts = list(file.starts)
        self._ends = list(file.ends)
        self._tails: dict[Channel, set[Tail]] = defaultdict(set)
        self._admission = Admission(QUEUE_BYTES_MAX)
        self._closing: asyncio.Task[None] | None = None
        # Shared with the writing thread, under the condition's lock.
        self._queue: deque[_Append | _Task] = deque()
        self._work = threading.Condition()
        self._stopping = False
        self._reading = ThreadPoolExecutor(1, "log-read")
        self._writer = threading.Thread(target=self._write, name="log-write", daemon=True)
        self._writer.start()

    @classmethod
    async def open(cls, path: Path, channels: int, record_bytes_max: int) -> "SqliteLog":
        """Opens the log, or creates it with this many channels: an existing one keeps its number.

        Raises ``Corrupted`` naming the file, ``DiskFull``, ``Unavailable``.
        """
        return cls(await asyncio.to_thread(RecordFile, path, channels), record_bytes_max)

    # --- the port --------------------------------------------------------------------------
    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        size = 0
        for channel, payload in entries:
            self._check_channel(channel)
            if len(payload) > self.record_bytes_max:
                raise TooLarge(f"log record of {len(payload)} bytes, at most {self.record_bytes_max} fit")
            size += len(payload)
        if not entries:
            return []
        await self._admission.enter(size)
        job = _Append(entries, size, self._loop.create_future())
        try:
            self._submit(job)
        except Unavailable:
            self._admission.leave(size)
            raise
        return await job.done

    async def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        self._check_channel(channel)
        if start > self._ends[channel]:
            raise Corrupted(self._file.path, f"channel {channel} ends at {self._ends[channel]}, {start} was asked for")
        tail = Tail(start)
        self._tails[channel].add(tail)
        try:
            while True:
                self._check_open()
                records = await (tail.take() if tail.following else self._catch_up(channel, tail))
                if records:
                    yield records
        finally:
            self._tails[channel].discard(tail)

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        self._check_open()
        return [self._ends[c] for c in channels]

    async def start(self, channel: Channel) -> Position:
        self._check_open()
        self._check_channel(channel)
        return self._starts[channel]

    async def trim(self, channel: Channel, before: Position) -> None:
        self._check_channel(channel)
        before = min(before, self._ends[channel])
        if before > self._starts[channel]:
            await self._run(partial(self._begin_at, channel, before))

    async def close(self) -> None:
        # A task, so that every caller waits for the end, also when the first one is cancelled.
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        with self._work:
            self._stopping = True
            self._work.notify()
        self._admission.open_wide()
        for tail in [t for tails in self._tails.values() for t in tails]:
            tail.wake()
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reading.shutdown)
        await asyncio.to_thread(self._file.close)

    # --- for who opens a store -------------------------------------------------------------
    async def property(self, name: str) -> bytes | None:
        """A value kept in the file beside the records; None if it was never set."""
        self._check_open()
        return await self._loop.run_in_executor(self._reading, self._file.property, name)

    async def set_property(self, name: str, value: bytes) -> None:
        """Durable when it returns."""
        await self._run(partial(self._file.set_property, name, value))

    async def begin_at(self, channel: Channel, position: Position) -> None:
        """As ``FillableLog``."""
        self._check_channel(channel)
        await self._run(partial(self._begin_at, channel, position))

    # --- event loop ------------------------------------------------------------------------
    def _check_channel(self, channel: Channel) -> None:
        if not 0 <= channel < self.channels:
            raise InvalidArgument(f"log channel {channel} does not exist, there are {self.channels}")

    def _check_open(self) -> None:
        if self._stopping:
            raise Unavailable("the log is closed")

    def _submit(self, job: _Append | _Task) -> None:
        with self._work:
            self._check_open()
            self._queue.append(job)
            self._work.notify()

    async def _run(self, run: Callable[[], None]) -> None:
        job = _Task(run, self._loop.create_future())
        self._submit(job)
        await job.done

    async def _catch_up(self, channel: Channel, tail: Tail) -> list[LogRecord]:
        """The next batch from the file, or the switch to following when there is none."""
        self._check_kept(channel, tail.position)
        if tail.position == self._ends[channel]:
            tail.follow()
            return []
        try:
            records = await self._loop.run_in_executor(
                self._reading, self._file.read, channel, tail.position, self._ends[channel]
            )
        except Corrupted:
            # A trim that came between takes the records away: it is published before it deletes.
            self._check_kept(channel, tail.position)
            raise
        tail.position = Position(records[-1].position + 1)
        return records

    def _check_kept(self, channel: Channel, position: Position) -> None:
        if position < self._starts[channel]:
            raise LogTruncated(channel, position, self._starts[channel])

    def _appended(self, group: list[_Append], positions: list[Position], error: Exception | None) -> None:
        """Publishes a commit: first the end, then the records to tails, then the callers."""
        if positions:
            self._publish(group, positions)
        first = 0
        for job in group:
            self._admission.leave(job.bytes)
            if not job.done.done():
                if error:
                    job.done.set_exception(error)
                else:
                    job.done.set_result(positions[first : first + len(job.entries)])
            first += len(job.entries)

    def _publish(self, group: list[_Append], positions: list[Position]) -> None:
        by_channel: dict[Channel, list[LogRecord]] = defaultdict(list)
        entries = (entry for job in group for entry in job.entries)
        for (channel, payload), position in zip(entries, positions, strict=True):
            by_channel[channel].append(LogRecord(position, payload))
        for channel, records in by_channel.items():
            self._ends[channel] = Position(records[-1].position + 1)
            for tail in self._tails[channel]:
                tail.push(records)

    # --- writing thread --------------------------------------------------------------------
    def _write(self) -> None:
        space = Space(self._file)
        while True:
            with self._work:
                self._work.wait_for(lambda: self._queue or self._stopping, space.due_s())
                if self._stopping and not self._queue:
                    return
                work = self._next_work()
            if isinstance(work, _Task):
                self._perform(work)
                space.trimmed()
            elif work:
                self._commit(work)
            space.step(busy=bool(work))

    def _next_work(self) -> list[_Append] | _Task:
        group: list[_Append] = []
        size = 0
        while self._queue:
            job = self._queue[0]
            if isinstance(job, _Task):
                return group or self._take_task()
            if group and size + job.bytes > GROUP_BYTES_MAX:
                break
            group.append(job)
            size += job.bytes
            self._queue.popleft()
        return group

    def _take_task(self) -> _Task:
        job = self._queue.popleft()
        assert isinstance(job, _Task)
        return job

    def _commit(self, group: list[_Append]) -> None:
        positions: list[Position] = []
        error: Exception | None = None
        try:
            positions = self._file.append([entry for job in group for entry in job.entries])
            with typed_errors(self._file.path):
                failpoint("log.committed")
        except Exception as e:  # whatever it is, it is the callers': this thread serves the next ones
            error = e
        self._post(self._appended, group, positions, error)

    def _perform(self, job: _Task) -> None:
        try:
            job.run()
        except Exception as e:
            self._post(self._finish, job.done, e)
        else:
            self._post(self._finish, job.done, None)

    def _begin_at(self, channel: Channel, position: Position) -> None:
        self._file.begin_at(channel, position)
        # Queued before anything is deleted, so a reader that misses a record knows why.
        self._post(self._begun_at, channel, position)

    def _begun_at(self, channel: Channel, position: Position) -> None:
        self._starts[channel] = max(self._starts[channel], position)
        self._ends[channel] = max(self._ends[channel], position)

    @staticmethod
    def _finish(done: asyncio.Future[None], error: Exception | None) -> None:
        if done.done():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        # A closed event loop has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(partial(callback, *args))
