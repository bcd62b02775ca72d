"""Fixtures with the real servers: one process of each per session, started when a test first asks for it.

They are shared: a test takes names of its own (topics, key prefixes, buckets), and one that kills a
server starts its own. Absent servers are installed, never skipped, and before the first test, so that
no test's time is spent on it.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from sheafdb.cluster import Endpoints
from sheafdb.servers import Etcd, Kafka, LocalServer, Minio, Toxiproxy, install
from sheafdb.servers.progress import shown

S = TypeVar("S", bound=LocalServer)

FIXTURES = {
    "kafka_server": ["kafka"],
    "etcd_server": ["etcd"],
    "minio_server": ["minio"],
    "toxiproxy_server": ["toxiproxy"],
    "installed_servers": ["kafka", "etcd", "minio", "toxiproxy"],
}


class UnsyncedEtcd(Etcd):
    """Where disks are slow and shared, a sync takes seconds, and leases end meanwhile: that is not what the tests that
    share this server are about. What it wrote outlives its process all the same."""

    def _command(self) -> Sequence[str]:
        return *super()._command(), "--unsafe-no-fsync"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Installs what the collected tests ask for."""
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if (
        names := {name for fixture in asked & FIXTURES.keys() for name in FIXTURES[fixture]}
    ) and not session.config.option.collectonly:
        _install(session.config, *names)


@pytest.fixture(scope="session")
def installed_servers(pytestconfig: pytest.Config) -> None:
    """For tests that start their own."""
    _install(pytestconfig, *FIXTURES["installed_servers"])


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Kafka]:
    yield from running(Kafka, tmp_path_factory.mktemp("kafka"), pytestconfig)


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Etcd]:
    yield from running(UnsyncedEtcd, tmp_path_factory.mktemp("etcd"), pytestconfig)


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Minio]:
    yield from running(Minio, tmp_path_factory.mktemp("minio"), pytestconfig)


@pytest.fixture(scope="session")
def toxiproxy_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Toxiproxy]:
    yield from running(Toxiproxy, tmp_path_factory.mktemp("toxiproxy"), pytestconfig)


@pytest.fixture(scope="session")
def new_endpoints(kafka_server: Kafka, etcd_server: Etcd, minio_server: Minio) -> Callable[[], Endpoints]:
    """Those of all clusters are on the same servers; each has a topic, a key prefix and a bucket of its own."""

    def new() -> Endpoints:
        return Endpoints(
            kafka=kafka_server.address,
            etcd=etcd_server.address,
            s3=f"http://{minio_server.address}",
            name=f"cluster-{uuid.uuid4().hex[:12]}",
        )

    return new


@pytest.fixture
def endpoints(new_endpoints: Callable[[], Endpoints]) -> Endpoints:
    """For the cluster of one test."""
    return new_endpoints()


def running(server: type[S], folder: Path, config: pytest.Config) -> Iterator[S]:
    _install(config, server.name)
    # A loop of its own that nobody else ever sees: servers are bound to none, and asyncio.run would
    # take away the one that pytest-asyncio has set.
    loop = asyncio.new_event_loop()
    try:
        running = loop.run_until_complete(server.start(folder))
        try:
            yield running
        finally:
            running.kill()
    finally:
        loop.close()


def _install(config: pytest.Config, *names: str) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), shown() as say:
        install(names, say)
