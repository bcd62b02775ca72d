"""Partitions by name and by key."""

import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, count, create, ids, vector_field

INDEX = {"vector": {"index_type": "FLAT", "metric_type": "L2"}}


@pytest.fixture
def table(client: MilvusClient, name: str) -> str:
    create(client, name, [ID, vector_field(2)], INDEX, consistency_level="Strong")
    return name


def rows(keys: range) -> list[dict]:
    return [{"id": i, "vector": [float(i), 0.0]} for i in keys]


def test_create_list_has_and_drop(client: MilvusClient, table: str) -> None:
    assert client.list_partitions(table) == ["_default"]
    client.create_partition(table, "p1")
    client.create_partition(table, "p1")  # existing is success
    assert client.list_partitions(table) == ["_default", "p1"]
    assert client.has_partition(table, "p1")
    assert not client.has_partition(table, "p2")
    with pytest.raises(MilvusException, match="partition cannot be dropped, partition is loaded, please release it"):
        client.drop_partition(table, "p1")
    client.release_partitions(table, ["p1"])
    client.drop_partition(table, "p1")
    client.drop_partition(table, "p1")  # unknown is success
    assert client.list_partitions(table) == ["_default"]


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "sealed"])
def test_reads_and_deletes_stay_in_their_partitions(client: MilvusClient, table: str, sealed: bool) -> None:
    for n, partition in enumerate(["a", "b", "c"]):
        client.create_partition(table, partition)
        client.insert(table, rows(range(10 * n, 10 * n + 10)), partition_name=partition)
    if sealed:
        client.flush(table)
    assert count(client, table) == 30
    assert count(client, table, partition_names=["b"]) == 10
    found = client.search(table, [[0.0, 0.0]], limit=5, partition_names=["b", "c"])
    assert ids(found) == [[10, 11, 12, 13, 14]]
    assert client.get(table, [5, 15], partition_names=["a"])[0]["id"] == 5
    client.delete(table, filter="id >= 0", partition_name="c")
    assert count(client, table) == 20
    if sealed:
        client.flush(table)
        assert client.get_partition_stats(table, "b")["row_count"] == 10


def test_an_upsert_moves_a_key_between_partitions(client: MilvusClient, table: str) -> None:
    client.create_partition(table, "a")
    client.create_partition(table, "b")
    client.insert(table, rows(range(4)), partition_name="a")
    client.flush(table)
    client.upsert(table, rows(range(2)), partition_name="b")
    assert count(client, table) == 4
    assert count(client, table, partition_names=["a"]) == 2
    assert count(client, table, partition_names=["b"]) == 2


def test_dropped_partitions_take_their_rows(client: MilvusClient, table: str) -> None:
    client.create_partition(table, "a")
    client.insert(table, rows(range(5)), partition_name="a")
    client.insert(table, rows(range(5, 8)))
    client.release_partitions(table, ["a"])
    client.drop_partition(table, "a")
    assert count(client, table) == 3
    client.create_partition(table, "a")
    client.load_partitions(table, ["a"])
    assert count(client, table, partition_names=["a"]) == 0


def test_unknown_partitions_are_refused(client: MilvusClient, table: str) -> None:
    with pytest.raises(MilvusException, match=r"partition not found\[partition=zz\]") as e:
        client.insert(table, rows(range(1)), partition_name="zz")
    assert e.value.code == 200
    for call in (
        lambda: client.search(table, [[0.0, 0.0]], partition_names=["zz"]),
        lambda: client.query(table, filter="id > 0", partition_names=["zz"]),
        lambda: client.delete(table, ids=[1], partition_name="zz"),
        lambda: client.get_load_state(table, "zz"),
    ):
        with pytest.raises(MilvusException, match=r"partition not found\[partition=zz\]"):
            call()


def test_partitions_load_and_release_alone(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, vector_field(2)], consistency_level="Strong")
    params = client.prepare_index_params()
    params.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_index(name, params)
    for n, partition in enumerate(["a", "b"]):
        client.create_partition(name, partition)
        client.insert(name, rows(range(10 * n, 10 * n + 10)), partition_name=partition)
    client.load_partitions(name, ["a"])
    assert client.get_load_state(name, "a")["state"].name == "Loaded"
    assert client.get_load_state(name, "b")["state"].name == "NotLoad"
    assert count(client, name, partition_names=["a"]) == 10
    with pytest.raises(MilvusException, match="not loaded"):
        client.search(name, [[0.0, 0.0]], partition_names=["b"])
    client.load_partitions(name, ["b"])
    assert count(client, name, partition_names=["a", "b"]) == 20
    client.release_partitions(name, ["a", "b"])
    assert client.get_load_state(name)["state"].name == "NotLoad"


def test_partition_key(client: MilvusClient, name: str) -> None:
    tenant = ("tenant", DataType.VARCHAR, {"max_length": 20, "is_partition_key": True})
    create(client, name, [ID, tenant, vector_field(2)], INDEX, num_partitions=8, consistency_level="Strong")
    assert client.list_partitions(name) == [f"_default_{n}" for n in range(8)]
    data = [{"id": i, "tenant": f"t{i % 10}", "vector": [float(i), 0.0]} for i in range(100)]
    client.insert(name, data)
    client.flush(name)
    assert count(client, name) == 100
    assert count(client, name, "tenant == 't3'") == 10
    found = client.search(name, [[0.0, 0.0]], limit=3, filter="tenant in ['t3', 't4']")
    assert ids(found) == [[3, 4, 13]]
    client.delete(name, filter="tenant == 't3'")
    assert count(client, name) == 90
    with pytest.raises(MilvusException, match="partition"):
        client.insert(name, data[:1], partition_name="_default_0")
