"""Local copies of objects, bounded in bytes. The folder itself is the index.

A copy is ``<2 hex>/<hash of its key>.<bytes>.<xxh3-64 of its bytes>``, so a restart, or another process
on the same folder, finds it by name and sees whether it is still what was downloaded. Its modification
time is when it was last handed out. Downloads grow in ``.tmp`` under a lock on the file: one that nobody
locks was left by a crash.
"""

import asyncio
import errno
import fcntl
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
import xxhash

from core.errors import DiskFull, StartRefused, Unavailable
from core.settings import CacheSettings
from storage.objects.folder import NO_ROOM
from storage.reserve import demand_room
from storage.segment_writer import digest_file

THREADS = 4
GRACE_S = 10.0
"""A copy handed out less than this ago stays: who asked for it is about to open it."""
SLACK = 32
"""Room is made for this part of the bound at a time; other processes' copies are noticed as often."""
ORPHAN_AGE_S = 60.0
T = TypeVar("T")

log = structlog.get_logger()


class Source(Protocol):
    """Where a missing object comes from."""

    async def size(self) -> int:
        """Its bytes. Raises ``ObjectNotFound``."""
        ...

    async def write(self, path: Path) -> None:
        """Writes all of it into an existing file."""
        ...


@dataclass(slots=True)
class _Job:
    """A look-up or download that several callers may wait for."""

    task: asyncio.Task[Path]
    waiting: int = 0


@dataclass(order=True, slots=True)
class _Copy:
    used_ns: int
    path: Path = field(compare=False)
    bytes: int = field(compare=False)


class DiskCache:
    """Copies in a folder, which several processes may share. Made by ``open``.

    The bound counts the copies and what this process is downloading. It is exceeded by copies handed
    out in the last ``grace_s``, by one object that is larger than it, and by 1/32 per further process.
    A copy that is open stays readable when it goes, and takes room until it is closed.
    """

    def __init__(self, folder: Path, bytes_max: int, grace_s: float = GRACE_S) -> None:
        """Blocking. Raises ``StartRefused`` when the folder can't be used."""
        self._folder, self._bytes_max, self._grace_s = folder, bytes_max, grace_s
        self._temporary = folder / ".tmp"
        self._threads = ThreadPoolExecutor(THREADS, "cache")
        self._jobs: dict[str, _Job] = {}
        self._closed = False
        self._room_lock = threading.Lock()
        """Held while room is made and while a copy gets its name. Only threads wait for it."""
        self._reserved_lock = threading.Lock()
        self._reserved = 0
        self._added = 0
        """Bytes this process added since it last looked at the folder."""
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._remove_orphans()
            self._bytes = sum(copy.bytes for copy in self._copies())
        except OSError as e:
            raise StartRefused(f"cache.dir = {folder} cannot be used: {e}") from e

    @classmethod
    async def open(cls, settings: CacheSettings) -> "DiskCache":
        return await asyncio.to_thread(cls, Path(settings.dir), settings.bytes_max)

    async def fetch(self, key: str, source: Source) -> Path:
        """A copy with the bytes that ``source`` gave, now or when it was first asked; one download
        however many wait. A damaged copy is replaced.

        key: names the object for ever. Raises what ``source`` raises, ``DiskFull``, ``Unavailable``."""
        stem = _stem(key)
        job = self._jobs.get(stem)
        if job is None:
            job = _Job(asyncio.create_task(self._find_or_download(stem, key, source), name=f"fetch {key}"))
            self._jobs[stem] = job
        job.waiting += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiting -= 1
            if not job.waiting:
                # Done, or nobody wants it any more.
                job.task.cancel()
                if self._jobs.get(stem) is job:
                    del self._jobs[stem]

    async def admit(self, key: str, path: Path) -> None:
        """Keeps a file this node has just stored, if a link to it can be made. Never fails."""
        with suppress(DiskFull, Unavailable):
            size = await self._run(lambda: path.stat().st_size)
            async with self._room(size):
                await self._run(partial(self._link, _stem(key), path, size))

    async def forget(self, key: str) -> None:
        """Drops the copy of a deleted object."""
        await self._run(partial(self._forget, _stem(key)))

    async def close(self) -> None:
        """Ends running downloads. Idempotent."""
        self._closed = True
        tasks = [job.task for job in self._jobs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def _find_or_download(self, stem: str, key: str, source: Source) -> Path:
        return await self._run(partial(self._find, stem, key)) or await self._download(stem, source)

    async def _download(self, stem: str, source: Source) -> Path:
        size = await source.size()
        async with self._room(size), self._temporary_file() as temporary:
            await source.write(temporary)
            return await self._run(partial(self._keep, stem, temporary, size))

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        await self._run(partial(self._make_room, size))
        try:
            yield
        finally:
            with self._reserved_lock:
                self._reserved -= size

    @asynccontextmanager
    async def _temporary_file(self) -> AsyncIterator[Path]:
        """A locked empty file; gone afterwards unless it was moved."""
        path = self._temporary / uuid.uuid4().hex
        with _typed(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield path
            finally:
                path.unlink(missing_ok=True)
                os.close(fd)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the cache is closed")
        with _typed(self._folder):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # --- in a thread -----------------------------------------------------------------------
    def _find(self, stem: str, key: str) -> Path | None:
        """The copy, if it is there and whole."""
        for path in self._named(stem):
            _, size, digest = path.name.split(".")
            try:
                if path.stat().st_size == int(size) and f"{digest_file(path):016x}" == digest:
                    os.utime(path)
                    return path
                log.warning("damaged copy dropped from the cache", object=key, file=str(path))
            except FileNotFoundError:
                continue
            except OSError as e:
                log.warning("unreadable copy dropped from the cache", object=key, file=str(path), error=str(e))
            path.unlink(missing_ok=True)
        return None

    def _keep(self, stem: str, temporary: Path, size: int) -> Path:
        if temporary.stat().st_size != size:
            raise Unavailable(f"{temporary}: {temporary.stat().st_size} bytes arrived instead of {size}")
        return self._name(stem, temporary, size)

    def _link(self, stem: str, path: Path, size: int) -> None:
        temporary = self._temporary / uuid.uuid4().hex
        os.link(path, temporary)
        try:
            self._name(stem, temporary, size)
        finally:
            temporary.unlink(missing_ok=True)

    def _name(self, stem: str, temporary: Path, size: int) -> Path:
        """Gives a complete file the name by which it is found."""
        path = self._folder / stem[:2] / f"{stem}.{size}.{digest_file(temporary):016x}"
        path.parent.mkdir(exist_ok=True)
        temporary.chmod(0o444)
        os.utime(temporary)
        with self._room_lock:
            if path.exists():
                # Another process was faster: whoever mapped its copy shares that memory.
                os.utime(path)
            else:
                temporary.replace(path)
                self._bytes += size
                self._added += size
        return path

    def _forget(self, stem: str) -> None:
        for path in self._named(stem):
            with suppress(FileNotFoundError):
                path.unlink()

    def _named(self, stem: str) -> list[Path]:
        folder = self._folder / stem[:2]
        try:
            return [folder / name for name in os.listdir(folder) if name.startswith(stem)]
        except FileNotFoundError:
            return []

    def _make_room(self, size: int) -> None:
        """Reserves room, dropping the copies least recently handed out. Raises ``DiskFull``."""
        with self._room_lock:
            slack = self._bytes_max // SLACK
            copies: Iterator[_Copy] | None = None
            if self._bytes + self._reserved + size > self._bytes_max or self._added > slack:
                copies = self._look()
                least = self._bytes_max - size
                if self._bytes + self._reserved > least:
                    self._drop(copies, lambda: self._bytes + self._reserved <= least - slack)
            try:
                demand_room(self._folder, size)
            except DiskFull:
                self._drop(copies or self._look(), lambda: _fits(self._folder, size))
                demand_room(self._folder, size)
            with self._reserved_lock:
                self._reserved += size

    def _look(self) -> Iterator[_Copy]:
        """Counts what is there; the copies that may go, least recently handed out first."""
        copies = sorted(self._copies())
        self._bytes, self._added = sum(copy.bytes for copy in copies), 0
        before_ns = time.time_ns() - int(self._grace_s * 1e9)
        return (copy for copy in copies if copy.used_ns < before_ns)

    def _drop(self, copies: Iterator[_Copy], enough: Callable[[], bool]) -> None:
        while not enough() and (copy := next(copies, None)):
            copy.path.unlink(missing_ok=True)
            self._bytes -= copy.bytes

    def _copies(self) -> Iterator[_Copy]:
        with os.scandir(self._folder) as folders:
            names = [f.path for f in folders if not f.name.startswith(".")]
        for folder in names:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        stat = entry.stat()
                        yield _Copy(stat.st_mtime_ns, Path(entry.path), stat.st_size)

    def _remove_orphans(self) -> None:
        for path in self._temporary.iterdir():
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # A younger one may be about to be locked.
                    if time.time() - path.stat().st_mtime > ORPHAN_AGE_S:
                        path.unlink(missing_ok=True)
                finally:
                    os.close(fd)


def _stem(key: str) -> str:
    return xxhash.xxh3_128_hexdigest(key.encode())


def _fits(folder: Path, size: int) -> bool:
    try:
        demand_room(folder, size)
    except DiskFull:
        return False
    return True


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno in NO_ROOM:
            raise DiskFull(f"no room in the cache {path}: {e}") from e
        raise Unavailable(f"cache {path}: {os.strerror(e.errno or errno.EIO)}") from e
