"""What a strong read right after a write costs more than a read that waits for nothing."""

import time
from statistics import median

import grpc
import numpy as np
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from bench.clients import SEARCH
from bench.context import Bench, Row, insert, insert_requests, search_requests
from bench.data import Dataset

ROUNDS = 300


def measure(bench: Bench) -> None:
    rng = np.random.default_rng(1)
    picked = rng.choice(bench.data.rows, min(ROUNDS, bench.data.rows), replace=False)
    one = Dataset("", bench.data.vectors[picked], bench.data.queries, bench.data.pick[picked])
    writes = insert_requests(one, 1)
    with bench.loaded() as server, grpc.insecure_channel(server.address) as channel:
        search = channel.unary_unary(SEARCH, response_deserializer=milvus_pb2.SearchResults.FromString)

        def after_write(level: common_pb2.ConsistencyLevel) -> float:
            request, times = search_requests(bench.data.queries[:1], 64, level=level)[0], []
            for write in writes:
                insert(channel, write)
                started = time.perf_counter()
                assert not search(request, timeout=10).status.code
                times.append(time.perf_counter() - started)
            return median(times) * 1e3

        after_write(common_pb2.Eventually)
        eventually, strong = after_write(common_pb2.Eventually), after_write(common_pb2.Strong)
    note = f"p50 {strong:.2f} ms strong, {eventually:.2f} ms eventually"
    bench.add(Row("strong read after write, added p50", strong - eventually, "ms", 2, 1, True, note))
