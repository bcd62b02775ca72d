"""A hundred queries in one request, against faiss called in process."""

import time
from statistics import median

import faiss
import numpy as np

from bench.clients import BareSearch
from bench.context import COLLECTION, EFS, RECALL_MIN, Bench, Row, search_request, smallest_ef
from bench.data import Dataset, K, recall

NQ = 100


def measure(bench: Bench) -> None:
    queries = bench.data.queries[:NQ]
    library, library_ef = in_process(bench.data)
    with bench.loaded() as server:
        ef, _ = smallest_ef(server, bench.data)
        search = BareSearch([search_request(list(queries), ef)]).connect(server.address)
        ours = rate(lambda: search(0), bench.seconds)
        client = server.client()
        rows, options = list(queries), {"limit": K, "search_params": {"params": {"ef": ef}}}
        user = rate(lambda: client.search(COLLECTION, rows, **options), bench.seconds)
        client.close()
    theirs = rate(lambda: library.search(queries, K), bench.seconds)
    note = (
        f"{ours * NQ:,.0f} queries/s at ef={ef}, by pymilvus {user * NQ:,.0f};"
        f" faiss {theirs * NQ:,.0f} at ef={library_ef}"
    )
    bench.add(Row(f"search, nq = {NQ}, of faiss in process", ours / theirs, "x", 0.5, 0.7, note=note))


def in_process(data: Dataset) -> tuple[faiss.IndexHNSWFlat, int]:
    """faiss's own HNSW over the same rows, and the smallest ``ef`` that gives it enough recall."""
    index = build(data.vectors)
    for ef in EFS:
        index.hnsw.efSearch = ef
        if recall(index.search(data.queries, K)[1].tolist(), data.truth) >= RECALL_MIN:
            return index, ef
    raise SystemExit("faiss does not reach the recall")


def build(vectors: np.ndarray) -> faiss.IndexHNSWFlat:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.add(vectors)
    return index


def rate(call, seconds: float) -> float:
    """Calls per second: the median of short stretches."""
    call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1 / median(times)
