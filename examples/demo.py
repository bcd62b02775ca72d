"""A tour of SheafDB on 5,000 real embeddings: `make demo` runs it.

Starts a server of its own on a free port and a folder of its own, and leaves nothing behind. Every
claim it prints with a tick is checked; the exit code is 1 when one of them did not hold.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType, MilvusClient
from rich.console import Console
from rich.progress import track

DATA = Path(__file__).parent / "data"
COLLECTION = "packages"
BATCH = 500
QUERIES = ("cheesecutter", "sylfilter", "cgit")
START_DEADLINE_S = 60.0

console = Console(highlight=False, soft_wrap=True)


class Claims:
    """What the demo says is true, and whether it was."""

    def __init__(self) -> None:
        self.broken = 0

    def __call__(self, text: str, holds: bool) -> None:
        self.broken += not holds
        console.print(f"  [green]✓[/] {text}" if holds else f"  [bold red]✗ {text}[/]")


class Server:
    """``sheafdb standalone`` as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Seconds until it was ready."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "sheafdb.cli", "standalone", "--data", str(self.folder)]
        options = ["--port", str(self.port), "--set", "server.metrics_port=0", "--set", "logging.level=warning"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not address:
            raise SystemExit(f"the server did not start (exit code {self.process.wait(START_DEADLINE_S)})")
        self.port = int(address[1])
        return time.perf_counter() - began

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://127.0.0.1:{self.port}")

    def end(self, sig: signal.Signals) -> int:
        """The exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(sig)
        code = self.process.wait(START_DEADLINE_S)
        assert self.process.stdout
        self.process.stdout.close()
        self.process = None
        return code


def step(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def vectors(table: pa.Table) -> np.ndarray:
    """float32 [rows, 384]"""
    return table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1).astype(np.float32)


def create(client: MilvusClient) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("name", DataType.VARCHAR, max_length=100)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("section", DataType.VARCHAR, max_length=40)
    schema.add_field("installed_size", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=384)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
    client.create_collection(COLLECTION, schema=schema, index_params=index)


def insert(client: MilvusClient, packages: pa.Table) -> float:
    """Rows a second, each call durable when it returns."""
    columns = packages.drop(["embedding"]).to_pylist()
    rows = [{**row, "embedding": vector} for row, vector in zip(columns, vectors(packages), strict=True)]
    began = time.perf_counter()
    for start in track(range(0, len(rows), BATCH), "  inserting", console=console):
        client.insert(COLLECTION, rows[start : start + BATCH])
    return len(rows) / (time.perf_counter() - began)


def count(client: MilvusClient) -> int:
    return client.query(COLLECTION, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def nearest(client: MilvusClient, query: np.ndarray, **options: object) -> list[dict]:
    hits = client.search(
        COLLECTION,
        [query],
        limit=5,
        output_fields=["name", "section", "installed_size"],
        search_params={"params": {"ef": 100}},
        consistency_level="Strong",
        **options,
    )[0]
    return [{**hit["entity"], "id": hit["id"], "score": hit["distance"]} for hit in hits]


def show(hits: list[dict]) -> None:
    for hit in hits:
        console.print(f"    {hit['score']:.3f}  {hit['name']:32} {hit['section']:12} {hit['installed_size']:>8} KiB")


def search(client: MilvusClient, packages: pa.Table, queries: pa.Table, claim: Claims) -> None:
    step("Search by meaning: packages the collection has never seen")
    names = queries["name"].to_pylist()
    embeddings = vectors(queries)
    for name in QUERIES:
        i = names.index(name)
        console.print(f"  [cyan]{name}[/]: {queries['text'][i].as_py()[:70]}")
        show(nearest(client, embeddings[i]))
    exact = np.argsort(-(embeddings @ vectors(packages).T), axis=1)[:, :5]
    ids = packages["id"].to_numpy()
    found = sum(
        len({hit["id"] for hit in nearest(client, query)} & set(ids[best].tolist()))
        for query, best in zip(embeddings, exact, strict=True)
    )
    recall = found / exact.size
    claim(f"of the true five nearest of all {len(queries)} queries, {recall:.1%} were found", recall >= 0.95)

    step("The same with a filter: section == 'text' and installed_size < 1000")
    query = embeddings[names.index("cgit")]
    hits = nearest(
        client, query, filter="section == {section} and installed_size < 1000", filter_params={"section": "text"}
    )
    show(hits)
    claim("every hit fits the filter", all(h["section"] == "text" and h["installed_size"] < 1000 for h in hits))


def change(client: MilvusClient, packages: pa.Table, claim: Claims) -> tuple[int, int]:
    """(key of the renamed package, rows left)"""
    step("Change: upsert one, delete a whole section")
    first = packages.slice(packages["section"].to_pylist().index("editors"), 1)
    row = {**first.drop(["embedding"]).to_pylist()[0], "embedding": vectors(first)[0], "name": "renamed-by-the-demo"}
    client.upsert(COLLECTION, row)
    claim("an upsert replaces: still as many rows", count(client) == len(packages))
    games = packages["section"].to_pylist().count("games")
    client.delete(COLLECTION, filter="section == 'games'")
    left = count(client)
    claim(f"{games} games deleted: {len(packages)} - {games} = {left} rows", left == len(packages) - games)
    return row["id"], left


def survive(server: Server, key: int, left: int, claim: Claims) -> MilvusClient:
    step("SIGKILL, as if the power failed, right after the last acknowledgement")
    server.end(signal.SIGKILL)
    seconds = server.start()
    console.print(f"  killed and ready again in {seconds * 1000:.0f} ms, process start included")
    client = server.client()
    claim(f"{left} rows, not one more or less", count(client) == left)
    renamed = client.get(COLLECTION, key, output_fields=["name"])
    claim("the upserted row is the new one", [r["name"] for r in renamed] == ["renamed-by-the-demo"])
    gone = client.query(COLLECTION, filter="section == 'games'", output_fields=["id"], limit=1)
    claim("what was deleted stays deleted", not gone)
    return client


def read_parquet(folder: Path, client: MilvusClient, left: int, claim: Claims) -> None:
    step("The live collection is plain Parquet: DuckDB beside the running server")
    client.flush(COLLECTION)
    (files,) = (folder / "objects" / "default").glob(f"{COLLECTION}-*")
    # The query of docs/formats.md.
    live = f"""
        WITH newest AS (
            SELECT * FROM read_parquet('{files}/shard=*/segment-*.parquet', union_by_name = true)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY __position DESC) = 1
        ), dead AS (
            SELECT pk, max(position) AS position
            FROM read_parquet('{files}/shard=*/tombstones-*.parquet') GROUP BY pk
        )
        SELECT newest.* FROM newest LEFT JOIN dead ON newest.id = dead.pk
        WHERE dead.pk IS NULL OR newest.__position >= dead.position
    """
    console.print(f"  {files.relative_to(folder)}/shard=*/segment-*.parquet, packages by section:")
    by_section = duckdb.sql(f"SELECT section, count(*) AS n FROM ({live}) GROUP BY section ORDER BY n DESC LIMIT 3")
    for section, n in by_section.fetchall():
        console.print(f"    {section:12} {n:>5}")
    ((rows,),) = duckdb.sql(f"SELECT count(*) FROM ({live})").fetchall()
    claim(f"DuckDB counts {rows} rows, as the server does", rows == left == count(client))


@contextmanager
def serving() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="sheafdb-demo-"))
    server = Server(folder)
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)
        shutil.rmtree(folder)


def main() -> int:
    claim = Claims()
    packages, queries = pq.read_table(DATA / "packages.parquet"), pq.read_table(DATA / "queries.parquet")
    with serving() as server:
        step("Start: sheafdb standalone, one process, one folder")
        console.print(f"  ready in {server.start() * 1000:.0f} ms on port {server.port}")
        client = server.client()

        step(f"Load {len(packages)} Debian packages with their embeddings (384 dimensions, HNSW, cosine)")
        create(client)
        speed = insert(client, packages)
        claim(
            f"{count(client)} rows, each durable when its call returned: {speed:,.0f} a second",
            count(client) == len(packages),
        )
        client.flush(COLLECTION)

        search(client, packages, queries, claim)
        key, left = change(client, packages, claim)
        client.close()
        client = survive(server, key, left, claim)
        read_parquet(server.folder, client, left, claim)
        client.close()

        step("Stop: SIGTERM")
        code = server.end(signal.SIGTERM)
        claim(f"drained and gone, exit code {code}", code == 0)
    console.print(
        "\n[bold green]All of it held.[/]" if not claim.broken else f"\n[bold red]{claim.broken} did not hold.[/]"
    )
    return 1 if claim.broken else 0


if __name__ == "__main__":
    sys.exit(main())
