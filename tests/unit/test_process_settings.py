"""What ``sheafdb.process`` sets for the whole process, each in a process of its own."""

import subprocess
import sys


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_converting_to_arrow_does_not_load_pandas() -> None:
    program = """
import sys
from sheafdb import process
process.prepare()
import numpy as np, pyarrow as pa
pa.array(np.arange(3)), pa.table({"a": [1]}), pa.array([1, None])
print("pandas" in sys.modules)
"""
    assert run(program) == ["False"]


def test_memory_that_is_free_between_used_blocks_goes_back() -> None:
    program = """
from pathlib import Path
from sheafdb import process
process.prepare()
import numpy as np

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

blocks = [np.ones(12_500) for _ in range(1000)]  # 100 kB each
kept = blocks[::10]
del blocks
before = resident_mb()
process.give_back()
print(before - resident_mb())
"""
    if sys.platform == "linux":  # elsewhere the allocator has no such call
        [megabytes] = run(program)
        assert int(megabytes) > 50
