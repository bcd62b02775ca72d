"""SIGKILL to a process that appends: everything it was told is durable is there afterwards."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from core.ids import Channel, Position
from core.settings import LogSettings
from storage.embedded import open_store
from storage.log.sqlite import SqliteLog

CHANNELS = 3
ROOT = Path(__file__).parents[2]

APPENDER = """
    import asyncio, os, random, sys
    from pathlib import Path
    from storage.log.sqlite import SqliteLog

    async def main():
        log = await SqliteLog.open(Path(sys.argv[1]), {channels}, 1 << 20)
        async def write(caller):
            rng = random.Random()
            while True:
                entries = [(rng.randrange({channels}), rng.randbytes(rng.choice([8, 300, 70_000]))) for _ in range(3)]
                positions = await log.append(entries)
                told = "".join(f"{{c}} {{p}} {{data[:8].hex()}}\\n" for (c, data), p in zip(entries, positions))
                os.write(1, told.encode())
                if caller == 0 and rng.random() < 0.05:
                    await log.trim(entries[0][0], max(0, positions[0] - 20))
        await asyncio.gather(*map(write, range(8)))

    asyncio.run(main())
"""


@contextmanager
def process(script: str, *args: str, failpoints: str = "") -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SHEAFDB_FAILPOINTS": failpoints}
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *args], env=env, stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def told(child: subprocess.Popen[bytes]) -> list[tuple[int, int, str]]:
    assert child.stdout
    # The last line may be cut; a cut line was not read by anybody.
    lines = child.stdout.read().decode().split("\n")[:-1]
    return [(int(c), int(p), digest) for c, p, digest in (line.split(" ") for line in lines)]


async def check(path: Path, acknowledged: dict[tuple[int, int], str]) -> None:
    """Everything acknowledged and not trimmed is there, in a channel without a gap."""
    log = await SqliteLog.open(path, CHANNELS, 1 << 20)
    for channel in map(Channel, range(CHANNELS)):
        start, [end] = await log.start(channel), await log.end([channel])
        found: dict[int, str] = {}
        if start < end:
            async with asyncio.timeout(30), aclosing(log.read(channel, start)) as batches:
                async for batch in batches:
                    found.update({r.position: r.payload[:8].hex() for r in batch})
                    if batch[-1].position == end - 1:
                        break
        assert sorted(found) == list(range(start, end))
        for (c, position), digest in acknowledged.items():
            if c == channel and position >= start:
                assert found[position] == digest
    await log.close()


@pytest.mark.parametrize("failpoints", ["", "log.before_commit=kill@40", "log.committed=kill@40"])
async def test_acknowledged_records_survive_sigkill(tmp_path: Path, failpoints: str):
    path = tmp_path / "log.db"
    acknowledged: dict[tuple[int, int], str] = {}
    rng = random.Random()
    for _ in range(3):
        with process(APPENDER.format(channels=CHANNELS), str(path), failpoints=failpoints) as child:
            if not failpoints:
                await asyncio.sleep(0.5 + rng.random())
                child.send_signal(signal.SIGKILL)
            lines = await asyncio.to_thread(told, child)
        for channel, position, digest in lines:
            # A position told once is never given to another record.
            assert acknowledged.setdefault((channel, position), digest) == digest
        await check(path, acknowledged)
    assert acknowledged


CREATOR = """
    import asyncio, os, random, signal, sys
    from pathlib import Path
    from core.settings import LogSettings
    from storage.embedded import open_store

    folder, children = Path(sys.argv[1]), int(sys.argv[2])
    for i in range(children):
        child = os.fork()
        if child == 0:
            # The default action of SIGALRM ends the process on the spot, as SIGKILL would.
            signal.setitimer(signal.ITIMER_REAL, random.choice([0.02, 0.06, 0.25]) * random.uniform(0.01, 1))
            asyncio.run(open_store(folder / str(i), LogSettings()))
            signal.pause()
        os.waitpid(child, 0)
"""


async def test_a_creation_killed_at_any_moment_is_completed_by_the_next_start(tmp_path: Path):
    children = 30
    with process(CREATOR, str(tmp_path), str(children)) as child:
        assert await asyncio.to_thread(child.wait) == 0
    for i in range(children):
        for _ in range(2):
            store = await open_store(tmp_path / str(i), LogSettings())
            position = (await store.log.end([Channel(0)]))[0]
            assert await store.log.append([(Channel(0), b"works")]) == [Position(position)]
            await store.close()
