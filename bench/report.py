"""The report: what was measured, on which machine, against which bounds."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from bench.context import Bench, Row

LIBRARIES = ("faiss-cpu", "hnswlib", "pyarrow", "grpcio", "pygrpc-native", "pymilvus")


def machine() -> str:
    """Processor, cores, memory, kernel, Python and libraries in one paragraph."""
    cpu = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M) or [platform.processor()]
    memory = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) / (1 << 20)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{cpu[0]}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; {libraries}."
    )


def line(row: Row) -> str:
    bounds = [f"{bound:,g}" if bound is not None else "" for bound in (row.at_least, row.aim)]
    verdict = {None: "", True: "aim met", False: "below"}[row.meets(row.at_least)]
    if verdict == "aim met" and not row.meets(row.aim):
        verdict = "met"
    return (
        f"| {row.measure} | **{number(row.value)}** {row.unit} | {bounds[0]} | {bounds[1]} | {verdict} | {row.note} |"
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}" if abs(value) < 1 else f"{value:,.2f}"


def render(bench: Bench) -> str:
    data = bench.data
    parts = [
        "# Performance",
        "",
        "Written by `make bench`. Medians; clients in processes of their own on the same machine; ratios are of"
        " one run. Server and clients share the cores, as a developer's machine does.",
        "",
        f"Machine: {machine()}",
        "",
        f"Data: {data.name}, {data.rows:,} vectors of {data.dim} dimensions, {len(data.queries)} queries, cosine.",
        "",
        "| measure | value | at least | aim | | |",
        "|---|---|---|---|---|---|",
        *map(line, bench.rows),
    ]
    for heading, text in bench.sections.items():
        parts += ["", f"## {heading}", "", text]
    return "\n".join(parts) + "\n"


def write(bench: Bench, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(bench))
    for name, data in bench.images.items():
        image = path.parent / "img" / name
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(data)
    print(f"written to {path}")
