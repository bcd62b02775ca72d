"""``Cluster`` as tests use it: processes by name that are killed, paused, restarted, added."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from sheafdb.cluster import Cluster, Endpoints, RoleProcess, Size

ONE_EACH = Size(proxy=1, querynode=1, datanode=1, indexnode=1, coordinator=1)


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints) -> AsyncIterator[Cluster]:
    cluster = await Cluster.start(tmp_path, size=ONE_EACH, endpoints=endpoints)
    yield cluster
    cluster.kill()


async def _count(address: str) -> int:
    def ask() -> int:
        with contextlib.closing(MilvusClient(f"http://{address}", dedicated=True)) as client:
            return client.query("c", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]

    return await asyncio.to_thread(ask)


async def test_every_process_can_be_killed_paused_restarted_and_added(cluster: Cluster) -> None:
    assert sorted(cluster.roles) == ["coordinator-1", "datanode-1", "indexnode-1", "proxy-1", "querynode-1"]
    assert not cluster.servers
    with contextlib.closing(MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)) as client:
        client.create_collection("c", dimension=2)
        client.insert("c", [{"id": i, "vector": [i, 0.5]} for i in range(10)])
    assert await _count(cluster.proxies[0]) == 10

    for process in cluster.roles.values():
        address, pid = process.address, process.pid
        process.kill()
        assert (process.alive, process.exit_code) == (False, -9)
        await process.start_again()
        assert process.pid != pid
        assert (process.starts, process.address) == (2, address)
    assert await _count(cluster.proxies[0]) == 10

    (query_node,) = cluster.of("querynode")
    query_node.pause()
    asked = asyncio.create_task(_count(cluster.proxies[0]))
    await asyncio.sleep(0.3)
    assert query_node.alive
    assert not asked.done()
    query_node.resume()
    assert await asked == 10

    second: RoleProcess = cluster.add("proxy")
    await second.start_again()
    assert await _count(second.address) == 10
    (data_node,) = cluster.of("datanode")
    await data_node.restart()
    assert data_node.starts == 3

    await cluster.stop()
    assert not [p.name for p in cluster.roles.values() if p.alive]
    assert {p.name: p.exit_code for p in cluster.roles.values() if p.exit_code} == {}
