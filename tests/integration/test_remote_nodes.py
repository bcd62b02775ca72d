"""Finding the nodes of a cluster: by their registrations, and the coordinator by who leads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from core.errors import CollectionNotFound, Fenced, NotReady, StartRefused, Unavailable
from core.ids import CollectionId, NodeId, Revision, ShardId
from core.settings import NodeSettings
from rpc.coordinator import coordinator_handlers
from rpc.data_node import data_node_handlers
from rpc.index_node import index_node_handlers
from rpc.query_node import query_node_handlers
from rpc.remote_worker import worker_handlers
from rpc.roles import DropCollection
from rpc.server import RpcServer
from rpc.workers import Forward, Room, Session
from sheafdb import leading_coordinator
from sheafdb.draining import Drain
from sheafdb.leading_coordinator import LeadingCoordinator
from sheafdb.node import advertised, node_id
from sheafdb.registration import FORMAT, Registration
from sheafdb.remote_nodes import RemoteNodes
from storage import keys
from storage.membership import Membership
from storage.meta.port import Delete, Put
from storage.meta.sqlite import SqliteMeta
from tests.integration.rpc_rig import REPLY, FakeNode, search
from tests.waiting import until

SHARD = ShardId(CollectionId(7), 1)
HANDLERS: dict[str, Callable[[Any], Any]] = {
    "coordinator": coordinator_handlers,
    "datanode": data_node_handlers,
    "indexnode": index_node_handlers,
    "querynode": lambda node: {**query_node_handlers(node), **worker_handlers(node)},
}


class Cluster:
    """A metadata store, and nodes on loopback that register there."""

    def __init__(self, meta: SqliteMeta, stack: AsyncExitStack) -> None:
        self.meta, self._stack = meta, stack
        self.servers: dict[str, RpcServer] = {}
        self.members: dict[str, Membership] = {}

    async def add(self, role: str, id: str, node: Any, *, format: int = FORMAT, life: str = "1") -> None:
        server = RpcServer("127.0.0.1", 0)
        await server.start(HANDLERS[role](node), lambda: "")
        self._stack.push_async_callback(server.drain, 0)
        text = Registration(f"127.0.0.1:{server.port}", format, "9.9", life).text()
        member = Membership(self.meta, role, NodeId(id), text, 5.0)
        await member.start()
        self._stack.push_async_callback(member.close)
        self.servers[id], self.members[id] = server, member

    async def nodes(self) -> RemoteNodes:
        nodes = RemoteNodes(self.meta)
        self._stack.push_async_callback(nodes.close)
        await nodes.start()
        return nodes

    async def leads(self, id: str) -> None:
        await self.meta.commit((), [Put(keys.LEADER, id.encode()) if id else Delete(keys.LEADER)])

    async def coordinator(self, nodes: RemoteNodes) -> LeadingCoordinator:
        coordinator = LeadingCoordinator(self.meta, nodes)
        await coordinator.start()
        self._stack.push_async_callback(coordinator.close)
        return coordinator


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        meta = await SqliteMeta.open(tmp_path / "meta.db")
        stack.push_async_callback(meta.close)
        yield Cluster(meta, stack)


# --- nodes -------------------------------------------------------------------------------------
async def test_nodes_are_found_when_they_register_and_forgotten_when_they_leave(cluster: Cluster) -> None:
    nodes = await cluster.nodes()
    with pytest.raises(Unavailable, match="querynode q is not known here"):
        nodes.query_node(NodeId("q"))
    await cluster.add("querynode", "q", FakeNode(search=REPLY, forward=Room(1, 2)))
    await cluster.add("datanode", "d", FakeNode(compact=3))
    await cluster.add("indexnode", "i2", FakeNode())
    await cluster.add("indexnode", "i1", FakeNode())
    await until(lambda: len(nodes.index_nodes()) == 2, "registrations are seen")
    node = nodes.query_node(NodeId("q"))
    assert len((await node.search(search(time.monotonic() + 5))).counts) == 1
    assert nodes.query_node(NodeId("q")) is node, "connections are kept"
    assert await nodes.worker(NodeId("q")).forward(Forward(Session(NodeId("l"), "1"), 0)) == Room(1, 2)
    assert await nodes.data_node(NodeId("d")).compact(SHARD) == 3
    assert nodes.ids("indexnode") == ["i1", "i2"]
    await cluster.members["q"].close()
    await until(lambda: nodes.ids("querynode") == [], "the registration is gone")
    with pytest.raises(Unavailable):
        nodes.query_node(NodeId("q"))


async def test_a_node_that_leaves_answers_what_it_had_taken(cluster: Cluster) -> None:
    release = asyncio.Event()

    async def wait(_: Any) -> Any:
        await release.wait()
        return REPLY

    await cluster.add("querynode", "q", FakeNode(search=wait))
    nodes = await cluster.nodes()
    running = asyncio.create_task(nodes.query_node(NodeId("q")).search(search(time.monotonic() + 30)))
    await asyncio.sleep(0.05)
    await cluster.members["q"].close()
    await until(lambda: nodes.ids("querynode") == [], "the registration is gone")
    release.set()
    assert len((await running).counts) == 1


async def test_reads_of_a_node_that_hangs_end_soon_after_its_registration(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection still answers; one that asked to drain finishes what it has."""
    monkeypatch.setattr("sheafdb.remote_nodes.LOST_S", 0.1)

    async def hang(_: Any) -> Any:
        await asyncio.sleep(60)

    nodes = await cluster.nodes()
    reads = {}
    for id in ("hangs", "drains"):
        await cluster.add("querynode", id, FakeNode(search=hang))
        await until(lambda id=id: id in nodes.ids("querynode"), "the registration is seen")
        reads[id] = asyncio.create_task(nodes.query_node(NodeId(id)).search(search(time.monotonic() + 30)))
    await cluster.meta.commit((), [Put(keys.drain("querynode", NodeId("drains")), b"")])
    await asyncio.sleep(0.05)
    for id in reads:
        await cluster.members[id].close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(reads["hangs"], 5)
    assert not reads["drains"].done()
    reads["drains"].cancel()


async def test_a_node_that_comes_back_elsewhere_is_used_there(cluster: Cluster) -> None:
    await cluster.add("datanode", "d", FakeNode(compact=1))
    nodes = await cluster.nodes()
    assert await nodes.data_node(NodeId("d")).compact(SHARD) == 1
    before = nodes.registration("datanode", NodeId("d"))
    await cluster.servers["d"].drain(0)
    await cluster.add("datanode", "d", FakeNode(compact=2), life="2")
    await until(lambda: nodes.registration("datanode", NodeId("d")) != before, "the new address is seen")
    assert await nodes.data_node(NodeId("d")).compact(SHARD) == 2


async def test_a_node_of_another_format_is_refused_by_name(cluster: Cluster) -> None:
    nodes = await cluster.nodes()
    await cluster.add("querynode", "q", FakeNode(search=REPLY), format=FORMAT + 1)
    await until(lambda: nodes.registration("querynode", NodeId("q")) is not None, "the registration is seen")
    with pytest.raises(
        Unavailable, match=rf"querynode q \(SheafDB 9.9\) speaks format {FORMAT + 1}, this process {FORMAT}"
    ):
        nodes.query_node(NodeId("q"))
    assert nodes.ids("querynode") == []
    with pytest.raises(StartRefused, match=r"querynode q \(SheafDB 9.9\)"):
        await cluster.nodes()


async def test_a_registration_that_is_none_is_left_out(cluster: Cluster) -> None:
    await cluster.meta.commit((), [Put(keys.node("querynode", NodeId("q")), b"garbage")])
    nodes = await cluster.nodes()
    with pytest.raises(Unavailable):
        nodes.query_node(NodeId("q"))


async def test_a_process_learns_that_another_one_took_its_id(cluster: Cluster) -> None:
    nodes = await cluster.nodes()
    key = keys.node("querynode", NodeId("q"))
    replaced: list[str] = []
    for text in ("left by the last life", "own", "own"):
        if text == "own":
            nodes.watch_over("querynode", NodeId("q"), "own", replaced.append)
        await cluster.meta.commit((), [Put(key, text.encode())])
    await cluster.meta.commit((), [Delete(key)])
    await cluster.meta.commit((), [Put(key, b"other")])
    await until(lambda: bool(replaced), "the other is noticed")
    assert replaced == ["other"]


def test_names_and_addresses() -> None:
    assert node_id(NodeSettings(id="querynode-1")) == "querynode-1"
    assert node_id(NodeSettings())
    assert advertised(NodeSettings(), "127.0.0.1", 7) == "127.0.0.1:7"
    assert advertised(NodeSettings(advertise="10.0.0.1"), "0.0.0.0", 7) == "10.0.0.1:7"
    assert advertised(NodeSettings(advertise="fd00::1"), "::", 7) == "[fd00::1]:7"
    assert advertised(NodeSettings(advertise="gateway:77"), "0.0.0.0", 7) == "gateway:77"
    assert advertised(NodeSettings(), "0.0.0.0", 7).endswith(":7")


# --- draining ----------------------------------------------------------------------------------
async def test_draining_asks_and_waits_until_others_have_taken_over(cluster: Cluster) -> None:
    await cluster.add("querynode", "q1", FakeNode())
    await cluster.add("querynode", "q2", FakeNode())
    nodes = await cluster.nodes()
    left = 3

    async def holds() -> bool:
        nonlocal left
        assert await cluster.meta.get(keys.drain("querynode", NodeId("q1")))
        left -= 1
        return left > 0

    drain = Drain(cluster.meta, nodes, "querynode", NodeId("q1"))
    await drain.run(holds, 5)
    assert left == 0
    await drain.close()
    assert not await cluster.meta.get(keys.drain("querynode", NodeId("q1")))


async def test_draining_waits_for_nobody_when_nobody_can_take_over(cluster: Cluster) -> None:
    async def holds() -> bool:
        return True

    await cluster.add("querynode", "q1", FakeNode())
    await cluster.add("querynode", "q2", FakeNode())
    nodes = await cluster.nodes()
    # An operator's wish stays, whoever else wishes the same.
    await cluster.meta.commit((), [Put(keys.drain("querynode", NodeId("q2")), b"")])
    for id in ("q1", "q2"):
        drain = Drain(cluster.meta, nodes, "querynode", NodeId(id))
        started = time.monotonic()
        await drain.run(holds, 60 if id == "q1" else 0.3)
        assert time.monotonic() - started < 5
        await drain.close()
    assert not await cluster.meta.get(keys.drain("querynode", NodeId("q1")))
    assert await cluster.meta.get(keys.drain("querynode", NodeId("q2")))


# --- the leading coordinator -------------------------------------------------------------------
DROP = DropCollection("default", "c")


async def test_calls_go_to_the_leader(cluster: Cluster) -> None:
    await cluster.add("coordinator", "c1", FakeNode(change=Revision(1)))
    await cluster.add("coordinator", "c2", FakeNode(change=Revision(2)))
    await cluster.leads("c1")
    coordinator = await cluster.coordinator(await cluster.nodes())
    assert await coordinator.change(DROP) == 1
    await cluster.leads("c2")
    await until(lambda: coordinator.node == "c2", "the new leader is seen")
    assert await coordinator.change(DROP) == 2


@pytest.mark.parametrize("loses", [NotReady("does not lead"), Fenced("leads no more"), Unavailable("etcd is away")])
async def test_a_call_follows_the_change_of_the_guard(cluster: Cluster, loses: Exception) -> None:
    async def abdicates(_: Any) -> Any:
        await cluster.leads("")
        asyncio.get_running_loop().call_later(0.2, lambda: tasks.append(asyncio.create_task(cluster.leads("c2"))))
        raise loses

    tasks: list[asyncio.Task[None]] = []
    await cluster.add("coordinator", "c1", FakeNode(change=abdicates))
    await cluster.add("coordinator", "c2", FakeNode(change=Revision(2)))
    await cluster.leads("c1")
    coordinator = await cluster.coordinator(await cluster.nodes())
    assert await asyncio.wait_for(coordinator.change(DROP), 5) == 2


async def test_a_leader_that_dies_is_followed(cluster: Cluster) -> None:
    async def dies(_: Any) -> Any:
        stopping.append(asyncio.create_task(cluster.servers["c1"].drain(0)))
        await asyncio.Event().wait()

    stopping: list[asyncio.Task[None]] = []
    await cluster.add("coordinator", "c1", FakeNode(change=dies))
    await cluster.add("coordinator", "c2", FakeNode(change=Revision(2)))
    await cluster.leads("c1")
    coordinator = await cluster.coordinator(await cluster.nodes())
    asking = asyncio.create_task(coordinator.change(DROP))
    await until(lambda: bool(stopping), "the first leader was asked")
    await cluster.leads("c2")
    assert await asyncio.wait_for(asking, 5) == 2


async def test_what_the_leader_decides_is_not_asked_twice(cluster: Cluster) -> None:
    leader = FakeNode(change=CollectionNotFound("c"))
    await cluster.add("coordinator", "c1", leader)
    await cluster.leads("c1")
    coordinator = await cluster.coordinator(await cluster.nodes())
    with pytest.raises(CollectionNotFound):
        await coordinator.change(DROP)
    assert len(leader.calls) == 1


async def test_patience_ends(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading_coordinator, "PATIENCE_S", 0.3)
    coordinator = await cluster.coordinator(await cluster.nodes())
    started = time.monotonic()
    with pytest.raises(NotReady, match="no coordinator leads"):
        await coordinator.lease_ids(1)
    assert 0.2 < time.monotonic() - started < 2
