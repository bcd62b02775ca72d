"""Watches and mirrors of etcd while etcd is killed, paused, cut off and compacted: nothing missed, nothing twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.ids import CollectionId, Revision
from sheafdb.servers import Etcd, Toxiproxy
from storage.meta.etcd import EtcdMeta
from storage.meta.mirror import Mirror
from storage.meta.port import Delete, Put
from tests.integration.etcd_rig import Diary, EtcdWithOptions, Writer, compact, settings_of
from tests.waiting import until

NOTICED_S = 6.0
"""A silent member is left within a pulse and its time-out (3 s), and another found."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Etcd]:
    """One that a test may kill."""
    etcd = await Etcd.start(tmp_path / "etcd")
    yield etcd
    etcd.kill()


async def mirror_of(meta: EtcdMeta, prefix: str) -> tuple[Mirror[str], dict[str, list[str | None]]]:
    """A started mirror, and the values its listener was told of, by key."""
    mirror: Mirror[str] = Mirror(meta, prefix, str)
    told: dict[str, list[str | None]] = {}
    await mirror.start()
    mirror.listen(lambda key, value: told.setdefault(key, []).append(value))
    return mirror, told


async def check(meta: EtcdMeta, writer: Writer, diary: Diary, told: dict, mirror: Mirror[str]) -> None:
    """After faults: both watches saw every acknowledged commit once, whole and in order."""
    last = await writer.close()
    await diary.until(last)
    await mirror.wait(Revision(last))
    assert diary.revisions == sorted(set(diary.revisions)), "in order, none twice"
    assert set(writer.done) <= set(diary.revisions), "none missed"
    assert all(len(batch) == 2 for batch in diary.batches), "a commit is one batch"
    for values in told.values():
        numbers = [int(v) for v in values]
        assert numbers == sorted(set(numbers)), "a listener hears each change once"
    items, _ = await meta.list("w/")
    assert mirror.values == {i.key: i.value.decode() for i in items}
    assert mirror.revisions == {i.key: i.revision for i in items}


@pytest.mark.parametrize("fault", ["kill", "stop", "pause"])
async def test_watches_go_on_after_etcd_was_away(server: Etcd, fault: str):
    meta = await EtcdMeta.open(settings_of(server))
    _, revision = await meta.list("w/")
    mirror, told = await mirror_of(meta, "w/")
    diary, writer = Diary(meta, "w/", revision), Writer(meta, "w/")
    await writer.more()
    if fault == "pause":
        server.pause()
        # Long enough for the connection to be given up.
        await until(lambda: writer.failures, "a commit to fail")
        server.resume()
    else:
        server.kill() if fault == "kill" else await server.stop()
        await server.start_again()
    await writer.more()
    await check(meta, writer, diary, told, mirror)
    for each in (diary, mirror, meta):
        await each.close()


async def test_a_watch_leaves_a_connection_that_is_silent(etcd_server: Etcd, toxiproxy_server: Toxiproxy):
    detour = await toxiproxy_server.detour("silent", etcd_server.address)
    settings = settings_of(detour.address)
    watcher, writer = (
        await EtcdMeta.open(settings),
        await EtcdMeta.open(settings_of(etcd_server, prefix=settings.prefix)),
    )
    _, revision = await watcher.list("w/")
    diary = Diary(watcher, "w/", revision)
    await diary.until(await writer.commit([], [Put("w/1", b"1")]))
    for stream in ("downstream", "upstream"):
        await detour.toxic("timeout", stream=stream, timeout=0)
    second = await writer.commit([], [Put("w/2", b"2")])
    began = time.monotonic()
    link = watcher._connection._link
    assert link
    await asyncio.wait_for(link.lost.wait(), NOTICED_S)
    assert time.monotonic() - began < NOTICED_S
    await detour.mend()
    await diary.until(second, NOTICED_S)
    assert len(diary.batches) == 2
    for each in (diary, watcher, writer):
        await each.close()


async def test_a_mirror_lists_again_when_history_is_gone(server: Etcd, toxiproxy_server: Toxiproxy):
    detour = await toxiproxy_server.detour("compacted", server.address)
    settings = settings_of(detour.address)
    cut_off, writer = await EtcdMeta.open(settings), await EtcdMeta.open(settings_of(server, prefix=settings.prefix))
    await writer.commit([], [Put(f"w/{n}", b"old") for n in range(5)])
    mirror, told = await mirror_of(cut_off, "w/")
    await detour.cut()
    await writer.commit([], [Delete("w/0"), Delete("w/1"), Put("w/2", b"new")])
    again = await writer.commit([], [Put("w/1", b"back")])
    await compact(server, again)
    await detour.mend()
    await until(lambda: mirror.revision >= again, "the mirror to catch up")
    last = await writer.commit([], [Delete("w/1"), Put("w/5", b"after")])
    await mirror.wait(last)
    assert mirror.values == {"w/2": "new", "w/3": "old", "w/4": "old", "w/5": "after"}
    assert told == {
        "w/0": ["old", None],
        "w/1": ["old", "back", None],
        "w/2": ["old", "new"],
        "w/3": ["old"],
        "w/4": ["old"],
        "w/5": ["after"],
    }
    for each in (mirror, cut_off, writer):
        await each.close()


async def test_a_large_history_comes_whole(tmp_path: Path):
    """etcd cuts what exceeds its message size (here 100 kB) in the middle of a commit."""

    class SmallMessages(EtcdWithOptions):
        more = ("--max-request-bytes", "100000")

    server = await SmallMessages.start(tmp_path / "etcd")
    meta = await EtcdMeta.open(settings_of(server))
    first = await meta.commit([], [Put("w/0", b"")])
    for n in range(40):
        await meta.commit([], [Put(f"w/{k}", b"%d" % n * 400) for k in range(100)])
    diary = Diary(meta, "w/", first)
    await diary.until(first + 40)
    assert diary.revisions == [first + n + 1 for n in range(40)]
    assert {len(batch) for batch in diary.batches} == {100}
    await diary.close()
    await meta.close()
    server.kill()


async def test_a_store_that_was_emptied_is_not_believed(server: Etcd, tmp_path: Path):
    meta = await EtcdMeta.open(settings_of(server, request_timeout_s=1.0))
    for n in range(5):
        await meta.commit([], [Put(f"w/{n}", b"")])
    server.kill()
    (tmp_path / "etcd" / "data").rename(tmp_path / "lost")
    await server.start_again()

    async def told() -> bool:
        try:
            await meta.get("w/1")
        except Exception as e:
            return "emptied or restored" in str(e)
        return False

    await until(told, "the error to say what happened")
    await meta.close()


async def test_ids_of_keys_are_not_mixed_up_between_prefixes(etcd_server: Etcd):
    one, two = await EtcdMeta.open(settings_of(etcd_server)), await EtcdMeta.open(settings_of(etcd_server))
    _, revision = await one.list("")
    diary = Diary(one, "", revision)
    await two.commit([], [Put(f"collections/{CollectionId(1)}", b"two")])
    last = await one.commit([], [Put(f"collections/{CollectionId(1)}", b"one")])
    await diary.until(last)
    assert [[e.value for e in b] for b in diary.batches] == [[b"one"]]
    assert [i.value for i in (await two.list(""))[0]] == [b"two"]
    for each in (diary, one, two):
        await each.close()
