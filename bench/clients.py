"""Blocking clients in processes of their own: the same loop against any server, bare or pymilvus."""

import itertools
import multiprocessing as mp
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import grpc
import numpy as np

SEARCH = "/milvus.proto.milvus.MilvusService/Search"
INSERT = "/milvus.proto.milvus.MilvusService/Insert"
WARM_UP_S = 0.5
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Load:
    """What n clients got: calls per second of all together, latencies in ms; cpu_s: how much ``drive``'s
    ``spent`` grew meanwhile."""

    clients: int
    qps: float
    p50_ms: float
    p99_ms: float
    seconds: float
    cpu_s: Mapping[str, float]


@dataclass(frozen=True)
class BareSearch:
    """Sends prepared requests over a bare channel and parses the replies: no client library."""

    requests: Sequence[bytes]

    def connect(self, address: str) -> Callable[[int], Any]:
        from pymilvus.grpc_gen import milvus_pb2  # noqa: PLC0415  (0.7 s that the parent need not pay)

        channel = grpc.insecure_channel(address, options=[*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        call = channel.unary_unary(SEARCH, response_deserializer=milvus_pb2.SearchResults.FromString)

        def search(i: int) -> Any:
            reply = call(self.requests[i % len(self.requests)], timeout=60)
            if reply.status.code:
                raise RuntimeError(reply.status.reason)
            return reply

        return search


@dataclass(frozen=True)
class PymilvusSearch:
    """Searches as a user's program does."""

    collection: str
    queries: np.ndarray
    options: dict[str, Any]

    def connect(self, address: str) -> Callable[[int], Any]:
        from pymilvus import MilvusClient  # noqa: PLC0415  (as above)

        client = MilvusClient(f"http://{address}", dedicated=True)
        rows = [q.tolist() for q in self.queries]
        return lambda i: client.search(self.collection, [rows[i % len(rows)]], **self.options)


def drive(
    address: str,
    work: BareSearch | PymilvusSearch,
    clients: int,
    seconds: float,
    spent: Callable[[], Mapping[str, float]] = dict,
) -> Load:
    """Runs n blocking clients, each on a connection of its own, as threads of up to one process per core.

    spent: CPU seconds used so far, by process.
    """
    processes = min(clients, os.cpu_count() or 1)
    shares = [clients // processes + (i < clients % processes) for i in range(processes)]
    context = mp.get_context("spawn")
    barrier, results = context.Barrier(processes + 1), context.SimpleQueue()
    running = [context.Process(target=_process, args=(address, work, s, seconds, barrier, results)) for s in shares]
    for process in running:
        process.start()
    barrier.wait(60)
    time.sleep(WARM_UP_S)
    before = spent()
    time.sleep(seconds)
    cpu_s = {name: value - before[name] for name, value in spent().items()}
    latencies = np.concatenate([results.get() for _ in running])
    for process in running:
        process.join()
    if not len(latencies):
        raise RuntimeError("no client got an answer")
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return Load(clients, len(latencies) / seconds, float(p50), float(p99), seconds, cpu_s)


def _process(address: str, work: Any, threads: int, seconds: float, barrier: Barrier, results: Any) -> None:
    calls = [work.connect(address) for _ in range(threads)]
    latencies: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call(0)
    barrier.wait(60)
    begin = time.perf_counter() + WARM_UP_S

    def run(thread: int) -> None:
        call, mine = calls[thread], latencies[thread]
        for i in itertools.count(thread * 37):
            started = time.perf_counter()
            if started >= begin + seconds:
                return
            call(i)
            if started >= begin:
                mine.append(time.perf_counter() - started)

    workers = [threading.Thread(target=run, args=(t,)) for t in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    results.put(np.concatenate([np.array(times) for times in latencies]))
