"""Searches with a filter that half, a tenth, a hundredth and a thousandth of the rows pass."""

from bench.clients import BareSearch, drive
from bench.context import Bench, Row, measured_recall, search_requests, smallest_ef
from bench.data import PICK_VALUES

CLIENTS = 8


def measure(bench: Bench) -> None:
    with bench.loaded() as server:
        ef, _ = smallest_ef(server, bench.data)
        client = server.client()
        for percent in (50, 10, 1, 0.1):
            bound = round(PICK_VALUES * percent / 100)
            filter = f"pick < {bound}"
            truth = bench.data.nearest(bench.data.pick < bound)
            reached = measured_recall(client, bench.data, ef, filter, truth)
            bench.add(Row(f"filtered at {percent} %, recall@10", reached, "", 0.95, note=f"ef={ef}"))
            work = BareSearch(search_requests(bench.data.queries, ef, filter))
            load = drive(server.address, work, CLIENTS, bench.seconds)
            note = f"p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms"
            bench.add(Row(f"filtered at {percent} %, {CLIENTS} clients", load.qps, "QPS", 1000, note=note))
        client.close()
