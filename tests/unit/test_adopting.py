"""A store is filled from another one: cut off anywhere, refused where it must be. Both are folders here."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core import failpoints
from core.catalog import ChannelCheckpoint, ChannelOwner, Garbage
from core.errors import Corrupted, Fenced, Refused, SheafError, StartRefused
from core.failpoints import InjectedFailure
from core.ids import Channel, NodeId, Position
from core.settings import LogSettings
from storage import keys
from storage.adopting import COPIED, LEFT, Content, adopt, demand_fit, survey
from storage.embedded import open_new, open_store
from storage.log.port import Log, LogRecord
from storage.log.sqlite import SqliteLog
from storage.meta.port import Delete, Put
from storage.store import NewStore, Store
from tests.unit.admin_samples import BYTES, END, FIRST, INDEX, LOG, SEALED, SEGMENT, TOMBSTONES, make

A, B = Channel(0), Channel(1)
Append = Callable[[Sequence[tuple[Channel, bytes]]], Awaitable[list[Position]]]
STEPS = ("adopt.claimed", "adopt.object", "adopt.log", "adopt.metadata", "adopt.completed")


def silent(what: str, done: int, of: int) -> None:
    """Tells nobody."""


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A folder with segments, an index, tombstones, a trimmed log with a tail, and things of a node."""
    folder = tmp_path / "source"
    await make(folder)
    async with opened(folder) as store:
        values = {
            keys.NEXT_ID: "1000",
            keys.owner(A): ChannelOwner(NodeId("standalone")),
            keys.garbage(1): Garbage(("gone",), 0),
        }
        await store.meta.commit([], [Put(key, keys.encode(value)) for key, value in values.items()])
        await store.objects.put("orphan", b"no manifest names it")
        await store.log.append([(B, b"%d" % n) for n in range(3)])
    return folder


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Store]:
    store = await open_store(folder, LOG)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def both(source: Path, target: Path) -> AsyncIterator[tuple[Store, Content, NewStore]]:
    async with opened(source) as store:
        content = await survey(store)
        new = await open_new(target, LOG, content.origin)
        try:
            yield store, content, new
        finally:
            await new.close()


async def carry(source: Path, target: Path) -> str:
    """The new cluster's id."""
    async with both(source, target) as (store, content, new):
        await adopt(store, content, new, silent)
        return new.claim.cluster.id


async def records(log: Log, channel: Channel) -> list[LogRecord]:
    start, [end] = await log.start(channel), await log.end([channel])
    found: list[LogRecord] = []
    async with aclosing(log.read(channel, start)) as batches:  # type: ignore[type-var]  # a generator in fact
        while start + len(found) < end:
            found += await anext(batches)
    return found


async def demand_copy(source: Path, target: Path, id: str) -> None:
    """The target holds what counts of the source, and goes on where it stopped."""
    async with opened(source) as one, opened(target) as other:
        assert other.cluster.id == id != one.cluster.id
        there = {item.key: item.value for item in (await one.meta.list(""))[0] if item.key.startswith(COPIED)}
        here = {item.key: item.value for item in (await other.meta.list(""))[0]}
        assert here.pop(keys.CLUSTER)
        assert here == there
        assert {o.name: await other.objects.get(o.name) async for o in other.objects.list("")} == BYTES
        for channel, start, end in ((A, SEALED, END), (B, 0, 3)):
            assert await records(other.log, channel) == await records(one.log, channel)
            assert (await other.log.start(channel), await other.log.end([channel])) == (start, [end])
        assert await other.log.append([(A, b"next"), (B, b"next")]) == [END, 3]


async def test_everything_arrives_as_it_was_and_nothing_of_nodes(source: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (source / "objects").rglob("*") if p.is_file()}
    told: list[tuple[str, int, int]] = []
    async with both(source, tmp_path / "target") as (store, content, new):
        await adopt(store, content, new, lambda *words: told.append(words))
        id = new.claim.cluster.id
    await demand_copy(source, tmp_path / "target", id)
    size = sum(map(len, BYTES.values()))
    assert {("bytes of objects", size, size), ("records of the log", END - SEALED + 3, END - SEALED + 3)} <= set(told)
    assert {p: p.stat().st_mtime_ns for p in before} == before, "and the source's files are its own"
    assert not {p.stat().st_ino for p in before} & {p.stat().st_ino for p in (tmp_path / "target").rglob("*")}


async def test_cut_off_after_any_step_nobody_uses_it_and_the_next_run_completes_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.adopting.OPERATIONS_MAX", 2)
    cuts = 0
    for step in STEPS:
        for nth in range(1, 20):
            target = tmp_path / f"{step}-{nth}"
            failpoints.arm(f"{step}=fail@{nth}")
            try:
                await carry(source, target)
                break  # there are fewer
            except InjectedFailure:
                cuts += 1
            finally:
                failpoints.arm("")
            if step != "adopt.completed":
                with pytest.raises(StartRefused, match=r"is not finished.*run the same 'sheafdb admin adopt' again"):
                    await open_store(target, LOG)
                await carry(source, target)
            async with opened(target) as store:
                id = store.cluster.id
            await demand_copy(source, target, id)
    assert cuts >= 1 + len(BYTES) + 2 + 3 + 1


async def test_the_source_may_have_gone_on_meanwhile(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    failpoints.arm("adopt.metadata=fail")
    with pytest.raises(InjectedFailure):
        await carry(source, target)
    async with opened(source) as store:
        # The tail is sealed and trimmed, more is written, a segment was replaced.
        await store.log.trim(A, Position(END))
        await store.log.append([(A, b"later")] * 2)
        await store.objects.put("new", BYTES[SEGMENT])
        [segment] = FIRST.segments
        moved = replace(segment, object=replace(segment.object, name="new"), indexes=())
        manifest = FIRST.bump(segments=(moved,), checkpoint=Position(END))
        changes = {keys.manifest(FIRST.shard_id): manifest, keys.checkpoint(A): ChannelCheckpoint(END)}
        await store.meta.commit(
            [], [Delete(keys.NEXT_ID), *(Put(key, keys.encode(value)) for key, value in changes.items())]
        )
    await carry(source, target)
    async with opened(target) as store:
        assert [o.name async for o in store.objects.list("")] == [TOMBSTONES, "new"]
        assert [r.position for r in await records(store.log, A)] == [END, END + 1]
        assert await store.meta.get(keys.NEXT_ID) is None


async def test_a_source_restored_from_a_back_up_is_refused(source: Path, tmp_path: Path) -> None:
    target, old = tmp_path / "target", tmp_path / "old"
    shutil.copytree(source, old)
    async with opened(source) as store:
        await store.meta.commit([], [Put(keys.NEXT_ID, b"2000")])
        await store.log.append([(B, b"more")])
    failpoints.arm("adopt.metadata=fail")
    with pytest.raises(InjectedFailure):
        await carry(source, target)
    with pytest.raises(StartRefused, match="older than it was when it began to be copied"):
        await carry(old, target)
    async with opened(old) as store:
        for n in range(3):
            await store.meta.commit([], [Put(keys.NEXT_ID, b"%d" % n)])
    with pytest.raises(Refused, match="channel 1 of the target ends at 4, that of the source at 3"):
        await carry(old, target)


async def test_a_used_target_is_refused(source: Path, tmp_path: Path) -> None:
    await make(tmp_path / "other")
    with pytest.raises(StartRefused, match=r"other/meta\.db belongs to cluster .* already"):
        await carry(source, tmp_path / "other")
    begun = tmp_path / "begun"
    failpoints.arm("adopt.object=fail")
    with pytest.raises(InjectedFailure):
        await carry(source, begun)
    with pytest.raises(StartRefused, match=r"holds a part of cluster .*, not of .*: finish that adoption first"):
        await carry(tmp_path / "other", begun)
    id = await carry(source, begun)
    with pytest.raises(StartRefused, match=f"belongs to cluster {id} already"):
        await carry(source, begun)


async def test_whoever_claims_next_ends_the_one_before(source: Path, tmp_path: Path) -> None:
    async with both(source, tmp_path / "target") as (store, content, new):
        epoch = await new.claim.meta.commit([], [Put(keys.ADOPTING, b"")])
        with pytest.raises(Fenced, match="another process fills"):
            await adopt(store, content, new, silent)
        assert (await new.claim.meta.get(keys.ADOPTING)).revision == epoch


async def test_a_log_that_grows_meanwhile_is_told(source: Path, tmp_path: Path) -> None:
    for channel, complaint in ((A, "grew at 3: something else wrote to it"), (B, "channel 1 .* differs at 0")):
        async with both(source, tmp_path / f"target-{channel}") as (store, content, new):
            append = new.log.append

            async def after_another(
                entries: Sequence[tuple[Channel, bytes]], append: Append = append, channel: Channel = channel
            ) -> list[Position]:
                await append([(channel, b"somebody else's")])
                return await append(entries)

            new.log.append = after_another
            with pytest.raises(Refused, match=complaint):
                await adopt(store, content, new, silent)


async def test_a_source_that_is_used_is_refused(source: Path, tmp_path: Path) -> None:
    async with opened(source) as store:
        with pytest.raises(StartRefused, match="in use by process"):
            await open_store(source, LOG)
        lease = await store.meta.grant(60)
        await store.meta.commit([], [Put(keys.node("querynode", NodeId("q1")), b"x", lease)])
        with pytest.raises(StartRefused, match=r"is in use, it has nodes/querynode/q1: stop its nodes first"):
            await survey(store)
    async with both(source, tmp_path / "target") as (store, content, new):
        await store.log.append([(A, b"written meanwhile")])
        with pytest.raises(Refused, match="was used while it was copied"):
            await adopt(store, content, new, silent)
    await carry(source, tmp_path / "target")


@pytest.mark.parametrize("name", [SEGMENT, INDEX, TOMBSTONES])
@pytest.mark.parametrize("damage", ["removed", "cut", "altered"])
async def test_damage_of_the_source_is_not_carried_on(source: Path, tmp_path: Path, name: str, damage: str) -> None:
    path = source / "objects" / name
    path.unlink() if damage == "removed" else path.write_bytes(BYTES[name][:-1] + b"!" * (damage == "altered"))
    if name == INDEX:
        await carry(source, tmp_path / "target")
        async with opened(tmp_path / "target") as store:
            assert {o.name async for o in store.objects.list("")} == {SEGMENT, TOMBSTONES}, "it is built again"
        return
    with pytest.raises((Corrupted, StartRefused), match=name) as e:
        await carry(source, tmp_path / "target")
    assert "sheafdb admin verify" in str(e.value)


async def test_a_log_that_lost_more_than_was_sealed_is_not_carried_on(source: Path) -> None:
    async with opened(source) as store:
        await store.log.trim(B, Position(2))
        with pytest.raises(StartRefused, match=r"channel 1 begins at 2 but its checkpoint is 0: see sheafdb admin"):
            await survey(store)


async def test_a_value_of_a_newer_version_is_refused(source: Path, tmp_path: Path) -> None:
    async with opened(source) as store:
        await store.meta.commit([], [Put("aliases/default/x", b"")])
        with pytest.raises(StartRefused, match="holds aliases/default/x, which this version does not know"):
            await survey(store)
        await store.meta.commit([], [Delete("aliases/default/x")])
    identity = source / "objects" / ".cluster"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "format": 2}))
    with pytest.raises(StartRefused, match="has format 2, this version reads up to 1"):
        await carry(source, tmp_path / "target")


def test_every_kind_of_key_is_either_copied_or_left() -> None:
    known = {v for k, v in vars(keys).items() if k.isupper() and isinstance(v, str)}
    assert known == {*COPIED, *LEFT}


async def test_a_log_of_another_kind_is_refused_before_anything_is_written(source: Path) -> None:
    async with opened(source) as store:
        await store.log.append([(A, b"x" * 70_000)])
        content = await survey(store)
    demand_fit(content, LOG)
    with pytest.raises(StartRefused, match=r"has 2 channels, the target would have 4.*set log\.channels = 2"):
        demand_fit(content, LogSettings(channels=4))
    with pytest.raises(StartRefused, match="a record of 70000 bytes, the target would take at most 65536"):
        demand_fit(content, LogSettings(channels=2, record_bytes_max=65536))


async def test_a_channel_begins_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path, 2, 1 << 20)
    await log.append([(A, b"forgotten")] * 5)
    for position in (1000, 1000, 3):
        await log.begin_at(A, Position(position))
        assert (await log.start(A), await log.end([A, B])) == (1000, [1000, 0])
    assert await log.append([(A, b"a"), (B, b"b")]) == [1000, 0]
    await log.close()
    log = await SqliteLog.open(path, 2, 1 << 20)
    assert [(r.position, r.payload) for r in await records(log, A)] == [(1000, b"a")]
    with pytest.raises(SheafError, match="starts at 1000"):
        await anext(log.read(A, Position(4)))
    await log.close()
