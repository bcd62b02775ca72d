"""The embedded metadata store: one SQLite file, one thread, watches and leases in memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from core.errors import Fenced, SheafError, Unavailable
from core.ids import Revision
from storage.meta.history import History
from storage.meta.kv_file import Commit, KvFile
from storage.meta.leases import Leases
from storage.meta.port import Condition, Delete, Event, Item, Put
from storage.meta.writes import check_commit

REVOKE_RETRY_S = 1.0
T = TypeVar("T")

log = structlog.get_logger()


class SqliteMeta:
    """``MetaStore`` in one local file. Belongs to the event loop it was opened on.

    Leases live as long as the process: opening the store deletes the keys of all former ones. The
    history for watches is kept in memory, so no watch resumes across a restart: it lists again.
    """

    def __init__(self, file: KvFile) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._history = History(file.revision)
        self._leases = Leases(self._expire)
        self._thread = ThreadPoolExecutor(1, "meta")
        self._closed = False
        self._revoking: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> "SqliteMeta":
        """Opens or creates the store. Raises ``Corrupted`` naming the file, ``DiskFull``, ``Unavailable``."""
        return cls(await asyncio.to_thread(KvFile, path))

    # --- the port --------------------------------------------------------------------------
    async def get(self, key: str) -> Item | None:
        return await self._run(partial(self._file.get, key))

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        return await self._run(partial(self._file.list, prefix))

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        check_commit(conditions, writes)
        for write in writes:
            if isinstance(write, Put) and write.lease and not self._leases.alive(write.lease):
                raise Fenced(f"lease {write.lease} of key {write.key} has ended")
        return await self._commit(partial(self._file.commit, tuple(conditions), tuple(writes)))

    async def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        while True:
            self._check_open()
            if after >= self._history.revision:
                await self._history.moved()
                continue
            events = self._history.next(after)
            after = events[0].revision
            chosen = [e for e in events if e.key.startswith(prefix)]
            if chosen:
                yield chosen

    async def grant(self, ttl_s: float) -> int:
        self._check_open()
        return self._leases.grant(ttl_s)

    async def keep_alive(self, lease: int) -> None:
        self._check_open()
        self._leases.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        self._leases.end(lease)
        await self._commit(partial(self._file.end_leases, lease))

    async def close(self) -> None:
        # A task, so that every caller waits for the end, also when the first one is cancelled.
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._closed = True
        self._leases.close()
        self._history.wake()
        for task in self._revoking:
            task.cancel()
        await asyncio.gather(*self._revoking, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        await asyncio.to_thread(self._file.close)

    # ---------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the metadata store is closed")

    async def _run(self, run: Callable[[], T]) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._thread, run)

    async def _commit(self, run: Callable[[], Commit]) -> Revision:
        return (await self._run(partial(self._publish, run))).revision

    def _publish(self, run: Callable[[], Commit]) -> Commit:
        """On the thread: commits, and queues the events before the answer to the caller."""
        commit = run()
        self._loop.call_soon_threadsafe(self._history.add, commit.revision, commit.events)
        return commit

    def _expire(self, lease: int) -> None:
        task = asyncio.create_task(self._delete_keys(lease), name=f"lease {lease}")
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)

    async def _delete_keys(self, lease: int) -> None:
        while not self._closed:
            try:
                return await self.revoke(lease)
            except SheafError as e:
                log.warning("keys of an ended lease are still there", lease=lease, error=str(e))
                await asyncio.sleep(REVOKE_RETRY_S)
