"""The data folder: who may open it, and what a missing or foreign part looks like."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from core.catalog import Cluster
from core.errors import Corrupted, StartRefused
from core.ids import Channel
from core.settings import LogSettings
from storage import keys
from storage.embedded import open_store
from storage.log.sqlite import SqliteLog
from storage.meta.port import Put

SETTINGS = LogSettings(channels=2)


async def create(folder: Path) -> str:
    """A store with some data in it; its cluster id."""
    store = await open_store(folder, SETTINGS)
    await store.log.append([(Channel(0), b"record")])
    await store.meta.commit([], [Put("k", b"v")])
    await store.objects.put("some/object", b"o")
    await store.close()
    return store.cluster.id


async def test_a_store_is_created_once_and_keeps_its_identity(tmp_path: Path):
    folder = tmp_path / "deep" / "data"
    id = await create(folder)
    store = await open_store(folder, SETTINGS)
    assert store.cluster == Cluster(id, 1)
    item = await store.meta.get(keys.CLUSTER)
    assert item
    assert keys.decode(Cluster, item.value) == store.cluster
    assert await store.log.end([Channel(0)]) == [1]
    assert await store.objects.get("some/object") == b"o"
    assert [o.name async for o in store.objects.list("")] == ["some/object"], "the identity is no object"
    await store.close()


async def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path: Path):
    store = await open_store(tmp_path, SETTINGS)
    with pytest.raises(StartRefused, match=f"{tmp_path}.*process {os.getpid()}"):
        await open_store(tmp_path, SETTINGS)
    script = (
        "import asyncio, sys; from pathlib import Path; from core.settings import LogSettings;"
        "from storage.embedded import open_store; asyncio.run(open_store(Path(sys.argv[1]), LogSettings()))"
    )
    root = Path(__file__).parents[2]
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert f"in use by process {os.getpid()}" in other.stderr
    await store.close()
    await (await open_store(tmp_path, SETTINGS)).close()


@pytest.mark.parametrize("part", ["meta.db", "log.db", "objects", "objects/.cluster"])
@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_a_lost_part_is_named(tmp_path: Path, part: str, how: str):
    await create(tmp_path)
    path = tmp_path / part
    if path.is_dir():
        shutil.rmtree(path)
        if how == "empty":
            path.mkdir()
    else:
        path.unlink()
        if how == "empty":
            path.touch()
    name = "objects/.cluster" if part == "objects" else part
    with pytest.raises(StartRefused, match=name):
        await open_store(tmp_path, SETTINGS)


@pytest.mark.parametrize("part", ["meta.db", "log.db", "objects"])
async def test_a_part_of_another_store_is_named(tmp_path: Path, part: str):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    our_id, their_id = await create(ours), await create(theirs)
    if part == "objects":
        shutil.rmtree(ours / part)
        shutil.copytree(theirs / part, ours / part)
    else:
        shutil.copy(theirs / part, ours / part)
    with pytest.raises(StartRefused) as e:
        await open_store(ours, SETTINGS)
    assert our_id in str(e.value)
    assert their_id in str(e.value)
    assert str(ours) in str(e.value)


async def test_a_replaced_log_without_identity_is_refused(tmp_path: Path):
    await create(tmp_path)
    for name in ("log.db", "log.db-acked"):
        (tmp_path / name).unlink()
    await (await SqliteLog.open(tmp_path / "log.db", 2, 1000)).close()
    with pytest.raises(StartRefused, match=r"log\.db has no cluster id"):
        await open_store(tmp_path, SETTINGS)


@pytest.mark.parametrize("where", ["objects", "meta"])
async def test_a_newer_format_is_refused(tmp_path: Path, where: str):
    id = await create(tmp_path)
    if where == "objects":
        newer = {"cluster": id, "format": 2, "creating": False}
        (tmp_path / "objects" / ".cluster").write_bytes(orjson.dumps(newer))
    else:
        store = await open_store(tmp_path, SETTINGS)
        await store.meta.commit([], [Put(keys.CLUSTER, keys.encode(Cluster(id, 2)))])
        await store.close()
    with pytest.raises(StartRefused, match="format 2, this version reads up to 1"):
        await open_store(tmp_path, SETTINGS)


async def test_a_damaged_identity_is_named(tmp_path: Path):
    await create(tmp_path)
    path = tmp_path / "objects" / ".cluster"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StartRefused, match="cluster is damaged"):
        await open_store(tmp_path, SETTINGS)


async def test_a_folder_with_other_things_is_not_taken_for_a_new_store(tmp_path: Path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "file").touch()
    with pytest.raises(StartRefused, match="objects/file"):
        await open_store(tmp_path, SETTINGS)


async def test_the_number_of_channels_is_the_stores(tmp_path: Path):
    await create(tmp_path)
    store = await open_store(tmp_path, LogSettings(channels=7))
    assert store.log.channels == 2
    await store.close()


async def test_a_refused_start_frees_the_folder(tmp_path: Path):
    await create(tmp_path)
    data = (tmp_path / "log.db").read_bytes()
    (tmp_path / "log.db").write_bytes(data[:50_000])
    with pytest.raises(Corrupted, match=r"log\.db"):
        await open_store(tmp_path, SETTINGS)
    (tmp_path / "log.db").write_bytes(data)
    await (await open_store(tmp_path, SETTINGS)).close()
