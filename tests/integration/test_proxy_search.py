"""Searches by the real client, on both listeners."""

from typing import Any

import numpy as np
import pytest
from pymilvus import (
    DataType,
    MilvusClient,
    MilvusException,
)

from core.errors import Unavailable
from rpc.reads import SearchRequest
from tests.integration.proxy_house import House
from tests.integration.proxy_tables import DIM, declared, indexed, quick, row, vectors


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
