"""Where a single search's time goes: samples of the server's main thread, by step."""

import json
import tempfile
from pathlib import Path

from bench.clients import BareSearch, drive
from bench.context import COLLECTION, HNSW, Bench, create, insert_all, search_requests
from bench.server import Server, settle

EF = 32
STEPS_SHOWN = 20


def measure(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.json"
        with Server(("-m", "bench.sampled", str(out))) as server:
            create(server.client(), bench.data.dim, HNSW)
            insert_all(server, bench.data)
            settle(server, COLLECTION)
            work = BareSearch(search_requests(bench.data.queries, EF))
            (out.with_suffix(".on")).touch()
            load = drive(server.address, work, 1, max(bench.seconds, 5.0))
        samples: dict[str, float] = json.loads(out.read_text())
    total = sum(samples.values())
    bench.sections["Where a single search's time goes"] = page(samples, total, 1e6 / load.qps)
    print(bench.sections["Where a single search's time goes"])


def page(samples: dict[str, float], total: float, search_us: float) -> str:
    lines = [
        f"One client, ef={EF}, {search_us:,.0f} µs from call to answer. The server's CPU time, sampled"
        " every millisecond and attributed to the innermost function of ours:",
        "",
        "| step | share of the server's CPU time |",
        "|---|---|",
    ]
    ranked = sorted(samples.items(), key=lambda item: -item[1])
    lines += [f"| `{step}` | {100 * n / total:.1f} % |" for step, n in ranked[:STEPS_SHOWN]]
    rest = sum(n for _, n in ranked[STEPS_SHOWN:])
    lines.append(f"| everything else | {100 * rest / total:.1f} % |")
    return "\n".join(lines)
