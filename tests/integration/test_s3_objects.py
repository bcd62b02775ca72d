"""``S3Objects`` on a real MinIO: large objects, a server that dies or hangs, callers that give up."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import DiskFull, InvalidArgument, ObjectNotFound, Unavailable
from core.settings import S3Settings
from sheafdb.servers import Minio
from storage.objects.cache import DiskCache
from storage.objects.s3 import S3Objects
from storage.objects.s3_bucket import Bucket
from tests.s3_settings import s3_settings
from tests.waiting import until

MB = 1024 * 1024
PART = 5 * MB
CACHE_BYTES = 512 * MB


def content(name: str) -> bytes:
    """What is stored under a name: its own length is part of it."""
    rng = random.Random(name)
    return rng.randbytes(rng.choice([0, 100, 30_000, PART, PART + 1, 2 * PART + 12_345]))


@asynccontextmanager
async def opened(settings: S3Settings, cache: Path) -> AsyncIterator[S3Objects]:
    objects = await S3Objects.open(settings, DiskCache(cache, CACHE_BYTES))
    try:
        yield objects
    finally:
        await objects.close()


@pytest.fixture
async def objects(minio_server: Minio, tmp_path: Path) -> AsyncIterator[S3Objects]:
    async with opened(s3_settings(minio_server, part_bytes=PART), tmp_path / "cache") as objects:
        yield objects


@pytest.fixture
async def own_minio(tmp_path: Path) -> AsyncIterator[Minio]:
    """A server to be hurt."""
    server = await Minio.start(tmp_path / "minio")
    yield server
    server.kill()


@pytest.mark.parametrize("origin", ["memory", "file"])
async def test_64_mb_in_parts(objects: S3Objects, tmp_path: Path, origin: str):
    data = random.Random(1).randbytes(64 * MB + 321)
    source = tmp_path / "source"
    source.write_bytes(data)
    await objects.put("large", memoryview(data) if origin == "memory" else source)
    assert await objects.get("large") == data
    assert await objects.get("large", 33 * MB, 1000) == data[33 * MB : 33 * MB + 1000]
    assert await objects.get("large", len(data) - 5, 100) == data[-5:]
    await objects._cache.forget("/large")
    assert (await objects.fetch("large")).read_bytes() == data
    [info] = [o async for o in objects.list("")]
    assert info.bytes == len(data)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART])
async def test_sizes_around_a_part(objects: S3Objects, size: int):
    data = random.Random(size).randbytes(size)
    await objects.put("o", data)
    assert await objects.get("o") == data
    assert await objects.get("o", size) == b""
    assert await objects.get("o", size + 10, 5) == b""
    assert (await objects.fetch("o")).read_bytes() == data


async def test_a_deleted_object_is_not_served_from_the_cache(objects: S3Objects):
    await objects.put("o", b"1")
    await objects.fetch("o")
    await objects.delete("o")
    with pytest.raises(ObjectNotFound):
        await objects.fetch("o")


async def test_a_second_fetch_asks_nobody(own_minio: Minio, tmp_path: Path):
    async with opened(s3_settings(own_minio), tmp_path / "cache") as objects:
        await objects.put("o", b"1")
        path = await objects.fetch("o")
        own_minio.kill()
        assert await objects.fetch("o") == path
        assert path.read_bytes() == b"1"


async def test_two_prefixes_are_two_stores(minio_server: Minio, tmp_path: Path):
    settings = s3_settings(minio_server)
    one, other = replace(settings, prefix="/one/x/"), replace(settings, prefix="one/xy")
    async with opened(one, tmp_path / "1") as first, opened(other, tmp_path / "2") as second:
        await first.put("a/b", b"1")
        await first.bucket.set_property("hidden", b"h")
        assert [o.name async for o in first.list("")] == ["a/b"]
        assert [o.name async for o in second.list("")] == []
        assert await first.bucket.property("hidden") == b"h"
        assert await second.bucket.property("hidden") is None


async def test_names_too_long_for_s3_are_refused(objects: S3Objects):
    for name in ("/".join(["x" * 250] * 5), "x" * 256):
        with pytest.raises(InvalidArgument):
            await objects.put(name, b"")


async def test_credentials_come_from_the_environment_when_none_are_set(
    minio_server: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = s3_settings(minio_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.secret_key)
    async with opened(replace(settings, access_key="", secret_key=""), tmp_path / "cache") as objects:
        await objects.put("o", b"1")


async def test_connections_are_bounded(objects: S3Objects, minio_server: Minio, tmp_path: Path):
    port = int(minio_server.address.rpartition(":")[2])
    settings = replace(objects.bucket.settings, connections=3)

    def connections() -> int:
        return sum(
            c.status == psutil.CONN_ESTABLISHED and bool(c.raddr) and c.raddr.port == port
            for c in psutil.Process().net_connections("tcp")
        )

    async with opened(settings, tmp_path / "few") as few:
        await few.put("o", random.Random(1).randbytes(100_000))
        before = connections()
        gets = asyncio.gather(*(few.get("o") for _ in range(200)))
        most = 0
        while not gets.done():
            most = max(most, connections())
            await asyncio.sleep(0.002)
        await gets
        # The other store's connections to the same server lie idle.
        assert most <= before + 3


async def uploads(objects: S3Objects, name: str) -> list[Any]:
    span = {"Bucket": objects.bucket.name, "Prefix": name}
    found = await objects.bucket.call("list uploads", name, lambda s3: s3.list_multipart_uploads(**span))
    return found.get("Uploads", [])


async def test_a_cancelled_put_leaves_nothing(objects: S3Objects, tmp_path: Path):
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(400 * MB)
    putting = asyncio.create_task(objects.put("large", source))
    await until(lambda: uploads(objects, "large"))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting

    async def aborted() -> bool:
        return not await uploads(objects, "large")

    await until(aborted)
    with pytest.raises(ObjectNotFound):
        await objects.get("large")


async def test_a_put_whose_file_is_cut_fails_and_leaves_nothing(objects: S3Objects, tmp_path: Path):
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(400 * MB)
    putting = asyncio.create_task(objects.put("large", source))
    await until(lambda: uploads(objects, "large"))
    os.truncate(source, 0)
    with pytest.raises(Unavailable, match="was cut while it was stored"):
        await putting
    with pytest.raises(ObjectNotFound):
        await objects.get("large")


async def test_sigkill_of_the_server_during_puts_and_gets(own_minio: Minio, tmp_path: Path):
    settings = s3_settings(own_minio, part_bytes=PART, deadline_s=1.0)
    acknowledged: list[str] = []
    failed = 0
    running = True

    async def write(objects: S3Objects, worker: int) -> None:
        nonlocal failed
        i = 0
        while running:
            i += 1
            name = f"{worker}/{i}"
            try:
                await objects.put(name, content(name))
                acknowledged.append(name)
            except Unavailable:
                failed += 1

    async def read(objects: S3Objects) -> None:
        rng = random.Random()
        while running:
            await asyncio.sleep(0.005)
            if acknowledged:
                name = rng.choice(acknowledged)
                try:
                    if rng.random() < 0.5:
                        assert await objects.get(name) == content(name), name
                    else:
                        path = await objects.fetch(name)
                        assert await asyncio.to_thread(path.read_bytes) == content(name), name
                except Unavailable:
                    pass

    async with opened(settings, tmp_path / "cache") as objects:
        workers = [asyncio.create_task(w) for w in (*(write(objects, n) for n in range(4)), read(objects))]
        for _ in range(3):
            so_far, lost = len(acknowledged), failed
            await until(lambda n=so_far: _true(len(acknowledged) > n + 8))
            own_minio.kill()
            await until(lambda n=lost: _true(failed > n))
            await own_minio.start_again()
        running = False
        await asyncio.gather(*workers)
    async with opened(settings, tmp_path / "fresh") as objects:
        for name in acknowledged:
            assert await objects.get(name) == content(name), name
        found = [o async for o in objects.list("")]
        assert {o.name for o in found} >= set(acknowledged)
        for info in found:
            assert info.bytes == len(content(info.name)), "visible only whole"
            assert await objects.get(info.name) == content(info.name)


async def _true(value: bool) -> bool:
    return value


async def test_a_short_death_of_the_server_is_waited_out(own_minio: Minio, tmp_path: Path):
    async with opened(s3_settings(own_minio, part_bytes=PART), tmp_path / "cache") as objects:
        await objects.put("kept", content("kept"))
        own_minio.kill()
        calls = asyncio.gather(objects.get("kept"), objects.put("new", bytes(3 * PART)), objects.delete("none"))
        await asyncio.sleep(0.5)
        assert not calls.done()
        await own_minio.start_again()
        data, _, _ = await calls
        assert data == content("kept")
        assert await objects.get("new") == bytes(3 * PART)


async def test_a_hanging_server_is_given_up_in_time(own_minio: Minio, tmp_path: Path):
    settings = s3_settings(own_minio, read_timeout_s=0.5, deadline_s=2.0)
    async with opened(settings, tmp_path / "cache") as objects:
        await objects.put("kept", content("kept"))
        own_minio.pause()
        started = time.monotonic()
        calls = [objects.get("kept"), objects.put("new", b"1"), objects.fetch("kept"), objects.delete("kept2")]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 4
        for error in done:
            assert isinstance(error, Unavailable), done
            assert own_minio.address in str(error)
            assert "gave up after 2 s" in str(error)
        own_minio.resume()
        assert await objects.get("kept") == content("kept")


async def test_a_server_that_wakes_up_in_time_costs_no_error(own_minio: Minio, tmp_path: Path):
    async with opened(s3_settings(own_minio, read_timeout_s=0.5), tmp_path / "cache") as objects:
        own_minio.pause()
        putting = asyncio.create_task(objects.put("o", content("o")))
        await asyncio.sleep(1.5)
        own_minio.resume()
        await putting
        assert await objects.get("o") == content("o")


Reply = tuple[bytes, bytes]
"""Status line and body."""


@asynccontextmanager
async def speaking(answer: Callable[[str, str], Reply]) -> AsyncIterator[str]:
    """A server that says what ``answer(method, target)`` gives; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        status, body = answer(method, target)
        writer.write(b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


EMPTY = b"200 OK", b"<ListBucketResult></ListBucketResult>"
FULL = b"""<?xml version="1.0" encoding="UTF-8"?><Error><Code>XMinioStorageFull</Code>\
<Message>Storage backend has reached its minimum free drive threshold.</Message></Error>"""
UPLOADS = b"""<ListMultipartUploadsResult><Upload><Key>p/old</Key><UploadId>1</UploadId>\
<Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload><Upload><Key>p/young</Key><UploadId>2</UploadId>\
<Initiated>%s</Initiated></Upload></ListMultipartUploadsResult>"""


async def test_a_full_server_is_told_at_once(minio_server: Minio):
    def answer(method: str, target: str) -> Reply:
        return EMPTY if method == "GET" else (b"507 Insufficient Storage", FULL)

    async with speaking(answer) as url:
        bucket = await Bucket.open(s3_settings(minio_server, endpoint=url))
        with pytest.raises(DiskFull, match="minimum free drive threshold"):
            await bucket.write("o", b"1")
        await bucket.close()


async def test_uploads_left_by_a_crash_long_ago_are_aborted(minio_server: Minio, tmp_path: Path):
    aborted: list[str] = []

    def answer(method: str, target: str) -> Reply:
        if method == "DELETE":
            aborted.append(target.partition("?")[0].partition("/p/")[2])
            return b"204 No Content", b""
        return (b"200 OK", UPLOADS % datetime.now(UTC).isoformat().encode()) if "uploads" in target else EMPTY

    async with speaking(answer) as url, opened(s3_settings(minio_server, endpoint=url, prefix="p"), tmp_path / "cache"):
        await until(lambda: _true("old" in aborted))
    assert aborted == ["old"]


async def test_a_closed_store_says_so(minio_server: Minio, tmp_path: Path):
    async with opened(s3_settings(minio_server), tmp_path / "cache") as objects:
        pass
    for call in (objects.put("o", b""), objects.get("o"), objects.fetch("o"), objects.delete("o")):
        with pytest.raises(Unavailable, match="closed"):
            await call
