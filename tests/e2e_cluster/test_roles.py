"""The five roles as processes on real servers, seen by an unmodified client."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from bench.callers import Callers
from bench.failover import Failover, make_written
from sheafdb.cluster import Cluster, Endpoints, RoleProcess, Size
from sheafdb.cluster.cluster import ROLES

DIM = 16
ROWS = 3000
VECTORS = np.random.default_rng(7).random((ROWS, DIM), dtype="f4")
SIZE = Size(proxy=1, querynode=2, datanode=2, indexnode=1, coordinator=2)
SETTINGS = {"index_node.rows_min": 256, "coordinator.index_retry_s": 0.2}


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints) -> AsyncIterator[Cluster]:
    cluster = await Cluster.start(tmp_path, size=SIZE, endpoints=endpoints, settings=SETTINGS)
    yield cluster
    cluster.kill()


def errors(cluster: Cluster) -> list[str]:
    """ERROR lines of all roles."""
    lines = (line for p in cluster.roles.values() for line in p.log.read_text().splitlines())
    return [line for line in lines if '"level":"error"' in line or line.startswith("Traceback")]


def rows(first: int, last: int) -> list[dict[str, object]]:
    return [{"id": i, "vector": VECTORS[i].tolist(), "n": i} for i in range(first, last)]


def fill(client: MilvusClient) -> None:
    client.create_collection("c", dimension=DIM, metric_type="L2", consistency_level="Strong")
    client.insert("c", rows(0, ROWS // 2))
    client.flush("c")
    client.insert("c", rows(ROWS // 2, ROWS))
    client.delete("c", ids=[7, ROWS - 1])


def check(client: MilvusClient) -> None:
    """What ``fill`` wrote, sealed and growing, is there once, and what it deleted is not."""
    assert client.query("c", output_fields=["count(*)"])[0]["count(*)"] == ROWS - 2
    picked = [0, 1, ROWS // 2, ROWS - 2]
    found = client.search("c", data=VECTORS[picked].tolist(), limit=1, output_fields=["n"])
    assert [(hit[0]["id"], hit[0]["entity"]["n"]) for hit in found] == [(i, i) for i in picked]
    assert client.search("c", data=[VECTORS[7].tolist()], limit=1)[0][0]["id"] != 7
    assert [r["n"] for r in client.query("c", filter="n in [6, 7, 8]", output_fields=["n"])] == [6, 8]


def indexed(client: MilvusClient) -> None:
    deadline = time.monotonic() + 30
    while client.describe_index("c", "vector")["indexed_rows"] < ROWS // 2:
        assert time.monotonic() < deadline, client.describe_index("c", "vector")
        time.sleep(0.1)


async def test_writes_reads_and_restarts_over_all_roles(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(fill, client)
    await asyncio.to_thread(check, client)
    await asyncio.to_thread(indexed, client)
    client.close()
    for process in cluster.roles.values():  # as in a power cut
        process.kill()
    await come_back(cluster)
    assert await asyncio.gather(*(p.stop() for p in cluster.roles.values())) == [0] * len(cluster.roles)
    await come_back(cluster)
    assert not errors(cluster)


async def come_back(cluster: Cluster) -> None:
    started = time.monotonic()
    await asyncio.gather(*(p.start_again() for p in cluster.roles.values()))
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    # The first call that a proxy makes to a query node may come from any kind of read.
    first = await asyncio.to_thread(
        client.search, "c", data=[VECTORS[9].tolist()], limit=1, consistency_level="Bounded"
    )
    assert first[0][0]["id"] == 9
    await asyncio.to_thread(check, client)
    assert time.monotonic() - started < 15
    client.close()


class Load:
    """A client that writes and reads strongly until it is stopped. Any failure ends it."""

    def __init__(self, uri: str) -> None:
        self.written = 0
        self.worst_s = 0.0
        self.failure: Exception | None = None
        self._uri = uri
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        client = MilvusClient(self._uri, dedicated=True)
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                id = ROWS + self.written
                client.upsert("c", [{"id": id, "vector": VECTORS[0].tolist(), "n": id}])
                self.written += 1
                newest = client.query("c", filter=f"n >= {id - 1}", output_fields=["n"])
                assert id in [row["n"] for row in newest], (id, newest)
                found = client.search("c", data=[VECTORS[9].tolist()], limit=1)
                assert found[0][0]["id"] == 9, found
                self.worst_s = max(self.worst_s, time.monotonic() - started)
        except Exception as e:
            self.failure = e
        finally:
            client.close()


async def test_no_call_fails_while_all_roles_are_restarted(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(fill, client)
    load = Load(f"http://{cluster.proxies[0]}")
    load.start()
    for role in ROLES:
        for process in cluster.of(role):
            await process.restart()
            assert process.starts == 2
    await asyncio.to_thread(load.stop)
    assert load.written > 20
    count = await asyncio.to_thread(client.query, "c", output_fields=["count(*)"])
    assert count[0]["count(*)"] == ROWS - 2 + load.written
    client.close()
    assert not errors(cluster)


@pytest.mark.parametrize("fate", ["kill", "pause"])
async def test_a_query_node_that_is_lost_is_replaced_within_seconds(cluster: Cluster, fate: str) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(fill, client)
    await asyncio.to_thread(fill_replicas, client)
    load = Load(f"http://{cluster.proxies[0]}")
    load.start()
    first, second = cluster.of("querynode")
    with Callers(cluster.proxies[0], [search_replicas] * 2) as replicated:
        getattr(first, fate)()
        await asyncio.sleep(8)
        await asyncio.to_thread(replicated.stop)
    for lost, next_lost in ((first, second), (second, None)):
        lost.resume() if fate == "pause" else await lost.start_again()
        if next_lost:
            getattr(next_lost, fate)()
            await asyncio.sleep(8)
    await asyncio.to_thread(load.stop)
    assert not replicated.failed
    assert replicated.longest_s < 3, "the other replica answers"
    assert load.worst_s < 7, "until the lease is over and the shard is loaded elsewhere"
    count = await asyncio.to_thread(client.query, "c", output_fields=["count(*)"])
    assert count[0]["count(*)"] == ROWS - 2 + load.written
    client.close()


async def test_writes_flushes_and_ddl_are_back_in_time(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(make_written, client)
    measured = Failover(cluster)
    await measured.data_node_killed(cluster.of("datanode")[0])
    await measured.leader_killed()
    await cluster.add("proxy").start_again()
    await measured.proxy_killed(cluster.of("proxy")[1])
    await asyncio.to_thread(measured.writes.check, client)
    client.close()
    # Other processes of a test machine take their time too: the bounds themselves are held by ``bench.failover``.
    assert not [m for m in measured.measures.values() if max(m.tries) > 2 * m.most]


def fill_replicas(client: MilvusClient) -> None:
    client.create_collection("r", dimension=DIM, metric_type="L2")
    client.insert("r", rows(0, 100))
    client.release_collection("r")
    client.load_collection("r", replica_number=2)


def search_replicas(client: MilvusClient, n: int) -> None:
    found = client.search("r", data=[VECTORS[n % 100].tolist()], limit=1, consistency_level="Strong")
    assert found[0][0]["id"] == n % 100, found


async def test_a_process_whose_id_another_takes_ends(cluster: Cluster) -> None:
    first = cluster.of("indexnode")[0]
    second = RoleProcess(
        "indexnode",
        first.name,
        cluster.folder / "twin",
        config=cluster.config,
        options=["--set", f"node.id={first.name}"],
    )
    await second.start_again()
    try:
        deadline = time.monotonic() + 10
        while first.alive:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert first.exit_code == 1
        assert "another process runs under this node's id" in first.log.read_text()
        assert second.alive
    finally:
        second.kill()


async def test_the_log_of_every_role_names_the_request(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(client.create_collection, "c", dimension=DIM)
    client.close()
    entries = [json.loads(line) for p in cluster.of("coordinator") for line in p.log.read_text().splitlines()]
    changes = [entry for entry in entries if entry["event"] == "catalog changed"]
    assert {entry["change"] for entry in changes} == {"CreateCollection", "CreateIndex", "Load"}
    assert all(entry["request_id"] for entry in changes)
