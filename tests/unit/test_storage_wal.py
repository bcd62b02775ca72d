"""The check of SQLite's write-ahead log agrees with SQLite on what a crash leaves."""

import random
import sqlite3
from pathlib import Path

import pytest

from storage.sqlite_wal import Wal, inspect


@pytest.fixture(params=[512, 4096, 32768, 65536])
def wal(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """A log of 12 commits, some of several frames."""
    db = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    for pragma in (f"page_size={request.param}", "journal_mode=WAL", "wal_autocheckpoint=0"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE t (a)")
    rng = random.Random(request.param)
    for i in range(11):
        db.execute("INSERT INTO t VALUES (?)", (rng.randbytes(5 * request.param if i % 3 else 10),))
    data = (tmp_path / "x.db-wal").read_bytes()
    db.close()
    return data


def judge(folder: Path, data: bytes) -> Wal:
    path = folder / "wal"
    path.write_bytes(data)
    return inspect(path)


def test_whole_and_absent(wal: bytes, tmp_path: Path):
    assert judge(tmp_path, wal) is Wal.CLEAN
    assert judge(tmp_path, b"") is Wal.CLEAN
    assert judge(tmp_path, wal[:32]) is Wal.CLEAN
    assert inspect(tmp_path / "absent") is Wal.CLEAN


def test_cut_anywhere_is_never_damage(wal: bytes, tmp_path: Path):
    rng = random.Random(1)
    for cut in [32, 33, 56, 57] + [rng.randrange(32, len(wal)) for _ in range(30)]:
        assert judge(tmp_path, wal[:cut]) is not Wal.DAMAGED
        # What a crash leaves of a page that was being written: the old content of the file.
        assert judge(tmp_path, wal[:cut] + bytes(100_000)) is not Wal.DAMAGED


def test_a_flip_before_the_last_commits_is_damage(wal: bytes, tmp_path: Path):
    rng = random.Random(2)
    for _ in range(40):
        data = bytearray(wal)
        data[rng.randrange(len(wal) // 2)] ^= 1 << rng.randrange(8)
        assert judge(tmp_path, bytes(data)) is Wal.DAMAGED


def test_a_flip_in_the_last_frame_is_torn(wal: bytes, tmp_path: Path):
    data = bytearray(wal)
    data[-1] ^= 1
    assert judge(tmp_path, bytes(data)) is Wal.TORN
