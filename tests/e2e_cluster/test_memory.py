"""Query nodes of limited memory through real processes: a collection none of them could load alone, spread over
them; a node that comes, one that dies; and writes that are refused while the data node stands still."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from core.ids import NodeId, SegmentId
from rpc.channel import Peer
from rpc.query_node import RemoteQueryNode
from sheafdb.cluster import Cluster, Endpoints, Size
from tests.waiting import wait_until

DIM = 32
EACH, SEGMENTS = 250, 24
ROWS = EACH * SEGMENTS
VECTORS = np.random.default_rng(11).random((ROWS, DIM), dtype="f4")
QUERIES = np.random.default_rng(12).random((4, DIM), dtype="f4")
SEGMENT_BYTES = EACH * (24 + 4 * DIM)
MEMORY = 23 * SEGMENT_BYTES // 2
"""Of a query node: three hold the collection, two cannot."""
GROWING = 100_000
SETTINGS = {
    "query_node.memory_bytes": MEMORY,
    "query_node.growing_bytes": GROWING,
    "query_node.spread_bytes": 0,
    "data_node.compact_interval_s": 3600,
    "log.channels": 1,
}


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints) -> AsyncIterator[Cluster]:
    size = Size(proxy=1, querynode=2, datanode=1, indexnode=0, coordinator=1)
    cluster = await Cluster.start(tmp_path, size=size, endpoints=endpoints, settings=SETTINGS)
    yield cluster
    cluster.kill()


FAR = [1000.0] * DIM


def row(n: int) -> dict[str, object]:
    """Those after the first ``ROWS`` are near nothing."""
    return {"id": n, "vector": VECTORS[n].tolist() if n < ROWS else FAR}


def fill(client: MilvusClient) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params("vector", index_type="FLAT", metric_type="L2")
    client.create_collection("c", schema=schema, consistency_level="Strong")
    for s in range(SEGMENTS):
        client.insert("c", [row(n) for n in range(s * EACH, (s + 1) * EACH)])
        client.flush("c")
    client.create_index("c", index)


def nearest(alive: np.ndarray, k: int = 10) -> list[list[int]]:
    distances = ((QUERIES[:, None, :] - VECTORS[None]) ** 2).sum(axis=2)
    distances[:, ~alive] = np.inf
    return np.argsort(distances, axis=1, kind="stable")[:, :k].tolist()


def check(client: MilvusClient, alive: np.ndarray) -> None:
    """Answers are those of brute force over the rows that are alive; raises what a read does."""
    found = client.search("c", data=QUERIES.tolist(), limit=10)
    assert [[hit["id"] for hit in hits] for hits in found] == nearest(alive)
    count = client.query("c", filter=f"id < {ROWS}", output_fields=["count(*)"])
    assert count[0]["count(*)"] == alive.sum()


class Reader:
    """Reads while it is entered. A wrong answer ends it and is raised at the exit; calls that failed are kept."""

    def __init__(self, uri: str, alive: np.ndarray) -> None:
        self.reads = 0
        self.failed: list[MilvusException] = []
        self._wrong: BaseException | None = None
        self._uri, self._alive = uri, alive
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader")

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        if self._wrong and not failed:
            raise self._wrong
        assert failed or self.reads > 3

    def _run(self) -> None:
        client = MilvusClient(self._uri, dedicated=True)
        try:
            while not self._stopping.is_set():
                try:
                    check(client, self._alive)
                    self.reads += 1
                except MilvusException as e:
                    self.failed.append(e)
                time.sleep(0.02)
        except BaseException as e:
            self._wrong = e
        finally:
            client.close()


async def holders(cluster: Cluster) -> dict[NodeId, frozenset[SegmentId]]:
    """The segments that each node but the leader holds, as the leader says."""
    found: dict[NodeId, frozenset[SegmentId]] = {}
    for process in cluster.of("querynode"):
        address = re.search(r"is ready: (\S+)", process.ready_line) if process.alive else None
        if address:
            peer = Peer(address[1])
            for status in await RemoteQueryNode(peer).shards():
                found |= {h.node: frozenset(h.segments) for h in status.holders}
            await peer.close()
    return found


async def settled(cluster: Cluster, nodes: int) -> dict[NodeId, frozenset[SegmentId]]:
    """Who holds what, once that many nodes beside the leader hold something and nothing moves any more."""
    deadline, before, same_s = time.monotonic() + 30, {}, 0.0
    while True:
        now = await holders(cluster)
        same_s = same_s + 0.2 if now == before and len(now) == nodes else 0.0
        if same_s > 1:
            return now
        assert time.monotonic() < deadline, now
        before = now
        await asyncio.sleep(0.2)


async def test_a_collection_no_query_node_could_load_alone(cluster: Cluster) -> None:
    uri = f"http://{cluster.proxies[0]}"
    client = MilvusClient(uri, dedicated=True)
    every = np.ones(ROWS, bool)
    await asyncio.to_thread(fill, client)

    with pytest.raises(MilvusException) as refused:
        await asyncio.to_thread(client.load_collection, "c", timeout=30)
    said = str(refused.value)
    assert re.search(rf"takes {SEGMENTS * SEGMENT_BYTES} bytes of memory; for [1-9]\d* of them no query node", said), (
        said
    )
    assert f"of {MEMORY}" in said
    assert "query_node.memory_bytes" in said

    await cluster.add("querynode").start_again()
    await asyncio.to_thread(wait_until, lambda: loaded(client), "the third query node to make it loadable")
    await asyncio.to_thread(check, client, every)
    three = await settled(cluster, 2)
    assert all(len(held) * SEGMENT_BYTES <= MEMORY for held in three.values())

    async with Reader(uri, every) as reader:
        await cluster.add("querynode").start_again()
        four = await settled(cluster, 3)
    assert not reader.failed
    await asyncio.to_thread(check, client, every)
    (new,) = four.keys() - three.keys()
    assert all(four[node] <= three[node] for node in three), "nothing moved between the others"
    share = SEGMENTS / 4
    assert share * 0.6 <= len(four[new]) <= share * 1.1 + 1, "its share, and nothing else, moved"

    async with Reader(uri, every) as reader:
        lost = next(p for p in cluster.of("querynode") if p.name == new)
        lost.kill()
        left = await settled(cluster, 2)
        await asyncio.to_thread(wait_until, lambda: works(client, every), "the lost share to be served again")
    assert new not in left
    assert {e.code for e in reader.failed} <= {2}, reader.failed
    await lost.start_again()
    await settled(cluster, 3)

    await writes_are_refused_while_the_data_node_stands_still(cluster, client, uri)
    client.close()


def loaded(client: MilvusClient) -> bool:
    try:
        return client.get_load_state("c")["state"].name == "Loaded"
    except MilvusException:
        return False


def works(client: MilvusClient, alive: np.ndarray) -> bool:
    try:
        check(client, alive)
    except MilvusException:
        return False
    return True


async def writes_are_refused_while_the_data_node_stands_still(cluster: Cluster, client: MilvusClient, uri: str) -> None:
    (data_node,) = cluster.of("datanode")
    async with Reader(uri, np.ones(ROWS, bool)) as reader:
        data_node.pause()
        try:
            waits, written, refused = await asyncio.to_thread(write_until_refused, client)
        finally:
            data_node.resume()
        # The client's own retries carry a write over the rest: no restart, nobody does anything.
        await asyncio.to_thread(client.insert, "c", [row(ROWS + written)], timeout=40)
    assert not reader.failed, "reads went on"
    assert refused.code == 8
    assert re.search(
        rf"collection=c\].*growing rows of querynode querynode-\d take \d+ bytes of {GROWING}"
        r" \(query_node.growing_bytes\)",
        str(refused),
    ), refused
    assert max(waits) > 0.1, f"they had been slowed down before: {waits}"
    assert max(waits) < 5
    await asyncio.to_thread(client.delete, "c", ids=[0])
    alive = np.ones(ROWS, bool)
    alive[0] = False
    await asyncio.to_thread(check, client, alive)
    count = await asyncio.to_thread(client.query, "c", output_fields=["count(*)"])
    assert count[0]["count(*)"] == ROWS - 1 + written + 1


def write_until_refused(client: MilvusClient) -> tuple[list[float], int, MilvusException]:
    """How long each write took, how many rows are written, and what the last one was told."""
    waits: list[float] = []
    written, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        started = time.monotonic()
        try:
            client.insert("c", [row(n) for n in range(ROWS + written, ROWS + written + 20)], retry_on_rate_limit=False)
        except MilvusException as e:
            return waits, written, e
        waits.append(time.monotonic() - started)
        written += 20
        time.sleep(0.05)
    raise AssertionError(f"{written} rows were taken, and no write was refused")
