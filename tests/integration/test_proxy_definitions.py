"""Collections, partitions, indexes, loading by the real client, on both listeners."""

import pytest
from pymilvus import (
    DataType,
    MilvusClient,
    MilvusException,
)
from pymilvus.client.types import LoadState

from tests.integration.proxy_house import House
from tests.integration.proxy_tables import declared, quick


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
