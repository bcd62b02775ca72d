"""The backends under test. A new one is one more class and one more parameter here."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from storage.log.port import Log
from storage.log.sqlite import SqliteLog
from storage.meta.port import MetaStore
from storage.meta.sqlite import SqliteMeta
from storage.objects.folder import FolderObjects
from storage.objects.port import ObjectStore

CHANNELS = 3
RECORD_BYTES_MAX = 1024 * 1024


class LogBackend(Protocol):
    gapless: bool
    """Positions grow by exactly one; an append is atomic."""

    async def open(self) -> Log:
        """Opens the same log, again after a close."""
        ...


class MetaBackend(Protocol):
    history_survives: bool
    """A watch resumes across a restart of the store, and leases go on."""

    async def open(self) -> MetaStore: ...


class ObjectBackend(Protocol):
    async def open(self) -> ObjectStore: ...


class SqliteLogBackend:
    gapless = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.db"

    async def open(self) -> SqliteLog:
        return await SqliteLog.open(self.path, CHANNELS, RECORD_BYTES_MAX)


class SqliteMetaBackend:
    history_survives = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / "meta.db"

    async def open(self) -> SqliteMeta:
        return await SqliteMeta.open(self.path)


class FolderBackend:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "objects"

    async def open(self) -> FolderObjects:
        return FolderObjects(self.root)


LOGS: dict[str, Callable[[Path], LogBackend]] = {"sqlite": SqliteLogBackend}
METAS: dict[str, Callable[[Path], MetaBackend]] = {"sqlite": SqliteMetaBackend}
OBJECTS: dict[str, Callable[[Path], ObjectBackend]] = {"folder": FolderBackend}


@pytest.fixture(params=LOGS)
def log_backend(request: pytest.FixtureRequest, tmp_path: Path) -> LogBackend:
    return LOGS[request.param](tmp_path)


@pytest.fixture
async def log(log_backend: LogBackend) -> AsyncIterator[Log]:
    log = await log_backend.open()
    yield log
    await log.close()


@pytest.fixture(params=METAS)
def meta_backend(request: pytest.FixtureRequest, tmp_path: Path) -> MetaBackend:
    return METAS[request.param](tmp_path)


@pytest.fixture
async def meta(meta_backend: MetaBackend) -> AsyncIterator[MetaStore]:
    meta = await meta_backend.open()
    yield meta
    await meta.close()


@pytest.fixture(params=OBJECTS)
def object_backend(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectBackend:
    return OBJECTS[request.param](tmp_path)


@pytest.fixture
async def objects(object_backend: ObjectBackend) -> AsyncIterator[ObjectStore]:
    objects = await object_backend.open()
    yield objects
    await objects.close()
