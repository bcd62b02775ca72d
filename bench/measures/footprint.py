"""Memory and disk: of the empty server, and per vector loaded, indexed and compacted."""

import time

from bench.context import AUTOINDEX, COLLECTION, HNSW, Bench, Row, create, insert_all, insert_requests, measured_recall
from bench.server import Server, settle

MB = 1 << 20


def measure(bench: Bench) -> None:
    grow(bench, HNSW, "")
    grow(bench, AUTOINDEX, ", AUTOINDEX")


def grow(bench: Bench, index: dict, which: str) -> None:
    """One server, empty and then with all rows; ``which`` is added to the names of the measures."""
    with Server() as server:
        time.sleep(3)
        empty = server.pss
        if not which:
            bench.add(Row("memory of the empty server (PSS)", empty / MB, "MB", 200, 130, True))
        client = server.client()
        create(client, bench.data.dim, index)
        insert_all(server.address, insert_requests(bench.data))
        settle(server, COLLECTION)
        measured_recall(client, bench.data, 64)  # what searching touches counts
        grown = (server.pss - empty) / bench.data.rows
        client.close()
        note = f"{bench.data.rows:,} vectors of {bench.data.dim * 4:,} B; all {server.pss / MB:,.0f} MB"
        bench.add(Row(f"memory it grows by, per vector{which}", grown, "B", 2500, 1500, True, note))
        disk = server.disk / bench.data.rows
        parts = {
            name: sum(p.stat().st_size for p in server.folder.rglob(pattern) if p.is_file()) / bench.data.rows
            for name, pattern in (("segments", "segment-*.parquet"), ("indexes", "*.index-*"), ("log", "log.db*"))
        }
        note = ", ".join(f"{name} {size:,.0f}" for name, size in parts.items())
        bench.add(Row(f"on disk, per vector, after compaction{which}", disk, "B", 3000, 2500, True, note))
