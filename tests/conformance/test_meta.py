"""Every promise of ``storage.meta.port``, on every backend."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Conflict, Fenced, InvalidArgument, TooLarge, Unavailable, WatchCompacted
from core.ids import Revision
from storage.meta.port import Condition, Delete, Event, Item, MetaStore, Put

from .conftest import MetaBackend

PATIENCE_S = 20
ABSENT = Revision(0)


async def changes(meta: MetaStore, prefix: str, after: int, until: int) -> list[Sequence[Event]]:
    """The batches of a watch up to and with revision ``until``."""
    out: list[Sequence[Event]] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(meta.watch(prefix, Revision(after))) as batches:
        while after < until:
            out.append(await anext(batches))
            after = out[-1][-1].revision
    return out


async def gone(meta: MetaStore, key: str) -> None:
    """Waits until the key is absent."""
    _, revision = await meta.list("")
    if await meta.get(key) is None:
        return
    async with asyncio.timeout(PATIENCE_S), aclosing(meta.watch(key, revision)) as batches:
        async for batch in batches:
            if Event(key, None, batch[0].revision) in batch:
                return


async def test_put_get_delete(meta: MetaStore):
    assert await meta.get("a/b") is None
    first = await meta.commit([], [Put("a/b", b"1")])
    assert await meta.get("a/b") == Item("a/b", b"1", first)
    second = await meta.commit([], [Put("a/b", b""), Put("c", b"3")])
    assert second > first
    assert await meta.get("a/b") == Item("a/b", b"", second)
    third = await meta.commit([], [Delete("a/b"), Delete("never/there")])
    assert third > second
    assert await meta.get("a/b") is None
    assert await meta.get("c") == Item("c", b"3", second)


async def test_list_is_in_key_order_and_only_below_the_prefix(meta: MetaStore):
    keys = ["a/2", "a/10", "a/1", "b/1", "ab", "a", "a/1/x", "a0"]
    revision = await meta.commit([], [Put(k, k.encode()) for k in keys])
    items, at = await meta.list("a/")
    assert at == revision
    assert [i.key for i in items] == ["a/1", "a/1/x", "a/10", "a/2"]
    assert all(i.value == i.key.encode() and i.revision == revision for i in items)
    assert [i.key for i in (await meta.list(""))[0]] == sorted(keys)
    assert await meta.list("zzz") == ([], revision)


async def test_a_commit_with_a_false_condition_changes_nothing(meta: MetaStore):
    revision = await meta.commit([Condition("k", ABSENT)], [Put("k", b"1")])
    for conditions in (
        [Condition("k", ABSENT)],
        [Condition("k", Revision(revision + 1))],
        [Condition("k", revision), Condition("other", revision)],
    ):
        with pytest.raises(Conflict):
            await meta.commit(conditions, [Put("k", b"2"), Put("x", b"x")])
    with pytest.raises(Conflict, match="other"):
        await meta.commit([Condition("other", revision)], [Put("k", b"2")])
    items, at = await meta.list("")
    assert (items, at) == ([Item("k", b"1", revision)], revision)
    await meta.commit([Condition("k", revision)], [Delete("k")])
    with pytest.raises(Conflict):
        await meta.commit([Condition("k", revision)], [Put("k", b"3")])


async def test_conditions_may_name_keys_that_are_not_written(meta: MetaStore):
    owner = await meta.commit([], [Put("owner", b"me")])
    await meta.commit([Condition("owner", owner)], [Put("work", b"1")])
    await meta.commit([], [Put("owner", b"you")])
    with pytest.raises(Conflict, match="owner"):
        await meta.commit([Condition("owner", owner)], [Put("work", b"2")])
    item = await meta.get("work")
    assert item
    assert item.value == b"1"


async def test_concurrent_compare_and_swap_loses_no_update(meta: MetaStore):
    await meta.commit([], [Put("n", b"0")])

    async def add() -> None:
        while True:
            item = await meta.get("n")
            assert item
            try:
                await meta.commit([Condition("n", item.revision)], [Put("n", b"%d" % (int(item.value) + 1))])
            except Conflict:
                continue
            return

    await asyncio.wait_for(asyncio.gather(*(add() for _ in range(20))), PATIENCE_S)
    item = await meta.get("n")
    assert item
    assert item.value == b"20"


async def test_bad_writes_are_refused(meta: MetaStore):
    for key in ("", "/a", "ä", "a b", "a\n", "a\0"):
        with pytest.raises(InvalidArgument):
            await meta.commit([], [Put(key, b"")])
    with pytest.raises(TooLarge):
        await meta.commit([], [Put("ok", b""), Put("big", bytes(1024 * 1024 + 1))])
    with pytest.raises(InvalidArgument):
        await meta.commit([], [Put("twice", b"1"), Delete("twice")])
    assert await meta.list("") == ([], (await meta.list(""))[1])
    await meta.commit([], [Put("big", bytes(1024 * 1024))])


async def test_a_commit_is_bounded_and_never_split(meta: MetaStore):
    most = [Put(f"k/{n}", b"") for n in range(128)]
    revision = await meta.commit([Condition(w.key, ABSENT) for w in most], most)
    assert {i.revision for i in (await meta.list("k/"))[0]} == {revision}
    await meta.commit([], [Put("big/1", bytes(1024 * 1024)), Put("big/2", bytes(255 * 1024))])
    before = await meta.list("")
    for conditions, writes in (
        ([], [*most, Put("one/more", b"")]),
        ([Condition(f"absent/{n}", ABSENT) for n in range(129)], [Put("a", b"")]),
        ([], [Put("big/1", bytes(1024 * 1024)), Put("big/2", bytes(256 * 1024))]),
    ):
        with pytest.raises(TooLarge):
            await meta.commit(conditions, writes)
    assert await meta.list("") == before


async def test_watch_gives_every_change_once_per_commit_and_in_order(meta: MetaStore):
    start = await meta.commit([], [Put("w/0", b"before")])
    watching = asyncio.create_task(changes(meta, "w/", start, start + 4))
    await asyncio.sleep(0.01)
    one = await meta.commit([], [Put("w/1", b"1"), Put("x/1", b"not seen"), Put("w/2", b"2")])
    two = await meta.commit([], [Put("x/2", b"not seen")])
    three = await meta.commit([], [Delete("w/1"), Put("w/2", b"3")])
    assert (one, two, three) == (start + 1, start + 2, start + 3)
    four = await meta.commit([], [Put("w/1", b"")])
    expected = [
        [Event("w/1", b"1", one), Event("w/2", b"2", one)],
        [Event("w/1", None, three), Event("w/2", b"3", three)],
        [Event("w/1", b"", four)],
    ]
    assert [sorted(b, key=lambda e: e.key) for b in await watching] == expected
    resumed = await changes(meta, "w/", one, four)
    assert [sorted(b, key=lambda e: e.key) for b in resumed] == expected[1:], "resumes without loss"


async def test_a_commit_is_seen_by_a_watch_that_a_slow_reader_holds(meta: MetaStore):
    async with asyncio.timeout(PATIENCE_S), aclosing(meta.watch("s/", ABSENT)) as batches:
        revisions = [await meta.commit([], [Put(f"s/{i}", b"")]) for i in range(30)]
        seen = []
        while len(seen) < 30:
            seen.append((await anext(batches))[0].revision)
            await asyncio.sleep(0)
    assert seen == revisions


async def test_reopening_keeps_items_and_revisions(meta_backend: MetaBackend):
    meta = await meta_backend.open()
    await meta.commit([], [Put("a", b"1"), Put("b", b"2")])
    await meta.commit([], [Delete("a"), Put("c", b"3")])
    before = await meta.list("")
    await meta.close()
    meta = await meta_backend.open()
    assert await meta.list("") == before
    revision = await meta.commit([], [Put("d", b"4")])
    assert revision == before[1] + 1
    assert [b[0].key for b in await changes(meta, "", before[1], revision)] == ["d"]
    if not meta_backend.history_survives:
        with pytest.raises(WatchCompacted):
            await changes(meta, "", before[1] - 1, revision)
    await meta.close()


async def test_a_lease_that_nobody_keeps_alive_takes_its_keys_with_it(meta: MetaStore):
    lease = await meta.grant(1.0)
    revision = await meta.commit([], [Put("leased/1", b"", lease), Put("leased/2", b"", lease), Put("free", b"")])
    await gone(meta, "leased/1")
    await gone(meta, "leased/2")
    assert await meta.get("free") is not None
    [batch] = await changes(meta, "leased/", revision, revision + 1)
    assert [(e.key, e.value) for e in batch] == [("leased/1", None), ("leased/2", None)]
    with pytest.raises(Fenced):
        await meta.keep_alive(lease)
    with pytest.raises(Fenced):
        await meta.commit([], [Put("leased/3", b"", lease)])


async def test_a_lease_that_is_kept_alive_stays(meta: MetaStore):
    lease = await meta.grant(1.0)
    await meta.commit([], [Put("alive", b"", lease)])
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        await meta.keep_alive(lease)
        await asyncio.sleep(0.2)
    assert await meta.get("alive") is not None


async def test_revoke(meta: MetaStore):
    lease, other = await meta.grant(60), await meta.grant(60)
    assert lease > 0
    assert other not in (0, lease)
    await meta.commit([], [Put("mine", b"", lease), Put("theirs", b"", other), Put("kept", b"", lease)])
    await meta.commit([], [Put("kept", b"no longer leased")])
    await meta.revoke(lease)
    await meta.revoke(lease)
    assert [i.key for i in (await meta.list(""))[0]] == ["kept", "theirs"]
    with pytest.raises(Fenced):
        await meta.keep_alive(lease)


async def test_close_ends_watches(meta_backend: MetaBackend):
    meta = await meta_backend.open()
    watching = asyncio.create_task(changes(meta, "", 0, 10))
    await asyncio.sleep(0.01)
    await asyncio.gather(meta.close(), meta.close())
    with pytest.raises(Unavailable):
        await asyncio.wait_for(watching, PATIENCE_S)
    with pytest.raises(Unavailable):
        await meta.get("a")


KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "b/1/x"])
WRITES = st.lists(
    st.one_of(st.builds(Put, KEYS, st.binary(max_size=20)), st.builds(Delete, KEYS)),
    max_size=4,
    unique_by=lambda w: w.key,
)
STEPS = st.lists(
    st.one_of(st.tuples(WRITES, st.dictionaries(KEYS, st.booleans(), max_size=2)), st.just("restart")), max_size=25
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_behaves_as_a_dict(steps: list, meta_backend: MetaBackend):
    meta = await meta_backend.open()
    items, revision = await meta.list("")
    model = {i.key: i for i in items}
    began, watched = revision, dict(model)
    try:
        for step in steps:
            if step == "restart":
                await meta.close()
                meta = await meta_backend.open()
                continue
            writes, guesses = step
            # A guess is right (the key's revision) or wrong (one more).
            conditions = [
                Condition(k, Revision((model[k].revision if k in model else 0) + (not right)))
                for k, right in guesses.items()
            ]
            if not all(guesses.values()):
                with pytest.raises(Conflict):
                    await meta.commit(conditions, writes)
                continue
            changed = any(isinstance(w, Put) or w.key in model for w in writes)
            assert await meta.commit(conditions, writes) == revision + changed
            revision = Revision(revision + changed)
            for w in writes:
                if isinstance(w, Put):
                    model[w.key] = Item(w.key, w.value, revision)
                else:
                    model.pop(w.key, None)
            assert await meta.list("") == ([model[k] for k in sorted(model)], revision)
        if "restart" not in steps or meta_backend.history_survives:
            for batch in await changes(meta, "", began, revision):
                for event in batch:
                    if event.value is None:
                        del watched[event.key]
                    else:
                        watched[event.key] = Item(event.key, event.value, event.revision)
            assert watched == model, "a watch tells the same story as the list"
    finally:
        await meta.close()
