"""Rows acknowledged durable per second, a thousand rows a call."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.context import BATCH, COLLECTION, HNSW, Bench, Row, create, insert_all, insert_requests
from bench.data import Dataset
from bench.server import Server

AT_LEAST, AIM = 25_000, 40_000


def measure(bench: Bench) -> None:
    for threads in (1, 4):
        speed = prepared(bench.data, threads)
        bench.add(Row(f"insert, {BATCH} rows a call, {threads} client(s)", speed, "rows/s", AT_LEAST, AIM))
    bench.add(Row(f"the same by pymilvus, {BATCH} rows a call, 1 client", by_pymilvus(bench.data), "rows/s"))


def prepared(data: Dataset, threads: int) -> float:
    requests = insert_requests(data)
    with Server() as server:
        create(server.client(), data.dim, HNSW)
        with ThreadPoolExecutor(threads) as pool:
            started = time.perf_counter()
            list(pool.map(lambda thread: insert_all(server.address, requests[thread::threads]), range(threads)))
            return data.rows / (time.perf_counter() - started)


def by_pymilvus(data: Dataset) -> float:
    rows = [
        {"id": i, "pick": int(p), "vector": v} for i, (p, v) in enumerate(zip(data.pick, data.vectors, strict=True))
    ]
    with Server() as server:
        client = server.client()
        create(client, data.dim, HNSW)
        started = time.perf_counter()
        for start in range(0, len(rows), BATCH):
            client.insert(COLLECTION, rows[start : start + BATCH])
        took = time.perf_counter() - started
        client.close()
    return data.rows / took
