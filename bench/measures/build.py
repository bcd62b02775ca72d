"""How long after the first insert every row is found through an index, against the library's build."""

import time

from bench.context import COLLECTION, HNSW, Bench, Row, create, insert_all
from bench.measures.batch import build
from bench.server import Server

DEADLINE_S = 900.0


def measure(bench: Bench) -> None:
    started = time.perf_counter()
    build(bench.data.vectors)
    library_s = time.perf_counter() - started
    with Server() as server:
        client = server.client()
        create(client, bench.data.dim, HNSW)
        started = time.perf_counter()
        insert_all(server, bench.data)
        inserted_s = time.perf_counter() - started
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
    note = f"{took:.1f} s, of which inserting {inserted_s:.1f} s; faiss {library_s:.1f} s"
    bench.add(
        Row("all rows indexed after the first insert, of the library", took / library_s, "x", 1.5, 1.2, True, note)
    )
