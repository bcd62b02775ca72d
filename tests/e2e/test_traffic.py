"""Many clients at once, and connections that say nothing for a while."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2

from tests.e2e.tables import ID, count, create, vector_field, vectors
from tests.served import Served
from tests.server import Server

INDEX = {"vector": {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}}


def test_sixteen_threads_of_mixed_traffic(server: Served, client: MilvusClient, name: str) -> None:
    """Each thread owns its keys and must read its own writes; searches never see what is deleted."""
    create(client, name, [ID, ("n", DataType.INT64, {}), vector_field(8)], INDEX, num_shards=2)
    end = time.monotonic() + 8

    def work(thread: int) -> dict[int, int]:
        mine: dict[int, int] = {}
        own = MilvusClient(server.uri)
        rng = np.random.default_rng(thread)
        step = 0
        while time.monotonic() < end:
            step += 1
            keys = (thread * 10_000 + rng.choice(300, 20, replace=False)).tolist()
            match rng.integers(6):
                case 0 | 1:
                    own.upsert(name, [{"id": k, "n": step, "vector": [float(k)] * 8} for k in keys])
                    mine.update(dict.fromkeys(keys, step))
                case 2:
                    own.delete(name, ids=keys)
                    for k in keys:
                        mine.pop(k, None)
                case 3:
                    found = own.get(name, keys, output_fields=["n"], consistency_level="Strong")
                    assert {r["id"]: r["n"] for r in found} == {k: mine[k] for k in keys if k in mine}
                case 4:
                    query = [float(keys[0])] * 8
                    hits = own.search(name, [query], limit=5, consistency_level="Strong")[0]
                    assert len({h["id"] for h in hits}) == len(hits)
                    assert not mine or all(h["id"] in mine for h in hits if h["id"] // 10_000 == thread)
                case 5:
                    low, high = thread * 10_000, thread * 10_000 + 9_999
                    assert count(own, name, f"{low} <= id <= {high}") == len(mine)
        own.close()
        return mine

    with ThreadPoolExecutor(16) as pool:
        written = {k: n for mine in pool.map(work, range(16)) for k, n in mine.items()}
    found = client.query(name, filter="id >= 0", output_fields=["n"], limit=16_384, consistency_level="Strong")
    assert {r["id"]: r["n"] for r in found} == written


def test_ddl_from_many_threads(server: Served, client: MilvusClient, name: str) -> None:
    def work(thread: int) -> None:
        own = MilvusClient(server.uri)
        create(own, name, [ID, vector_field(4)])
        own.create_partition(name, f"p{thread % 4}")
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(client.list_partitions(name)) == ["_default", "p0", "p1", "p2", "p3"]


def test_reads_go_on_while_segments_are_sealed_and_indexed(server: Served, client: MilvusClient, name: str) -> None:
    create(client, name, [ID, vector_field(8)], INDEX)
    base = vectors(4000, 8)
    client.insert(name, [{"id": i, "vector": v} for i, v in enumerate(base[:1000])])
    assert count(client, name) == 1000  # a bounded read may be behind, but not before what was read already
    stop = threading.Event()
    reads = [0] * 3

    def read(reader: int) -> None:
        own = MilvusClient(server.uri)
        while not stop.is_set():
            i = reads[reader] % 1000
            found = own.search(name, [base[i].tolist()], limit=1, search_params={"params": {"ef": 64}})[0]
            assert [hit["id"] for hit in found] == [i]
            reads[reader] += 1
        own.close()

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, n) for n in range(3)]
        try:
            for start in range(1000, 4000, 1000):
                client.insert(name, [{"id": i, "vector": base[i]} for i in range(start, start + 1000)])
                client.flush(name)
            end = time.monotonic() + 30
            while min(reads) < 10 and not any(r.done() for r in readers):
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            stop.set()
        for reader in readers:
            reader.result()


def test_connections_survive_forty_idle_seconds(
    launch: Callable[..., Server],
) -> None:
    """Keepalive pings of idle clients are answered, on both listeners at once."""
    clients: list[MilvusClient] = []
    for listener in ("native", "grpc"):
        clients.append(launch({"server.listener": listener}).start().client())
        clients[-1].create_collection("idle", dimension=4)
    time.sleep(40)
    for client in clients:
        began = time.monotonic()
        client.insert("idle", [{"id": 1, "vector": [1.0, 0, 0, 0]}])
        found = client.search("idle", [[1.0, 0, 0, 0]], consistency_level="Strong")
        assert [h["id"] for h in found[0]] == [1]
        assert time.monotonic() - began < 1


def test_health(server: Served, client: MilvusClient) -> None:
    reply = health_pb2_grpc.HealthStub(server.channel()).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert server.stub().CheckHealth(milvus_pb2.CheckHealthRequest(), timeout=5).isHealthy
    assert client.get_server_version()


def test_unknown_methods_are_unimplemented_at_once(server: Served) -> None:
    call = server.channel().unary_unary("/milvus.proto.milvus.MilvusService/NoSuchThing")
    with pytest.raises(grpc.RpcError) as e:
        call(b"", timeout=5)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
