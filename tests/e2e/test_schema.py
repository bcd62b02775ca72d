"""Collections: what was declared is what is described, and what can't be declared is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, FieldSpec, create, vector_field

ALL_TYPES: list[FieldSpec] = [
    ("id", DataType.INT64, {"is_primary": True, "description": "the key"}),
    ("flag", DataType.BOOL, {}),
    ("i8", DataType.INT8, {}),
    ("i16", DataType.INT16, {}),
    ("i32", DataType.INT32, {}),
    ("i64", DataType.INT64, {"nullable": True}),
    ("f32", DataType.FLOAT, {}),
    ("f64", DataType.DOUBLE, {"default_value": 0.5}),
    ("text", DataType.VARCHAR, {"max_length": 77}),
    ("doc", DataType.JSON, {"nullable": True}),
    ("tags", DataType.ARRAY, {"element_type": DataType.VARCHAR, "max_capacity": 9, "max_length": 33}),
    ("numbers", DataType.ARRAY, {"element_type": DataType.INT32, "max_capacity": 5}),
    ("dense", DataType.FLOAT_VECTOR, {"dim": 12}),
    ("binary", DataType.BINARY_VECTOR, {"dim": 64}),
]


def test_describe_gives_back_every_field_as_declared(client: MilvusClient, name: str) -> None:
    create(client, name, ALL_TYPES, dynamic=True, description="all of them", num_shards=2)
    described = client.describe_collection(name)

    assert described["collection_name"] == name
    assert described["collection_id"] > 0
    assert described["num_shards"] == 2
    assert described["num_partitions"] == 1
    assert described["consistency_level"] == 2
    assert described["enable_dynamic_field"] is True
    assert described["created_timestamp"] > 0
    fields = {f["name"]: f for f in described["fields"]}
    assert list(fields) == [f[0] for f in ALL_TYPES]
    assert [f["field_id"] for f in described["fields"]] == list(range(100, 100 + len(ALL_TYPES)))
    for field, data_type, more in ALL_TYPES:
        assert fields[field]["type"] == data_type
        for key in ("dim", "max_length", "max_capacity"):
            assert fields[field]["params"].get(key) == more.get(key), (field, key)
        assert fields[field].get("nullable", False) == more.get("nullable", False)
        assert fields[field].get("element_type") == more.get("element_type")
    assert fields["id"]["is_primary"] is True
    assert fields["id"]["description"] == "the key"
    assert fields["f64"]["default_value"].double_data == 0.5


def test_quick_setup_describes_and_loads(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=8)
    described = client.describe_collection(name)
    assert {f["name"]: f["type"] for f in described["fields"]} == {
        "id": DataType.INT64,
        "vector": DataType.FLOAT_VECTOR,
    }
    assert described["enable_dynamic_field"] is True
    assert client.get_load_state(name)["state"].name == "Loaded"
    assert client.describe_index(name, "vector")["metric_type"] == "COSINE"


def test_create_without_index_is_not_loaded(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, vector_field(4)])
    assert client.get_load_state(name)["state"].name == "NotLoad"
    assert client.list_indexes(name) == []


def test_list_has_and_drop(client: MilvusClient, name: str) -> None:
    assert not client.has_collection(name)
    create(client, name, [ID, vector_field(4)])
    assert client.has_collection(name)
    assert name in client.list_collections()
    client.drop_collection(name)
    assert not client.has_collection(name)
    assert name not in client.list_collections()
    client.drop_collection(name)  # unknown is success


def test_create_again_same_schema_is_success_another_is_refused(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, vector_field(4)])
    create(client, name, [ID, vector_field(4)])
    with pytest.raises(MilvusException, match="create duplicate collection with different parameters"):
        create(client, name, [ID, vector_field(5)])


def test_a_dropped_name_starts_empty(client: MilvusClient, name: str) -> None:
    for _ in range(2):
        client.create_collection(name, dimension=2, consistency_level="Strong")
        assert client.query(name, filter="id >= 0") == []
        client.insert(name, [{"id": 1, "vector": [1.0, 0.0]}])
        assert len(client.query(name, filter="id >= 0")) == 1
        client.drop_collection(name)


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        ("1bad", "Invalid collection name: 1bad. the first character of a collection name must be an underscore"),
        ("has space", "Invalid collection name"),
        ("dollar$", "Invalid collection name"),
        ("x" * 256, "Invalid collection name"),
    ],
)
def test_bad_names_are_refused(client: MilvusClient, collection: str, message: str) -> None:
    with pytest.raises(MilvusException, match=message) as e:
        create(client, collection, [ID, vector_field(4)])
    assert e.value.code == 1100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([ID, vector_field(40_000)], "invalid dimension: 40000"),
        ([ID, ("b", DataType.BINARY_VECTOR, {"dim": 12})], "invalid dimension: 12"),
        ([ID, vector_field(4), ("s", DataType.VARCHAR, {"max_length": 70_000})], "max"),
        ([ID, vector_field(4), ("vector", DataType.INT64, {})], "uplicate"),
        ([ID, vector_field(4), ("$bad", DataType.INT64, {})], "nvalid field name"),
    ],
    ids=["dim too large", "binary dim not a multiple of 8", "varchar too long", "twice the same name", "bad name"],
)
def test_bad_fields_are_refused(client: MilvusClient, name: str, fields: list[FieldSpec], message: str) -> None:
    with pytest.raises(MilvusException, match=message):
        create(client, name, fields)
    assert not client.has_collection(name)


@pytest.mark.parametrize(
    "data_type", [DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR, DataType.INT8_VECTOR, DataType.SPARSE_FLOAT_VECTOR]
)
def test_types_of_a_later_version_are_named_not_unknown(client: MilvusClient, name: str, data_type: DataType) -> None:
    more: dict[str, Any] = {} if data_type == DataType.SPARSE_FLOAT_VECTOR else {"dim": 8}
    with pytest.raises(MilvusException, match=r"(?i)not .*yet") as e:
        create(client, name, [ID, ("v", data_type, more)])
    assert e.value.code == 10


@pytest.mark.parametrize(
    "call",
    [
        lambda c, n: c.create_alias(n, "an_alias"),
        lambda c, n: c.create_database("another"),
        lambda c, n: c.create_user("someone", "Passw0rd!"),
        lambda c, n: c.list_resource_groups(),
        lambda c, n: c.rename_collection(n, "other"),
    ],
    ids=["alias", "database", "user", "resource group", "rename"],
)
def test_calls_of_a_later_version_are_refused_by_name(
    client: MilvusClient, name: str, call: Callable[[MilvusClient, str], Any]
) -> None:
    create(client, name, [ID, vector_field(4)])
    with pytest.raises(MilvusException, match=r"(?i)not .*yet"):
        call(client, name)


def test_an_unknown_database_is_refused(client: MilvusClient) -> None:
    with pytest.raises(MilvusException, match=r"database not found\[database=nodb\]") as e:
        client.use_database("nodb")
    assert e.value.code == 800
