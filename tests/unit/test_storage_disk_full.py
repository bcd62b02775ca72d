"""A full disk: writes are refused and change nothing, reads go on, room back means service back.

A limit on the size of files stands in for the full disk; it needs a process of its own.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from core.errors import DiskFull
from core.ids import Channel, Position
from core.settings import LogSettings
from storage import reserve
from storage.embedded import open_store
from storage.meta.port import Put

ROOT = Path(__file__).parents[2]
PRELUDE = """
    import asyncio, os, resource, shutil, sys
    from contextlib import aclosing
    from pathlib import Path
    from core.errors import DiskFull
    from storage.log.sqlite import SqliteLog
    from storage.meta.port import Put
    from storage.meta.sqlite import SqliteMeta
    from storage.objects.folder import FolderObjects

    folder = Path(sys.argv[1])
    MB = 1 << 20

    def room(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    async def fill(write):
        for done in range(1000):
            try:
                await write(done)
            except DiskFull as e:
                assert str(folder) in str(e) or "object" in str(e), e
                return done
        raise AssertionError("never full")
"""

LOG = """
    async def records(log):
        out = []
        [end] = await log.end([0])
        async with aclosing(log.read(0, 0)) as batches:
            while len(out) < end:
                out += [r.payload for r in await anext(batches)]
        return out

    async def main():
        log = await SqliteLog.open(folder / "log.db", 1, 8 * MB)
        written, tailed = [], []
        async def tail():
            async for batch in log.read(0, 0):
                tailed.extend(r.payload for r in batch)
        tailing = asyncio.create_task(tail())
        async def write(i, size=300_000):
            data = i.to_bytes(4, "big") * (size // 4)
            await log.append([(0, data), (0, data[:100])])
            written.extend([data, data[:100]])

        for limit in (12 * MB, 20 * MB):
            room(limit)
            full = await fill(write)
            assert full > 10, full
            for _ in range(3):
                # Concurrent callers are refused alike.
                results = await asyncio.gather(*(write(i) for i in range(4)), return_exceptions=True)
                assert all(isinstance(r, DiskFull) for r in results), results
                assert await log.end([0]) == [len(written)]
            assert await records(log) == written
            # A kill now: what the failed commits left in the write-ahead log does no harm.
            room(resource.RLIM_INFINITY)
            killed = folder / f"killed-{limit}"
            killed.mkdir()
            for path in folder.glob("log.db*"):
                shutil.copy(path, killed)
            copy = await SqliteLog.open(killed / "log.db", 1, 8 * MB)
            assert await records(copy) == written
            await copy.close()
            await write(7)
            assert await records(log) == written
        assert tailed == written
        await log.trim(0, 1)
        await log.close()
        log = await SqliteLog.open(folder / "log.db", 1, 8 * MB)
        assert await log.end([0]) == [len(written)]
        await log.close()
        tailing.cancel()
        await asyncio.gather(tailing, return_exceptions=True)
        print("ok")

    asyncio.run(main())
"""

META = """
    async def main():
        meta = await SqliteMeta.open(folder / "meta.db")
        async def write(i):
            await meta.commit([], [Put(f"k/{i}", bytes([i % 256]) * 200_000), Put("last", b"%d" % i)])
        room(6 * MB)
        full = await fill(write)
        assert full > 3, full
        before = await meta.list("")
        for i in range(5):
            try:
                await write(full + i)
                raise AssertionError("not full")
            except DiskFull:
                pass
        assert await meta.list("") == before
        room(resource.RLIM_INFINITY)
        await write(full)
        items, revision = await meta.list("")
        assert (len(items), revision) == (len(before[0]) + 1, before[1] + 1)
        await meta.close()
        meta = await SqliteMeta.open(folder / "meta.db")
        assert await meta.list("") == (items, revision)
        await meta.close()
        print("ok")

    asyncio.run(main())
"""

OBJECTS = """
    async def main():
        source = folder / "source"
        source.write_bytes(bytes(MB))
        objects = FolderObjects(folder / "objects")
        await objects.put("fits", bytes(1000))
        room(MB // 2)
        try:
            await objects.put("a/too/large", bytes(MB))
            raise AssertionError("not full")
        except DiskFull:
            pass
        assert [o.name async for o in objects.list("")] == ["fits"]
        assert list((folder / "objects" / ".tmp").iterdir()) == []
        assert await objects.get("fits") == bytes(1000)
        room(resource.RLIM_INFINITY)
        await objects.put("a/too/large", bytes(MB))
        assert len(await objects.get("a/too/large")) == MB
        await objects.close()
        print("ok")

    asyncio.run(main())
"""


@pytest.mark.parametrize("script", [LOG, META, OBJECTS], ids=["log", "meta", "objects"])
def test_disk_full_and_back(script: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ok"]), done.stdout + done.stderr


async def test_the_last_bytes_of_a_disk_are_kept_for_giving_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = await open_store(tmp_path, LogSettings(channels=1))
    record = (Channel(0), b"x")
    await store.log.append([record, record])
    monkeypatch.setattr(reserve, "RESERVE_BYTES", 2**60)
    monkeypatch.setattr(reserve, "RESERVE_SHARE", 1)
    with pytest.raises(DiskFull, match=r"log\.db.*kept for giving space back"):
        await store.log.append([record])
    with pytest.raises(DiskFull):
        await store.objects.put("new", b"data")
    await store.log.trim(Channel(0), Position(1))
    await store.meta.commit([], [Put("checkpoint", b"1")])
    assert (await store.log.start(Channel(0)), await store.log.end([Channel(0)])) == (1, [2])
    monkeypatch.undo()
    assert await store.log.append([record]) == [2]
    await store.close()
