"""Rows by the real client, on both listeners: what comes in, what is acknowledged, what comes back."""

import numpy as np
import pytest
from pymilvus import (
    DataType,
    MilvusClient,
    MilvusException,
)

from core.errors import DiskFull
from tests.integration.proxy_house import House
from tests.integration.proxy_tables import DIM, declared, indexed, quick, row, vectors


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
        for tenant in record.batch.column("tenant").to_pylist():
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
