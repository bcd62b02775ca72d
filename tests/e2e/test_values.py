"""Every type of value comes back as it went in, from growing and from sealed rows."""

from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, bits, count, create, vector_field, vectors

VECTOR = {"vector": {"index_type": "FLAT", "metric_type": "L2"}}


def array_of(element: DataType, **more: Any) -> dict[str, Any]:
    return {"element_type": element, "max_capacity": 16, **more}


SCALARS = {
    "flag": (DataType.BOOL, {}, [True, False, True]),
    "i8": (DataType.INT8, {}, [-128, 0, 127]),
    "i16": (DataType.INT16, {}, [-(2**15), 0, 2**15 - 1]),
    "i32": (DataType.INT32, {}, [-(2**31), 0, 2**31 - 1]),
    "i64": (DataType.INT64, {}, [-(2**63), 0, 2**63 - 1]),
    "f32": (DataType.FLOAT, {}, [-1.5, 0.0, 2.0**100]),
    "f64": (DataType.DOUBLE, {}, [-1e300, 0.1, 2.0**-1000]),
    "text": (DataType.VARCHAR, {"max_length": 100}, ["", "näive ☃ 日本", 'quote " and \\ and \n']),
    "doc": (DataType.JSON, {}, [{"a": {"b": [1, 2.5, None, True]}}, [1, "two"], {}]),
    "flags": (DataType.ARRAY, array_of(DataType.BOOL), [[True], [], [False, True]]),
    "ints": (DataType.ARRAY, array_of(DataType.INT64), [[1, -(2**62)], [], [3]]),
    "bytes": (DataType.ARRAY, array_of(DataType.INT8), [[-128, 127], [], [0]]),
    "reals": (DataType.ARRAY, array_of(DataType.DOUBLE), [[0.1], [], [1e-300, 5.0]]),
    "tags": (DataType.ARRAY, array_of(DataType.VARCHAR, max_length=20), [["x", "ü"], [], ["", "z"]]),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "sealed"])
def test_every_type_round_trips(client: MilvusClient, name: str, sealed: bool) -> None:
    fields = [(field, data_type, more) for field, (data_type, more, _) in SCALARS.items()]
    binary = ("binary", DataType.BINARY_VECTOR, {"dim": 16})
    indexes = {**VECTOR, "binary": {"index_type": "BIN_FLAT", "metric_type": "HAMMING"}}
    create(client, name, [ID, *fields, vector_field(4), binary], indexes, consistency_level="Strong")
    dense, codes = vectors(3, 4), bits(3, 16)
    data = [
        {"id": i, "vector": dense[i].tolist(), "binary": codes[i].tobytes()}
        | {field: values[i] for field, (_, _, values) in SCALARS.items()}
        for i in range(3)
    ]
    client.insert(name, data)
    if sealed:
        client.flush(name)

    found = client.query(name, filter="id >= 0", output_fields=["*"])
    assert [r["id"] for r in found] == [0, 1, 2]
    for i, row in enumerate(found):
        for field, (_, _, values) in SCALARS.items():
            assert row[field] == values[i], field
        np.testing.assert_array_equal(np.array(row["vector"], "f4"), dense[i])
        assert bytes(row["binary"][0]) == codes[i].tobytes()

    hit = client.search(name, [dense[1].tolist()], limit=1, anns_field="vector", output_fields=["*"])[0][0]
    assert {f: hit["entity"][f] for f in SCALARS} == {f: values[1] for f, (_, _, values) in SCALARS.items()}
    np.testing.assert_array_equal(np.array(hit["entity"]["vector"], "f4"), dense[1])


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "sealed"])
def test_null_and_default(client: MilvusClient, name: str, sealed: bool) -> None:
    fields = [
        ID,
        ("maybe", DataType.INT64, {"nullable": True}),
        ("text", DataType.VARCHAR, {"max_length": 10, "nullable": True}),
        ("doc", DataType.JSON, {"nullable": True}),
        ("list", DataType.ARRAY, array_of(DataType.INT32, nullable=True)),
        ("std", DataType.INT32, {"default_value": 7}),
        ("word", DataType.VARCHAR, {"max_length": 10, "default_value": "dflt", "nullable": True}),
        vector_field(4),
    ]
    create(client, name, fields, VECTOR, consistency_level="Strong")
    full = {"maybe": 5, "text": "t", "doc": {"k": 1}, "list": [1, 2], "std": 9, "word": "w"}
    v = [0.0] * 4
    client.insert(
        name,
        [
            {"id": 1, "vector": v, **full},
            {"id": 2, "vector": v, "maybe": None, "text": None, "doc": None, "list": None, "std": None, "word": None},
            {"id": 3, "vector": v},
        ],
    )
    if sealed:
        client.flush(name)
    rows = client.query(name, filter="id > 0", output_fields=list(full))
    assert rows[0] == {"id": 1, **full}
    absent = {"maybe": None, "text": None, "doc": None, "list": None, "std": 7, "word": "dflt"}
    assert rows[1] == {"id": 2, **absent}
    assert rows[2] == {"id": 3, **absent}
    assert count(client, name, "maybe is null") == 2
    assert count(client, name, "text is not null") == 1
    assert count(client, name, "maybe == 5 or maybe != 5") == 1
    assert count(client, name, "std == 7") == 2


def test_a_missing_value_without_default_is_refused(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, ("n", DataType.INT64, {}), vector_field(4)], VECTOR)
    with pytest.raises(MilvusException):
        client.insert(name, [{"id": 1, "vector": [0.0] * 4}])


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "sealed"])
def test_dynamic_fields(client: MilvusClient, name: str, sealed: bool) -> None:
    create(client, name, [ID, vector_field(4)], VECTOR, dynamic=True, consistency_level="Strong")
    v = [0.0] * 4
    client.insert(
        name,
        [
            {"id": 1, "vector": v, "color": "red", "size": 3, "nested": {"a": [1, 2]}},
            {"id": 2, "vector": v, "color": "blue", "size": 3.5},
            {"id": 3, "vector": v},
        ],
    )
    if sealed:
        client.flush(name)
    red = client.query(name, filter="color == 'red'", output_fields=["color", "nested"])
    assert list(red) == [{"id": 1, "color": "red", "nested": {"a": [1, 2]}}]  # list(): its rows are unpacked lazily
    assert [r["id"] for r in client.query(name, filter="size > 3")] == [2]
    assert [r["id"] for r in client.query(name, filter='nested["a"][1] == 2')] == [1]
    assert [r["id"] for r in client.query(name, filter='$meta["color"] in ["red", "blue"]')] == [1, 2]
    assert [r["id"] for r in client.query(name, filter="exists color")] == [1, 2]
    everything = client.query(name, filter="id >= 0", output_fields=["*"])
    assert [set(r) for r in everything] == [
        {"id", "vector", "color", "size", "nested"},
        {"id", "vector", "color", "size"},
        {"id", "vector"},
    ]
    hit = client.search(name, [v], limit=1, filter="id == 2", output_fields=["color"])[0][0]
    assert hit["entity"] == {"color": "blue"}


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "sealed"])
def test_json_and_array_filters(client: MilvusClient, name: str, sealed: bool) -> None:
    fields = [
        ID,
        ("doc", DataType.JSON, {}),
        ("tags", DataType.ARRAY, array_of(DataType.VARCHAR, max_length=20)),
        ("marks", DataType.ARRAY, array_of(DataType.INT64)),
        vector_field(4),
    ]
    create(client, name, fields, VECTOR, consistency_level="Strong")
    v = [0.0] * 4
    client.insert(
        name,
        [
            {"id": 1, "vector": v, "doc": {"p": 1, "q": {"r": "x"}, "l": [1, 2, 3]}, "tags": ["a", "b"], "marks": [1]},
            {"id": 2, "vector": v, "doc": {"p": 2.5, "l": ["x"]}, "tags": ["b"], "marks": [1, 2]},
            {"id": 3, "vector": v, "doc": {"p": "text"}, "tags": [], "marks": []},
        ],
    )
    if sealed:
        client.flush(name)
    for filter, expected in {
        'doc["p"] > 1': [2],
        'doc["p"] >= 1 and doc["p"] < 3': [1, 2],
        'doc["q"]["r"] == "x"': [1],
        'doc["p"] == "text"': [3],
        'json_contains(doc["l"], 2)': [1],
        'json_contains_any(doc["l"], [3, "x"])': [1, 2],
        'json_contains_all(doc["l"], [1, 2])': [1],
        'array_contains(tags, "b")': [1, 2],
        'array_contains_all(tags, ["a", "b"])': [1],
        "array_contains_any(marks, [2, 9])": [2],
        "array_length(tags) == 0": [3],
        "marks[1] == 2": [2],
        'tags[0] == "b"': [2],
    }.items():
        assert [r["id"] for r in client.query(name, filter=filter)] == expected, filter


def test_a_value_of_the_wrong_type_is_refused(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, ("n", DataType.INT8, {}), vector_field(4)], VECTOR, consistency_level="Strong")
    with pytest.raises(MilvusException):
        client.insert(name, [{"id": 1, "n": "text", "vector": [0.0] * 4}])
    with pytest.raises(MilvusException):
        client.insert(name, [{"id": 1, "n": 300, "vector": [0.0] * 4}])
    assert count(client, name) == 0


def test_arrays_beyond_their_capacity_are_refused(client: MilvusClient, name: str) -> None:
    tags = ("tags", DataType.ARRAY, {"element_type": DataType.INT32, "max_capacity": 3})
    create(client, name, [ID, tags, vector_field(4)], VECTOR, consistency_level="Strong")
    with pytest.raises(MilvusException, match="capacity"):
        client.insert(name, [{"id": 1, "tags": [1, 2, 3, 4], "vector": [0.0] * 4}])
    assert count(client, name) == 0
