"""The backends under test. A new one is one more class and one more parameter here."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from core.settings import EtcdSettings, LogSettings
from sheafdb.servers import Etcd, Kafka, Minio
from sheafdb.servers.process import http
from storage.log.kafka import KafkaLog
from storage.log.port import Log
from storage.log.sqlite import SqliteLog
from storage.meta.etcd import EtcdMeta
from storage.meta.port import MetaStore
from storage.meta.sqlite import SqliteMeta
from storage.objects.cache import DiskCache
from storage.objects.folder import FolderObjects
from storage.objects.port import ObjectStore
from storage.objects.s3 import S3Objects
from tests.on_kafka import kafka_settings
from tests.real_servers import running
from tests.s3_settings import s3_settings

CHANNELS = 3
RECORD_BYTES_MAX = 1024 * 1024
CACHE_BYTES = 100 * 1024 * 1024


class LogBackend(Protocol):
    gapless: bool
    """Positions grow by exactly one."""

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


class KafkaLogBackend:
    """Topics of its own on the session's server."""

    gapless = True

    def __init__(self, server: Kafka) -> None:
        self._settings = kafka_settings(server)

    async def open(self) -> KafkaLog:
        return await KafkaLog.open(self._settings, LogSettings(CHANNELS, RECORD_BYTES_MAX))


class SqliteMetaBackend:
    history_survives = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / "meta.db"

    async def open(self) -> SqliteMeta:
        return await SqliteMeta.open(self.path)


class EtcdMetaBackend:
    history_survives = True

    def __init__(self, server: Etcd) -> None:
        self._server = server
        self._settings = EtcdSettings(endpoints=server.address, prefix=f"test-{uuid.uuid4()}")
        self._fresh = True

    async def open(self) -> EtcdMeta:
        if self._fresh:
            await self._end_leases()
            self._fresh = False
        return await EtcdMeta.open(self._settings)

    async def _end_leases(self) -> None:
        """Those of earlier tests: their ends would be counted as revisions."""
        _, answer = await http(self._server.port, "POST", "/v3/lease/leases", "{}")
        for lease in json.loads(answer).get("leases", []):
            await http(self._server.port, "POST", "/v3/lease/revoke", json.dumps(lease))


class FolderBackend:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "objects"

    async def open(self) -> FolderObjects:
        return FolderObjects(self.root)


class MinioBackend:
    """A bucket of its own on the session's server."""

    def __init__(self, folder: Path, server: Minio) -> None:
        self.settings = s3_settings(server)
        self.cache = folder / "cache"

    async def open(self) -> S3Objects:
        return await S3Objects.open(self.settings, DiskCache(self.cache, CACHE_BYTES))


LOGS: dict[str, Callable[[pytest.FixtureRequest], LogBackend]] = {
    "sqlite": lambda request: SqliteLogBackend(request.getfixturevalue("tmp_path")),
    "kafka": lambda request: KafkaLogBackend(request.getfixturevalue("kafka_server")),
}
METAS: dict[str, Callable[[pytest.FixtureRequest], MetaBackend]] = {
    "sqlite": lambda request: SqliteMetaBackend(request.getfixturevalue("tmp_path")),
    "etcd": lambda request: EtcdMetaBackend(request.getfixturevalue("quiet_etcd")),
}
OBJECTS: dict[str, Callable[[pytest.FixtureRequest], ObjectBackend]] = {
    "folder": lambda request: FolderBackend(request.getfixturevalue("tmp_path")),
    "minio": lambda request: MinioBackend(request.getfixturevalue("tmp_path"), request.getfixturevalue("minio_server")),
}


@pytest.fixture(params=LOGS)
def log_backend(request: pytest.FixtureRequest) -> LogBackend:
    return LOGS[request.param](request)


@pytest.fixture
async def log(log_backend: LogBackend) -> AsyncIterator[Log]:
    log = await log_backend.open()
    yield log
    await log.close()


@pytest.fixture(scope="session")
def quiet_etcd(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Etcd]:
    """Used by these tests only: they count revisions, and an etcd counts those of all its clients."""
    yield from running(Etcd, tmp_path_factory.mktemp("etcd"), pytestconfig)


@pytest.fixture(params=METAS)
def meta_backend(request: pytest.FixtureRequest) -> MetaBackend:
    return METAS[request.param](request)


@pytest.fixture
async def meta(meta_backend: MetaBackend) -> AsyncIterator[MetaStore]:
    meta = await meta_backend.open()
    yield meta
    await meta.close()


@pytest.fixture(params=OBJECTS)
def object_backend(request: pytest.FixtureRequest) -> ObjectBackend:
    return OBJECTS[request.param](request)


@pytest.fixture
async def objects(object_backend: ObjectBackend) -> AsyncIterator[ObjectStore]:
    objects = await object_backend.open()
    yield objects
    await objects.close()
