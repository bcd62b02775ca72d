"""Every role over a real connection: the caller can't tell it from the role itself."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import grpc
import numpy as np
import pyarrow as pa
import pytest
import structlog
from grpc_health.v1 import health_pb2

from core.catalog import Collection, Index
from core.errors import (
    CollectionNotFound,
    Corrupted,
    Fenced,
    NotHeld,
    NotReady,
    ObjectNotFound,
    SheafError,
    StartRefused,
    Timeout,
    Unavailable,
)
from core.ids import CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, Revision, SegmentId, ShardId
from core.manifest import IndexFile, ObjectRef
from core.schema import Schema
from core.types import DataType
from rpc.channel import SILENCE_S, Peer
from rpc.coordinator import RemoteCoordinator, coordinator_handlers
from rpc.data_node import RemoteDataNode, data_node_handlers
from rpc.index_node import RemoteIndexNode, index_node_handlers
from rpc.query_node import RemoteQueryNode, query_node_handlers
from rpc.reads import QueryReply, QueryRequest, Rows, SearchReply, SearchRequest, ShardPhase, ShardStatus
from rpc.remote_worker import RemoteWorker, worker_handlers
from rpc.roles import CollectionStats, CompactionState, CreateCollection, DropCollection, IndexProgress, IndexTask
from rpc.server import HEALTH, RpcServer
from rpc.workers import Forward, Hold, Kills, QueryShare, Room, SearchShare, SearchShareReply, Session
from tests.integration.rpc_rig import REPLY, FakeNode, connected, search
from tests.unit.test_rpc_messages import same

SHARD = ShardId(CollectionId(7), 1)
INDEX = Index(IndexId(9), "vector", FieldId(101), "HNSW", "COSINE", (("M", "16"),))
FILE = IndexFile(FieldId(101), IndexId(9), ObjectRef("i", 1, 2**64 - 1), "faiss")
TASK = IndexTask(
    ObjectRef("s", 1, 2), "v", DataType.FLOAT_VECTOR, 4, FieldId(101), IndexId(9), "HNSW", "L2", (("M", "16"),), "t"
)
QUERY = QueryRequest(CollectionId(1), 0, (PartitionId(1),), filter="n > {n}", filter_params={"n": 3}, limit=5)
ROWS = QueryReply(2, Rows(pa.array(["a", "b"]), {"n": pa.array([1, 2])}))
STATUS = ShardStatus(SHARD, ShardPhase.READY, 3, 10, 100, 5, 4096, failure="why")
SESSION = Session(NodeId("leader"), "life")
KILLS = Kills(SHARD, pa.array([1, 2]), np.array([5, 6]))
HOLD = Hold(SESSION, 3, Collection(SHARD.collection, "default", "c", Schema(()), (), ()), 1, (), (), KILLS, 2**40)
PLACES = SearchShareReply(REPLY, np.array([0, 1], "i4"))


def later(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


COORDINATOR: list[tuple[str, tuple[Any, ...], Any]] = [
    ("change", (CreateCollection("default", "c", Schema(())),), Revision(5)),
    ("change", (DropCollection("default", "c"),), Revision(6)),
    ("lease_ids", (100,), range(1000, 1100)),
    ("load_progress", (CollectionId(7), [PartitionId(1), PartitionId(2)]), 50),
    ("flush", (CollectionId(7), 2**63), {SHARD: [SegmentId(1)], ShardId(CollectionId(7), 0): []}),
    ("flushed", (CollectionId(7), 5), True),
    ("compact", (CollectionId(7),), 11),
    ("compaction_state", (11,), CompactionState(1, 2, 3)),
    ("index_progress", (CollectionId(7),), [IndexProgress(INDEX, 5, 10, "why")]),
    ("stats", (CollectionId(7),), CollectionStats({PartitionId(1): 10, PartitionId(2): 0})),
    ("report_bad_index", (SHARD, SegmentId(3), "i"), None),
]
DATA_NODE = [("flush", ([SHARD], 2**63), {SHARD: [SegmentId(1), SegmentId(2)]}), ("compact", (SHARD,), 3)]
INDEX_NODE = [("build", (TASK,), FILE)]
QUERY_NODE = [("query", (QUERY,), ROWS), ("search", (search(float("inf")),), REPLY), ("shards", (), [STATUS])]
WORKER = [
    ("forward", (Forward(SESSION, 4, (KILLS,)),), Room(2**40, 2**41)),
    ("hold", (HOLD,), None),
    ("search_share", (SearchShare(SESSION, 1, (SegmentId(2),), Position(9), search(float("inf"))),), PLACES),
    ("query_share", (QueryShare(SESSION, 1, (SegmentId(2),), Position(9), QUERY),), ROWS),
]
ROLES = {
    "coordinator": (coordinator_handlers, RemoteCoordinator, COORDINATOR),
    "data node": (data_node_handlers, RemoteDataNode, DATA_NODE),
    "index node": (index_node_handlers, RemoteIndexNode, INDEX_NODE),
    "query node": (query_node_handlers, RemoteQueryNode, QUERY_NODE),
    "worker": (worker_handlers, RemoteWorker, WORKER),
}
CALLS = [
    pytest.param(handlers, remote, *call, id=f"{role} {call[0]}{n}")
    for role, (handlers, remote, calls) in ROLES.items()
    for n, call in enumerate(calls)
]


@pytest.mark.parametrize(("handlers", "remote", "method", "arguments", "answer"), CALLS)
async def test_arguments_and_answers_cross(
    handlers: Any, remote: Any, method: str, arguments: tuple[Any, ...], answer: Any
) -> None:
    node = FakeNode(**{method: answer})
    async with connected(handlers(node)) as (_, peer):
        assert same(await getattr(remote(peer), method)(*arguments), answer)
    ((called, *seen),) = node.calls
    assert called == method
    assert all(map(same_but_deadline, seen, arguments))


async def test_a_share_is_answered_at_once_where_it_can_be() -> None:
    node = FakeNode(search_share_at_once=PLACES)
    share = SearchShare(SESSION, 1, (SegmentId(2),), Position(9), search(later()))
    async with connected(worker_handlers(node)) as (_, peer):
        assert same(await RemoteWorker(peer).search_share(share), PLACES)
    assert not node.calls


def same_but_deadline(seen: Any, sent: Any) -> bool:
    """No deadline arrives as a very late one."""
    request = getattr(seen, "request", seen)
    if hasattr(request, "deadline"):
        assert request.deadline > later(3600)
        object.__setattr__(request, "deadline", float("inf"))
    return same(seen, sent)


@pytest.mark.parametrize(("handlers", "remote", "method", "arguments", "answer"), CALLS)
@pytest.mark.parametrize(
    "error",
    [CollectionNotFound("c"), Fenced("not mine"), ObjectNotFound("a/b"), Corrupted("file", "bits"), NotHeld("x")],
)
async def test_errors_cross(
    handlers: Any, remote: Any, method: str, arguments: tuple[Any, ...], answer: Any, error: SheafError
) -> None:
    async with connected(handlers(FakeNode(**{method: error}))) as (_, peer):
        with pytest.raises(type(error)) as caught:
            await getattr(remote(peer), method)(*arguments)
    assert type(caught.value) is type(error)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


@pytest.mark.parametrize(("handlers", "remote", "method", "arguments", "answer"), CALLS)
async def test_a_lost_node_is_unavailable(
    handlers: Any, remote: Any, method: str, arguments: tuple[Any, ...], answer: Any
) -> None:
    async with connected(handlers(FakeNode(**{method: answer}))) as (server, peer):
        await server.drain(0)
        with pytest.raises(Unavailable, match=peer.address):
            await getattr(remote(peer), method)(*arguments)


async def test_an_unforeseen_failure_is_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    node = FakeNode(search=ValueError("oops"), compact=ValueError("oops"))
    async with connected(query_node_handlers(node) | data_node_handlers(node)) as (_, peer):
        with pytest.raises(SheafError, match="internal error: ValueError: oops"):
            await RemoteQueryNode(peer).search(search(later()))
        with pytest.raises(SheafError, match="internal error: ValueError: oops"):
            await RemoteDataNode(peer).compact(SHARD)
    assert "".join(capsys.readouterr()).count("call failed unexpectedly") == 2


async def test_a_method_of_another_version_is_named() -> None:
    async with connected(data_node_handlers(FakeNode())) as (_, peer):
        with pytest.raises(SheafError, match="QueryNode/Search is not known here"):
            await RemoteQueryNode(peer).search(search(later()))
        with pytest.raises(SheafError, match="UNIMPLEMENTED"):
            await RemoteIndexNode(peer).build(TASK)


async def test_a_deadline_ends_the_wait_at_both_ends() -> None:
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def sleep(*_: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set_result(time.monotonic())

    async with connected(query_node_handlers(FakeNode(search=sleep))) as (_, peer):
        started = time.monotonic()
        with pytest.raises(Timeout):
            await RemoteQueryNode(peer).search(search(later(0.2)))
        assert 0.19 < time.monotonic() - started < 2
        assert await asyncio.wait_for(ended, 5) - started < 2


async def test_who_no_longer_waits_ends_the_work() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def sleep(*_: Any) -> Any:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    node = FakeNode(search=sleep, compact=sleep)
    async with connected(query_node_handlers(node) | data_node_handlers(node)) as (_, peer):
        for call in (RemoteQueryNode(peer).search(search(later())), RemoteDataNode(peer).compact(SHARD)):
            task = asyncio.create_task(call)
            await asyncio.wait_for(started.wait(), 5)
            task.cancel()
            await asyncio.wait_for(ended.wait(), 5)
            with pytest.raises(asyncio.CancelledError):
                await task
            started.clear()
            ended.clear()


async def test_the_request_id_goes_along() -> None:
    async def seen(*_: Any) -> Any:
        raise NotReady(structlog.contextvars.get_contextvars().get("request_id", "none"))

    node = FakeNode(search=seen, compact=seen)
    async with connected(query_node_handlers(node) | data_node_handlers(node)) as (_, peer):
        with structlog.contextvars.bound_contextvars(request_id="r-17"):
            with pytest.raises(NotReady, match="r-17"):
                await RemoteQueryNode(peer).search(search(later()))
            with pytest.raises(NotReady, match="r-17"):
                await RemoteDataNode(peer).compact(SHARD)


async def test_large_messages_cross() -> None:
    wide = Rows(pa.array([1]), {"blob": pa.array([b"x" * (40 << 20)], pa.large_binary())})
    node = FakeNode(query=QueryReply(1, wide), search=REPLY)
    async with connected(query_node_handlers(node)) as (_, peer):
        assert len((await RemoteQueryNode(peer).query(QUERY)).rows.columns["blob"][0].as_py()) == 40 << 20
        await RemoteQueryNode(peer).search(search(later(), dim=8 << 20))
    assert node.calls[-1][1].queries.nbytes == 32 << 20


class Prepared:
    """A search over a view that may be replaced; its node holds it as long as it is ``kept``."""

    kept: ClassVar[list["Prepared"]] = []
    queries_max = 2

    def __init__(self, request: SearchRequest) -> None:
        self.request, self.holds, self.runs = request, True, 0

    def keep(self) -> None:
        self.kept.append(self)

    def start(self, _queries: np.ndarray, _sizes: Sequence[int] = ()) -> Callable[[], SearchReply]:
        self.runs += 1
        return lambda: REPLY


async def test_what_a_node_prepared_is_run_until_its_view_is_replaced() -> None:
    Prepared.kept.clear()
    node = FakeNode(prepare=Prepared, search=REPLY)
    async with connected(query_node_handlers(node)) as (_, peer):
        remote = RemoteQueryNode(peer)
        for _ in range(3):
            assert same(await remote.search(search(later())), REPLY)
        await remote.search(search(later(), collection=2))
        assert [(p.request.collection, p.runs) for p in Prepared.kept] == [(1, 3), (2, 1)]
        Prepared.kept[0].holds = False
        await remote.search(search(later()))
        # Too many queries are not short work: the node is asked.
        assert node.calls == []
        await remote.search(replace(search(later()), queries=np.ones((3, 4), "f4")))
    assert [(p.request.collection, p.runs) for p in Prepared.kept] == [(1, 3), (2, 1), (1, 1)]
    ((_, asked),) = node.calls
    assert (asked.queries == 1).all()
    assert asked.queries.shape == (3, 4)


async def test_health_is_that_of_the_node() -> None:
    async def state(peer: Peer, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        return health_pb2.HealthCheckResponse.FromString(await peer.call(HEALTH, request, 5)).status

    states = health_pb2.HealthCheckResponse.ServingStatus
    async with connected(query_node_handlers(FakeNode())) as (_, peer):
        assert await state(peer, "") == await state(peer, "sheafdb.v1.QueryNode") == states.SERVING
        with pytest.raises(SheafError, match="unknown service other"):
            await state(peer, "other")
    async with connected(query_node_handlers(FakeNode()), ready="loading shards") as (_, peer):
        assert await state(peer, "") == states.NOT_SERVING


async def test_a_port_in_use_is_refused() -> None:
    async with connected({}) as (server, _):
        with pytest.raises(StartRefused, match=str(server.port)):
            RpcServer("127.0.0.1", server.port)


# --- a node in a process of its own ------------------------------------------------------------
@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A query node that can be stopped and killed, and its address."""
    command = [sys.executable, "-m", "tests.integration.rpc_rig"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child, f"127.0.0.1:{int(child.stdout.readline())}"
        child.kill()


async def test_a_killed_node_is_noticed_at_once(process: tuple[subprocess.Popen[str], str]) -> None:
    child, address = process
    peer = Peer(address)
    node = RemoteQueryNode(peer)
    await node.search(search(later()))
    waiting = asyncio.create_task(node.search(search(later(60), collection=2)))
    await node.search(search(later()))
    child.kill()
    killed = time.monotonic()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await node.search(search(later(60)))
    assert time.monotonic() - killed < 2
    await peer.close()


async def test_a_stopped_node_is_noticed_within_seconds_and_used_again(
    process: tuple[subprocess.Popen[str], str],
) -> None:
    child, address = process
    peer = Peer(address)
    node, caller = RemoteQueryNode(peer), RemoteDataNode(peer)
    await node.search(search(later()))
    os.kill(child.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    on_line = asyncio.create_task(node.search(search(later(60))))
    alone = asyncio.create_task(caller.compact(SHARD))
    for waiting in (on_line, alone):
        with pytest.raises(Unavailable):
            await waiting
    assert time.monotonic() - stopped < 2 * SILENCE_S + 2
    with pytest.raises(Unavailable):
        await node.search(search(later(60)))
    assert time.monotonic() - stopped < 4 * SILENCE_S + 4
    os.kill(child.pid, signal.SIGCONT)
    until = later(10)
    while True:
        try:
            await node.search(search(later(5)))
            break
        except (Unavailable, Timeout):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
    await peer.close()
    with pytest.raises(Unavailable, match="has left"):
        await node.search(search(later()))
    with pytest.raises(Unavailable, match="has left"):
        await caller.compact(SHARD)


async def test_the_status_on_the_wire_is_for_people() -> None:
    handlers = data_node_handlers(FakeNode(compact=CollectionNotFound("c")))
    async with connected(handlers) as (_, peer), grpc.aio.insecure_channel(peer.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/sheafdb.v1.DataNode/Compact")(b"")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "collection not found" in (caught.value.details() or "")
