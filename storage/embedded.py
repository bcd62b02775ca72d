"""The three embedded backends in one data folder, as one store."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.catalog import Cluster
from core.errors import StartRefused
from core.settings import LogSettings
from storage.identity import Identity
from storage.log.sqlite import SqliteLog
from storage.meta.sqlite import SqliteMeta
from storage.objects.folder import FolderObjects

log = structlog.get_logger()


@dataclass(frozen=True)
class Store:
    """The open backends. ``close`` ends them and frees the folder."""

    meta: SqliteMeta
    log: SqliteLog
    objects: FolderObjects
    cluster: Cluster
    close: Callable[[], Awaitable[None]]


async def open_store(folder: Path, log_settings: LogSettings) -> Store:
    """Opens the store in a folder, or creates it there; an interrupted creation is completed.

    Raises ``StartRefused`` when another process has it, when a part of it is missing or belongs to
    another cluster, or when a newer version wrote it; ``Corrupted`` naming a damaged file.
    """
    async with AsyncExitStack() as stack:
        lock = await asyncio.to_thread(_lock, folder)
        stack.callback(os.close, lock)
        identity = await asyncio.to_thread(Identity, folder)
        meta = await SqliteMeta.open(identity.meta_path)
        stack.push_async_callback(meta.close)
        records = await SqliteLog.open(identity.log_path, log_settings.channels, log_settings.record_bytes_max)
        stack.push_async_callback(records.close)
        objects = await asyncio.to_thread(FolderObjects, identity.objects)
        stack.push_async_callback(objects.close)
        await identity.check(meta, records)
        if records.channels != log_settings.channels:
            log.warning(
                "log.channels is fixed when a store is created",
                folder=str(folder),
                store=records.channels,
                settings=log_settings.channels,
            )
        return Store(meta, records, objects, identity.cluster, stack.pop_all().aclose)
    raise AssertionError("an exit stack without suppressing callbacks")


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
