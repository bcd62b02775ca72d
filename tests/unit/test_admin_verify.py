"""``sheafdb admin verify`` on a folder with planted damage."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.ids import Channel, Position
from sheafdb.admin import survey
from sheafdb.admin.survey import Report
from storage import keys
from storage.embedded import open_store
from storage.meta.port import Delete
from tests.unit.admin_samples import BYTES, COLLECTION, FOLDER, INDEX, LOG, SEGMENT, TOMBSTONES, make

ORPHAN = f"{FOLDER}segment-99.parquet"


async def verify(folder: Path, *, deep: bool = False, grace_s: float = 3600) -> Report:
    store = await open_store(folder, LOG)
    try:
        return await survey.verify(store, grace_s, deep)
    finally:
        await store.close()


def brief(report: Report) -> list[tuple[str, str, str]]:
    return [(f.harm, f.what, f.subject) for f in report.findings]


def admin(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sheafdb.cli", "admin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_a_whole_folder(tmp_path: Path) -> None:
    await make(tmp_path)
    size = sum(map(len, BYTES.values()))
    assert await verify(tmp_path, deep=True) == Report((), 2, 3, size, 2, 2, True)


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    os.truncate(path, 3)


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize("name", [SEGMENT, INDEX, TOMBSTONES])
@pytest.mark.parametrize(
    ("damage", "what"), [(_remove, "object missing"), (_cut, "object of wrong size"), (_flip, "object altered")]
)
async def test_a_damaged_object_is_found(tmp_path: Path, name: str, damage: Callable[[Path], None], what: str) -> None:
    await make(tmp_path)
    damage(tmp_path / "objects" / name)
    harm = "speed" if name == INDEX else "data"
    assert brief(await verify(tmp_path, deep=True)) == [(harm, what, name)]
    assert bool((await verify(tmp_path)).findings) == (damage is not _flip), "only --deep reads the bytes"


async def test_an_orphan_is_one_only_once_it_is_old(tmp_path: Path) -> None:
    await make(tmp_path)
    for name in (ORPHAN, "somebody/elses.txt"):
        path = tmp_path / "objects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left by a crash")
        os.utime(path, (1, 1))
    assert brief(await verify(tmp_path)) == [("space", "orphan", ORPHAN)]
    os.utime(tmp_path / "objects" / ORPHAN)
    assert not (await verify(tmp_path)).findings


async def test_a_manifest_without_its_collection(tmp_path: Path) -> None:
    await make(tmp_path)
    store = await open_store(tmp_path, LOG)
    await store.meta.commit([], [Delete(keys.collection(COLLECTION.id))])
    await store.close()
    found = brief(await verify(tmp_path))
    assert found == [("space", "manifest of an unknown collection", f"shard 1/{n}") for n in (0, 1)]


async def test_a_log_trimmed_too_far(tmp_path: Path) -> None:
    await make(tmp_path)
    store = await open_store(tmp_path, LOG)
    await store.log.trim(Channel(0), Position(4))
    await store.close()
    (found,) = (await verify(tmp_path)).findings
    assert (found.what, found.subject) == ("checkpoint before the log", "channel 0")
    assert found.cost == "1 positions were lost before they were sealed"


async def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    await make(tmp_path)
    store = await open_store(tmp_path, LOG)
    await store.log.append([(Channel(1), b"no record")])
    await store.close()
    with sqlite3.connect(tmp_path / "log.db") as db:
        # The last of channel 0; the rows of a channel are numbered from its own multiple of 2^48.
        db.execute("UPDATE record SET payload = x'00' WHERE id = 4")
    db.close()
    found = (await verify(tmp_path)).findings
    assert [(f.what, f.subject) for f in found] == [("log unreadable", "channel 0"), ("log unreadable", "channel 1")]
    assert found[0].detail.startswith("from position 3 on: corrupted: ")


async def test_what_only_seems_wrong_for_a_moment_is_no_finding(tmp_path: Path) -> None:
    await make(tmp_path)
    store = await open_store(tmp_path, LOG)
    listing = store.objects.list

    async def late(prefix: str):
        """The first listing is of before the segment was stored."""
        store.objects.list = listing
        async for info in listing(prefix):
            if info.name != SEGMENT:
                yield info

    store.objects.list = late
    assert not (await survey.verify(store, 3600, deep=False)).findings
    await store.close()


async def test_the_command_prints_what_is_wrong_and_fails(tmp_path: Path) -> None:
    await make(tmp_path)
    whole = admin("verify", "--data", str(tmp_path))
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.endswith("\nnothing is wrong\n")
    (tmp_path / "objects" / SEGMENT).unlink()
    text = admin("verify", "--data", str(tmp_path))
    assert (text.returncode, text.stderr) == (1, "")
    assert (
        f"\ndata: object missing: {SEGMENT}\n  9 bytes expected; segment of shard 1/0 (default.docs)\n" in text.stdout
    )
    assert "\n  costs: reads of shard 1/0" in text.stdout
    document = json.loads(admin("verify", "--data", str(tmp_path), "--output", "json").stdout)
    assert [(f["harm"], f["subject"]) for f in document["findings"]] == [("data", SEGMENT)]


async def test_tables_of_a_folder(tmp_path: Path) -> None:
    await make(tmp_path)
    data = ("--data", str(tmp_path))
    assert admin("nodes", *data).stdout == "(none)\n"
    assert json.loads(admin("status", *data, "--output", "json").stdout)["rows"] == 20
    (channel, _) = json.loads(admin("channels", *data, "--output", "json").stdout)
    assert (channel["start"], channel["checkpoint"], channel["end"], channel["unsealed"]) == (3, 3, 5, 2)
    lines = admin("shards", *data, "--collection", "docs").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["shard", "collection"],
        ["1/0", "default.docs"],
        ["1/1", "default.docs"],
    ]


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    nothing = admin("status", "--data", str(tmp_path))
    assert (nothing.returncode, os.listdir(tmp_path)) == (3, []), "a look makes no store"
    await make(tmp_path)
    store = await open_store(tmp_path, LOG)
    held = admin("verify", "--data", str(tmp_path))
    await store.close()
    assert (held.returncode, held.stdout) == (3, "")
    assert f"in use by process {os.getpid()}" in held.stderr
    assert admin("drain", "x", "--data", str(tmp_path)).returncode == 2
    assert admin("segments", "--data", str(tmp_path), "--collection", "none").returncode == 2
