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
    with bench.loaded() as server:
        eventually, strong = reads_after_writes(server.address, bench.data, ROUNDS)
    note = f"p50 {strong:.2f} ms strong, {eventually:.2f} ms eventually"
    bench.add(Row("strong read after write, added p50", strong - eventually, "ms", 2, 1, True, note))


def reads_after_writes(address: str, data: Dataset, rounds: int) -> tuple[float, float]:
    """p50 in ms of a read right after the acknowledged write of a row: of one that waits for nothing, and
    of a strong one."""
    picked = np.random.default_rng(1).choice(data.rows, min(rounds, data.rows), replace=False)
    writes = insert_requests(Dataset("", data.vectors[picked], data.queries, data.pick[picked]), 1)
    with grpc.insecure_channel(address) as channel:
        search = channel.unary_unary(SEARCH, response_deserializer=milvus_pb2.SearchResults.FromString)

        def after_write(level: common_pb2.ConsistencyLevel) -> float:
            request, times = search_requests(data.queries[:1], 64, level=level)[0], []
            for write in writes:
                insert(channel, write)
                started = time.perf_counter()
                assert not search(request, timeout=10).status.code
                times.append(time.perf_counter() - started)
            return median(times) * 1e3

        after_write(common_pb2.Eventually)
        return after_write(common_pb2.Eventually), after_write(common_pb2.Strong)
