"""Servers for end-to-end tests.

Ordinary tests run against one process per listener and against a cluster of several processes, share
them and use a collection of their own (``name``); tests that kill or damage a server ``launch`` one
on a folder of their own. An ERROR line in a server's log fails the test that was running.

``pytest tests/e2e -k cluster`` is the part through a cluster, ``-k "not cluster"`` the other.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2_grpc

from sheafdb.cluster import Endpoints
from tests.cluster_server import ClusterServer
from tests.e2e.tables import count, create
from tests.e2e.wire import DIM, FIELDS, KEPT, KEPT_ROWS, TABLE
from tests.served import Served
from tests.server import Server

GROWTH_MAX = 400 << 20
"""Bytes by which one hostile test may leave the server larger."""

SETTINGS = {"index_node.rows_min": 256}
_numbers = itertools.count()

# The client logs every error it raises, with the whole stack; most are what a test is about.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a cluster needs is installed before the first test, not in the time of the first that asks for it."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster" in item.name.partition("[")[2]:
            item.fixturenames.append("installed_servers")


@pytest.fixture(scope="session")
def start_cluster(
    new_endpoints: Callable[[], Endpoints], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, Any]], ClusterServer]]:
    """Starts clusters that share their Kafka, etcd and MinIO: ``start_cluster(settings)``."""
    clusters: list[ClusterServer] = []

    def start(settings: dict[str, Any]) -> ClusterServer:
        clusters.append(ClusterServer(tmp_path_factory.mktemp("cluster"), new_endpoints(), settings))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture(scope="session")
def shared_cluster(start_cluster: Callable[[dict[str, Any]], ClusterServer]) -> ClusterServer:
    return start_cluster(SETTINGS)


@pytest.fixture(scope="session")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """The one-process server of a listener, started when first asked for."""
    servers: dict[str, Server] = {}

    def get(listener: str) -> Server:
        if listener not in servers:
            folder = tmp_path_factory.mktemp(listener) / "data"
            servers[listener] = Server(folder, {"server.listener": listener, **SETTINGS})
        server = servers[listener]
        return server if server.alive else server.start()

    yield get
    for server in servers.values():
        server.close()


@pytest.fixture(params=["native", "grpc", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """What serves, with default settings, shared with other tests."""
    if request.param == "cluster":
        server = request.getfixturevalue("shared_cluster")
    else:
        server = request.getfixturevalue("shared_servers")(request.param)
    yield server
    errors = server.new_errors()
    assert not errors, "".join(errors)


@pytest.fixture
def client(server: Served) -> Iterator[MilvusClient]:
    client = MilvusClient(server.uri)
    yield client
    client.close()


@pytest.fixture
def name(server: Served) -> Iterator[str]:
    """The name of a collection that no other test uses; dropped afterwards."""
    name = f"c{next(_numbers)}"
    yield name
    if server.alive:
        client = MilvusClient(server.uri)
        client.release_collection(name) if client.has_collection(name) else None
        client.drop_collection(name)
        client.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers on folders of their own: ``launch(settings, folder)`` (not started)."""
    servers: list[Server] = []

    def make(settings: dict[str, Any] | None = None, folder: Path | None = None) -> Server:
        servers.append(Server(folder or tmp_path / f"data{len(servers)}", settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()
    errors = [line for server in servers for line in server.new_errors()]
    assert not errors, "".join(errors)


@pytest.fixture(scope="session", params=["standalone", "cluster"])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of its own, so that its memory is that of this test."""
    if request.param == "cluster":
        server: Served = request.getfixturevalue("start_cluster")({})
    else:
        server = Server(tmp_path_factory.mktemp("hostile") / "data").start()
    index = {"vector": {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 40}}}
    create(server.client(), TABLE, FIELDS, index, dynamic=True, consistency_level="Strong")
    rows = [
        {"id": i, "n": i, "text": str(i), "doc": {"a": i}, "tags": [i], "vector": [float(i)] * DIM}
        for i in range(KEPT_ROWS)
    ]
    server.client().insert(TABLE, rows)
    yield server
    server.close()


@pytest.fixture
def stub(hostile: Served) -> Iterator[milvus_pb2_grpc.MilvusServiceStub]:
    """After each test: nothing changed, nothing grew, and the server answers as before."""
    before = hostile.rss
    yield hostile.stub()
    assert hostile.alive, hostile.output()
    errors = hostile.new_errors()
    assert not errors, "".join(errors[:5])
    assert hostile.rss < before + GROWTH_MAX
    assert count(hostile.client(), TABLE, KEPT) == KEPT_ROWS
