"""How long after the first insert every row is found through an index, against the library's build."""

import time

from bench.context import COLLECTION, HNSW, Bench, Row, create, insert_all, insert_requests
from bench.measures.batch import build
from bench.server import Server

DEADLINE_S = 900.0


def measure(bench: Bench) -> None:
    requests = insert_requests(bench.data)  # what a client spends on making them is not the server's
    before_s = library_s(bench)
    with Server() as server:
        client = server.client()
        create(client, bench.data.dim, HNSW)
        started = time.perf_counter()
        inserted_s = insert_all(server.address, requests)
        client.flush(COLLECTION)
        while True:
            index = client.describe_index(COLLECTION, "vector")
            if index["indexed_rows"] == index["total_rows"] == bench.data.rows:
                break
            if time.perf_counter() - started > DEADLINE_S:
                raise SystemExit(f"not indexed after {DEADLINE_S} s: {index}")
            time.sleep(0.02)
        took = time.perf_counter() - started
        client.close()
    # Before and after, for the machine's speed changes within a minute.
    library = (before_s + library_s(bench)) / 2
    note = f"{took:.1f} s, of which inserting {inserted_s:.1f} s; faiss {library:.1f} s"
    bench.add(Row("all rows indexed after the first insert, of the library", took / library, "x", 1.5, 1.2, True, note))


def library_s(bench: Bench) -> float:
    """Seconds that faiss takes in this process."""
    started = time.perf_counter()
    build(bench.data.vectors)
    return time.perf_counter() - started
