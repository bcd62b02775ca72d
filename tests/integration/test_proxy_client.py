"""The real clients (sync, async, ORM, many threads) against a proxy over fakes, on both listeners."""

import asyncio
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymilvus import (
    AsyncMilvusClient,
    Collection,
    CollectionSchema,
    DataType,
    FieldSchema,
    MilvusClient,
    MilvusException,
    connections,
    utility,
)
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from tests.integration.proxy_house import House
from tests.integration.proxy_tables import DIM, quick


def test_version_and_health(house: House, client: MilvusClient) -> None:
    assert client.get_server_version().startswith("2.6.")
    assert client.get_server_version(detail=True)["deploy_mode"] == "STANDALONE"
    with grpc.insecure_channel(f"127.0.0.1:{house.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as e:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert e.value.code() == grpc.StatusCode.NOT_FOUND
        stub = milvus_pb2_grpc.MilvusServiceStub(channel)
        assert stub.CheckHealth(milvus_pb2.CheckHealthRequest()).isHealthy
        assert stub.GetComponentStates(milvus_pb2.GetComponentStatesRequest()).status.code == 0


def test_only_the_default_database(client: MilvusClient) -> None:
    client.use_database("default")
    assert client.list_databases() == ["default"]
    with pytest.raises(MilvusException, match=r"database not found\[database=other\]") as e:
        client.use_database("other")
    assert e.value.code == 800


def test_database_of_the_metadata(house: House) -> None:
    with pytest.raises(MilvusException, match=r"database not found\[database=other\]"):
        MilvusClient(house.uri, db_name="other", dedicated=True).list_collections()


def test_rpcs_of_later_versions_say_so(house: House, client: MilvusClient) -> None:
    for call in (
        lambda: client.create_alias("c", "a"),
        lambda: client.create_user("someone", "password"),
        lambda: client.create_database("d"),
        lambda: client.add_collection_field("c", "f", DataType.INT64, nullable=True),
        lambda: client.rename_collection("a", "b"),
        client.get_replicate_configuration,
    ):
        with pytest.raises(MilvusException, match="not served by this version") as e:
            call()
        assert e.value.code == 10
    with grpc.insecure_channel(f"127.0.0.1:{house.port}") as channel:
        with pytest.raises(grpc.RpcError) as unserved:
            milvus_pb2_grpc.MilvusServiceStub(channel).Dummy(milvus_pb2.DummyRequest())
        assert unserved.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_async_client(house: House, client: MilvusClient) -> None:
    async def traffic() -> int:
        other = AsyncMilvusClient(house.uri)
        await other.create_collection("quick", dimension=DIM)
        await asyncio.gather(
            *(other.insert("quick", [{"id": n * 10 + i, "vector": [0.1] * DIM} for i in range(10)]) for n in range(8))
        )
        hits = await other.search("quick", [[0.1] * DIM], limit=5)
        rows = await other.query("quick", output_fields=["count(*)"])
        await other.close()
        assert len(hits[0]) == 5
        return rows[0]["count(*)"]

    assert asyncio.run(traffic()) == 80


@pytest.mark.filterwarnings("ignore::pymilvus.decorators.PyMilvusDeprecationWarning")
def test_orm(house: House, client: MilvusClient) -> None:
    connections.connect("orm", uri=house.uri)
    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("word", DataType.VARCHAR, max_length=20),
        FieldSchema("v", DataType.FLOAT_VECTOR, dim=4),
    ]
    collection = Collection("orm", CollectionSchema(fields, "words"), using="orm", consistency_level="Strong")
    collection.create_index("v", {"index_type": "FLAT", "metric_type": "L2", "params": {}})
    collection.load()
    result = collection.insert([[1, 2, 3], ["a", "b", "c"], [[float(i)] * 4 for i in range(3)]])
    assert (result.insert_count, list(result.primary_keys), result.succ_count) == (3, [1, 2, 3], 3)
    assert result.timestamp > 2**50
    hits = collection.search([[0.0] * 4], "v", {"metric_type": "L2"}, limit=2, output_fields=["word"])[0]
    assert [(h.id, h.entity.get("word")) for h in hits] == [(1, "a"), (2, "b")]
    assert collection.query("id >= 2", output_fields=["word"]) == [{"id": 2, "word": "b"}, {"id": 3, "word": "c"}]
    assert collection.delete("id in [1]").delete_count == 1
    collection.flush()
    assert isinstance(collection.num_entities, int)
    assert utility.has_collection("orm", using="orm")
    assert utility.loading_progress("orm", using="orm") == {"loading_progress": "100%"}
    assert Collection("orm", using="orm").description == "words"
    assert collection.has_index()
    collection.release()
    collection.drop_index()
    utility.drop_collection("orm", using="orm")
    connections.disconnect("orm")


def test_many_threads(house: House, client: MilvusClient) -> None:
    quick(client, 0, num_shards=2)
    failures: list[BaseException] = []

    def traffic(n: int) -> None:
        try:
            own = house.client()
            for i in range(4):
                key = n * 100 + i
                own.upsert("quick", [{"id": key, "vector": [float(key)] * DIM, "n": key}])
                assert own.query("quick", f"id == {key}", output_fields=["n"])[0]["n"] == key
                assert own.search("quick", [[1.0] * DIM], limit=1, consistency_level="Strong")[0]
                if i % 2:
                    own.delete("quick", ids=[key])
            own.close()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=traffic, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert failures == []
    assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 32}]
