"""Local copies of objects: bounded, shared, found again, never wrong."""

import asyncio
import mmap
import os
import random
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from core.errors import ObjectNotFound, StartRefused, Unavailable
from core.settings import CacheSettings
from storage.objects.cache import ORPHAN_AGE_S, DiskCache
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SIZE = 100_000
GRACE_S = 0.0


def content(key: str, size: int = SIZE) -> bytes:
    return random.Random(key).randbytes(size)


class Origin:
    """Where objects come from; ``asked`` counts downloads. ``gate`` holds them up in the middle."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    def of(self, key: str, size: int = SIZE) -> "Object":
        return Object(self, key, size)


class Object:
    def __init__(self, origin: Origin, key: str, size: int) -> None:
        self.origin, self.key, self.bytes = origin, key, size

    async def size(self) -> int:
        self.origin.asked.append(self.key)
        if self.origin.error:
            raise self.origin.error
        return self.bytes

    async def write(self, path: Path) -> None:
        data = content(self.key, self.bytes)
        await asyncio.to_thread(path.write_bytes, data[: self.bytes // 2])
        try:
            await self.origin.gate.wait()
        except asyncio.CancelledError:
            self.origin.cancelled += 1
            raise
        await asyncio.to_thread(path.write_bytes, data)


@pytest.fixture
def origin() -> Origin:
    return Origin()


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def total(folder: Path) -> int:
    return sum(p.stat().st_size for p in files(folder))


async def test_the_bound_is_kept_and_the_least_recently_used_go(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE, GRACE_S)
    for i in range(30):
        await cache.fetch(f"o{i}", origin.of(f"o{i}"))
        await cache.fetch("favourite", origin.of("favourite"))
        assert total(tmp_path) <= 10 * SIZE
    assert origin.asked.count("favourite") == 1
    assert len(files(tmp_path)) >= 9, "room is not given away"
    await cache.close()


async def test_the_bound_holds_for_downloads_at_once(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE, GRACE_S)
    for batch in range(4):
        await asyncio.gather(*(cache.fetch(k, origin.of(k)) for k in (f"{batch}-{i}" for i in range(10))))
        assert total(tmp_path) <= 10 * SIZE
    await cache.close()


async def test_a_copy_in_use_stays_readable_when_it_goes(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 2 * SIZE, GRACE_S)
    path = await cache.fetch("first", origin.of("first"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for i in range(5):
            await cache.fetch(f"o{i}", origin.of(f"o{i}"))
        assert not path.exists()
        assert mapped[:] == content("first")
    await cache.close()


async def test_what_was_just_handed_out_stays(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 2 * SIZE)
    paths = [await cache.fetch(f"o{i}", origin.of(f"o{i}")) for i in range(5)]
    assert [p.read_bytes() for p in paths] == [content(f"o{i}") for i in range(5)]
    for path in paths:
        os.utime(path, (1, 1))
    await cache.fetch("next", origin.of("next"))
    assert total(tmp_path) <= 2 * SIZE
    await cache.close()


async def test_an_object_larger_than_the_bound_is_served(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, SIZE, GRACE_S)
    await cache.fetch("small", origin.of("small"))
    path = await cache.fetch("large", origin.of("large", 5 * SIZE))
    assert path.read_bytes() == content("large", 5 * SIZE)
    assert len(files(tmp_path)) == 1
    await cache.fetch("small", origin.of("small"))
    assert total(tmp_path) <= SIZE
    await cache.close()


async def test_a_restart_keeps_what_is_there(tmp_path: Path, origin: Origin):
    for _ in range(3):
        cache = await DiskCache.open(CacheSettings(dir=str(tmp_path / "c"), bytes_max=10 * SIZE))
        for i in range(5):
            path = await cache.fetch(f"o{i}", origin.of(f"o{i}"))
            assert path.read_bytes() == content(f"o{i}")
        await cache.fetch("empty", origin.of("empty", 0))
        await cache.close()
    assert len(origin.asked) == 6


async def test_a_restart_keeps_the_bound_and_the_order(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE, GRACE_S)
    for i in range(8):
        await cache.fetch(f"o{i}", origin.of(f"o{i}"))
    await cache.fetch("o0", origin.of("o0"))
    await cache.close()
    cache = DiskCache(tmp_path, 5 * SIZE, GRACE_S)
    await cache.fetch("new", origin.of("new"))
    assert total(tmp_path) <= 5 * SIZE
    await cache.fetch("o0", origin.of("o0"))
    assert origin.asked.count("o0") == 1
    await cache.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "emptied", "longer"])
async def test_a_damaged_copy_is_replaced(tmp_path: Path, origin: Origin, damage: str):
    cache = DiskCache(tmp_path, 10 * SIZE)
    path = await cache.fetch("o", origin.of("o"))
    data = bytearray(path.read_bytes())
    data[SIZE // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes({"flip": bytes(data), "cut": data[:-1], "emptied": b"", "longer": data + b"x"}[damage])
    again = await cache.fetch("o", origin.of("o"))
    assert again.read_bytes() == content("o")
    assert origin.asked == ["o", "o"]
    assert len(files(tmp_path)) == 1
    await cache.close()


async def test_one_download_however_many_wait(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE)
    origin.gate.clear()
    waiting = [asyncio.create_task(cache.fetch("o", origin.of("o"))) for _ in range(50)]
    await until(lambda: bool(origin.asked))
    for task in waiting[:25]:
        task.cancel()
    await asyncio.sleep(0)
    origin.gate.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(e, asyncio.CancelledError) for e in done[:25])
    assert len(set(done[25:])) == 1
    assert origin.asked == ["o"]
    await cache.close()


async def test_a_download_nobody_waits_for_ends_and_leaves_nothing(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE)
    origin.gate.clear()
    waiting = [asyncio.create_task(cache.fetch("o", origin.of("o"))) for _ in range(3)]
    await until(lambda: bool(files(tmp_path)))
    for task in waiting:
        task.cancel()
    # A new caller is not hit by the cancelling of the old ones.
    origin.gate.set()
    assert (await cache.fetch("o", origin.of("o"))).read_bytes() == content("o")
    await until(lambda: len(files(tmp_path)) == 1)
    assert origin.cancelled <= 1
    await cache.close()


async def test_a_failed_download_is_told_to_all_and_tried_anew(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE)
    origin.error = ObjectNotFound("o")
    done = await asyncio.gather(*(cache.fetch("o", origin.of("o")) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(e, ObjectNotFound) for e in done)
    origin.error = None
    assert (await cache.fetch("o", origin.of("o"))).read_bytes() == content("o")
    assert not list((tmp_path / ".tmp").iterdir())
    await cache.close()


async def test_processes_share_the_folder(tmp_path: Path, origin: Origin):
    ours, theirs = (DiskCache(tmp_path, 10 * SIZE, GRACE_S) for _ in range(2))
    path = await ours.fetch("o", origin.of("o"))
    assert await theirs.fetch("o", origin.of("o")) == path
    assert origin.asked == ["o"]
    for i in range(20):
        await (ours, theirs)[i % 2].fetch(f"o{i}", origin.of(f"o{i}"))
    assert total(tmp_path) <= 10 * SIZE
    # Both miss it at once: the copy that came first stays, so that its pages are shared.
    origin.gate.clear()
    both = [asyncio.create_task(c.fetch("both", origin.of("both"))) for c in (ours, theirs)]
    await until(lambda: origin.asked.count("both") == 2)
    origin.gate.set()
    first, second = await asyncio.gather(*both)
    assert first == second
    await ours.close()
    await theirs.close()


async def test_own_files_are_admitted(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path / "cache", 10 * SIZE)
    source = tmp_path / "source"
    source.write_bytes(content("o"))
    await cache.admit("o", source)
    source.unlink()
    assert (await cache.fetch("o", origin.of("o"))).read_bytes() == content("o")
    assert not origin.asked
    await cache.forget("o")
    await cache.fetch("o", origin.of("o"))
    assert origin.asked == ["o"]
    await cache.close()


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from storage.objects.cache import DiskCache

    class Half:
        async def size(self):
            return 100_000

        async def write(self, path):
            path.write_bytes(bytes(int(sys.argv[2])))
            os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        await DiskCache(Path(sys.argv[1]), 10**6).fetch("o", Half())

    asyncio.run(main())
"""


@pytest.mark.parametrize("written", [0, 50_000, 100_000])
async def test_a_download_cut_by_sigkill_is_never_served(tmp_path: Path, origin: Origin, written: int):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(written), cwd=ROOT
    )
    assert await child.wait() == -signal.SIGKILL
    [left] = files(tmp_path)
    cache = DiskCache(tmp_path, 10 * SIZE)
    assert (await cache.fetch("o", origin.of("o"))).read_bytes() == content("o")
    await cache.close()
    # What nobody is writing any more goes, once it is certainly not about to be written.
    old = left.stat().st_mtime - 2 * ORPHAN_AGE_S
    os.utime(left, (old, old))
    cache = DiskCache(tmp_path, 10 * SIZE)
    assert not left.exists()
    await cache.close()


async def test_a_running_download_is_not_taken_for_a_left_one(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, 10 * SIZE)
    origin.gate.clear()
    fetching = asyncio.create_task(cache.fetch("o", origin.of("o")))
    await until(lambda: bool(files(tmp_path)))
    os.utime(files(tmp_path)[0], (1, 1))
    await DiskCache(tmp_path, 10 * SIZE).close()
    origin.gate.set()
    assert (await fetching).read_bytes() == content("o")
    await cache.close()


async def test_a_closed_cache_says_so(tmp_path: Path, origin: Origin):
    cache = DiskCache(tmp_path, SIZE)
    await cache.close()
    await cache.close()
    with pytest.raises(Unavailable, match="closed"):
        await cache.fetch("o", origin.of("o"))


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StartRefused, match=f"cache.dir = {tmp_path}/file"):
        await DiskCache.open(CacheSettings(dir=str(tmp_path / "file")))
