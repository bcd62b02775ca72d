"""Runs the ``sheafdb`` command with a sampler: ``python -m bench.sampled OUT.json standalone ...``.

Every millisecond of CPU time the innermost function of this repository on the main thread's stack
gets a point; the points are written at exit. Sampling starts once ``OUT.on`` exists, so that loading
is not in it.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = str(Path(__file__).parent.parent) + "/"
EVENT_LOOP = "event loop, transport and native threads"


def main() -> None:
    out = Path(sys.argv[1])
    switch, on = out.with_suffix(".on"), False
    points: Counter[str] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        nonlocal on
        on = on or switch.exists()
        if on:
            points[step(frame)] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    sys.argv = ["sheafdb", *sys.argv[2:]]
    from sheafdb.cli import main as sheafdb  # noqa: PLC0415  (its import is sampled as well)

    try:
        sheafdb()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(points))


def step(frame: FrameType | None) -> str:
    """``file:function`` of the innermost frame of ours; the event loop when there is none but its runner."""
    while frame:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and "/.venv/" not in name and "/bench/" not in name:
            short = name.removeprefix(ROOT)
            return EVENT_LOOP if short.startswith("sheafdb/") else f"{short}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return EVENT_LOOP


if __name__ == "__main__":
    main()
