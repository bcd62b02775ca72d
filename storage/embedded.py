"""The three embedded backends in one data folder, as one store."""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from core.errors import StartRefused
from core.settings import LogSettings
from storage.identity import PROPERTY, Origin, Place, claim, establish, records_in
from storage.log.sqlite import SqliteLog
from storage.meta.sqlite import SqliteMeta
from storage.objects.folder import FolderObjects, sync
from storage.objects.port import ObjectStore
from storage.store import NewStore, Store

__all__ = ["Store", "open_new", "open_store"]

ADVICE = "restore the folder, or start with another data folder"
NEW = "name a folder that is not there yet"

log = structlog.get_logger()


async def open_store(folder: Path, log_settings: LogSettings) -> Store:
    """Opens the store in a folder, or creates it there; an interrupted creation is completed.

    Raises ``StartRefused`` when another process has it, when a part of it is missing or belongs to
    another cluster, or when a newer version wrote it; ``Corrupted`` naming a damaged file.
    """
    async with AsyncExitStack() as stack:
        meta, records, objects, name, places = await _open(stack, folder, log_settings)
        cluster = await establish(meta, name, places, ADVICE)
        if records.channels != log_settings.channels:
            log.warning(
                "log.channels is fixed when a store is created",
                folder=str(folder),
                store=records.channels,
                settings=log_settings.channels,
            )
        return Store(meta, records, objects, cluster, stack.pop_all().aclose)
    raise AssertionError("an exit stack without suppressing callbacks")


async def open_new(folder: Path, log_settings: LogSettings, origin: Origin) -> NewStore:
    """Opens a folder that nothing uses, or creates it, to be filled as ``storage.identity.claim`` says.

    Raises ``StartRefused`` as ``open_store`` and ``claim`` do."""
    async with AsyncExitStack() as stack:
        meta, records, objects, name, places = await _open(stack, folder, log_settings)
        own = await claim(meta, name, places, NEW, origin)
        if records.channels != log_settings.channels:
            raise StartRefused(f"{folder} has a log of {records.channels} channels, not {log_settings.channels}; {NEW}")
        return NewStore(records, objects, own, stack.pop_all().aclose)
    raise AssertionError("an exit stack without suppressing callbacks")


class _Parts(NamedTuple):
    """name, places: where the identity is kept."""

    meta: SqliteMeta
    log: SqliteLog
    objects: FolderObjects
    name: str
    places: Sequence[Place]


async def _open(stack: AsyncExitStack, folder: Path, log_settings: LogSettings) -> _Parts:
    meta_path, log_path, root = folder / "meta.db", folder / "log.db", folder / "objects"
    lock = await asyncio.to_thread(_lock, folder)
    stack.callback(os.close, lock)
    await asyncio.to_thread(_demand_whole, root, meta_path, log_path)
    meta = await SqliteMeta.open(meta_path)
    stack.push_async_callback(meta.close)
    records = await SqliteLog.open(log_path, log_settings.channels, log_settings.record_bytes_max)
    stack.push_async_callback(records.close)
    objects = await asyncio.to_thread(FolderObjects, root)
    stack.push_async_callback(objects.close)
    places = (_place_of_log(records, str(log_path)), _place_of_objects(objects, root))
    return _Parts(meta, records, objects, str(meta_path), places)


def _demand_whole(root: Path, *files: Path) -> None:
    """Before anything is opened, which would create it: objects are never there without the files."""
    with suppress(FileNotFoundError):
        there = next((path for path in sorted(root.iterdir()) if path.name != ".tmp"), None)
        for path in files if there else ():
            if not path.exists() or path.stat().st_size == 0:
                raise StartRefused(f"{path} is missing or empty, but {there} is there; {ADVICE}")


def _place_of_log(records: SqliteLog, name: str) -> Place:
    return Place(
        name,
        partial(records.property, PROPERTY),
        partial(records.set_property, PROPERTY),
        partial(records_in, records, name),
    )


def _place_of_objects(objects: ObjectStore, root: Path) -> Place:
    file = root / f".{PROPERTY}"

    def read() -> bytes | None:
        return file.read_bytes() if file.exists() else None

    def write(value: bytes) -> None:
        """Durable and whole, also in a crash."""
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_bytes(value)
        sync(temporary)
        temporary.replace(file)
        sync(root)

    async def used() -> str:
        async for info in objects.list(""):
            return str(root / info.name)
        return ""

    return Place(str(file), partial(asyncio.to_thread, read), partial(asyncio.to_thread, write), used)


def _lock(folder: Path) -> int:
    """Takes the folder for this process until the descriptor is closed."""
    path = folder / "LOCK"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise StartRefused(f"data folder {folder} cannot be used: {e}") from e
    try:
        # flock, not lockf: it also holds against a second store in the same process.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as e:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        if isinstance(e, BlockingIOError):
            raise StartRefused(
                f"data folder {folder} is in use by process {holder or 'unknown'}; stop it first, or use another folder"
            ) from None
        raise StartRefused(f"data folder {folder} cannot be used: {e}") from e
    return fd
