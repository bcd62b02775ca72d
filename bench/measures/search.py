"""Single searches: 1, 8 and 32 blocking clients, against an echo with the same messages in the same run."""

from statistics import median

import grpc

from bench.clients import SEARCH, BareSearch, PymilvusSearch, drive
from bench.context import COLLECTION, Bench, Row, search_requests, smallest_ef
from bench.data import K
from bench.echo import echo

BOUNDS = {1: (0.75, 1.0), 8: (0.85, 1.25), 32: (1.0, 1.5)}
ROUNDS = 7
SHARE = 0.4
"""Of a load's usual length that each of the rounds takes: a shared machine changes its speed within seconds."""


def measure(bench: Bench) -> None:
    with bench.loaded() as server:
        ef, reached = smallest_ef(server, bench.data)
        requests = search_requests(bench.data.queries, ef)
        with grpc.insecure_channel(server.address) as channel:
            reply = channel.unary_unary(SEARCH)(requests[0], timeout=10)
        bench.add(Row("recall@10 of the search", reached, "", 0.95, note=f"HNSW M=16 efConstruction=200, ef={ef}"))
        work = BareSearch(requests)
        user = PymilvusSearch(COLLECTION, bench.data.queries, {"limit": K, "search_params": {"params": {"ef": ef}}})
        with echo(reply) as echo_address:
            for clients, (at_least, aim) in BOUNDS.items():
                # Turn by turn, so that whatever else the machine does hits both alike.
                pairs = [
                    (
                        drive(server.address, work, clients, SHARE * bench.seconds),
                        drive(echo_address, work, clients, SHARE * bench.seconds),
                    )
                    for _ in range(ROUNDS)
                ]
                ratios = [ours.qps / theirs.qps for ours, theirs in pairs]
                ours = sorted((o for o, _ in pairs), key=lambda load: load.qps)[ROUNDS // 2]
                theirs = median(t.qps for _, t in pairs)
                note = (
                    f"{ours.qps:,.0f} QPS, p50 {ours.p50_ms:.2f} ms, p99 {ours.p99_ms:.2f} ms; echo {theirs:,.0f} QPS;"
                    f" rounds {min(ratios):.2f} to {max(ratios):.2f}"
                )
                name = f"search, {clients} blocking clients, of the echo"
                bench.add(Row(name, median(ratios), "x", at_least, aim, note=note))
                load = drive(server.address, user, clients, bench.seconds)
                note = f"p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms"
                bench.add(Row(f"the same by pymilvus, {clients} clients", load.qps, "QPS", note=note))
