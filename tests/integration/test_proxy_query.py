"""Queries and iterators by the real client, on both listeners."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymilvus import (
    DataType,
    MilvusClient,
    MilvusException,
)

from storage import keys
from storage.meta.port import Delete, Put
from tests.integration.proxy_house import House
from tests.integration.proxy_tables import DIM, indexed, quick


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


def test_reads_wait_for_a_leader_and_hold_up_nobody(house: House, client: MilvusClient) -> None:
    quick(client)
    collection = house.catalog.find("", "quick")
    placed = house.meta.items[keys.placement(collection.id)]
    house.run(lambda: house.meta.commit((), [Delete(placed.key)]))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.query, "quick", "id == 4", timeout=30)
        assert client.has_collection("quick"), "others are answered meanwhile"
        house.run(lambda: house.meta.commit((), [Put(placed.key, placed.value)]))
        assert [r["id"] for r in waiting.result(30)] == [4]


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
