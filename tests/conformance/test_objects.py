"""Every promise of ``storage.objects.port``, on every backend."""

import asyncio
import random
from pathlib import Path

import pytest

from core.errors import InvalidArgument, ObjectNotFound, Unavailable
from storage.objects.port import ObjectInfo, ObjectStore

from .conftest import ObjectBackend


async def names(objects: ObjectStore, prefix: str = "") -> list[str]:
    return [info.name async for info in objects.list(prefix)]


async def test_put_and_get(objects: ObjectStore):
    data = random.Random(1).randbytes(300_000)
    await objects.put("a/b/c.parquet", data)
    await objects.put("empty", b"")
    await objects.put("view", memoryview(data)[5:100])
    assert await objects.get("a/b/c.parquet") == data
    assert await objects.get("empty") == b""
    assert await objects.get("view") == data[5:100]


async def test_get_with_a_range(objects: ObjectStore):
    await objects.put("digits", b"0123456789")
    assert await objects.get("digits", 3) == b"3456789"
    assert await objects.get("digits", 3, 4) == b"3456"
    assert await objects.get("digits", 0, 1) == b"0"
    assert await objects.get("digits", 8, 2) == b"89"


async def test_put_of_a_file_leaves_the_file(objects: ObjectStore, tmp_path: Path):
    data = random.Random(2).randbytes(3_000_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    await objects.put("from/file", source)
    assert source.read_bytes() == data
    assert await objects.get("from/file") == data
    source.unlink()
    assert await objects.get("from/file") == data


async def test_fetch_gives_a_file_that_outlives_a_delete(objects: ObjectStore):
    await objects.put("x/y", b"content")
    path = await objects.fetch("x/y")
    with path.open("rb") as file:
        await objects.delete("x/y")
        assert file.read() == b"content"
    with pytest.raises(ObjectNotFound):
        await objects.get("x/y")


async def test_absent_objects(objects: ObjectStore):
    await objects.put("a/b", b"")
    for name in ("none", "a", "a/b/c", "a/c"):
        with pytest.raises(ObjectNotFound):
            await objects.get(name)
        with pytest.raises(ObjectNotFound):
            await objects.fetch(name)
        await objects.delete(name)
    assert await names(objects) == ["a/b"]


async def test_list_is_in_name_order_and_by_any_prefix(objects: ObjectStore):
    all_names = ["a/x", "a-b", "a/b/1", "a/b/10", "a/b/2", "ab", "a.b", "b/shard=1/s", "b/shard=10/s", "é/ü"]
    random.Random(3).shuffle(all_names)
    for name in all_names:
        await objects.put(name, name.encode())
    assert await names(objects) == sorted(all_names)
    for prefix in ("a", "a/", "a/b", "a/b/1", "b/shard=1", "b/shard=1/", "c", "a-", "é"):
        assert await names(objects, prefix) == sorted(n for n in all_names if n.startswith(prefix)), prefix
    [info] = [i async for i in objects.list("a/x")]
    assert info == ObjectInfo("a/x", 3, info.modified_ms)
    assert info.modified_ms > 1_600_000_000_000


async def test_list_of_many_while_they_go(objects: ObjectStore):
    every = [f"many/{i % 7}/{i:05}" for i in range(1500)]
    await asyncio.gather(*(objects.put(n, b"") for n in every))
    seen = []
    async for info in objects.list("many/"):
        seen.append(info.name)
        await objects.delete(info.name)
    assert seen == sorted(every)
    assert await names(objects) == []


async def test_delete_is_idempotent(objects: ObjectStore):
    await objects.put("d/e/f", b"1")
    await objects.put("d/g", b"2")
    await asyncio.gather(*(objects.delete("d/e/f") for _ in range(5)))
    assert await names(objects) == ["d/g"]


async def test_bad_names_are_refused(objects: ObjectStore):
    for name in ("", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", "./a", "a/.", "a\0b", ".hidden", "a/.tmp/b"):
        with pytest.raises(InvalidArgument):
            await objects.put(name, b"")
        with pytest.raises(InvalidArgument):
            await objects.get(name)
        with pytest.raises(InvalidArgument):
            await objects.delete(name)


async def test_concurrent_puts_and_deletes_in_the_same_folders(objects: ObjectStore):
    async def cycle(worker: int) -> None:
        for i in range(20):
            name = f"shared/deep/{i % 3}/{worker}-{i}"
            await objects.put(name, name.encode())
            assert await objects.get(name) == name.encode()
            if i % 5:
                await objects.delete(name)

    await asyncio.gather(*(cycle(w) for w in range(8)))
    assert len(await names(objects)) == 8 * 4


async def test_reopening_keeps_objects(object_backend: ObjectBackend):
    objects = await object_backend.open()
    await objects.put("kept/1", b"1")
    await objects.close()
    await objects.close()
    with pytest.raises(Unavailable):
        await objects.get("kept/1")
    objects = await object_backend.open()
    assert await objects.get("kept/1") == b"1"
    await objects.close()
