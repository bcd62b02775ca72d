"""Replicas and leaders over several query nodes in one process: placed, moved, lost, drained, and read meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from core.catalog import Consistency, Placement
from core.errors import Refused, SnapshotExpired, Unavailable
from core.ids import NodeId
from core.settings import QueryNodeSettings
from proxy.call import Call
from proxy.reads import Shards
from querynode.service import QueryNodeService
from rpc.reads import QueryReply, QueryRequest
from rpc.roles import CreateIndex, Load, QueryNode
from storage import keys
from storage.catalog import Catalog
from storage.membership import Membership
from storage.meta.port import Delete, Put
from tests.simulation.rig import COORDINATOR, QUIET, Rig
from tests.waiting import until

Q1, Q2, Q3 = (NodeId(f"q{n}") for n in (1, 2, 3))


class Cluster:
    """A rig with query nodes and a proxy's reading part; one collection of four shards and 40 rows."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.members: dict[NodeId, Membership] = {}
        self.services: dict[NodeId, QueryNodeService] = {}
        self.catalog = Catalog(rig.store.meta)
        self.shards = Shards(self.catalog, rig.nodes)

    async def start(self) -> None:
        await self.catalog.start()
        self.collection = await self.rig.create(shards=4)
        await self.rig.change(CreateIndex("", "c", "vector"))
        await self.rig.write(self.collection, {k: k for k in range(30)})
        await self.rig.flush(self.collection)
        await self.rig.write(self.collection, {k: k for k in range(30, 40)})

    async def close(self) -> None:
        for node in list(self.members):
            await self.kill(node)
        await self.catalog.close()

    async def begin(self, *nodes: NodeId) -> None:
        store = self.rig.store
        for node in nodes:
            settings = QueryNodeSettings(spread_bytes=0)
            service = QueryNodeService(
                settings, node, store.meta, store.log, store.objects, find_worker=lambda n: self.services[n].worker
            )
            await service.start()
            self.services[node] = self.rig.nodes.query[node] = service
            self.members[node] = Membership(store.meta, "querynode", node, "here", 5.0)
            await self.members[node].start()

    async def kill(self, node: NodeId) -> None:
        """Its connections fail at once, its registration goes a little later."""
        del self.rig.nodes.query[node]
        await self.services.pop(node).close()
        await asyncio.sleep(0.05)
        await self.members.pop(node).close()

    async def load(self, replicas: int = 0) -> None:
        await self.rig.change(Load("", "c", replicas=replicas))
        await until(self.loaded, "all replicas to be loaded")
        self.collection = await self.rig.collection()

    async def loaded(self) -> bool:
        c = await self.rig.collection()
        return await self.rig.coordinator.load_progress(c.id, c.loaded) == 100

    @property
    def placement(self) -> Placement:
        found = self.catalog.placement(self.collection.id)
        assert found
        return found

    def settled(self, *nodes: NodeId) -> Callable[[], Awaitable[bool]]:
        async def true() -> bool:
            replicas = self.placement.replicas
            members = sorted(n for r in replicas for n in r.nodes)
            return members == sorted(nodes) and all(r.leaders == r.coming for r in replicas)

        return true

    async def count(self) -> int:
        def ask(node: QueryNode, shard: int) -> Awaitable[QueryReply]:
            c = self.collection
            strong = Consistency.STRONG
            return node.query(
                QueryRequest(c.id, shard, c.loaded, consistency=strong, deadline=call.deadline, count_only=True)
            )

        call = Call("", "", time.monotonic() + 10)
        return sum(r.count for r in await self.shards.ask(self.collection, call, ask))

    async def read_on(self) -> int:
        """Reads until cancelled; none may fail or miss a row. How many there were."""
        done = 0
        try:
            while True:
                assert await self.count() == 40
                done += 1
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return done


async def stop(reads: asyncio.Task[int]) -> int:
    reads.cancel()
    return await reads


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    rig = await Rig.open(tmp_path, QUIET, COORDINATOR)
    cluster = Cluster(rig)
    await cluster.start()
    yield cluster
    await cluster.close()
    await rig.close()


async def test_replicas_are_on_different_nodes_and_all_are_asked(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    first, second = cluster.placement.replicas
    assert {first.nodes, second.nodes} == {(Q1,), (Q2,)}
    asked = [service._placed for service in cluster.services.values()]
    assert [len(placed.all()) for placed in asked] == [4, 4]
    for _ in range(20):
        assert await cluster.count() == 40
    with pytest.raises(Refused, match=r"\[currentStreamingNode=2\]\[expectedStreamingNode=3\]"):
        await cluster.load(3)


async def test_a_lost_replica_fails_no_read(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    reads = asyncio.create_task(cluster.read_on())
    await asyncio.sleep(0.05)
    await cluster.kill(Q2)
    await until(cluster.settled(Q1), "one replica")
    await cluster.begin(Q2)
    await until(cluster.settled(Q1, Q2), "two replicas")
    await until(cluster.loaded, "the second replica to be loaded")
    await cluster.kill(Q1)
    await until(cluster.settled(Q2), "one replica")
    assert await stop(reads) > 0


async def test_a_node_that_joins_takes_leaders_and_one_that_drains_gives_them_up(cluster: Cluster) -> None:
    await cluster.begin(Q1)
    await cluster.load()
    reads = asyncio.create_task(cluster.read_on())
    await cluster.begin(Q2)
    await until(cluster.settled(Q1, Q2), "leaders on both")
    assert sorted(cluster.placement.replicas[0].leaders) == [Q1, Q1, Q2, Q2]
    await cluster.begin(Q3)
    await until(cluster.settled(Q1, Q2, Q3), "leaders on all")
    await cluster.rig.store.meta.commit((), [Put(keys.drain("querynode", Q1), b"")])
    await until(cluster.settled(Q2, Q3), "the leaders of a node that drains to move")

    async def empty() -> bool:
        service = cluster.services[Q1]
        return not await service.shards() and not service.worker.segments

    await until(empty, "a node that drains to hold nothing")
    await cluster.kill(Q1)
    await cluster.rig.store.meta.commit((), [Delete(keys.drain("querynode", Q1))])
    await asyncio.sleep(0.05)
    assert await stop(reads) > 0
    for member in (Q2, Q3):
        (held,) = {len(await cluster.services[member].shards())}
        assert held == 2


async def test_a_node_awaits_its_share_before_it_is_ready(cluster: Cluster) -> None:
    await cluster.begin(Q1)
    await cluster.load()
    assert cluster.services[Q1].awaited() == ""
    await cluster.begin(Q2)
    joined = cluster.services[Q2]
    assert joined.awaited() == "collection c waits for the coordinator to place it here"
    reasons: set[str] = set()

    async def nothing_is_awaited() -> bool:
        reasons.add(joined.awaited())
        return "" in reasons

    await until(nothing_is_awaited, "the new node to have its share")
    assert sorted(cluster.placement.replicas[0].leaders) == [Q1, Q1, Q2, Q2]
    assert len(reasons) > 2, "it also waits for shards to load and to be handed over"


async def test_a_leader_that_died_is_replaced_and_reads_wait_for_it(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load()
    await until(cluster.settled(Q1, Q2), "leaders on both")
    started_s = time.monotonic()
    reads = asyncio.create_task(cluster.read_on())
    await cluster.kill(Q1)
    assert await cluster.count() == 40
    assert time.monotonic() - started_s < 5
    assert await stop(reads) >= 0


async def test_the_number_of_replicas_of_a_loaded_collection_changes(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2, Q3)
    await cluster.load(1)
    reads = asyncio.create_task(cluster.read_on())
    for replicas in (3, 2, 1):
        await cluster.load(replicas)
        await until(lambda n=replicas: _count(cluster, n), f"{replicas} replicas")
        await until(cluster.settled(Q1, Q2, Q3), "leaders to settle")
    assert await stop(reads) > 0


async def _count(cluster: Cluster, replicas: int) -> bool:
    return len(cluster.placement.replicas) == replicas


async def test_the_replica_with_fewer_requests_under_way_is_asked(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    call = Call("", "", time.monotonic() + 10)
    release = asyncio.Event()
    asked: list[QueryNode] = []

    async def ask(node: QueryNode, shard: int) -> int:
        asked.append(node)
        await release.wait()
        return shard

    reads = [asyncio.create_task(cluster.shards.ask(cluster.collection, call, ask)) for _ in range(10)]
    await until(lambda: _all_asked(asked, 40), "all requests to be under way")
    counts = [asked.count(service) for service in cluster.services.values()]
    assert counts == [20, 20]
    release.set()
    assert await asyncio.gather(*reads) == [[0, 1, 2, 3]] * 10


async def test_a_replica_that_goes_silent_holds_up_no_read_for_long(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    silent: set[QueryNode] = set()
    cancelled = 0

    async def ask(node: QueryNode, shard: int) -> int:
        nonlocal cancelled
        if node in silent:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return shard

    for paused in cluster.services.values():
        silent = {paused}
        started = time.monotonic()
        for _ in range(5):
            call = Call("", "", time.monotonic() + 10)
            assert await cluster.shards.ask(cluster.collection, call, ask) == [0, 1, 2, 3]
        assert time.monotonic() - started < 3, "one look at it, then it is left out"
    assert cancelled, "nobody works on for nobody"
    silent = set(cluster.services.values())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cluster.shards.ask(cluster.collection, Call("", "", time.monotonic() + 10), ask), 0.8)


async def _all_asked(asked: list[QueryNode], wanted: int) -> bool:
    return len(asked) == wanted


async def test_an_iterators_view_may_be_held_by_another_replica(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    holder = cluster.services[Q2]

    async def ask(node: QueryNode, shard: int) -> int:
        if node is not holder:
            raise SnapshotExpired("not here")
        return shard

    for _ in range(10):
        assert await cluster.shards.ask(cluster.collection, Call("", "", time.monotonic() + 10), ask) == [0, 1, 2, 3]
    holder = None
    with pytest.raises(SnapshotExpired):
        await cluster.shards.ask(cluster.collection, Call("", "", time.monotonic() + 10), ask)


async def test_an_answer_is_whole_or_an_error(cluster: Cluster) -> None:
    await cluster.begin(Q1, Q2)
    await cluster.load(2)
    tried: list[int] = []

    async def ask(node: QueryNode, shard: int) -> int:
        if shard == 2:
            tried.append(shard)
            raise Unavailable("lost")
        return shard

    with pytest.raises(Unavailable, match="lost"):
        await cluster.shards.ask(cluster.collection, Call("", "", time.monotonic() + 0.1), ask)
    assert len(tried) > 2
