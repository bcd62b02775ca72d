"""The tour of `make demo`, as a person would run it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def test_the_demo_holds_every_claim_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "✗" not in output
    assert "All of it held." in output
    assert not list(tmp_path.iterdir()), "its folder is gone"
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]


def test_the_sample_is_small() -> None:
    assert sum(f.stat().st_size for f in (ROOT / "examples/data").iterdir()) <= 5_000_000
