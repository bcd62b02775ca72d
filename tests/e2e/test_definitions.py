"""Definitions hold for every client as soon as one of them is told so: in a cluster, behind another proxy, too."""

from collections.abc import Iterator

import pytest
from pymilvus import MilvusClient, MilvusException

from tests.e2e.tables import ID, count, create, vector_field
from tests.served import Served

ROUNDS = 8
INDEX = {"vector": {"index_type": "FLAT", "metric_type": "L2"}}


@pytest.fixture
def other(server: Served) -> Iterator[MilvusClient]:
    """A client of its own; in a cluster, of the next proxy."""
    client = MilvusClient(server.uri, dedicated=True)
    yield client
    client.close()


def row(id: int) -> dict:
    return {"id": id, "vector": [float(id), 0.0]}


def test_collections(client: MilvusClient, other: MilvusClient, name: str) -> None:
    one, two = client, other
    for _ in range(ROUNDS):
        create(one, name, [ID, vector_field(2)], INDEX, consistency_level="Strong")
        assert two.insert(name, [row(1)])["insert_count"] == 1
        assert name in two.list_collections()
        assert count(two, name) == 1
        one.drop_collection(name)
        assert not two.has_collection(name)
        one, two = two, one


def test_a_name_that_was_given_anew(client: MilvusClient, other: MilvusClient, name: str) -> None:
    one, two = client, other
    create(one, name, [ID, vector_field(2)], INDEX, consistency_level="Strong")
    for n in range(ROUNDS):
        assert two.insert(name, [row(1), row(2)])["insert_count"] == 2
        one.drop_collection(name)
        create(one, name, [ID, vector_field(2)], INDEX, consistency_level="Strong")
        assert two.insert(name, [row(n)])["insert_count"] == 1
        assert count(one, name) == count(two, name) == 1
        one, two = two, one


def test_partitions_and_what_is_loaded(client: MilvusClient, other: MilvusClient, name: str) -> None:
    create(client, name, [ID, vector_field(2)], INDEX, consistency_level="Strong")
    one, two = client, other
    for n in range(ROUNDS):
        one.create_partition(name, f"p{n}")
        assert two.insert(name, [row(n)], partition_name=f"p{n}")["insert_count"] == 1
        one.release_collection(name)
        with pytest.raises(MilvusException, match="not loaded"):
            one.query(name, filter="id >= 0")
        two.load_collection(name)
        assert count(one, name) == n + 1
        one, two = two, one
