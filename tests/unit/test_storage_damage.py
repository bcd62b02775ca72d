"""Flipped bytes in the embedded store's files: the written data, or an error that names the file."""

import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from core.errors import Corrupted
from core.ids import Channel, Position
from storage import sqlite_mark
from storage.log.sqlite import SqliteLog
from storage.meta.port import Delete, Put
from storage.meta.sqlite import SqliteMeta

CHANNELS = 2
TRIALS = 60
Content = dict[str, object]


async def fill_log(path: Path, closed: bool, commits: int = 60) -> Path:
    """Writes a log; the folder with its files, as left by a close or by a kill."""
    rng = random.Random(5)
    log = await SqliteLog.open(path / "log.db", CHANNELS, 1 << 20)
    for i in range(commits):
        size = rng.choice([0, 10, 500, 5_000, 90_000])
        await log.append([(Channel(rng.randrange(CHANNELS)), rng.randbytes(size)) for _ in range(rng.randrange(1, 4))])
        if i == 20:
            await log.trim(Channel(0), Position(9))
    return await snapshot(path, log.close, closed)


async def fill_meta(path: Path, closed: bool) -> Path:
    rng = random.Random(6)
    meta = await SqliteMeta.open(path / "meta.db")
    for _ in range(60):
        await meta.commit([], [Put(f"k/{rng.randrange(30)}", rng.randbytes(rng.choice([0, 20, 3000, 60_000])))])
        await meta.commit([], [Delete(f"k/{rng.randrange(30)}")])
    return await snapshot(path, meta.close, closed)


async def snapshot(path: Path, close: Callable[[], Awaitable[None]], closed: bool) -> Path:
    if closed:
        await close()
        return path
    copy = path.with_name(path.name + "-killed")
    shutil.copytree(path, copy)
    await close()
    return copy


async def read_log(path: Path) -> Content:
    log = await SqliteLog.open(path / "log.db", CHANNELS, 1 << 20)
    try:
        content: Content = {}
        for channel in map(Channel, range(log.channels)):
            start, [end] = await log.start(channel), await log.end([channel])
            records: list[bytes] = []
            async with aclosing(log.read(channel, start)) as batches:
                while start + len(records) < end:
                    records += [r.payload for r in await anext(batches)]
            content[str(channel)] = (start, end, records)
        return content
    finally:
        await log.close()


async def read_meta(path: Path) -> Content:
    meta = await SqliteMeta.open(path / "meta.db")
    try:
        items, revision = await meta.list("")
        for item in items:
            assert await meta.get(item.key) == item
        return {"revision": revision, **{i.key: i for i in items}}
    finally:
        await meta.close()


async def attempt(read: Callable[[Path], Awaitable[Content]], folder: Path) -> tuple[Content | None, Corrupted | None]:
    """What was read, or why it was refused."""
    try:
        return await read(folder), None
    except Corrupted as e:
        return None, e


CASES = {
    "log.db": (fill_log, read_log, "log.db", True),
    "log.db with a write-ahead log": (fill_log, read_log, "log.db", False),
    "log.db-wal": (fill_log, read_log, "log.db-wal", False),
    "log.db-acked": (fill_log, read_log, "log.db-acked", False),
    "meta.db": (fill_meta, read_meta, "meta.db", True),
    "meta.db with a write-ahead log": (fill_meta, read_meta, "meta.db", False),
    "meta.db-wal": (fill_meta, read_meta, "meta.db-wal", False),
    "meta.db-acked": (fill_meta, read_meta, "meta.db-acked", False),
}


@pytest.mark.parametrize("case", CASES)
async def test_flipped_bytes_are_found_or_harmless(case: str, tmp_path: Path):
    fill, read, name, closed = CASES[case]
    (tmp_path / "written").mkdir()
    original = await fill(tmp_path / "written", closed)
    reference = tmp_path / "reference"
    shutil.copytree(original, reference)
    expected = await read(reference)
    rng = random.Random()
    seed = rng.randrange(2**32)
    rng.seed(seed)
    refused = 0
    for trial in range(TRIALS):
        folder = tmp_path / f"trial-{trial}"
        shutil.copytree(original, folder)
        data = bytearray((folder / name).read_bytes())
        # Headers are where a flip does most harm: every third one goes there.
        reach = min(len(data), 200) if trial % 3 == 0 else len(data)
        offset = rng.randrange(reach)
        for i in range(offset, min(offset + rng.choice([1, 1, 8]), len(data))):
            data[i] ^= rng.randrange(1, 256)
        (folder / name).write_bytes(data)
        found, error = await attempt(read, folder)
        refused += error is not None
        assert str(folder) in str(error) if error else found == expected, f"seed {seed}, trial {trial}, at {offset}"
        shutil.rmtree(folder)
    if name.endswith("-acked"):
        assert refused == 0, "the mark is a hint: damaged, it says nothing"
    elif closed or name.endswith("-wal"):
        assert refused, f"seed {seed}: nothing noticed"


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.7])
async def test_a_truncated_file_is_refused(cut: float, tmp_path: Path):
    path = await fill_log(tmp_path, closed=True)
    data = (path / "log.db").read_bytes()
    (path / "log.db").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(Corrupted, match=r"log\.db"):
        await read_log(path)


async def test_a_lost_write_ahead_log_is_refused(tmp_path: Path):
    (tmp_path / "written").mkdir()
    path = await fill_log(tmp_path / "written", closed=False)
    (path / "log.db-wal").unlink()
    with pytest.raises(Corrupted, match=r"log\.db.*remove .*log\.db-acked"):
        await read_log(path)


async def test_a_damaged_last_commit_stays_refused_and_keeps_the_evidence(tmp_path: Path):
    (tmp_path / "written").mkdir()
    path = await fill_log(tmp_path / "written", closed=False, commits=10)
    wal = path / "log.db-wal"
    data = bytearray(wal.read_bytes())
    data[-5] ^= 1
    wal.write_bytes(data)
    with pytest.raises(Corrupted, match=r"log\.db-wal.*is kept as"):
        await read_log(path)
    assert (path / "log.db-wal.found").read_bytes() == data
    with pytest.raises(Corrupted, match=r"log\.db"):
        await read_log(path)
    (path / "log.db-acked").unlink()
    assert await read_log(path), "the operator's way out"


async def test_damage_found_after_a_power_loss_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The mark may lag then, so commits after the damage are reason enough; nothing is touched."""
    (tmp_path / "written").mkdir()
    path = await fill_log(tmp_path / "written", closed=False, commits=10)
    monkeypatch.setattr(sqlite_mark, "_boot_id", lambda: b"another boot id!")
    (tmp_path / "copy").mkdir()
    shutil.copytree(path, tmp_path / "copy", dirs_exist_ok=True)
    assert await read_log(tmp_path / "copy")
    wal = path / "log.db-wal"
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 1
    wal.write_bytes(data)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    for _ in range(2):
        with pytest.raises(Corrupted, match=r"log\.db-wal"):
            await read_log(path)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET payload = CAST(payload AS TEXT)",
        "UPDATE record SET payload = 7 WHERE id = -1",
        "DELETE FROM record WHERE id = (SELECT max(id) FROM record)",
        "DELETE FROM record WHERE id = -1",
        "UPDATE record SET id = id + 1 WHERE id = (SELECT max(id) FROM record)",
        "DROP TABLE record",
    ],
)
async def test_an_altered_table_is_refused(statement: str, tmp_path: Path):
    path = await fill_log(tmp_path, closed=True)
    alter(path / "log.db", statement)
    with pytest.raises(Corrupted, match=r"log\.db"):
        await read_log(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM item WHERE key = (SELECT min(key) FROM item)",
        "UPDATE item SET value = CAST(value AS TEXT)",
        "UPDATE item SET revision = revision + 1",
        "UPDATE head SET revision = revision - 1",
        "UPDATE head SET sum = 'text'",
        "DELETE FROM head",
        "DROP TABLE head",
    ],
)
async def test_an_altered_metadata_table_is_refused(statement: str, tmp_path: Path):
    path = await fill_meta(tmp_path, closed=True)
    alter(path / "meta.db", statement)
    with pytest.raises(Corrupted, match=r"meta\.db"):
        await read_meta(path)


def alter(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


async def test_an_unfinished_last_commit_is_dropped(tmp_path: Path):
    (tmp_path / "written").mkdir()
    path = await fill_log(tmp_path / "written", closed=False, commits=10)
    shutil.copytree(path, tmp_path / "copy")
    expected = await read_log(tmp_path / "copy")
    # What a kill in the middle of a commit leaves: a whole frame and half of the next one.
    wal = path / "log.db-wal"
    data = wal.read_bytes()
    frame = data[32 : 32 + 24 + 32768]
    wal.write_bytes(data + frame[:16] + bytes(8) + frame[24:] + frame[:1000])
    assert await read_log(path) == expected
    assert not (path / "log.db-wal.found").exists()


async def test_a_position_beyond_the_end_is_a_lost_log(tmp_path: Path):
    log = await SqliteLog.open(tmp_path / "log.db", CHANNELS, 1 << 20)
    with pytest.raises(Corrupted, match="ends at 0, 5 was asked for"):
        async with aclosing(log.read(Channel(0), Position(5))) as batches:
            await anext(batches)
    await log.close()


async def test_a_message_of_sqlite_that_quotes_damage_still_names_the_file(tmp_path: Path):
    """SQLite quotes the word it stumbled over, in bytes that need not be UTF-8."""
    (tmp_path / "written").mkdir()
    path = await fill_meta(tmp_path / "written", closed=True) / "meta.db"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE ", b"CREATE TA\xacLE "))
    with pytest.raises(Corrupted, match=r"meta\.db"):
        await read_meta(path.parent)
