"""The embedded object store: a folder. What is in it under its name is whole and durable."""

import asyncio
import errno
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from core.errors import DiskFull, InvalidArgument, ObjectNotFound, Unavailable
from storage.objects.port import ObjectInfo, check_name
from storage.reserve import demand_room

THREADS = 4
LIST_STEP = 512
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What a look-up raises for a name under which no object is."""
UNFIT = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
"""The name is too long, or a part of it is an object and a folder at once."""
T = TypeVar("T")


class FolderObjects:
    """``ObjectStore`` in a local folder; blocking work runs in a few threads.

    A file given to ``put`` is linked where the file system can, not copied: write it once, then put
    it. Names whose parts begin with a dot are the store's own and refused.
    """

    def __init__(self, root: Path) -> None:
        """Creates the folder if need be, and removes what an interrupted ``put`` left behind."""
        self.root = root
        self._temporary = root / ".tmp"
        self._threads = ThreadPoolExecutor(THREADS, "objects")
        self._closed = False
        # Held while a name appears or a folder goes, so that neither happens in the middle of the other.
        self._naming = threading.Lock()
        self._synced: set[Path] = {root}
        """Folders whose own entry in their parent is durable."""
        with _typed(str(root)):
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True, exist_ok=True)
            sync(root.parent)

    # --- the port --------------------------------------------------------------------------
    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        await self._run(name, partial(self._put, self._path(name), data))

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return await self._run(name, partial(_read, name, self._path(name), start, length))

    async def fetch(self, name: str) -> Path:
        path = self._path(name)
        if not await self._run(name, path.is_file):
            raise ObjectNotFound(name)
        return path

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        objects = self._walk("", prefix)
        while step := await self._run(prefix, lambda: list(itertools.islice(objects, LIST_STEP))):
            for info in step:
                yield info

    async def delete(self, name: str) -> None:
        await self._run(name, partial(self._delete, self._path(name)))

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)

    # ---------------------------------------------------------------------------------------
    async def _run(self, name: str, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the object store is closed")
        with _typed(name):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.root / name

    # --- in a thread -----------------------------------------------------------------------
    def _put(self, path: Path, data: bytes | memoryview | Path) -> None:
        temporary = self._temporary / uuid.uuid4().hex
        try:
            if isinstance(data, Path):
                _link_or_copy(data, temporary)
            else:
                demand_room(self.root, memoryview(data).nbytes)
                temporary.write_bytes(data)
            sync(temporary)
            with self._naming:
                created = self._make_folders(path.parent)
                os.replace(temporary, path)
            for folder in created:
                sync(folder.parent)
                self._synced.add(folder)
            sync(path.parent)
        finally:
            # Still there after an error, and after renaming one link of a file over another.
            temporary.unlink(missing_ok=True)

    def _make_folders(self, folder: Path) -> Sequence[Path]:
        """Folders on the way whose entry is not known to be durable, whoever made them."""
        folder.mkdir(parents=True, exist_ok=True)
        way = [f for f in (folder, *folder.parents) if f.is_relative_to(self.root)]
        return [f for f in reversed(way) if f not in self._synced]

    def _delete(self, path: Path) -> None:
        with self._naming:
            with suppress(*ABSENT):
                path.unlink()
            # A folder that is not empty ends the climb.
            with suppress(OSError):
                for folder in itertools.takewhile(lambda f: f != self.root, path.parents):
                    folder.rmdir()
                    self._synced.discard(folder)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """In name order: a folder sorts as its name with the slash that follows it."""
        try:
            with os.scandir(self.root / folder) as entries:
                found = sorted((e.name + "/" * e.is_dir(follow_symlinks=False), e) for e in entries)
        except FileNotFoundError:
            return
        for label, entry in found:
            name = folder + label
            if label.startswith(".") or not (name.startswith(prefix) or prefix.startswith(name)):
                continue
            if label.endswith("/"):
                yield from self._walk(name, prefix)
            elif name.startswith(prefix):
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    yield ObjectInfo(name, stat.st_size, stat.st_mtime_ns // 1_000_000)


def _read(name: str, path: Path, start: int, length: int | None) -> bytes:
    try:
        file = path.open("rb")
    except ABSENT:
        raise ObjectNotFound(name) from None
    with file:
        file.seek(start)
        return file.read(-1 if length is None else length)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as e:
        if e.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        demand_room(target.parent, source.stat().st_size)
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """Turns the system's errors into those of ``core.errors``."""
    try:
        yield
    except OSError as e:
        if e.errno in NO_ROOM:
            raise DiskFull(f"no room to store {what}: {e}") from e
        if e.errno in UNFIT:
            raise InvalidArgument(f"object {what} cannot be stored beside the others: {e}") from e
        raise Unavailable(f"object {what}: {e}") from e
