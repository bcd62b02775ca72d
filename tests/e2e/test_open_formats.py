"""The files of a live collection, read by DuckDB, pandas and Polars as they lie (docs/formats.md)."""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from pymilvus import DataType, MilvusClient

from tests.e2e.ledger import Ledger, Writer, create_table, vectors_of
from tests.e2e.tables import ID, count, create, vector_field
from tests.server import TINY, Server
from tests.waiting import wait_until

QUIET = TINY | {"data_node.compact_interval_s": 3600}


def files(server: Server, collection: str) -> tuple[str, str]:
    """Globs of the segments and tombstone files of a collection."""
    folder = next((server.folder / "objects").glob(f"default/{collection}-*"))
    return f"{folder}/shard=*/segment-*.parquet", f"{folder}/shard=*/tombstones-*.parquet"


def live_rows(server: Server, collection: str, key: str = "id") -> int:
    """What the query of docs/formats.md counts, its folder and key replaced by those of a collection."""
    segments, tombstones = files(server, collection)
    found = re.search(r"```sql\n(.*?)```", Path("docs/formats.md").read_text(), re.S)
    assert found
    query = found[1].replace("objects/default/packages-1", str(Path(segments).parent.parent))
    query = query.replace("PARTITION BY id", f"PARTITION BY {key}").replace("newest.id", f"newest.{key}")
    if not list(Path("/").glob(tombstones.lstrip("/"))):  # as the page says
        query = query[: query.index(", dead AS")] + "SELECT count(*) FROM newest"
    with duckdb.connect() as db:
        row = db.execute(query).fetchone()
    assert row
    return row[0]


@pytest.fixture
def table(launch: Callable[..., Server]) -> tuple[Server, MilvusClient, Ledger]:
    server = launch(QUIET).start()
    client, ledger = server.client(), Ledger()
    create_table(client, "t", num_shards=2)
    writer = Writer(server, "t", ledger, seed=2)
    for step in range(12):
        writer.put(list(range(step * 50, step * 50 + 200)))
        writer.delete(list(range(step * 50, step * 50 + 30)))
        if step % 3 == 2:
            client.flush("t")
    client.flush("t")
    return server, client, ledger


def test_duckdb_counts_what_count_counts(table: tuple[Server, MilvusClient, Ledger]) -> None:
    server, client, ledger = table
    assert live_rows(server, "t") == count(client, "t") == len(ledger.rows)


def test_duckdb_after_compaction_and_collection(launch: Callable[..., Server]) -> None:
    server = launch(TINY).start()
    client, ledger = server.client(), Ledger()
    create_table(client, "t")
    writer = Writer(server, "t", ledger, seed=2)
    for _ in range(40):
        writer.step()
    client.flush("t")
    expected = count(client, "t")
    assert expected == len(ledger.rows)

    def agrees() -> bool:
        try:
            return live_rows(server, "t") == expected
        except duckdb.IOException:  # a file of the listing was collected meanwhile
            return False

    wait_until(agrees, "the files and count(*) to agree once compaction and collection are at rest")


def test_pandas_and_polars_see_the_users_own_columns(table: tuple[Server, MilvusClient, Ledger]) -> None:
    server, _, ledger = table
    segments, tombstones = files(server, "t")
    folder = Path(segments).parent.parent

    frame = pd.concat([pd.read_parquet(p) for p in folder.glob("shard=*/segment-*.parquet")])
    assert {"id", "n", "vector", "__position", "__ts"} <= set(frame.columns)
    newest = frame.sort_values("__position").groupby("id").tail(1)
    alive = newest[newest["id"].isin(list(ledger.rows))]
    assert dict(zip(alive["id"], alive["n"], strict=True)) == ledger.rows
    row = alive.iloc[0]
    assert list(row["vector"]) == vectors_of([row["id"]], [row["n"]])[0].tolist()

    lazy = pl.scan_parquet(segments, hive_partitioning=False)
    dead = pl.scan_parquet(tombstones, hive_partitioning=False).group_by("pk").agg(pl.col("position").max())
    rows = (
        lazy.group_by("id")
        .agg(pl.col("__position").max())
        .join(dead, left_on="id", right_on="pk", how="left")
        .filter(pl.col("position").is_null() | (pl.col("position") <= pl.col("__position")))
        .collect()
    )
    assert set(rows["id"]) == set(ledger.rows)


def test_reading_while_rows_are_written(table: tuple[Server, MilvusClient, Ledger]) -> None:
    server, client, ledger = table
    writer = Writer(server, "t", ledger, seed=8)
    for step in range(10):
        writer.put(writer.some_keys(100))
        if step % 4 == 3:
            client.flush("t")
        assert live_rows(server, "t") > 0
    client.flush("t")
    assert live_rows(server, "t") == count(client, "t") == len(ledger.rows)


def test_every_type_opens_elsewhere(launch: Callable[..., Server]) -> None:
    server = launch(QUIET).start()
    client = server.client()
    fields = [
        ("key", DataType.VARCHAR, {"is_primary": True, "max_length": 20}),
        ("flag", DataType.BOOL, {}),
        ("real", DataType.DOUBLE, {"nullable": True}),
        ("doc", DataType.JSON, {}),
        ("tags", DataType.ARRAY, {"element_type": DataType.VARCHAR, "max_capacity": 5, "max_length": 9}),
        vector_field(4),
        ("bits", DataType.BINARY_VECTOR, {"dim": 16}),
    ]
    create(client, "every", fields, dynamic=True)
    data = {"flag": True, "doc": {"a": [1]}, "tags": ["x", "y"], "vector": [1.0, 2.0, 3.0, 4.0], "bits": b"\x01\x80"}
    client.insert("every", [{"key": "one", "real": 0.5, **data}, {"key": "two", "real": None, "extra": 7, **data}])
    client.flush("every")
    segments, _ = files(server, "every")
    with duckdb.connect() as db:
        rows = db.sql(
            f"SELECT key, flag, real, doc->'a'->>0, tags, vector, bits, \"$meta\"->>'extra' "
            f"FROM read_parquet('{segments}') ORDER BY key"
        ).fetchall()
    same = (["x", "y"], (1.0, 2.0, 3.0, 4.0), b"\x01\x80")
    assert [(*r[:5], tuple(r[5]), *r[6:]) for r in rows] == [
        ("one", True, 0.5, "1", *same, None),
        ("two", True, None, "1", *same, "7"),
    ]


def test_int_and_text_keys_have_tombstones_alike(launch: Callable[..., Server]) -> None:
    server = launch(QUIET).start()
    client = server.client()
    keys = [("key", DataType.VARCHAR, {"is_primary": True, "max_length": 20}), ID]
    for name, key in zip(("text", "number"), keys, strict=True):
        fields = [key, vector_field(4)]
        create(client, name, fields, {"vector": {"index_type": "FLAT", "metric_type": "L2"}})
        values = [str(i) if name == "text" else i for i in range(50)]
        client.insert(name, [{key[0]: v, "vector": [0.0] * 4} for v in values])
        client.flush(name)
        client.delete(name, ids=values[:20])
        client.flush(name)
        assert live_rows(server, name, key[0]) == count(client, name) == 30
