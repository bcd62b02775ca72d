"""What the coordinator removes, over a real embedded store: what DDL left behind, garbage, orphans; nothing else."""

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.cleaning import Cleaner
from coordinator.garbage import GarbageCollector
from core.errors import CollectionNotFound, Fenced
from core.failpoints import arm
from rpc.roles import CreateIndex, CreatePartition, DropCollection, DropIndex
from storage import keys
from storage.manifests import Authority, commit_manifest
from tests.simulation.rig import COORDINATOR, Rig
from tests.waiting import until


async def test_a_partition_newer_than_the_picture_of_its_collection_keeps_its_rows(rig: Rig) -> None:
    old = await rig.create()
    await rig.change(CreatePartition("", "c", "p"))
    new = await rig.collection()
    await rig.write(new, {1: 1}, partition="p")
    await rig.flush(new)
    manifests = await rig.manifests(new)
    known = SimpleNamespace(values={keys.collection(old.id): old})
    picture: Any = SimpleNamespace(catalog=SimpleNamespace(collections=known), manifests_of=lambda _: manifests)
    await Cleaner(COORDINATOR, rig.store.meta, picture, rig.coordinator._leadership)._clean(old.id)
    assert await rig.manifests(new) == manifests
    assert await rig.state(new) == {1: 1}


async def test_a_dropped_index_leaves_nothing_behind(rig: Rig) -> None:
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    await rig.write(c, {1: 1})
    await rig.flush(c)

    async def indexes() -> int:
        return sum("index" in name for name in await rig.objects())

    await until(indexes, "the index")
    await rig.change(DropIndex("", "c", "vector"))

    async def gone() -> bool:
        return not await indexes()

    await until(gone, "the index object to be deleted")
    assert await rig.state(c) == {1: 1}


@pytest.mark.parametrize("fail", ["", "gc.before_delete=fail", "gc.deleted=fail"])
async def test_a_dropped_collection_leaves_nothing_behind(rig: Rig, fail: str) -> None:
    c = await rig.create(shards=2)
    await rig.write(c, {k: k for k in range(20)})
    await rig.flush(c)
    kept = await rig.create("kept")
    await rig.write(kept, {1: 1})
    await rig.flush(kept)
    arm(fail)
    await rig.change(DropCollection("", "c"))
    with pytest.raises(CollectionNotFound):
        await rig.coordinator.stats(c.id)

    async def gone() -> bool:
        found = [i.key for p in (keys.COLLECTIONS, keys.MANIFESTS) for i in (await rig.store.meta.list(p))[0]]
        garbage, _ = await rig.store.meta.list(keys.GARBAGE)
        mine = [n for n in await rig.objects() if f"-{c.id}/" in n]
        return not mine and not garbage and all(str(kept.id) in k for k in found)

    await until(gone, "everything of the collection to go")
    assert await rig.state(kept) == {1: 1}


async def test_the_audit_deletes_only_what_nothing_names(rig: Rig) -> None:
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.flush(c)
    named = await rig.objects()
    orphan = f"default/c-{c.id}/shard=0/segment-1.parquet"
    foreign = "notes/readme.txt"
    for name in (orphan, foreign):
        await rig.store.objects.put(name, b"x")
    audit: GarbageCollector = rig.coordinator._garbage

    async def audited() -> bool:
        await audit.audit()
        return await rig.objects() == named | {foreign}

    await until(audited, "the orphan to be deleted")


async def test_what_the_audit_deletes_nobody_can_name_any_more(rig: Rig) -> None:
    """A data node that stored a segment and slept for longer than an orphan may last."""
    c = await rig.create()
    await rig.write(c, {1: 1})
    await rig.flush(c)
    shard = c.shard_ids[0]
    key = keys.owner(c.shards[0].channel)
    owner = await rig.store.meta.get(key)
    assert owner
    stored = f"default/c-{c.id}/shard=0/segment-77.parquet"
    await rig.store.objects.put(stored, b"x")

    async def audited() -> bool:
        await rig.coordinator._garbage.audit()
        return stored not in await rig.objects()

    await until(audited, "the orphan to be deleted")
    with pytest.raises(Fenced):
        await commit_manifest(
            rig.store.meta, shard, lambda now: now.bump(flushed_ts=now.flushed_ts), Authority(key, owner.revision), 0.0
        )
    await rig.write(c, {2: 2})
    await rig.flush(c)
    assert await rig.state(c) == {1: 1, 2: 2}
