"""The coordinator over a real embedded store: DDL, ids, index builds, placement, leading."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from coordinator.service import CoordinatorService
from core.catalog import Placement
from core.clock import HybridClock
from core.errors import CollectionNotFound, Fenced, LoadFailed, NotReady, Refused
from core.failpoints import arm
from core.ids import CollectionId, NodeId, Revision, ShardId
from core.settings import IndexNodeSettings
from rpc.reads import ShardPhase, ShardStatus
from rpc.roles import CreateCollection, CreateIndex, DropCollection, Load, Release
from storage import keys, record
from storage.catalog import Catalog
from storage.membership import Membership
from storage.meta.port import Delete, Event, MetaStore, Put
from tests.fakes import led_by
from tests.simulation.rig import COORDINATOR, SCHEMA, FakeIndexNode, FakeNodes, Rig
from tests.waiting import until


async def test_a_catalog_shows_the_change_at_the_revision_returned(rig: Rig) -> None:
    catalog = Catalog(rig.store.meta)
    await catalog.start()
    for change in (
        CreateCollection("", "c", SCHEMA),
        CreateCollection("", "c", SCHEMA),
        CreateIndex("", "c", "vector"),
        DropCollection("", "unknown"),
    ):
        revision = await rig.coordinator.change(change)
        await catalog.wait(revision)
    assert catalog.find("", "c").indexes[0].type == "AUTOINDEX"
    await catalog.close()


async def test_a_catalog_catches_up_with_what_others_acknowledged(rig: Rig) -> None:
    catalog = Catalog(rig.store.meta)
    await catalog.start()
    await catalog.catch_up()
    await rig.coordinator.change(CreateCollection("", "c", SCHEMA))
    await catalog.catch_up()
    first = catalog.find("", "c")
    await rig.coordinator.change(DropCollection("", "c"))
    await rig.coordinator.change(CreateCollection("", "c", SCHEMA))
    await catalog.catch_up()
    assert catalog.find("", "c").id != first.id
    await rig.coordinator.change(DropCollection("", "c"))
    await catalog.catch_up()
    with pytest.raises(CollectionNotFound):
        catalog.find("", "c")
    await catalog.close()


async def test_racing_changes_all_happen_or_are_refused(rig: Rig) -> None:
    other = replace(SCHEMA, description="other")
    changes = [CreateCollection("", "c", s) for s in (SCHEMA, other) * 5]
    outcomes = await asyncio.gather(*(rig.coordinator.change(c) for c in changes), return_exceptions=True)
    assert sum(isinstance(o, Refused) for o in outcomes) == 5
    assert sum(isinstance(o, int) for o in outcomes) == 5
    items, _ = await rig.store.meta.list(keys.COLLECTIONS)
    assert len(items) == 1


async def test_ids_are_never_given_twice(rig: Rig) -> None:
    leases = await asyncio.gather(*(rig.coordinator.lease_ids(n) for n in (1, 7, 100) * 5))
    await rig.restart()
    leases.append(await rig.coordinator.lease_ids(3))
    c = await rig.create()
    ids = [i for lease in leases for i in lease]
    assert len(set(ids)) == len(ids)
    assert c.id not in ids
    assert min(ids) > 2**57


async def test_ddl_that_crashes_before_or_after_its_commit(rig: Rig) -> None:
    arm("ddl.before_commit=fail")
    with pytest.raises(OSError, match=r"ddl\.before_commit"):
        await rig.create("a")
    arm("ddl.committed=fail")
    with pytest.raises(OSError, match=r"ddl\.committed"):
        await rig.create("b")
    await rig.restart()
    items, _ = await rig.store.meta.list(keys.NAMES)
    assert [i.key for i in items] == ["names/default/b"]
    await rig.create("a")
    await rig.create("b")


@pytest.mark.parametrize("fail", ["", "index.before_commit=fail", "index.committed=fail"])
async def test_indexes_are_built_for_sealed_segments(rig: Rig, fail: str) -> None:
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    arm(fail)
    await rig.write(c, {k: k for k in range(20)})
    await rig.flush(c)

    async def progress() -> tuple[int, int]:
        (p,) = await rig.coordinator.index_progress(c.id)
        return p.indexed_rows, p.total_rows

    async def built() -> bool:
        return await progress() == (20, 20)

    await until(built, "the index")
    (manifest,) = await rig.manifests(c)
    assert manifest.segments[0].indexes[0].object.name in await rig.objects()
    assert (await rig.coordinator.stats(c.id)).rows == {c.partitions[0].id: 20}


async def test_a_failed_build_is_told_and_tried_again(rig: Rig) -> None:
    c = await rig.create()
    rig.index_node.broken = True
    await rig.change(CreateIndex("", "c", "vector"))
    await rig.write(c, {1: 1})
    await rig.flush(c)

    async def failed() -> bool:
        return (await rig.coordinator.index_progress(c.id))[0].error == "the index node is broken"

    await until(failed, "the error to show")
    assert (await rig.coordinator.index_progress(c.id))[0].indexed_rows == 0
    rig.index_node.broken = False

    async def built() -> bool:
        (p,) = await rig.coordinator.index_progress(c.id)
        return (p.indexed_rows, p.error) == (1, "")

    await until(built, "the index")
    assert len(rig.index_node.tasks) >= 2


async def test_a_bad_index_is_built_again(rig: Rig) -> None:
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    await rig.write(c, {1: 1})
    await rig.flush(c)

    async def name() -> str:
        (manifest,) = await rig.manifests(c)
        return manifest.segments[0].indexes[0].object.name if manifest.segments[0].indexes else ""

    await until(name, "the index")
    bad = await name()
    (manifest,) = await rig.manifests(c)
    await rig.coordinator.report_bad_index(ShardId(c.id, 0), manifest.segments[0].id, bad)

    async def rebuilt() -> bool:
        return await name() not in ("", bad)

    await until(rebuilt, "the index to be built again")
    await rig.coordinator.report_bad_index(ShardId(c.id, 0), manifest.segments[0].id, bad)
    assert await rebuilt()


async def test_loading_places_shards_on_living_query_nodes(rig: Rig) -> None:
    c = await rig.create(shards=2)
    await rig.change(CreateIndex("", "c", "vector"))
    await rig.change(Load("", "c"))
    c = await rig.collection()
    assert await rig.coordinator.load_progress(c.id, c.loaded) == 0
    member = Membership(rig.store.meta, "querynode", NodeId("q1"), "local", 5.0)
    await member.start()

    async def placed() -> bool:
        item = await rig.store.meta.get(keys.placement(c.id))
        return item is not None

    await until(placed, "a placement")
    assert await rig.coordinator.load_progress(c.id, c.loaded) == 0, "its node does not answer"
    await rig.change(Release("", "c"))
    assert not await placed()
    await member.close()


class StuckQueryNode:
    """Serves nothing, for the reason given."""

    def __init__(self, shard: ShardId, failure: str) -> None:
        self.shard, self.failure = shard, failure

    async def shards(self) -> list[ShardStatus]:
        return [ShardStatus(self.shard, ShardPhase.LOADING, 0, 0, 0, 0, 0, self.failure)]


async def test_what_keeps_a_shard_from_loading_is_told_to_who_waits_for_it(rig: Rig) -> None:
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    member = Membership(rig.store.meta, "querynode", NodeId("q1"), "local", 5.0)
    await member.start()
    await rig.change(Load("", "c"))
    c = await rig.collection()
    rig.nodes.query[NodeId("q1")] = StuckQueryNode(c.shard_ids[0], "")

    async def placed() -> bool:
        return await rig.store.meta.get(keys.placement(c.id)) is not None

    await until(placed, "a placement")
    assert await rig.coordinator.load_progress(c.id, c.loaded) == 0
    rig.nodes.query[NodeId("q1")] = StuckQueryNode(c.shard_ids[0], "corrupted: some file")
    with pytest.raises(LoadFailed, match="some file"):
        await rig.coordinator.load_progress(c.id, c.loaded)
    await member.close()


async def test_a_placement_made_for_nodes_that_are_gone_by_now_is_mended(rig: Rig) -> None:
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    member = Membership(rig.store.meta, "querynode", NodeId("q1"), "local", 5.0)
    await member.start()
    await rig.change(Load("", "c"))

    async def led() -> set[NodeId]:
        item = await rig.store.meta.get(keys.placement(c.id))
        return {n for r in keys.decode(Placement, item.value).replicas for n in r.leaders} if item else set()

    async def by_the_living() -> bool:
        return await led() == {NodeId("q1")}

    await until(by_the_living, "a placement")
    # As DDL does whose coordinator has not yet seen that a node went.
    await rig.store.meta.commit([], [Put(keys.placement(c.id), keys.encode(led_by(c.id, (NodeId("gone"),))))])
    await until(by_the_living, "the placement to be mended")
    await rig.store.meta.commit([], [Delete(keys.placement(c.id))])
    await rig.store.meta.commit([], [Put(keys.collection(c.id), await value(rig, keys.collection(c.id)))])
    await until(by_the_living, "a placement where there was none")
    await member.close()


async def value(rig: Rig, key: str) -> bytes:
    item = await rig.store.meta.get(key)
    assert item is not None
    return item.value


async def test_only_one_coordinator_leads_and_the_other_takes_over(rig: Rig) -> None:
    meta, log, store_objects = rig.store.meta, rig.store.log, rig.store.objects
    settings = replace(COORDINATOR, lease_ttl_s=0.5)
    second = CoordinatorService(
        settings, IndexNodeSettings(), NodeId("second"), meta, log, store_objects, FakeNodes(), HybridClock()
    )
    await second.start()
    with pytest.raises(NotReady):
        await second.change(CreateCollection("", "c", SCHEMA))
    await rig.coordinator._leadership.close()

    async def leads() -> bool:
        try:
            await second.change(CreateCollection("", "c", SCHEMA))
        except NotReady:
            return False
        return True

    await until(leads, "the second coordinator to lead")
    with pytest.raises(NotReady):
        await rig.create("d")
    await second.close()


class LateMeta:
    """A metadata store whose watches tell nothing until ``caught_up`` is set."""

    def __init__(self, inner: MetaStore) -> None:
        self._inner = inner
        self.caught_up = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        await self.caught_up.wait()
        async for batch in self._inner.watch(prefix, after):
            yield batch


async def test_a_new_leader_knows_what_the_old_one_acknowledged(rig: Rig) -> None:
    meta = LateMeta(rig.store.meta)
    second = CoordinatorService(
        COORDINATOR,
        IndexNodeSettings(),
        NodeId("second"),
        cast("MetaStore", meta),
        rig.store.log,
        rig.store.objects,
        FakeNodes(),
        HybridClock(),
    )
    await second.start()
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    asked = asyncio.create_task(second.index_progress(c.id))
    await asyncio.wait([asked], timeout=0.05)
    meta.caught_up.set()
    (progress,) = await asked
    assert progress.index.type == "AUTOINDEX"
    with pytest.raises(CollectionNotFound):
        await second.stats(CollectionId(c.id + 1))
    await second.close()


async def test_a_deposed_leader_commits_nothing(rig: Rig) -> None:
    authority = rig.coordinator._leadership.authority
    await rig.store.meta.commit([], [Put(keys.LEADER, b"usurper")])
    with pytest.raises(Fenced):
        await rig.create()
    with pytest.raises(Fenced):
        await authority.check(rig.store.meta)


async def test_a_compaction_can_be_asked_for_and_watched(rig: Rig) -> None:
    c = await rig.create(shards=2)
    for n in range(3):
        await rig.write(c, {k: n for k in range(n * 10, n * 10 + 10)}, kind=record.INSERT)
        await rig.flush(c)
    id = await rig.coordinator.compact(c.id)

    async def done() -> bool:
        state = await rig.coordinator.compaction_state(id)
        return (state.executing, state.completed, state.failed) == (0, 2, 0)

    await until(done, "the compaction")
    assert [len(m.segments) for m in await rig.manifests(c)] == [1, 1]
    assert len(await rig.state(c)) == 30


async def test_a_build_of_a_lost_index_node_is_done_by_another(rig: Rig) -> None:
    lost, other = FakeIndexNode(rig.store), FakeIndexNode(rig.store)
    lost.broken = True
    rig.nodes.index = [lost, other]
    rig.coordinator._indexing._settings = replace(COORDINATOR, index_retry_s=60.0)
    c = await rig.create()
    await rig.change(CreateIndex("", "c", "vector"))
    for n in range(3):
        await rig.write(c, {n: n})
        await rig.flush(c)

    async def built() -> bool:
        return all(s.indexes for m in await rig.manifests(c) for s in m.segments)

    await until(built, "the other node to build")
    assert len(lost.tasks) == 1, "not asked again while there is another"
    assert len(other.tasks) == 3
