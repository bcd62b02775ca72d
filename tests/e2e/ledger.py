"""What a server that may die at any moment must hold, as its writers know it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from tests.e2e.tables import ID, count, create, vector_field
from tests.server import Server

DIM = 8
ONCE: dict[str, Any] = {"retry_times": 0}
"""For calls that may meet a dead server: fail at once instead of waiting for it."""


def vectors_of(keys: list[int], ns: list[int]) -> np.ndarray:
    """float32 [rows, DIM] in -10 .. 10: the vector of version ``n`` of each key, distinct for each pair.

    A hash, not a random number: the same whoever computes it, for one row or for many.
    """
    z = np.array(keys, np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z + np.array(ns, np.int64).view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))[:, None] ^ np.arange(
        1, DIM + 1, dtype=np.uint64
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)) * np.float32(20)


def make_rows(versions: Mapping[int, int]) -> list[dict[str, Any]]:
    keys, ns = list(versions), list(versions.values())
    return [{"id": k, "n": n, "vector": v} for k, n, v in zip(keys, ns, vectors_of(keys, ns), strict=True)]


def create_table(client: MilvusClient, name: str, **options: Any) -> None:
    """A collection of ``make_rows``, with an HNSW index and loaded."""
    index = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
    fields = [ID, ("n", DataType.INT64, {}), vector_field(DIM)]
    create(client, name, fields, {"vector": index}, consistency_level="Strong", **options)


class Ledger:
    """Versions by key, of every acknowledged write.

    A write in flight when the server died is doubtful: it happened as a whole or not at all.
    Each key has one writer, so what is known of a key needs no order between writers.
    """

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.doubtful: list[dict[int, int | None]] = []
        self._lock = threading.Lock()

    @contextmanager
    def writing(self, changes: Mapping[int, int | None]) -> Iterator[None]:
        """Around one request that sets these versions (None = deletes the key)."""
        try:
            yield
        except BaseException:
            with self._lock:
                self.doubtful.append(dict(changes))
            raise
        with self._lock:
            self._apply(changes)

    def settle(self, found: Mapping[int, int]) -> None:
        """Compares with all rows of a restarted server, deciding what was doubtful."""
        for changes in self.doubtful:
            happened = {k for k, n in changes.items() if found.get(k) == n}
            open_keys = {k for k in changes if self.rows.get(k) != changes[k]}
            assert not happened & open_keys or open_keys <= happened, f"half of a write: {sorted(open_keys - happened)}"
            if open_keys <= happened:
                self._apply(changes)
        self.doubtful.clear()
        lost = {k: n for k, n in self.rows.items() if k not in found}
        risen = {k: n for k, n in found.items() if k not in self.rows}
        stale = {k: (self.rows[k], n) for k, n in found.items() if k in self.rows and self.rows[k] != n}
        assert (lost, risen, stale) == ({}, {}, {}), f"lost {lost}, risen {risen}, (expected, found) {stale}"

    def _apply(self, changes: Mapping[int, int | None]) -> None:
        for key, n in changes.items():
            if n is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = n


def read_all(client: MilvusClient, name: str) -> dict[int, int]:
    """Version by key of every row; asserts that each key is there once and has its own vector."""
    rows: list[dict[str, Any]] = []
    last = -(2**63)
    while page := client.query(
        name,
        filter=f"id > {last}" if rows else "id >= -9223372036854775808",
        limit=10_000,
        output_fields=["n", "vector"],
        consistency_level="Strong",
    ):
        rows += page
        last = page[-1]["id"]
    keys, ns = [r["id"] for r in rows], [r["n"] for r in rows]
    assert len(set(keys)) == len(keys), "a key twice"
    if rows:
        np.testing.assert_array_equal(np.array([r["vector"] for r in rows], "f4"), vectors_of(keys, ns))
    return dict(zip(keys, ns, strict=True))


def check(client: MilvusClient, name: str, ledger: Ledger) -> None:
    """All rows, ``count(*)`` and searches agree with the ledger."""
    ledger.settle(read_all(client, name))
    assert count(client, name) == len(ledger.rows)
    check_search(client, name, ledger)


def check_search(client: MilvusClient, name: str, ledger: Ledger) -> None:
    """Searching for rows by their own vectors finds them, and nothing dead, stale or twice."""
    if not ledger.rows:
        return
    keys = sorted(ledger.rows)[:: max(1, len(ledger.rows) // 10)]
    queries = vectors_of(keys, [ledger.rows[k] for k in keys])
    result = client.search(name, queries.tolist(), limit=20, search_params={"params": {"ef": 200}})
    for key, query, hits in zip(keys, queries, result, strict=True):
        ids = [h["id"] for h in hits]
        assert len(hits) == min(20, len(ledger.rows))
        assert len(set(ids)) == len(ids), "a key twice in one answer"
        assert set(ids) <= ledger.rows.keys(), "a deleted key in an answer"
        truth = ((vectors_of(ids, [ledger.rows[i] for i in ids]) - query) ** 2).sum(1)
        np.testing.assert_allclose([h["distance"] for h in hits], truth, rtol=1e-3, atol=1e-3)
        assert ids[0] == key


class Writer:
    """One thread's requests to one table, each entered into the ledger.

    It owns the keys ``first .. first + keys - 1``. ``step`` does one random thing.
    """

    def __init__(self, server: Server, name: str, ledger: Ledger, seed: int, first: int = 0, keys: int = 1000) -> None:
        self.client = server.client(patient=False)
        self.stub = server.stub()
        self.name, self.ledger = name, ledger
        self.first, self.keys = first, keys
        self.rng = np.random.default_rng(seed)
        self.n = int(self.rng.integers(1, 2**40))

    def some_keys(self, most: int = 60) -> list[int]:
        size = int(self.rng.integers(1, most))
        return (self.first + self.rng.choice(self.keys, size, replace=False)).tolist()

    def put(self, keys: list[int], *, upsert: bool = True) -> None:
        self.n += 1
        versions = dict.fromkeys(keys, self.n)
        call = self.client.upsert if upsert else self.client.insert
        with self.ledger.writing(versions):
            call(self.name, make_rows(versions), **ONCE)

    def delete(self, keys: list[int]) -> None:
        with self.ledger.writing(dict.fromkeys(keys)):
            self.client.delete(self.name, ids=keys, **ONCE)

    def delete_range(self, low: int, high: int) -> None:
        """By filter: the keys are read first."""
        with self.ledger.writing(dict.fromkeys(k for k in range(low, high) if k in self.ledger.rows)):
            self.client.delete(self.name, filter=f"id >= {low} and id < {high}", **ONCE)

    def read(self, keys: list[int]) -> None:
        """Reads own writes."""
        rows = self.client.get(self.name, keys, output_fields=["n"], consistency_level="Strong", **ONCE)
        found = {r["id"]: r["n"] for r in rows}
        assert len(rows) == len(found)
        assert found == {k: self.ledger.rows[k] for k in keys if k in self.ledger.rows}

    def step(self) -> None:
        match self.rng.integers(8):
            case 0 | 1 | 2:
                self.put(self.some_keys())
            case 3:
                self.put(self.some_keys(), upsert=False)
            case 4 | 5:
                self.delete(self.some_keys(30))
            case 6:
                low = self.first + int(self.rng.integers(self.keys))
                self.delete_range(low, min(low + 20, self.first + self.keys))
            case 7:
                self.read(self.some_keys())
