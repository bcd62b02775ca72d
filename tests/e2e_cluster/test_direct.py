"""Searches of one client through proxy, leader and worker go directly from thread to thread, and are right."""

import re
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from sheafdb.cluster import Cluster, Endpoints, Size
from sheafdb.cluster.role_process import RoleProcess
from tests.waiting import wait_until

DIM, EACH, SEGMENTS, K = 16, 200, 6, 10
ROWS = EACH * SEGMENTS
VECTORS = np.random.default_rng(21).random((ROWS, DIM), dtype="f4")
QUERIES = np.random.default_rng(22).random((200, DIM), dtype="f4")
SETTINGS = {"query_node.spread_bytes": 0, "data_node.compact_interval_s": 3600, "log.channels": 1}


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints) -> AsyncIterator[Cluster]:
    size = Size(proxy=1, querynode=2, datanode=1, indexnode=0, coordinator=1)
    cluster = await Cluster.start(tmp_path, size=size, endpoints=endpoints, settings=SETTINGS)
    yield cluster
    cluster.kill()


def fill(client: MilvusClient) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection("c", schema=schema)
    for s in range(SEGMENTS):
        client.insert("c", [{"id": n, "vector": VECTORS[n].tolist()} for n in range(s * EACH, (s + 1) * EACH)])
        client.flush("c")
    client.create_index("c", client.prepare_index_params("vector", index_type="FLAT", metric_type="L2"))
    client.load_collection("c")


def answered(process: RoleProcess) -> int:
    """How many direct calls of this process were."""
    found = re.search(r"metrics: (http://[^)]+)\)", process.ready_line)
    assert found
    text = urllib.request.urlopen(found[1], timeout=10).read().decode()
    return int(float(re.findall(r'^sheafdb_direct_calls_total\{outcome="answered"\} (\S+)$', text, re.M)[0]))


def ask_all(client: MilvusClient, alive: np.ndarray) -> None:
    distances = ((QUERIES[:, None, :] - VECTORS[None]) ** 2).sum(axis=2)
    distances[:, ~alive] = np.inf
    for query, expected in zip(QUERIES, np.argsort(distances, axis=1, kind="stable")[:, :K].tolist(), strict=True):
        assert [hit["id"] for hit in client.search("c", [query.tolist()], limit=K)[0]] == expected


async def test_searches_go_directly_and_again_once_the_nodes_were_replaced(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    fill(client)
    alive = np.ones(ROWS, bool)
    (proxy,) = cluster.of("proxy")
    nodes = cluster.of("querynode")

    def both_ways() -> bool:
        """Whether the searches took the direct way from the proxy to the leader, and from there to the worker."""
        before = answered(proxy), sum(map(answered, nodes))
        ask_all(client, alive)
        after = answered(proxy), sum(map(answered, nodes))
        return min(b - a for a, b in zip(before, after, strict=True)) > len(QUERIES) // 2

    wait_until(both_ways, "the shard to be spread, and searches to go directly")
    gone = list(range(0, ROWS, 7))
    client.delete("c", ids=gone)
    alive[gone] = False
    client.query("c", filter="id < 0", output_fields=["id"], consistency_level="Strong")
    wait_until(both_ways, "searches to go directly after a deletion")
    for node in nodes:
        node.kill()
        await node.start_again()
    wait_until(both_ways, "searches to go directly to nodes that were started again")
    client.close()
