"""Recall against queries per second, as a picture."""

import io

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from bench.clients import BareSearch, drive
from bench.context import AUTOINDEX, EFS, HNSW, Bench, measured_recall, search_requests

CLIENTS = 8
INDEXES = {"HNSW M=16 efConstruction=200": HNSW, "AUTOINDEX": AUTOINDEX}


def measure(bench: Bench) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), dpi=80)
    table = ["| index | ef | recall@10 | QPS |", "|---|---|---|---|"]
    for label, index in INDEXES.items():
        points = []
        with bench.loaded(index) as server:
            client = server.client()
            for ef in EFS[::2]:
                reached = measured_recall(client, bench.data, ef)
                work = BareSearch(search_requests(bench.data.queries, ef))
                load = drive(server.address, work, CLIENTS, bench.seconds)
                points.append((reached, load.qps))
                table.append(f"| {label} | {ef} | {reached:.4f} | {load.qps:,.0f} |")
            client.close()
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="recall@10", ylabel="queries per second", title=f"{bench.data.name}, {CLIENTS} clients")
    axes.grid(alpha=0.3)
    axes.legend()
    out = io.BytesIO()
    figure.tight_layout()
    figure.savefig(out, format="png")
    plt.close(figure)
    bench.images["recall-qps.png"] = out.getvalue()
    bench.sections["Recall against QPS"] = "![recall against QPS](img/recall-qps.png)\n\n" + "\n".join(table)
