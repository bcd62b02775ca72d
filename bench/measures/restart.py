"""From starting the process to the first right answer, after a clean stop and after SIGKILL."""

import signal
import time
from statistics import median

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from bench.clients import SEARCH
from bench.context import Bench, Row, search_requests
from bench.server import Server

ROUNDS = 5
DEADLINE_S = 60.0


def measure(bench: Bench) -> None:
    with bench.loaded() as server:
        for how, sig in (("a clean stop", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
            times = [restart(bench, server, sig) for _ in range(ROUNDS)]
            note = f"worst of {ROUNDS}: {max(times):.2f} s"
            bench.add(Row(f"restart after {how} to the first right answer", median(times), "s", 1.0, 0.5, True, note))


def restart(bench: Bench, server: Server, sig: signal.Signals) -> float:
    request = search_requests(bench.data.queries[:1], 256, level=common_pb2.Strong)[0]
    expected = set(bench.data.truth[0].tolist())
    server.end(sig)
    started = time.perf_counter()
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(SEARCH, response_deserializer=milvus_pb2.SearchResults.FromString)
        while time.perf_counter() - started < DEADLINE_S:
            reply = call(request, timeout=DEADLINE_S, wait_for_ready=True)
            if not reply.status.code:
                found = set(reply.results.ids.int_id.data)
                assert len(found & expected) >= 9, "a wrong answer after a restart"
                return time.perf_counter() - started
    raise SystemExit(f"no answer {DEADLINE_S} s after a restart")
