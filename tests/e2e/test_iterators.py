"""Iterators read one snapshot: what is written while they run is not in their pages."""

import pytest
from pymilvus import DataType, MilvusClient

from tests.e2e.tables import ID, count, create, vector_field

INDEX = {"vector": {"index_type": "AUTOINDEX", "metric_type": "L2"}}
TOTAL = 700


@pytest.fixture
def table(client: MilvusClient, name: str) -> str:
    create(client, name, [ID, ("n", DataType.INT64, {}), vector_field(2)], INDEX, num_shards=2)
    data = [{"id": i, "n": 0, "vector": [float(i), 0.0]} for i in range(TOTAL)]
    client.insert(name, data[:500])
    client.flush(name)
    client.insert(name, data[500:])
    return name


def disturb(client: MilvusClient, table: str, step: int) -> None:
    """A delete, an update and an insert that a consistent reader must not see; sealed now and then."""
    client.delete(table, ids=[TOTAL - 1 - step])
    client.upsert(table, [{"id": 10 * step + 5, "n": 1, "vector": [1e6, 0.0]}])
    client.insert(table, [{"id": TOTAL + step, "n": 2, "vector": [float(step), 0.0]}])
    if step == 2:
        client.flush(table)


def test_query_iterator_reads_a_snapshot(client: MilvusClient, table: str) -> None:
    iterator = client.query_iterator(table, batch_size=100, output_fields=["n"])
    found = []
    for step in range(50):
        if not (page := iterator.next()):
            break
        found += page
        disturb(client, table, step)
    iterator.close()
    assert [(r["id"], r["n"]) for r in found] == [(i, 0) for i in range(TOTAL)]
    assert count(client, table, "n == 1") > 0


def test_query_iterator_with_filter_and_limit(client: MilvusClient, table: str) -> None:
    iterator = client.query_iterator(table, batch_size=50, limit=120, filter="id % 2 == 0")
    found = []
    while page := iterator.next():
        found += page
    iterator.close()
    assert [r["id"] for r in found] == list(range(0, 240, 2))


def test_search_iterator_reads_a_snapshot_in_order(client: MilvusClient, table: str) -> None:
    iterator = client.search_iterator(table, [[0.0, 0.0]], batch_size=100, output_fields=["n"])
    found = []
    for step in range(50):
        if not (page := iterator.next()):
            break
        found += [(hit["id"], hit["distance"], hit["entity"]["n"]) for hit in page]
        disturb(client, table, step)
    iterator.close()
    assert {n for _, _, n in found} == {0}
    assert sorted(i for i, _, _ in found) == list(range(TOTAL))
    distances = [d for _, d, _ in found]
    assert distances == sorted(distances)


def test_search_iterator_with_filter(client: MilvusClient, table: str) -> None:
    iterator = client.search_iterator(table, [[350.0, 0.0]], batch_size=40, filter="id < 300", limit=100)
    found = []
    while page := iterator.next():
        found += [hit["id"] for hit in page]
    iterator.close()
    assert found == list(range(299, 199, -1))
