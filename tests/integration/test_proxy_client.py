"""The real client against a proxy over fakes, on both listeners."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
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
from pymilvus.client.types import LoadState
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from core.errors import DiskFull, Unavailable
from rpc.reads import SearchRequest
from tests.integration.proxy_house import House, open_house

DIM = 8


@pytest.fixture(scope="module", params=["native", "grpc"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with open_house(request.param) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[MilvusClient]:
    client = house.client()
    yield client
    for name in client.list_collections():
        client.drop_collection(name)
    client.close()


def vectors(rows: int, dim: int = DIM) -> list[list[float]]:
    return np.random.default_rng(rows).random((rows, dim), np.float32).tolist()


def indexed(client: MilvusClient, name: str, schema: Any, index: Any, **options: Any) -> None:
    """Creates, indexes and loads; without the client's half second of waiting per index."""
    client.create_collection(name, schema=schema, **options)
    client.create_index(name, index, sync=False)
    client.load_collection(name)


def quick(
    client: MilvusClient, rows: int = 20, *, auto_id: bool = False, metric_type: str = "COSINE", **options: Any
) -> list[list[float]]:
    """Collection "quick", as ``create_collection(dimension=)`` makes it, with ``rows`` rows of id, vector
    and dynamic keys."""
    schema = MilvusClient.create_schema(enable_dynamic_field=True, auto_id=auto_id)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", metric_type=metric_type)
    indexed(client, "quick", schema, index, **({"consistency_level": "Bounded"} | options))
    data = vectors(rows)
    if rows:
        client.insert("quick", [{"id": i, "vector": v, "color": f"c{i % 3}", "n": i} for i, v in enumerate(data)])
    return data


def declared(client: MilvusClient, name: str = "declared", **options: Any) -> None:
    """A collection with a field of every served type, loaded."""
    schema = MilvusClient.create_schema(enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=20)
    schema.add_field("flag", DataType.BOOL, nullable=True)
    schema.add_field("tiny", DataType.INT8)
    schema.add_field("small", DataType.INT16, default_value=7)
    schema.add_field("medium", DataType.INT32, nullable=True)
    schema.add_field("large", DataType.INT64)
    schema.add_field("single", DataType.FLOAT)
    schema.add_field("double", DataType.DOUBLE)
    schema.add_field("text", DataType.VARCHAR, max_length=10, nullable=True)
    schema.add_field("doc", DataType.JSON)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=16)
    index = MilvusClient.prepare_index_params()
    index.add_index("dense", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 100})
    index.add_index("bits", index_type="BIN_FLAT", metric_type="HAMMING")
    indexed(client, name, schema, index, **options)


def row(key: str, **changes: Any) -> dict[str, Any]:
    values = {
        "pk": key,
        "flag": True,
        "tiny": -5,
        "small": 300,
        "medium": 70_000,
        "large": 2**40,
        "single": 0.5,
        "double": 0.1,
        "text": "hi",
        "doc": {"a": [1, {"b": None}]},
        "tags": ["x", "y"],
        "dense": [1.0] * DIM,
        "bits": b"\x0f\xf0",
        "extra": 1,
    }
    return values | changes


# --- connecting ----------------------------------------------------------------------------------
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


# --- definitions ---------------------------------------------------------------------------------
def test_describe_gives_back_what_was_declared(client: MilvusClient) -> None:
    declared(client, consistency_level="Strong", num_shards=2, properties={"mmap.enabled": "false"})
    found = client.describe_collection("declared")
    fields = {f["name"]: f for f in found["fields"]}
    names = "pk flag tiny small medium large single double text doc tags dense bits"
    assert list(fields) == names.split()
    assert [f["field_id"] for f in found["fields"]] == list(range(100, 113))
    assert fields["pk"]["params"] == {"max_length": 20}
    assert fields["tags"]["params"] == {"max_capacity": 4, "max_length": 10}
    assert fields["tags"]["element_type"] == DataType.VARCHAR
    assert fields["small"]["default_value"].int_data == 7
    assert fields["medium"]["nullable"]
    assert (found["num_shards"], found["consistency_level"], found["enable_dynamic_field"]) == (2, 0, True)
    assert found["properties"] == {"mmap.enabled": "false"}
    assert found["collection_id"] > 0
    assert found["update_timestamp"] == found["created_timestamp"] > 2**50


def test_collections_come_and_go(client: MilvusClient) -> None:
    quick(client, 0)
    assert client.has_collection("quick")
    assert client.list_collections() == ["quick"]
    client.drop_collection("quick")
    client.drop_collection("quick")
    assert not client.has_collection("quick")
    with pytest.raises(MilvusException, match=r"collection not found\[database=default\]\[collection=quick\]") as e:
        client.describe_collection("quick")
    assert e.value.code == 100
    assert e.value.is_input_error


def test_partitions_come_and_go(client: MilvusClient) -> None:
    quick(client, 0)
    client.create_partition("quick", "p")
    client.create_partition("quick", "p")
    assert client.list_partitions("quick") == ["_default", "p"]
    assert client.has_partition("quick", "p")
    with pytest.raises(MilvusException, match="partition is loaded"):
        client.drop_partition("quick", "p")
    client.release_partitions("quick", ["p"])
    client.drop_partition("quick", "p")
    client.drop_partition("quick", "p")
    assert not client.has_partition("quick", "p")


def test_load_and_release(house: House, client: MilvusClient) -> None:
    quick(client)
    assert client.get_load_state("quick")["state"] == LoadState.Loaded
    client.release_collection("quick")
    assert client.get_load_state("quick")["state"] == LoadState.NotLoad
    assert client.get_load_state("nobody")["state"] == LoadState.NotExist
    with pytest.raises(MilvusException, match="collection not loaded") as e:
        client.query("quick", "id >= 0")
    assert e.value.code == 101
    client.load_collection("quick")
    assert len(client.query("quick", "id >= 0", output_fields=["id"])) == 20
    house.coordinator.progress = 40
    try:
        assert client.get_load_state("quick") == {"state": LoadState.Loading, "progress": 40}
    finally:
        house.coordinator.progress = 100


def test_load_without_index(client: MilvusClient) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("bare", schema=schema)
    with pytest.raises(MilvusException, match=r"index not found\[collection=bare\]") as e:
        client.load_collection("bare")
    assert e.value.code == 700


def test_indexes(client: MilvusClient) -> None:
    declared(client)
    assert sorted(client.list_indexes("declared")) == ["bits", "dense"]
    found = client.describe_index("declared", "dense")
    assert found["index_type"] == "HNSW"
    assert found["metric_type"] == "L2"
    assert found["M"] == "8"
    assert (found["total_rows"], found["indexed_rows"], found["state"]) == (7, 7, "Finished")
    assert client.describe_index("declared", "nobody") is None
    with pytest.raises(MilvusException, match="index cannot be dropped, collection is loaded"):
        client.drop_index("declared", "dense")
    client.release_collection("declared")
    client.drop_index("declared", "dense")
    client.drop_index("declared", "dense")
    assert client.list_indexes("declared") == ["bits"]


def test_flush_statistics_compaction(house: House, client: MilvusClient) -> None:
    quick(client)
    client.flush("quick")
    partition = house.catalog.find("default", "quick").partitions[0].id
    house.coordinator.sealed = {partition: 20}
    assert client.get_collection_stats("quick") == {"row_count": 20}
    assert client.get_partition_stats("quick", "_default") == {"row_count": 20}
    assert client.get_compaction_state(client.compact("quick")) == "Completed"


# --- rows ----------------------------------------------------------------------------------------
def test_every_type_comes_back(client: MilvusClient) -> None:
    declared(client)
    full, sparse = row("a"), row("b", flag=None, medium=None, text=None)
    del sparse["small"], sparse["extra"]
    result = client.insert("declared", [full, sparse])
    assert result["ids"] == ["a", "b"]
    back = client.query("declared", 'pk in ["a", "b"]', output_fields=["*"])
    for got, sent in zip(back, (full, sparse | {"small": 7}), strict=True):
        got["bits"], got["dense"] = bytes(got["bits"][0]), list(got["dense"])
        assert got == sent | {"single": pytest.approx(0.5)}
    assert set(client.query("declared", "large > 0", output_fields=["text"])[1]) == {"pk", "text"}


def test_insert_is_unique_by_key(house: House, client: MilvusClient) -> None:
    quick(client)
    again = [{"id": 3, "vector": [0.0] * DIM, "n": n} for n in (100, 200, 300)]
    assert client.insert("quick", again)["insert_count"] == 3
    assert [r["n"] for r in client.query("quick", "id == 3", output_fields=["n"])] == [300]
    assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 20}]
    assert client.upsert("quick", [{"id": 3, "vector": [0.0] * DIM, "n": 400}])["upsert_count"] == 1
    assert client.get("quick", 3, output_fields=["n"])[0]["n"] == 400


def test_auto_ids(client: MilvusClient) -> None:
    quick(client, 0, auto_id=True)
    ids: list[int] = []
    for rows in (3, 100, 1, 60):
        ids += client.insert("quick", [{"vector": v} for v in vectors(rows)])["ids"]
    assert len(set(ids)) == 164
    assert sorted(r["id"] for r in client.query("quick", "id > 0", output_fields=["id"])) == sorted(ids)
    with pytest.raises(MilvusException, match="can not assign primary field data when auto id enabled id"):
        client.insert("quick", [{"id": 1, "vector": [0.0] * DIM}])
    assert client.upsert("quick", [{"id": ids[0], "vector": [0.0] * DIM}])["ids"] == [ids[0]]
    assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 164}]


def test_deletes(client: MilvusClient) -> None:
    quick(client)
    assert client.delete("quick", ids=[0, 1, 99])["delete_count"] == 3
    assert client.delete("quick", filter="n >= 18")["delete_count"] == 2
    assert client.delete("quick", filter="id in {keys}", filter_params={"keys": [2]})["delete_count"] == 1
    assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 15}]
    with pytest.raises(MilvusException, match="failed to create delete plan: cannot parse expression: id >"):
        client.delete("quick", filter="id >")


def test_partitions_hold_their_rows(client: MilvusClient) -> None:
    quick(client)
    client.create_partition("quick", "p")
    client.insert("quick", [{"id": 100, "vector": [0.5] * DIM}], partition_name="p")
    assert [r["id"] for r in client.query("quick", "id >= 0", output_fields=["id"], partition_names=["p"])] == [100]
    assert client.search("quick", [[0.5] * DIM], limit=5, partition_names=["p"])[0].ids == [100]
    client.delete("quick", ids=[0, 100], partition_name="p")
    assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 20}]
    with pytest.raises(MilvusException, match=r"partition not found\[partition=zz\]") as e:
        client.insert("quick", [{"id": 1, "vector": [0.5] * DIM}], partition_name="zz")
    assert e.value.code == 200
    client.release_partitions("quick", ["p"])
    with pytest.raises(MilvusException, match="partition not loaded"):
        client.query("quick", "id >= 0", partition_names=["p"])


def test_partition_key(house: House, client: MilvusClient) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("tenant", DataType.VARCHAR, max_length=10, is_partition_key=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    index = MilvusClient.prepare_index_params()
    index.add_index("v", metric_type="IP")
    indexed(client, "keyed", schema, index, num_partitions=4, num_shards=2)
    assert client.list_partitions("keyed") == [f"_default_{n}" for n in range(4)]
    client.insert("keyed", [{"id": i, "tenant": f"t{i % 5}", "v": [float(i)] * 4} for i in range(50)])
    records = house.log.of(house.catalog.find("default", "keyed"))
    homes: dict[str, set[int]] = {}
    for _, record in records:
        for tenant in record.batch.column("tenant").to_pylist():  # type: ignore[union-attr]
            homes.setdefault(tenant, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len({p for ps in homes.values() for p in ps}) > 1
    assert {record.shard.number for _, record in records} == {0, 1}
    assert len(client.query("keyed", 'tenant == "t2"', output_fields=["id"])) == 10
    with pytest.raises(MilvusException, match="partition key mode"):
        client.insert("keyed", [{"id": 1, "tenant": "a", "v": [0.0] * 4}], partition_name="_default_0")
    with pytest.raises(MilvusException, match="partition key mode"):
        client.create_partition("keyed", "p")


def test_a_large_insert_is_one_append_of_many_records(house: House, client: MilvusClient) -> None:
    quick(client, 0)
    collection = house.catalog.find("default", "quick")
    house.log.record_bytes_max, appends = 64 * 1024, house.log.appends
    try:
        data = [{"id": i, "vector": v, "s": "x" * (i % 1000)} for i, v in enumerate(vectors(3000))]
        client.insert("quick", data)
        assert house.log.appends == appends + 1
        records = house.log.of(collection)
        assert len(records) > 20
        assert len({record.timestamp for _, record in records}) == 1
        assert client.query("quick", output_fields=["count(*)"]) == [{"count(*)": 3000}]
        with pytest.raises(MilvusException, match="larger than the log takes"):
            client.insert("quick", [{"id": 1, "vector": [0.0] * DIM, "s": "x" * 65_000}])
    finally:
        house.log.record_bytes_max = 8 * 1024 * 1024


def test_a_failed_append_is_not_acknowledged(house: House, client: MilvusClient) -> None:
    quick(client)
    house.log.fail = DiskFull("no space left")
    with pytest.raises(MilvusException, match="no space left") as e:
        client.insert("quick", [{"id": 1000, "vector": [0.0] * DIM}])
    assert e.value.code == 9
    assert client.insert("quick", [{"id": 1000, "vector": [0.0] * DIM}])["insert_count"] == 1


def test_sixty_megabytes_in_one_insert(client: MilvusClient) -> None:
    client.create_collection("wide", dimension=4096)
    block = np.random.default_rng(0).random((3700, 4096), np.float32)
    assert client.insert("wide", [{"id": i, "vector": v} for i, v in enumerate(block)])["insert_count"] == 3700
    assert client.query("wide", output_fields=["count(*)"]) == [{"count(*)": 3700}]


def test_a_stale_schema_is_fetched_again(house: House, client: MilvusClient) -> None:
    quick(client, 0)
    other = house.client()
    other.insert("quick", [{"id": 1, "vector": [0.0] * DIM}])
    client.drop_collection("quick")
    client.create_collection("quick", dimension=4)
    assert other.insert("quick", [{"id": 1, "vector": [0.0] * 4}])["insert_count"] == 1
    other.close()


# --- search --------------------------------------------------------------------------------------
def test_search_merges_shards_in_order(client: MilvusClient) -> None:
    quick(client, 0, num_shards=4, metric_type="L2")
    data = np.array(vectors(200), np.float32)
    client.insert("quick", [{"id": i, "vector": v, "n": i} for i, v in enumerate(data.tolist())])
    queries = data[:3] + 0.01
    found = client.search("quick", queries.tolist(), limit=7, output_fields=["n"], search_params={"offset": 2})
    for query, hits in zip(queries, found, strict=True):
        distances = ((data - query) ** 2).sum(axis=1)
        assert hits.ids == np.argsort(distances, kind="stable")[2:9].tolist()
        assert hits.distances == pytest.approx(np.sort(distances)[2:9], rel=1e-5)
        assert [h["entity"]["n"] for h in hits] == hits.ids


def test_search_output(client: MilvusClient) -> None:
    declared(client)
    client.insert("declared", [row("a"), row("b", dense=[2.0] * DIM, text=None, extra=None, other="o")])
    hits = client.search("declared", [[1.0] * DIM], anns_field="dense", limit=2, output_fields=["*"])[0]
    assert [h["pk"] for h in hits] == ["a", "b"]
    assert dict(hits[0]["entity"], bits=0, dense=0) == row("a", bits=0, dense=0, single=pytest.approx(0.5))
    assert hits[1]["entity"]["text"] is None
    assert list(hits[1]["entity"]["dense"]) == [2.0] * DIM
    hits = client.search("declared", [[1.0] * DIM], anns_field="dense", limit=2, output_fields=["extra", "tiny"])[0]
    assert [h["entity"] for h in hits] == [{"tiny": -5, "extra": 1}, {"tiny": -5, "extra": None}]
    hits = client.search("declared", [b"\x0f\xf0"], anns_field="bits", limit=2)[0]
    assert hits.distances == [0.0, 0.0]


def test_search_by_ids_filter_and_range(client: MilvusClient) -> None:
    quick(client, metric_type="L2")
    found = client.search("quick", ids=[7, 3, 7], limit=1)
    assert [hits.ids for hits in found] == [[7], [3], [7]]
    with pytest.raises(MilvusException, match="do not exist, first 99"):
        client.search("quick", ids=[99], limit=1)
    hits = client.search("quick", [[0.5] * DIM], limit=20, filter="n in {some}", filter_params={"some": [1, 2]})[0]
    assert sorted(hits.ids) == [1, 2]
    everything = client.search("quick", [[0.5] * DIM], limit=20)[0]
    near, far = everything.distances[4], everything.distances[9]
    params = {"params": {"radius": far, "range_filter": near}}
    assert client.search("quick", [[0.5] * DIM], limit=20, search_params=params)[0].ids == everything.ids[4:9]
    assert client.search("quick", [[0.5] * DIM], limit=3, round_decimal=2)[0].distances == pytest.approx(
        np.round(everything.distances[:3], 2)
    )
    assert client.search("quick", [[0.5] * DIM], limit=3, filter="id < 0") == [[]]


def test_search_groups(client: MilvusClient) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("brand", DataType.VARCHAR, max_length=10, nullable=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=1)
    index = MilvusClient.prepare_index_params()
    index.add_index("v", metric_type="L2")
    indexed(client, "g", schema, index, num_shards=3)
    brands = ["a", "a", "b", None, "a", "b", "c", "c", None, "d"]
    client.insert("g", [{"id": i, "brand": b, "v": [float(i)]} for i, b in enumerate(brands)])
    hits = client.search("g", [[0.0]], limit=3, group_by_field="brand", output_fields=["brand"])[0]
    assert [(h["id"], h["entity"]["brand"]) for h in hits] == [(0, "a"), (2, "b"), (3, None)]
    assert client.search("g", [[0.0]], limit=2, group_by_field="brand", group_size=2)[0].ids == [0, 1, 2, 5]
    offset = {"offset": 1}
    assert client.search("g", [[0.0]], limit=2, group_by_field="brand", search_params=offset)[0].ids == [2, 3]


SEARCH_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"limit": 16_385}, r"topk \[16385\] is invalid, top k should be in range \[1, 16384\], but got 16385"),
    ({"limit": 10, "search_params": {"offset": 16_380}}, r"\(offset\+limit\) should be in range \[1, 16384\]"),
    ({"anns_field": "zz"}, r"failed to get field schema by name: fieldName\(zz\) not found"),
    ({"anns_field": "id"}, "is not of vector data type"),
    ({"search_params": {"metric_type": "L2"}}, r"metric type not match: invalid parameter\[expected=COSINE\]"),
    ({"filter": "id >"}, "failed to create query plan: cannot parse expression: id >"),
    ({"search_params": {"params": {"ef": 1}}}, r"ef\(1\) should be larger than k\(3\)"),
    ({"data": [[0.5] * 4]}, r"vector dimension mismatch, expected vector size\(byte\) 32, actual 16"),
    ({"data": [[float("nan")] * DIM]}, "is not a number or infinity"),
    ({"data": [b"\x00"]}, "vector type must be the same"),
    ({"data": ["text"]}, "search by text"),
    ({"group_by_field": "zz"}, r"field not found\[field=zz\]"),
    ({"group_by_field": "vector"}, "unsupported data type FloatVector for group by operator"),
    ({"group_by_field": "id", "group_size": 11}, "exceeds configured max group size"),
    ({"search_params": {"params": {"radius": 0.9, "range_filter": 0.5}}}, "must be greater than radius"),
    ({"partition_names": ["zz"]}, r"partition not found\[partition=zz\]"),
]


def test_search_mistakes(client: MilvusClient) -> None:
    quick(client)
    for options, message in SEARCH_MISTAKES:
        with pytest.raises(MilvusException, match=message) as e:
            client.search("quick", **({"data": [[0.5] * DIM], "limit": 3} | options))
        assert e.value.is_input_error or e.value.code == 10


def test_a_moved_leader_is_followed(house: House, client: MilvusClient) -> None:
    quick(client)
    house.query_node.fail = Unavailable("gone")
    assert len(client.search("quick", [[0.5] * DIM], limit=3)[0]) == 3


def test_consistency_reaches_the_shards(house: House, client: MilvusClient) -> None:
    # A name of its own: the SDK remembers the last write to a name for as long as the process lives.
    client.create_collection("levels", dimension=DIM)
    for level in ("Strong", "Bounded", "Eventually", None):
        client.search("levels", [[0.5] * DIM], limit=1, **({"consistency_level": level} if level else {}))
    asked = [r.consistency.name for r in house.query_node.requests[-4:]]
    assert asked == ["STRONG", "BOUNDED", "EVENTUALLY", "BOUNDED"]
    client.search("levels", [[0.5] * DIM], limit=1, consistency_level="Session")
    assert house.query_node.requests[-1].consistency.name == "EVENTUALLY"
    client.insert("levels", [{"id": 1, "vector": [0.0] * DIM}])
    client.search("levels", [[0.5] * DIM], limit=1, consistency_level="Session")
    assert house.query_node.requests[-1].consistency.name == "SESSION"


def test_the_plan_cache_sees_changes(house: House, client: MilvusClient) -> None:
    quick(client, metric_type="L2")
    query = [[0.5] * DIM]
    assert len(client.search("quick", query, limit=3)[0]) == 3
    client.create_partition("quick", "p")
    client.search("quick", query, limit=3)
    request = house.query_node.requests[-1]
    assert isinstance(request, SearchRequest)
    assert len(request.partitions) == 2
    client.release_collection("quick")
    with pytest.raises(MilvusException, match="collection not loaded"):
        client.search("quick", query, limit=3)


# --- queries and iterators -----------------------------------------------------------------------
def test_query_windows(client: MilvusClient) -> None:
    quick(client, num_shards=3)
    ids = [r["id"] for r in client.query("quick", "id >= 5", limit=4, offset=2, output_fields=["id"])]
    assert ids == [7, 8, 9, 10]
    assert [r["id"] for r in client.query("quick", limit=3, output_fields=["id"])] == [0, 1, 2]
    assert client.query("quick", "n < 0", output_fields=["n"]) == []
    assert [r["color"] for r in client.query("quick", "id == 4", output_fields=["color"])] == ["c1"]


QUERY_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "empty expression should be used with limit"),
    ({"limit": 16_384, "offset": 1}, r"invalid max query result window, \(offset\+limit\) should be in range"),
    ({"limit": 0}, "should be greater than 0"),
    ({"limit": 1, "offset": -1}, "should be gte than 0"),
    ({"filter": "zz ==", "limit": 1}, "failed to create query plan: cannot parse expression"),
    ({"output_fields": ["count(*)"], "limit": 3}, "count entities with pagination is not allowed"),
]


def test_query_mistakes(client: MilvusClient) -> None:
    quick(client)
    for options, message in QUERY_MISTAKES:
        with pytest.raises(MilvusException, match=message) as e:
            client.query("quick", **options)
        assert e.value.is_input_error


def test_unknown_output_field(client: MilvusClient) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    index = MilvusClient.prepare_index_params()
    index.add_index("v")
    indexed(client, "plain", schema, index)
    with pytest.raises(MilvusException, match="field zz not exist"):
        client.query("plain", "id > 0", output_fields=["zz"])


def test_query_iterator_reads_one_moment(client: MilvusClient) -> None:
    quick(client, num_shards=2)
    iterator = client.query_iterator("quick", filter="id != 3", batch_size=6, output_fields=["id"])
    client.delete("quick", ids=list(range(10)))
    client.insert("quick", [{"id": 500, "vector": [0.0] * DIM}])
    pages = []
    while page := iterator.next():
        pages.append([r["id"] for r in page])
    iterator.close()
    assert [i for page in pages for i in page] == [i for i in range(20) if i != 3]
    assert max(map(len, pages)) == 6


@pytest.mark.parametrize("metric", ["L2", "COSINE", "IP"])
def test_search_iterator_loses_no_tie(client: MilvusClient, metric: str) -> None:
    quick(client, 0, metric_type=metric, num_shards=2)
    same = [{"id": i, "vector": [float(i // 25), 1.0] + [0.0] * (DIM - 2)} for i in range(100)]
    client.insert("quick", same)
    iterator = client.search_iterator("quick", [[1.0] + [0.5] * (DIM - 1)], batch_size=10, limit=-1)
    client.delete("quick", ids=list(range(50)))
    found: list[int] = []
    while page := iterator.next():
        found += page.ids()
    iterator.close()
    assert sorted(found) == list(range(100))


def test_search_iterator_within_a_range(client: MilvusClient) -> None:
    quick(client, 60, metric_type="L2")
    whole = client.search("quick", [[0.5] * DIM], limit=60)[0]
    params = {"params": {"range_filter": whole.distances[5], "radius": whole.distances[40]}}
    iterator = client.search_iterator("quick", [[0.5] * DIM], batch_size=7, search_params=params)
    found: list[int] = []
    while page := iterator.next():
        found += page.ids()
    assert found == whole.ids[5:40]


# --- other clients -------------------------------------------------------------------------------
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
