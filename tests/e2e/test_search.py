"""Search against the definition of each metric, over growing and sealed rows alike."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, best, bits, create, distances, ids, recall, scores, vector_field, vectors

ROWS, DIM, QUERIES = 3000, 16, 8


def load(client: MilvusClient, name: str, base: np.ndarray, *, sealed: bool) -> None:
    data = [{"id": i, "group": i % 5, "vector": v if v.dtype != "u1" else v.tobytes()} for i, v in enumerate(base)]
    half = len(data) // 2
    client.insert(name, data[:half])
    if sealed:
        client.flush(name)
    client.insert(name, data[half:])


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "half sealed"])
@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("index", ["FLAT", "HNSW", "AUTOINDEX"])
def test_metrics_agree_with_numpy(client: MilvusClient, name: str, metric: str, index: str, sealed: bool) -> None:
    group = ("group", DataType.INT64, {})
    params = {"M": 16, "efConstruction": 100} if index == "HNSW" else {}
    indexes = {"vector": {"index_type": index, "metric_type": metric, "params": params}}
    create(client, name, [ID, group, vector_field(DIM)], indexes, consistency_level="Strong")
    base, queries = vectors(ROWS, DIM), vectors(QUERIES, DIM, seed=1)
    load(client, name, base, sealed=sealed)
    every = scores(metric, base, queries)

    search_params = {"metric_type": metric, "params": {"ef": 128} if index == "HNSW" else {}}
    result = client.search(name, queries.tolist(), limit=10, search_params=search_params)
    assert [len(hits) for hits in result] == [10] * QUERIES
    assert recall(ids(result), best(metric, every, 10)) >= (1.0 if index == "FLAT" else 0.95)
    for q, hits in enumerate(result):
        given = [h["distance"] for h in hits]
        assert given == sorted(given, reverse=metric != "L2")
        truth = [every[q, h["id"]] for h in hits]
        # AUTOINDEX ranks by bf16 codes: 8 bits of mantissa.
        np.testing.assert_allclose(given, truth, rtol=2e-2 if index == "AUTOINDEX" else 1e-4, atol=1e-2)

    result = client.search(name, queries.tolist(), limit=10, filter="group == 3 and id >= 100")
    survivors = np.arange(ROWS)[(np.arange(ROWS) % 5 == 3) & (np.arange(ROWS) >= 100)]
    truth = survivors[best(metric, every[:, survivors], 10)]
    assert recall(ids(result), truth) >= (1.0 if index == "FLAT" else 0.95)


def test_a_filter_asked_again_and_again_sees_what_changed(client: MilvusClient, name: str) -> None:
    """What was prepared for the first search of its kind holds for the rows it was prepared over only."""
    indexes = {"vector": {"index_type": "FLAT", "metric_type": "L2"}}
    create(client, name, [ID, ("group", DataType.INT64, {}), vector_field(DIM)], indexes)
    base, queries = vectors(ROWS, DIM), vectors(QUERIES, DIM, seed=1)
    load(client, name, base, sealed=True)
    every, group = scores("L2", base, queries), np.arange(ROWS) % 5
    for changed in range(3):
        survivors = np.flatnonzero(group == 3)
        truth = survivors[best("L2", every[:, survivors], 10)]
        for level in ("Strong", *["Bounded"] * 3):
            found = [
                client.search(name, [q], limit=10, filter="group == 3", consistency_level=level)[0]
                for q in queries.tolist()
            ]
            assert recall([[hit["id"] for hit in hits] for hits in found], truth) == 1.0, (changed, level)
        moved = np.arange(changed, ROWS, 7)
        group[moved] = (group[moved] + 1) % 5
        client.upsert(name, [{"id": int(i), "group": int(group[i]), "vector": base[i]} for i in moved])
        if changed == 1:
            client.flush(name)


@pytest.mark.parametrize("sealed", [False, True], ids=["growing", "half sealed"])
@pytest.mark.parametrize("metric", ["HAMMING", "JACCARD"])
def test_binary_metrics_agree_with_numpy(client: MilvusClient, name: str, metric: str, sealed: bool) -> None:
    field = ("vector", DataType.BINARY_VECTOR, {"dim": 64})
    indexes = {"vector": {"index_type": "BIN_FLAT", "metric_type": metric}}
    create(client, name, [ID, ("group", DataType.INT64, {}), field], indexes, consistency_level="Strong")
    base, queries = bits(1000, 64), bits(QUERIES, 64, seed=1)
    load(client, name, base, sealed=sealed)
    every = scores(metric, base, queries)
    result = client.search(name, [q.tobytes() for q in queries], limit=10)
    # Ties are many: the scores are the answer, and each must be that of its row.
    np.testing.assert_allclose(distances(result), np.sort(every, axis=1)[:, :10], rtol=1e-6)
    for q, hits in enumerate(result):
        np.testing.assert_allclose([h["distance"] for h in hits], [every[q, h["id"]] for h in hits], rtol=1e-6)


@pytest.fixture
def table(client: MilvusClient, name: str) -> Iterator[str]:
    """300 rows, exact index, L2; vector = (id, 0): the distance to (x, 0) is (id - x) squared."""
    fields = [ID, ("group", DataType.INT64, {}), ("kind", DataType.VARCHAR, {"max_length": 10}), vector_field(2)]
    create(client, name, fields, {"vector": {"index_type": "FLAT", "metric_type": "L2"}}, consistency_level="Strong")
    data = [{"id": i, "group": i // 10, "kind": f"k{i % 3}", "vector": [float(i), 0.0]} for i in range(300)]
    client.insert(name, data[:200])
    client.flush(name)
    client.insert(name, data[200:])
    return name


def test_offset_and_limit_page_through_one_order(client: MilvusClient, table: str) -> None:
    queries = [[-1.0, 0.0], [500.0, 0.0]]
    pages = [
        ids(client.search(table, queries, limit=7, search_params={"offset": offset})) for offset in range(0, 21, 7)
    ]
    for q, order in enumerate([range(21), range(299, 278, -1)]):
        assert [i for page in pages for i in page[q]] == list(order)
    assert ids(client.search(table, queries[:1], limit=1000)) == [list(range(300))]


def test_output_fields_with_vectors_and_all(client: MilvusClient, table: str) -> None:
    hit = client.search(table, [[42.2, 0.0]], limit=1, output_fields=["group", "vector"])[0][0]
    assert (hit["id"], hit["entity"]) == (42, {"group": 4, "vector": [42.0, 0.0]})
    assert hit["distance"] == pytest.approx(0.04, rel=1e-3)
    hit = client.search(table, [[42.2, 0.0]], limit=1, output_fields=["*"])[0][0]
    assert hit["entity"] == {"id": 42, "group": 4, "kind": "k0", "vector": [42.0, 0.0]}


def test_range_search_bounds(client: MilvusClient, table: str) -> None:
    def within(**bounds: float) -> list[int]:
        params = {"metric_type": "L2", "params": bounds}
        return sorted(ids(client.search(table, [[100.0, 0.0]], limit=100, search_params=params))[0])

    # radius is the far bound, excluded; range_filter the near one, included.
    assert within(radius=16.0) == list(range(97, 104))
    assert within(radius=16.0, range_filter=9.0) == [97, 103]
    with pytest.raises(MilvusException, match="range_filter"):
        within(radius=4.0, range_filter=9.0)


def test_range_search_where_larger_is_better(client: MilvusClient, name: str) -> None:
    indexes = {"vector": {"index_type": "FLAT", "metric_type": "IP"}}
    create(client, name, [ID, vector_field(2)], indexes, consistency_level="Strong")
    client.insert(name, [{"id": i, "vector": [float(i), 0.0]} for i in range(20)])
    params = {"metric_type": "IP", "params": {"radius": 10.0, "range_filter": 15.0}}
    assert ids(client.search(name, [[1.0, 0.0]], limit=20, search_params=params)) == [[15, 14, 13, 12, 11]]


@pytest.mark.parametrize("size", [1, 3])
def test_group_by(client: MilvusClient, table: str, size: int) -> None:
    found = client.search(
        table, [[151.0, 0.0]], limit=4, output_fields=["group"], group_by_field="group", group_size=size
    )[0]
    groups = Counter(h["entity"]["group"] for h in found)
    assert set(groups) == {14, 15, 16, 13}
    assert max(groups.values()) <= size
    assert found[0]["id"] == 151
    distances = [h["distance"] for h in found]
    if size == 1:
        assert distances == [0.0, 4.0, 81.0, 144.0]  # of 151, 149, 160 and 139
    assert groups[15] == size  # what is nearest is never left out


def test_round_decimal(client: MilvusClient, table: str) -> None:
    hit = client.search(table, [[0.123, 0.0]], limit=1, search_params={"round_decimal": 2}, round_decimal=2)[0][0]
    assert hit["distance"] == pytest.approx(0.02, abs=1e-7)


def test_several_queries_keep_their_order(client: MilvusClient, table: str) -> None:
    asked = [7, 250, 3, 199, 200]
    result = client.search(table, [[float(i), 0.0] for i in asked], limit=1)
    assert [hits[0]["id"] for hits in result] == asked


@pytest.mark.parametrize(
    ("filter", "matches"),
    [
        ("id < 10", lambda i: i < 10),
        ("10 <= id < 20", lambda i: 10 <= i < 20),
        ("id in [1, 2, 250]", lambda i: i in (1, 2, 250)),
        ("id not in [1, 2, 250]", lambda i: i not in (1, 2, 250)),
        ('kind == "k1" and group != 0', lambda i: i % 3 == 1 and i // 10 != 0),
        ('kind like "k%" && not (group > 2)', lambda i: i // 10 <= 2),
        ("id % 7 == 3 or id * 2 > 590", lambda i: i % 7 == 3 or i * 2 > 590),
        ("id == 17", lambda i: i == 17),
        ("id < 0", lambda _: False),
    ],
)
def test_filters_in_search_and_query(client: MilvusClient, table: str, filter: str, matches: Any) -> None:
    expected = [i for i in range(300) if matches(i)]
    assert [r["id"] for r in client.query(table, filter=filter)] == expected
    assert ids(client.search(table, [[-1.0, 0.0]], limit=300, filter=filter)) == [expected]


def test_templates_in_search_and_query(client: MilvusClient, table: str) -> None:
    filter, values = "id in {keys} and kind == {kind}", {"keys": list(range(12)), "kind": "k0"}
    assert [r["id"] for r in client.query(table, filter=filter, filter_params=values)] == [0, 3, 6, 9]
    found = client.search(table, [[0.0, 0.0]], limit=9, filter=filter, filter_params=values)
    assert ids(found) == [[0, 3, 6, 9]]


def test_query_pages_in_key_order(client: MilvusClient, table: str) -> None:
    page = client.query(table, filter="group >= 5", limit=5, offset=20, output_fields=["group"])
    assert page == [{"id": i, "group": i // 10} for i in range(70, 75)]
    assert [r["id"] for r in client.query(table, filter="", limit=3)] == [0, 1, 2]


def test_several_vector_fields(client: MilvusClient, name: str) -> None:
    fields = [ID, vector_field(4, "a"), vector_field(8, "b")]
    indexes = {
        "a": {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}},
        "b": {"index_type": "FLAT", "metric_type": "COSINE"},
    }
    create(client, name, fields, indexes, consistency_level="Strong")
    a, b = vectors(500, 4), vectors(500, 8, seed=1)
    client.insert(name, [{"id": i, "a": a[i], "b": b[i]} for i in range(500)])
    client.flush(name)
    for field, base, metric in (("a", a, "L2"), ("b", b, "COSINE")):
        found = ids(client.search(name, base[:5].tolist(), anns_field=field, limit=5))
        assert recall(found, best(metric, scores(metric, base, base[:5]), 5)) >= 0.95
    with pytest.raises(MilvusException):
        client.search(name, a[:1].tolist(), limit=1)


def test_search_of_an_empty_collection(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=4)
    assert [list(hits) for hits in client.search(name, vectors(3, 4).tolist(), limit=5)] == [[], [], []]
    assert client.query(name, filter="id > 0") == []


def test_deleted_and_replaced_rows_are_not_found(client: MilvusClient, name: str) -> None:
    indexes = {"vector": {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}}
    create(client, name, [ID, vector_field(8)], indexes, consistency_level="Strong")
    base = vectors(1000, 8)
    client.insert(name, [{"id": i, "vector": v} for i, v in enumerate(base)])
    client.flush(name)
    client.delete(name, ids=list(range(0, 1000, 2)))
    moved = base.copy()
    moved[1::4] += 100.0
    client.upsert(name, [{"id": i, "vector": moved[i]} for i in range(1, 1000, 4)])
    alive = np.arange(1, 1000, 2)
    truth = alive[best("L2", scores("L2", moved[alive], base[:20]), 10)]
    result = client.search(name, base[:20].tolist(), limit=10, search_params={"params": {"ef": 200}})
    assert recall(ids(result), truth) >= 0.95
    assert not any(i % 2 == 0 for found in ids(result) for i in found)
    assert all(len(set(found)) == 10 for found in ids(result))
