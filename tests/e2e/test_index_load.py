"""Indexes and loading: create, describe, drop; load, release, progress and state."""

import pytest
from pymilvus import MilvusClient, MilvusException

from tests.e2e.tables import ID, create, ids, vector_field, vectors
from tests.waiting import wait_until

HNSW = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 16, "efConstruction": 80}}


def index(client: MilvusClient, name: str, **params: object) -> None:
    prepared = client.prepare_index_params()
    prepared.add_index("vector", **params)
    client.create_index(name, prepared)


@pytest.fixture
def table(client: MilvusClient, name: str) -> str:
    create(client, name, [ID, vector_field(8)], consistency_level="Strong")
    client.insert(name, [{"id": i, "vector": v} for i, v in enumerate(vectors(600, 8))])
    return name


def test_index_life(client: MilvusClient, table: str) -> None:
    assert client.list_indexes(table) == []
    assert client.describe_index(table, "vector") is None
    index(client, table, **HNSW)
    index(client, table, **HNSW)  # the same again is success
    assert client.list_indexes(table) == ["vector"]
    described = client.describe_index(table, "vector")
    assert described["index_type"] == "HNSW"
    assert described["metric_type"] == "L2"
    assert described["field_name"] == "vector"
    assert described["index_name"] == "vector"
    assert (str(described["M"]), str(described["efConstruction"])) == ("16", "80")
    with pytest.raises(MilvusException):
        index(client, table, index_type="FLAT", metric_type="L2", index_name="second")
    client.drop_index(table, "vector")
    client.drop_index(table, "vector")  # unknown is success
    assert client.list_indexes(table) == []


def test_all_rows_become_indexed(client: MilvusClient, table: str) -> None:
    index(client, table, **HNSW)
    client.flush(table)

    def finished() -> bool:
        described = client.describe_index(table, "vector")
        return described["state"] == "Finished" and described["pending_index_rows"] == 0

    wait_until(finished, "the index to be built")
    described = client.describe_index(table, "vector")
    assert described["total_rows"] == described["indexed_rows"] == 600


@pytest.mark.parametrize("kind", ["AUTOINDEX", "HNSW", "FLAT", ""])
def test_index_types_find_the_rows(client: MilvusClient, table: str, kind: str) -> None:
    index(client, table, index_type=kind, metric_type="COSINE", params=HNSW["params"] if kind == "HNSW" else {})
    client.flush(table)
    client.load_collection(table)
    found = client.search(table, vectors(600, 8)[:20].tolist(), limit=1)
    assert ids(found) == [[i] for i in range(20)]


def test_a_loaded_collection_can_change_its_index_after_release(client: MilvusClient, table: str) -> None:
    index(client, table, **HNSW)
    client.load_collection(table)
    with pytest.raises(MilvusException, match="index cannot be dropped, collection is loaded, please release it first"):
        client.drop_index(table, "vector")
    client.release_collection(table)
    client.drop_index(table, "vector")
    index(client, table, index_type="FLAT", metric_type="COSINE")
    client.load_collection(table)
    base = vectors(600, 8)
    assert ids(client.search(table, [base[5].tolist()], limit=1)) == [[5]]
    hit = client.search(table, [base[5].tolist()], limit=1)[0][0]
    assert hit["distance"] == pytest.approx(1.0, abs=1e-5)


def test_load_release_and_state(client: MilvusClient, table: str) -> None:
    with pytest.raises(MilvusException, match=rf"index not found\[collection={table}\]") as e:
        client.load_collection(table)
    assert e.value.code == 700
    index(client, table, **HNSW)
    assert client.get_load_state(table)["state"].name == "NotLoad"
    for call in (
        lambda: client.search(table, [[0.0] * 8]),
        lambda: client.query(table, filter="id > 0"),
    ):
        with pytest.raises(MilvusException, match="collection not loaded") as e:
            call()
        assert e.value.code == 101
    client.load_collection(table)
    client.load_collection(table)
    assert client.get_load_state(table)["state"].name == "Loaded"
    assert len(client.query(table, filter="id < 10")) == 10
    client.insert(table, [{"id": 1000, "vector": [0.0] * 8}])
    client.release_collection(table)
    client.release_collection(table)
    assert client.get_load_state(table)["state"].name == "NotLoad"
    client.insert(table, [{"id": 1001, "vector": [0.0] * 8}])  # writes need no loading
    client.load_collection(table)
    assert len(client.query(table, filter="id >= 1000")) == 2


def test_load_state_of_nothing(client: MilvusClient) -> None:
    assert client.get_load_state("nothing_here")["state"].name == "NotExist"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"index_type": "NOSUCH", "metric_type": "L2"}, "invalid index type: NOSUCH"),
        ({"index_type": "IVF_FLAT", "metric_type": "L2", "params": {"nlist": 16}}, "IVF_FLAT .*not .*yet"),
        ({"index_type": "HNSW", "metric_type": "MANHATTAN"}, "metric type"),
        ({"index_type": "HNSW", "metric_type": "HAMMING"}, "metric type"),
        ({"index_type": "HNSW", "metric_type": "L2", "params": {"M": 1, "efConstruction": 8}}, "M"),
        ({"index_type": "HNSW", "metric_type": "L2", "params": {"M": 16, "efConstruction": 0}}, "efConstruction"),
    ],
)
def test_bad_indexes_are_refused(client: MilvusClient, table: str, params: dict, message: str) -> None:
    with pytest.raises(MilvusException, match=message):
        index(client, table, **params)
    assert client.list_indexes(table) == []


def test_index_on_an_unknown_field(client: MilvusClient, table: str) -> None:
    prepared = client.prepare_index_params()
    prepared.add_index("zz", index_type="FLAT", metric_type="L2")
    with pytest.raises(MilvusException, match="cannot create index on non-exist field: zz"):
        client.create_index(table, prepared)
