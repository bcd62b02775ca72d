"""Schemas: what is refused, in Milvus's words, and what comes back as it was declared."""

from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import schema_pb2

from core.errors import InvalidArgument, NotYet, SheafError
from core.schema import DYNAMIC
from proxy.names import check_collection_name, check_partition_name
from proxy.schema_wire import read_schema, write_schema


def message(*fields: dict[str, Any], **options: Any) -> Any:
    """A schema message with a key and a vector, and the given fields; values of ``fields`` replace."""
    base: list[dict[str, Any]] = [
        {"name": "id", "data_type": 5, "is_primary_key": True},
        {"name": "v", "data_type": 101, "dim": "8"},
    ]
    out = schema_pb2.CollectionSchema(name="c", **options)
    for f in [*base[: 2 - sum("replace" in f for f in fields)], *fields]:
        params = {k: f.pop(k) for k in ("dim", "max_length", "max_capacity") if k in f}
        f.pop("replace", None)
        made = out.fields.add(**f)
        for key, value in params.items():
            made.type_params.add(key=key, value=value)
    return out


def text(**options: Any) -> dict[str, Any]:
    return {"name": "t", "data_type": 21, "max_length": "10"} | options


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([{"name": "1x", "data_type": 5}], "The first character of a field name must be an underscore or letter"),
    ([{"name": "a-b", "data_type": 5}], "Field name can only contain numbers, letters, and underscores"),
    ([{"name": "", "data_type": 5}], "field name should not be empty"),
    ([{"name": "$meta", "data_type": 23}], "reserved by the system"),
    ([{"name": "Timestamp", "data_type": 5}], "reserved by the system"),
    ([{"name": "id", "data_type": 5}], "duplicated field name"),
    (
        [{"name": "k", "data_type": 5, "is_primary_key": True}],
        "there are more than one primary key, field name = id, k",
    ),
    ([{"name": "k", "data_type": 5, "autoID": True}], "only primary field can specify AutoID with true"),
    ([{"name": "x", "data_type": 999}], "data type 999 is not valid"),
    ([{"name": "w", "data_type": 101}], "dimension is not defined in field type params"),
    ([{"name": "w", "data_type": 101, "dim": "40000"}], "invalid dimension: 40000. should be in range 1 ~ 32768"),
    ([{"name": "w", "data_type": 101, "dim": "x"}], "invalid dimension: x. should be in range 1 ~ 32768"),
    ([{"name": "w", "data_type": 100, "dim": "12"}], "should be multiple of 8"),
    ([text(max_length="70000")], "should be in (0, 65535], but got 70000"),
    ([{"name": "t", "data_type": 21}], "type param(max_length) should be specified for the field(t)"),
    ([{"name": "a", "data_type": 22, "element_type": 5}], "type param(max_capacity) should be specified"),
    ([{"name": "a", "data_type": 22, "element_type": 5, "max_capacity": "5000"}], "should be in (0, 4096]"),
    ([{"name": "a", "data_type": 22, "element_type": 23, "max_capacity": "5"}], "element type JSON is not supported"),
    (
        [{"name": "p", "data_type": 10, "is_partition_key": True}],
        "data type of partition key should be Int64 or VarChar",
    ),
    ([text(is_partition_key=True), text(name="u", is_partition_key=True)], "there are more than one partition key"),
    ([text(default_value=schema_pb2.ValueField(string_data="x" * 11))], "exceeds max length (10)"),
    ([text(default_value=schema_pb2.ValueField(long_data=1))], "is not equal to the type(long_data) of default_value"),
    ([{"name": "n", "data_type": 2, "default_value": schema_pb2.ValueField(int_data=300)}], "out of range for Int8"),
    (
        [{"name": "j", "data_type": 23, "default_value": schema_pb2.ValueField(bytes_data=b"1")}],
        "not support default_value",
    ),
]


@pytest.mark.parametrize(("fields", "wording"), REFUSED, ids=[w for _, w in REFUSED])
def test_refused_schemas(fields: list[dict[str, Any]], wording: str) -> None:
    with pytest.raises(InvalidArgument) as e:
        read_schema(message(*(dict(f) for f in fields)).SerializeToString())
    assert wording in str(e.value)


def test_schemas_without_key_or_vector() -> None:
    for fields, wording in (
        ([{"name": "v", "data_type": 101, "dim": "8", "replace": 1}] * 2, "primary key is not specified"),
        ([text(replace=1)], "schema does not contain vector field"),
    ):
        out = message(*(dict(f) for f in fields))
        while len(out.fields) > 1 and wording.startswith("primary"):
            del out.fields[0]
        with pytest.raises(InvalidArgument, match=wording):
            read_schema(out.SerializeToString())


def test_too_many_fields() -> None:
    many = [{"name": f"f{n}", "data_type": 5} for n in range(63)]
    with pytest.raises(InvalidArgument, match="maximum field's number should be limited to 64"):
        read_schema(message(*many).SerializeToString())
    wide = [{"name": f"w{n}", "data_type": 101, "dim": "4"} for n in range(10)]
    with pytest.raises(InvalidArgument, match="maximum vector field's number should be limited to 10"):
        read_schema(message(*wide).SerializeToString())


@pytest.mark.parametrize("kind", [102, 103, 104, 105, 106, 24, 25, 26])
def test_types_of_later_versions(kind: int) -> None:
    with pytest.raises(NotYet, match="not served by this version yet"):
        read_schema(message({"name": "x", "data_type": kind, "dim": "8"}).SerializeToString())


def test_functions_and_struct_fields_are_of_later_versions() -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("t", DataType.VARCHAR, max_length=10, enable_analyzer=True)
    schema.add_field("s", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["t"], ["s"]))
    with pytest.raises(SheafError, match=r"functions .* not served"):
        read_schema(Prepare.create_collection_request("c", schema).schema)


def test_a_schema_comes_back() -> None:
    schema = MilvusClient.create_schema(description="things", enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, auto_id=True, max_length=36, description="the key")
    schema.add_field("n", DataType.INT16, default_value=np.int16(5), nullable=True)
    schema.add_field("x", DataType.DOUBLE, default_value=0.25)
    schema.add_field("t", DataType.VARCHAR, max_length=9, is_partition_key=True, enable_match=True)
    schema.add_field("c", DataType.INT64, is_clustering_key=True)
    schema.add_field("a", DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=4, mmap_enabled=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=8)
    sent = schema_pb2.CollectionSchema.FromString(Prepare.create_collection_request("c", schema).schema)
    read = read_schema(sent.SerializeToString())
    assert [f.name for f in read.fields] == ["id", "n", "x", "t", "c", "a", "v", DYNAMIC]
    back = write_schema("c", read)
    assert back.enable_dynamic_field
    assert back.autoID
    for before, after in zip(sent.fields, back.fields, strict=True):
        assert sorted((kv.key, kv.value) for kv in before.type_params) == sorted(
            (kv.key, kv.value) for kv in after.type_params
        )
        after.ClearField("type_params")
        before.ClearField("type_params")
        after.ClearField("state")
        assert after == before


@pytest.mark.parametrize(
    ("name", "wording"),
    [
        (
            "1bad!",
            "Invalid collection name: 1bad!. the first character of a collection name must be an underscore or letter",
        ),
        ("x" * 256, "the length of a collection name must be less than 255 characters: invalid parameter"),
        ("a-b", "collection name can only contain numbers, letters and underscores: invalid parameter"),
        ("", "collection name should not be empty"),
        ("é", "the first character"),
    ],
)
def test_collection_names(name: str, wording: str) -> None:
    with pytest.raises(InvalidArgument) as e:
        check_collection_name(name)
    assert wording in str(e.value)


def test_partition_names() -> None:
    check_partition_name("_p1")
    for bad in ("", "1", "a b", "x" * 300):
        with pytest.raises(InvalidArgument, match="Invalid partition name"):
            check_partition_name(bad)
