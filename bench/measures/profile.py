"""Where a single search's time goes: py-spy's samples of the thread that answers it, by function."""

import subprocess
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

from bench.clients import BareSearch, drive
from bench.context import Bench, search_requests, smallest_ef

RATE = 1000
"""Samples a second."""
THREAD = "listener"
WAITING = "NativeListener._next ("
"""Where the thread is when there is nothing to do, and while it takes a call."""
STEPS_SHOWN = 25
HEADING = "Where a single search's time goes"


def measure(bench: Bench) -> None:
    with bench.loaded() as server, tempfile.TemporaryDirectory() as folder:
        ef, _ = smallest_ef(server, bench.data)
        work = BareSearch(search_requests(bench.data.queries, ef))
        seconds = max(bench.seconds, 5.0)
        load = drive(server.address, work, 1, seconds)
        out = Path(folder) / "samples"
        with subprocess.Popen(
            [*spy(server.pid, int(seconds)), "--output", str(out)], stdout=subprocess.DEVNULL
        ) as spying:
            drive(server.address, work, 1, seconds)
        if spying.returncode:
            raise SystemExit("py-spy could not watch the server: it needs root, or kernel.yama.ptrace_scope = 0")
        samples = leaves(out.read_text())
    bench.sections[HEADING] = page(samples, ef, 1e6 / load.qps)
    print(bench.sections[HEADING])


def spy(pid: int, seconds: int) -> list[str]:
    """py-spy reads the stacks from outside: the server does not run any slower."""
    program = Path(sysconfig.get_path("scripts")) / "py-spy"
    options = ["--format", "raw", "--nonblocking", "--threads", "--function", "--rate", str(RATE)]
    return [str(program), "record", "--pid", str(pid), "--duration", str(seconds), *options]


def leaves(stacks: str) -> Counter[str]:
    """Samples by innermost function, of the listener's thread, waiting left out."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[0].endswith(f": {THREAD}") and not frames[-1].startswith(WAITING):
            found[frames[-1]] += int(count)
    return found


def page(samples: Counter[str], ef: int, search_us: float) -> str:
    total = max(samples.total(), 1)
    lines = [
        f"One client, ef={ef}, {search_us:,.0f} µs from call to answer. The thread that answers, sampled"
        f" {RATE:,} times a second while it is not waiting for a call, by innermost function. In `_answer_or_begin`"
        " itself it hands the reply over, and is mostly displaced by the I/O thread that sends it:",
        "",
        "| step | share |",
        "|---|---|",
    ]
    ranked = samples.most_common()
    lines += [f"| `{step}` | {100 * n / total:.1f} % |" for step, n in ranked[:STEPS_SHOWN]]
    rest = sum(n for _, n in ranked[STEPS_SHOWN:])
    lines.append(f"| everything else | {100 * rest / total:.1f} % |")
    return "\n".join(lines)
