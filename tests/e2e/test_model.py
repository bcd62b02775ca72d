"""Any sequence of public calls against a plain dict: a state machine over a real server or cluster.

Segments are tiny, so that sealing, indexing, compaction, collection and trimming happen inside a
run; the server, or any process of the cluster, is stopped or killed in the midst of it. Vectors are
small integers: every distance is exact in every precision, so answers are compared for equality.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pymilvus import DataType, MilvusClient

from tests.cluster_server import ClusterServer
from tests.e2e.tables import create, vector_field
from tests.served import Served
from tests.server import TINY, Server

EXAMPLES = int(os.environ.get("SHEAFDB_MODEL_EXAMPLES", "10"))
CLUSTER_EXAMPLES = int(os.environ.get("SHEAFDB_MODEL_CLUSTER_EXAMPLES", "5"))
STEPS = 40
SETTINGS = TINY | {"data_node.segment_bytes": 8 * 1024}
DIM = 4
_names = (f"m{n}" for n in itertools.count())
_versions = itertools.count(1)

KEYS = st.integers(0, 120)
WORDS = st.sampled_from(["", "a", "ab", "ü%_", 'quo"te', "zz"])
ROW = st.fixed_dictionaries({"n": st.integers(-5, 5), "word": st.none() | WORDS, "tag": st.none() | st.integers(0, 3)})
LEVELS = st.sampled_from(["Strong", "Session"])
FILTERS: dict[str, Any] = {
    "n > 0": lambda r: r["n"] > 0,
    "n in [1, 2, -3] or word == 'ab'": lambda r: r["n"] in (1, 2, -3) or r["word"] == "ab",
    'word like "a%"': lambda r: r["word"] is not None and r["word"].startswith("a"),
    "word is null": lambda r: r["word"] is None,
    "not (word == 'a')": lambda r: r["word"] is not None and r["word"] != "a",
    "tag == 1 and n != 2": lambda r: r["tag"] == 1 and r["n"] != 2,
    "exists tag": lambda r: r["tag"] is not None,
    "n * 2 + 1 >= 5": lambda r: r["n"] * 2 + 1 >= 5,
    "n == 99": lambda _: False,
}


def vector(key: Any, version: int) -> list[float]:
    return np.random.default_rng([hash(key) % 2**32, version]).integers(-20, 21, DIM).astype(float).tolist()


class Table(RuleBasedStateMachine):
    """One collection and the dict it must equal."""

    server: Served

    @initialize(
        text_keys=st.booleans(),
        shards=st.integers(1, 3),
        index=st.sampled_from(["FLAT", "HNSW", "AUTOINDEX"]),
        metric=st.sampled_from(["L2", "IP"]),
    )
    def create(self, text_keys: bool, shards: int, index: str, metric: str) -> None:
        self.text_keys, self.shards, self.metric = text_keys, shards, metric
        # The graph of an inner product is not a metric space's: only FLAT promises every neighbour.
        self.index = "FLAT" if metric == "IP" else index
        self.open(next(_names))

    def open(self, name: str) -> None:
        self.name, self.rows = name, {}
        key_type, more = (DataType.VARCHAR, {"max_length": 20}) if self.text_keys else (DataType.INT64, {})
        fields = [
            ("id", key_type, {"is_primary": True, **more}),
            ("n", DataType.INT64, {}),
            ("word", DataType.VARCHAR, {"max_length": 20, "nullable": True}),
            vector_field(DIM),
        ]
        index = {"index_type": self.index, "metric_type": self.metric}
        create(self.client, name, fields, {"vector": index}, dynamic=True, num_shards=self.shards)

    @property
    def client(self) -> MilvusClient:
        return self.server.any_client()

    def key(self, number: int) -> Any:
        return f"k{number}" if self.text_keys else number

    # --- writes --------------------------------------------------------------------------------
    @rule(rows=st.dictionaries(KEYS, ROW, min_size=1, max_size=40), upsert=st.booleans())
    def put(self, rows: dict[int, dict[str, Any]], upsert: bool) -> None:
        self.write({self.key(k): r for k, r in rows.items()}, upsert)

    @rule(first=st.integers(0, 60), row=ROW)
    def put_many(self, first: int, row: dict[str, Any]) -> None:
        self.write({self.key(k): row for k in range(first, first + 200)}, True)

    def write(self, rows: dict[Any, dict[str, Any]], upsert: bool) -> None:
        version, data = next(_versions), []
        for key, row in rows.items():
            stored = {"id": key, **row, "vector": vector(key, version)}
            self.rows[key] = stored
            data.append({f: v for f, v in stored.items() if f != "tag" or v is not None})
        (self.client.upsert if upsert else self.client.insert)(self.name, data)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=30))
    def delete(self, keys: list[int]) -> None:
        self.client.delete(self.name, ids=[self.key(k) for k in keys])
        for key in keys:
            self.rows.pop(self.key(key), None)

    @rule(filter=st.sampled_from(sorted(FILTERS)))
    def delete_by_filter(self, filter: str) -> None:
        self.client.delete(self.name, filter=filter)
        self.rows = {k: r for k, r in self.rows.items() if not FILTERS[filter](r)}

    # --- what must change nothing --------------------------------------------------------------
    @rule()
    def flush(self) -> None:
        self.client.flush(self.name)

    @rule()
    def compact(self) -> None:
        self.client.compact(self.name)

    @rule()
    def release_and_load(self) -> None:
        self.client.release_collection(self.name)
        self.client.load_collection(self.name)

    @rule(nth=st.integers(0, 17), kill=st.booleans())
    def restart(self, nth: int, kill: bool) -> None:
        self.server.restart_one(nth, kill=kill)

    @rule(again=st.booleans())
    def drop(self, again: bool) -> None:
        self.client.drop_collection(self.name)
        assert not self.client.has_collection(self.name)
        self.open(self.name if again else next(_names))

    # --- reads ---------------------------------------------------------------------------------
    @rule(filter=st.sampled_from(sorted(FILTERS)), level=LEVELS)
    def query(self, filter: str, level: str) -> None:
        rows = self.client.query(self.name, filter=filter, output_fields=["*"], consistency_level=level)
        expected = sorted((r for r in self.rows.values() if FILTERS[filter](r)), key=lambda r: r["id"])
        assert [plain(r) for r in rows] == [plain(r) for r in expected]

    @rule(keys=st.lists(KEYS, min_size=1, max_size=10))
    def get(self, keys: list[int]) -> None:
        wanted = {self.key(k) for k in keys}
        rows = self.client.get(self.name, list(wanted), output_fields=["*"], consistency_level="Strong")
        assert {r["id"]: plain(r) for r in rows} == {k: plain(self.rows[k]) for k in wanted if k in self.rows}

    @rule(
        query=st.lists(st.integers(-25, 25), min_size=DIM, max_size=DIM),
        filter=st.none() | st.sampled_from(sorted(FILTERS)),
        k=st.integers(1, 50),
        level=LEVELS,
    )
    def search(self, query: list[int], filter: str | None, k: int, level: str) -> None:
        hits = self.client.search(
            self.name,
            [[float(x) for x in query]],
            filter=filter or "",
            limit=k,
            search_params={"params": {"ef": 512} if self.index == "HNSW" else {}},
            output_fields=["n"],
            consistency_level=level,
        )[0]
        scores = {
            key: self.score(row["vector"], query)
            for key, row in self.rows.items()
            if not filter or FILTERS[filter](row)
        }
        best = sorted(scores.values(), reverse=self.metric == "IP")[:k]
        found = [h["distance"] for h in hits]
        assert found == sorted(found, reverse=self.metric == "IP")
        if self.index == "FLAT":
            assert found == best
        else:
            assert len(found) == len(best)
            assert len([d for d in found if d <= best[-1]]) >= 0.9 * len(best)
        assert len({h["id"] for h in hits}) == len(hits)
        assert found == [scores[h["id"]] for h in hits]
        assert [h["entity"]["n"] for h in hits] == [self.rows[h["id"]]["n"] for h in hits]

    def score(self, row: list[float], query: list[int]) -> float:
        if self.metric == "IP":
            return float(np.dot(row, query))
        return float(((np.array(row) - query) ** 2).sum())

    @invariant()
    def count(self) -> None:
        if hasattr(self, "rows"):
            answer = self.client.query(self.name, output_fields=["count(*)"], consistency_level="Strong")
            assert answer[0]["count(*)"] == len(self.rows)

    def teardown(self) -> None:
        if hasattr(self, "rows"):
            assert self.server.alive
            self.client.drop_collection(self.name)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as comparable values; an absent dynamic value is no value."""
    return {f: [float(x) for x in v] if f == "vector" else v for f, v in row.items() if v is not None or f == "word"}


@pytest.fixture
def tiny_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", SETTINGS).start()
        try:
            yield server
        finally:
            server.close()
            errors = server.new_errors()
        assert not errors, "".join(errors)


@pytest.fixture
def tiny_cluster(start_cluster: Callable[[dict[str, Any]], ClusterServer]) -> Iterator[ClusterServer]:
    cluster = start_cluster(SETTINGS)
    try:
        yield cluster
    finally:
        cluster.close()
        errors = cluster.new_errors()
    assert not errors, "".join(errors)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("serving", "examples"),
    [("tiny_server", EXAMPLES), ("tiny_cluster", CLUSTER_EXAMPLES)],
    ids=["standalone", "cluster"],
)
def test_any_sequence_of_calls_agrees_with_a_dict(request: pytest.FixtureRequest, serving: str, examples: int) -> None:
    class OnThis(Table):
        server = request.getfixturevalue(serving)

    run_state_machine_as_test(OnThis, settings=settings(max_examples=examples, stateful_step_count=STEPS))
