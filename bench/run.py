"""``python -m bench.run [--data FOLDER] [--out docs/performance.md] [--only search,insert]``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from bench import report
from bench.context import Bench
from bench.data import load
from bench.measures import (
    batch,
    build,
    curve,
    distribution,
    filtered,
    footprint,
    insert,
    profile,
    restart,
    search,
    strong,
)

MEASURES: dict[str, Callable[[Bench], None]] = {
    "search": search.measure,
    "batch": batch.measure,
    "filtered": filtered.measure,
    "insert": insert.measure,
    "build": build.measure,
    "footprint": footprint.measure,
    "restart": restart.measure,
    "strong": strong.measure,
    "curve": curve.measure,
    "profile": profile.measure,
    "distribution": distribution.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Measures a server of default settings.")
    parser.add_argument("--data", type=Path, help="folder with the rows and queries; default: the committed sample")
    parser.add_argument("--out", type=Path, help="report to write; default: none")
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, comma separated")
    parser.add_argument("--rows", type=int, help="use only the first rows")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    options = parser.parse_args()
    bench = Bench(load(options.data, options.rows), options.seconds)
    print(f"{bench.data.name}: {bench.data.rows:,} x {bench.data.dim}, {len(bench.data.queries)} queries")
    for name in options.only.split(","):
        MEASURES[name](bench)
    if options.out:
        report.write(bench, options.out)


if __name__ == "__main__":
    main()
