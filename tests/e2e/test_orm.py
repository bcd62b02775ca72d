"""The older ORM-style API of pymilvus, unmodified."""

from collections.abc import Iterator

import pytest
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, connections, utility

from tests.e2e.tables import vectors
from tests.served import Served

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def alias(server: Served) -> Iterator[str]:
    uri = server.uri
    alias = f"orm-{uri}"
    connections.connect(alias, uri=uri)
    yield alias
    connections.disconnect(alias)


def test_the_whole_path(alias: str, name: str) -> None:
    schema = CollectionSchema(
        [
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("word", DataType.VARCHAR, max_length=20),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=8),
        ],
        description="orm",
    )
    collection = Collection(name, schema, using=alias, consistency_level="Strong")
    assert utility.has_collection(name, using=alias)
    base = vectors(300, 8)
    answer = collection.insert([list(range(300)), [f"w{i % 4}" for i in range(300)], base.tolist()])
    assert answer.insert_count == 300
    collection.flush()
    assert collection.num_entities == 300
    collection.create_index("vector", {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8}})
    assert collection.has_index()
    assert collection.index().params["metric_type"] == "L2"
    collection.load()
    assert utility.loading_progress(name, using=alias)["loading_progress"] == "100%"

    found = collection.search(base[:3].tolist(), "vector", {"metric_type": "L2", "params": {"ef": 64}}, limit=2)
    assert [hits[0].id for hits in found] == [0, 1, 2]
    found = collection.search(
        base[:1].tolist(), "vector", {"metric_type": "L2"}, limit=5, expr="word == 'w2'", output_fields=["word"]
    )
    assert {hit.entity.get("word") for hit in found[0]} == {"w2"}
    assert collection.query("id in [5, 6]", output_fields=["word"]) == [
        {"id": 5, "word": "w1"},
        {"id": 6, "word": "w2"},
    ]
    collection.upsert([[5], ["new"], base[5:6].tolist()])
    assert collection.query("id == 5", output_fields=["word"]) == [{"id": 5, "word": "new"}]
    assert collection.delete("id in [0, 1]").delete_count == 2
    assert collection.query("", output_fields=["count(*)"])[0]["count(*)"] == 298

    partition = collection.create_partition("p")
    partition.insert([[1000], ["p"], base[:1].tolist()])
    assert collection.query("id >= 1000", partition_names=["p"])[0]["id"] == 1000
    assert {p.name for p in collection.partitions} == {"_default", "p"}

    iterator = collection.query_iterator(batch_size=100, expr="id < 250")
    found = []
    while page := iterator.next():
        found += page
    iterator.close()
    assert [r["id"] for r in found] == list(range(2, 250))

    collection.release()
    collection.drop_index()
    collection.drop()
    assert not utility.has_collection(name, using=alias)
