"""Insert, upsert, delete, get: what was acknowledged is there, once, in its newest version."""

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, count, create, vector_field, vectors

INDEX = {"vector": {"index_type": "AUTOINDEX", "metric_type": "L2"}}
ROW = [("n", DataType.INT64, {})]


def rows(keys: range, n: int = 0, dim: int = 4) -> list[dict]:
    values = vectors(len(keys), dim)
    return [{"id": k, "n": n, "vector": v.tolist()} for k, v in zip(keys, values, strict=True)]


@pytest.fixture
def table(client: MilvusClient, name: str) -> str:
    create(client, name, [ID, *ROW, vector_field(4)], INDEX, consistency_level="Strong")
    return name


def test_insert_answers_count_and_keys(client: MilvusClient, table: str) -> None:
    answer = client.insert(table, rows(range(5)))
    assert answer["insert_count"] == 5
    assert list(answer["ids"]) == [0, 1, 2, 3, 4]
    assert count(client, table) == 5


def test_insert_of_nothing(client: MilvusClient, table: str) -> None:
    assert client.insert(table, [])["insert_count"] == 0
    assert count(client, table) == 0


def test_insert_with_explicit_keys_is_unique_by_key(client: MilvusClient, table: str) -> None:
    client.insert(table, rows(range(10), n=1))
    client.insert(table, rows(range(5, 15), n=2))
    assert count(client, table) == 15
    found = client.query(table, filter="id >= 0", output_fields=["n"])
    assert {r["id"]: r["n"] for r in found} == {k: 1 if k < 5 else 2 for k in range(15)}


def test_the_last_of_equal_keys_in_one_request_wins(client: MilvusClient, table: str) -> None:
    same = rows(range(3))
    for n, row in enumerate(same):
        row.update(id=7, n=n)
    client.upsert(table, same)
    assert client.get(table, 7, output_fields=["n"]) == [{"id": 7, "n": 2}]
    assert count(client, table) == 1


@pytest.mark.parametrize("flush", [False, True])
def test_upsert_replaces_and_adds(client: MilvusClient, table: str, flush: bool) -> None:
    client.insert(table, rows(range(10), n=1))
    if flush:
        client.flush(table)
    answer = client.upsert(table, rows(range(8, 12), n=2))
    assert answer["upsert_count"] == 4
    assert count(client, table) == 12
    assert count(client, table, "n == 2") == 4
    assert {r["id"] for r in client.query(table, filter="n == 1")} == set(range(8))


@pytest.mark.parametrize("flush", [False, True])
def test_delete_by_keys_and_by_filter(client: MilvusClient, table: str, flush: bool) -> None:
    client.insert(table, rows(range(10), n=1))
    client.insert(table, rows(range(10, 20), n=2))
    if flush:
        client.flush(table)
    assert client.delete(table, ids=[0, 1, 99])["delete_count"] >= 2
    assert client.delete(table, filter="n == 2 and id < 15")["delete_count"] == 5
    assert {r["id"] for r in client.query(table, filter="id >= 0")} == {*range(2, 10), *range(15, 20)}
    hits = client.search(table, [vectors(10, 4)[0].tolist()], limit=20)[0]
    assert {h["id"] for h in hits} == {*range(2, 10), *range(15, 20)}


def test_delete_with_template_values(client: MilvusClient, table: str) -> None:
    client.insert(table, rows(range(10)))
    client.delete(table, filter="id in {keys}", filter_params={"keys": [1, 2, 3]})
    assert count(client, table) == 7


def test_a_deleted_key_can_be_written_again(client: MilvusClient, table: str) -> None:
    for n in range(4):
        client.insert(table, rows(range(3), n=n))
        assert client.query(table, filter="id == 1", output_fields=["n"]) == [{"id": 1, "n": n}]
        client.delete(table, ids=[1])
        assert client.get(table, [1]) == []
        if n % 2:
            client.flush(table)
    assert count(client, table) == 2


def test_get_returns_what_exists(client: MilvusClient, table: str) -> None:
    data = rows(range(5), n=3)
    client.insert(table, data)
    found = client.get(table, [3, 77, 0], output_fields=["*"])
    assert sorted(r["id"] for r in found) == [0, 3]
    row = next(r for r in found if r["id"] == 3)
    assert row["n"] == 3
    np.testing.assert_array_equal(np.array(row["vector"], "f4"), np.array(data[3]["vector"], "f4"))


def test_auto_ids_are_given_and_unique(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, *ROW, vector_field(4)], INDEX, auto_id=True, consistency_level="Strong")
    given: list[int] = []
    for n in range(5):
        data = [{"n": n, "vector": r["vector"]} for r in rows(range(100))]
        given += client.insert(name, data)["ids"]
    assert len(set(given)) == 500
    assert count(client, name) == 500
    assert [r["n"] for r in client.get(name, given[:1], output_fields=["n"])] == [0]
    client.delete(name, ids=given[:250])
    assert count(client, name) == 250


def test_varchar_keys(client: MilvusClient, name: str) -> None:
    key = ("key", DataType.VARCHAR, {"is_primary": True, "max_length": 64})
    create(client, name, [key, vector_field(4)], INDEX, consistency_level="Strong")
    keys = ["plain", 'with "quotes"', "it's", "bäck\\slash", "日本語", "", "new\nline"]
    data = [{"key": k, "vector": v.tolist()} for k, v in zip(keys, vectors(len(keys), 4), strict=True)]
    assert list(client.insert(name, data)["ids"]) == keys
    client.upsert(name, data)
    assert count(client, name) == len(keys)
    assert {r["key"] for r in client.query(name, filter="", limit=100)} == set(keys)
    hit = client.search(name, [data[4]["vector"]], limit=1)[0][0]
    assert hit["key"] == "日本語"
    client.delete(name, ids=["plain", "日本語"])
    assert {r["key"] for r in client.query(name, filter="", limit=100)} == set(keys) - {"plain", "日本語"}
    assert client.query(name, filter='key == "it\'s"')[0]["key"] == "it's"  # get() of pymilvus doesn't escape it


def test_ten_thousand_rows_in_one_insert(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, *ROW, vector_field(32)], INDEX, num_shards=2, consistency_level="Strong")
    client.insert(name, rows(range(10_000), dim=32))
    assert count(client, name) == 10_000
    page = client.query(name, filter="id >= 9990", output_fields=["n"])
    assert [r["id"] for r in page] == list(range(9990, 10_000))


def test_sixty_megabytes_in_one_insert(client: MilvusClient, name: str) -> None:
    dim = 1536
    create(client, name, [ID, vector_field(dim)], INDEX, consistency_level="Strong")
    total = 60_000_000 // (dim * 4)
    data = vectors(total, dim)
    client.insert(name, [{"id": k, "vector": v} for k, v in enumerate(data)])
    assert count(client, name) == total
    hit = client.search(name, [data[total - 1].tolist()], limit=1, output_fields=["vector"])[0][0]
    assert hit["id"] == total - 1
    np.testing.assert_array_equal(np.array(hit["entity"]["vector"], "f4"), data[total - 1])


def test_flush_seals_and_statistics_count(client: MilvusClient, table: str) -> None:
    client.insert(table, rows(range(300)))
    client.flush(table)
    assert client.get_collection_stats(table)["row_count"] == 300
    assert count(client, table) == 300
    client.flush(table)  # nothing to do


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vector", [1.0, 2.0, 3.0], "dim"),
        ("vector", [1.0, 2.0, 3.0, float("nan")], "(?i)nan|infinit|finite"),
        ("vector", [1.0, 2.0, 3.0, float("inf")], "(?i)nan|infinit|finite"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_written(
    client: MilvusClient, table: str, field: str, value: list[float], message: str
) -> None:
    data = rows(range(3))
    data[1][field] = value
    with pytest.raises(MilvusException, match=message):
        client.insert(table, data)
    assert count(client, table) == 0


def test_too_long_strings_are_refused(client: MilvusClient, name: str) -> None:
    text = ("text", DataType.VARCHAR, {"max_length": 5})
    create(client, name, [ID, text, vector_field(4)], INDEX, consistency_level="Strong")
    message = r"length \(6\) of 0th string exceeds max length \(5\): invalid parameter\[expected=valid length string\]"
    with pytest.raises(MilvusException, match=message) as e:
        client.insert(name, [{"id": 1, "text": "sixsix", "vector": [0.0] * 4}])
    assert e.value.code == 1100
    assert count(client, name) == 0


def test_session_reads_its_own_writes_and_others_read_them_strongly(client: MilvusClient, name: str) -> None:
    create(client, name, [ID, *ROW, vector_field(4)], INDEX, consistency_level="Session")
    for n in range(20):
        client.upsert(name, rows(range(3), n=n))
        assert [r["n"] for r in client.query(name, filter="id >= 0", output_fields=["n"])] == [n] * 3
        strong = client.query(name, filter="id >= 0", output_fields=["n"], consistency_level="Strong")
        assert [r["n"] for r in strong] == [n] * 3
    for level in ("Bounded", "Eventually"):
        assert len(client.query(name, filter="id >= 0", consistency_level=level)) == 3
