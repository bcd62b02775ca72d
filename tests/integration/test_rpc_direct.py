"""Direct calls: answered by the thread that reads them, or not at all."""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from core.errors import PartitionNotLoaded, StartRefused
from core.ids import Position, SegmentId
from rpc.channel import Peer
from rpc.direct import REPLY_MAX, REQUEST_MAX, DirectCalls, DirectServer, Handler, Refusals
from rpc.query_node import RemoteQueryNode, query_node_direct_handlers
from rpc.reads import SearchReply
from rpc.remote_worker import RemoteWorker, worker_direct_handlers
from rpc.workers import SearchShare
from tests.integration.rpc_rig import REPLY, search
from tests.integration.test_rpc_roles import PLACES, SESSION
from tests.unit.test_rpc_messages import same
from tests.waiting import until, wait_until

RPC = b"/things/Do"


@contextlib.contextmanager
def served(handle: Handler, port: int = 0) -> Iterator[DirectServer]:
    server = DirectServer("127.0.0.1", port, lambda: {RPC.decode(): handle})
    server.start()
    try:
        yield server
    finally:
        server.close()


def ask(calls: DirectCalls, message: bytes, rpc: bytes = RPC) -> bytes | None:
    finish = calls.start(rpc, message)
    return finish() if finish else None


def connect(calls: DirectCalls) -> None:
    """The first call has it made."""
    assert ask(calls, b"") is None
    wait_until(lambda: calls._connection, "the connection")


def connected(server: DirectServer, wait_s: float = 10.0) -> DirectCalls:
    calls = DirectCalls("127.0.0.1", server.port, wait_s)
    connect(calls)
    return calls


@pytest.mark.parametrize("size", [0, 1, 1_600, 40_000])
def test_a_message_there_and_one_back(size: int) -> None:
    message = os.urandom(size)
    with served(lambda data: data[::-1] * 3) as server:
        calls = connected(server)
        for _ in range(3):
            assert ask(calls, message) == message[::-1] * 3
        calls.close()
        assert ask(calls, message) is None


def test_what_is_not_answered_at_once_is_refused_and_the_next_one_answered() -> None:
    def handle(data: bytes) -> bytes | None:
        if data == b"wait":
            return None
        if data == b"not loaded":
            raise PartitionNotLoaded("p")
        if data == b"broken":
            raise RuntimeError("broken")
        return bytes(REPLY_MAX) if data == b"long" else data

    with served(handle) as server:
        calls = connected(server)
        for refused in (b"wait", b"not loaded", b"broken", b"long", bytes(REQUEST_MAX)):
            assert ask(calls, refused) is None, refused[:20]
            assert ask(calls, b"x") == b"x", "the connection is as good as before"
        assert ask(calls, b"x", b"/things/Unknown") is None
        assert ask(calls, b"x") == b"x"
        calls.close()


def test_a_node_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpc.direct.LOST_S", (2.0, 2.0))
    entered, leave = threading.Event(), threading.Event()

    def handle(data: bytes) -> bytes | None:
        if data == b"stall":
            entered.set()
            leave.wait(10)
        return data

    with served(handle) as server:
        calls = connected(server, wait_s=1.0)
        began = time.monotonic()
        assert ask(calls, b"stall") is None
        assert time.monotonic() - began < 8
        assert entered.is_set()
        assert not calls.usable
        assert ask(calls, b"x") is None, "nothing is asked now"
        leave.set()
        wait_until(lambda: calls.usable, "the node to be asked again")
        connect(calls)
        assert ask(calls, b"x") == b"x", "not the late answer to what was asked before"
        calls.close()


def test_a_connection_that_was_lost_is_made_again() -> None:
    with served(lambda data: data) as server:
        calls = connected(server)
        assert ask(calls, b"x") == b"x"
        port = server.port
    assert ask(calls, b"y") is None, "nobody is there"
    with served(lambda data: data, port):
        wait_until(lambda: ask(calls, b"z") == b"z", "the connection to be made again")
    calls.close()


def test_one_call_at_a_time() -> None:
    with served(lambda data: data) as server:
        calls = connected(server)
        first = calls.start(RPC, b"1")
        assert first
        assert calls.start(RPC, b"2") is None
        assert not calls.usable
        assert first() == b"1"
        assert ask(calls, b"3") == b"3"
        calls.close()


def test_threads_that_ask_get_their_own_answers_or_none() -> None:
    with served(lambda data: data * 2) as server:
        calls = connected(server)
        wrong: list[Any] = []
        end = time.monotonic() + 30

        def many(number: int) -> None:
            answered = 0
            while answered < 50 and time.monotonic() < end:
                message = f"{number}.{answered}".encode()
                reply = ask(calls, message)
                answered += reply is not None
                if reply not in {None, message * 2}:
                    wrong.append((message, reply))
            if answered < 50:
                wrong.append(f"only {answered} answers")

        threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        calls.close()


@given(
    st.one_of(st.binary(max_size=200), st.binary(min_size=1, max_size=50).map(lambda b: struct.pack("!I", len(b)) + b))
)
def test_whatever_is_sent_to_it_it_goes_on(data: bytes) -> None:
    server = _echo()
    with socket.create_connection(("127.0.0.1", server.port), 10) as stranger:
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):  # it did not read all of it
            while stranger.recv(4096):
                pass
    calls = connected(server)
    assert ask(calls, b"x") == b"x"
    calls.close()


def _echo(kept: list[DirectServer] = []) -> DirectServer:  # noqa: B006  # one for all examples
    if not kept:
        kept.append(DirectServer("127.0.0.1", 0, lambda: {RPC.decode(): lambda data: data}))
        kept[0].start()
    return kept[0]


def test_a_taken_port_is_refused() -> None:
    with (
        served(lambda data: data) as server,
        pytest.raises(StartRefused, match=f"can't listen on 127.0.0.1:{server.port}"),
        served(lambda data: data, server.port),
    ):
        pass


@given(st.lists(st.booleans(), max_size=300))
def test_refusals_are_tried_again_ever_more_rarely(answers: list[bool]) -> None:
    refusals, skipped, since = Refusals(), 0, 0
    for answered in answers:
        if refusals.worth_trying():
            refusals.note(answered)
            since = 0 if answered else since + 1
            skipped = 0
        else:
            skipped += 1
            assert since, "after an answer the next one is tried"
            assert skipped <= min(2**since - 1, 64)


# --- roles -----------------------------------------------------------------------------------------
class Prepared:
    """Implements ``PreparedSearch`` and ``PreparedShare``."""

    queries_max = 3

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.holds = True
        self.seen: list[tuple[np.ndarray, tuple[int, ...]]] = []

    def keep(self) -> None:
        pass

    def start(self, queries: np.ndarray, sizes: Any = ()) -> Callable[[], Any]:
        self.seen.append((queries, tuple(sizes)))
        return lambda: self.reply


class Node:
    """What it prepares, and of what it was asked to."""

    def __init__(self, prepared: Prepared | None) -> None:
        self.prepared = prepared
        self.asked: list[Any] = []

    def prepare_spread(self, request: Any) -> Any:
        self.asked.append(request)
        return self.prepared

    prepare_share = prepare_spread


@asynccontextmanager
async def peer_of(node: Any) -> AsyncIterator[Peer]:
    server = DirectServer("127.0.0.1", 0, lambda: {**query_node_direct_handlers(node), **worker_direct_handlers(node)})
    server.start()
    peer = Peer("127.0.0.1:1", server.port)
    assert peer.direct
    await asyncio.to_thread(connect, peer.direct)
    try:
        yield peer
    finally:
        await peer.close()
        server.close()


QUERIES = np.arange(8, dtype="f4").reshape(2, 4)


async def test_a_search_is_answered_by_what_is_prepared() -> None:
    prepared = Prepared(REPLY)
    node = Node(prepared)
    async with peer_of(node) as peer:
        remote = RemoteQueryNode(peer)
        request = search(float("inf"))

        def direct(queries: np.ndarray, sizes: tuple[int, ...] = ()) -> SearchReply | None:
            found = remote.prepare(request)
            assert found
            assert found.holds
            return found.start(queries, sizes)()

        assert same(await asyncio.to_thread(direct, QUERIES, (1, 1)), REPLY)
        assert same(await asyncio.to_thread(direct, QUERIES[:1]), REPLY)
        assert [sizes for _, sizes in prepared.seen] == [(1, 1), ()]
        assert np.array_equal(prepared.seen[0][0], QUERIES)
        assert len(node.asked) == 1, "prepared once"
        assert await asyncio.to_thread(direct, np.zeros((40, 4), "f4")) is None, "too long to be answered at once"


async def test_an_event_loop_waits_for_no_direct_call() -> None:
    async with peer_of(Node(Prepared(REPLY))) as peer:
        assert RemoteQueryNode(peer).prepare(search(float("inf"))) is None


async def test_a_node_that_has_nothing_prepared_is_asked_on_the_line() -> None:
    node = Node(None)
    async with peer_of(node) as peer:
        remote = RemoteQueryNode(peer)

        def direct() -> SearchReply | None:
            found = remote.prepare(search(float("inf")))
            assert found
            return found.start(QUERIES)()

        for _ in range(8):
            assert await asyncio.to_thread(direct) is None
        assert len(node.asked) == 3, "and asked directly again ever more rarely"
        node.prepared = Prepared(REPLY)
        deadline = time.monotonic() + 10
        while not await asyncio.to_thread(direct):
            assert time.monotonic() < deadline
        assert same(await asyncio.to_thread(direct), REPLY)


async def test_a_share_is_answered_by_what_is_prepared() -> None:
    prepared = Prepared(PLACES)
    node = Node(prepared)
    share = SearchShare(SESSION, 1, (SegmentId(2), SegmentId(5)), Position(9), search(float("inf")))
    async with peer_of(node) as peer:
        found = RemoteWorker(peer).prepare_share(share)
        assert found
        assert same(await asyncio.to_thread(found.start(QUERIES, (1, 1))), PLACES)
        assert same(await asyncio.to_thread(found.start(QUERIES[:1])), PLACES)
        (asked,) = node.asked
        for name in ("session", "after", "segments", "frontier", "shard"):
            assert getattr(asked, name) == getattr(share, name)
        assert [sizes for _, sizes in prepared.seen] == [(1, 1), ()]


async def test_a_node_that_answers_elsewhere_is_asked_there() -> None:
    """It was started again under its address."""
    node = Node(Prepared(REPLY))
    async with peer_of(node) as before, peer_of(node) as now:
        remote = RemoteQueryNode(before)

        def direct() -> Any:
            found = remote.prepare(search(float("inf")))
            return found and found.start(QUERIES)()

        assert same(await asyncio.to_thread(direct), REPLY)
        assert now.direct
        before.answers_directly_at(now.direct.port)
        await asyncio.to_thread(connect, before.direct)
        assert same(await asyncio.to_thread(direct), REPLY)
        assert before.direct
        assert before.direct.port == now.direct.port
        before.answers_directly_at(0)
        assert await asyncio.to_thread(direct) is None


async def test_without_a_port_nothing_is_asked_directly() -> None:
    peer = Peer("127.0.0.1:1")
    share = SearchShare(SESSION, 1, (SegmentId(2),), Position(9), search(float("inf")))
    assert await asyncio.to_thread(RemoteQueryNode(peer).prepare, search(float("inf"))) is None
    assert RemoteWorker(peer).prepare_share(share) is None
    await peer.close()


async def test_a_server_that_ends_lets_nobody_wait() -> None:
    entered, leave = threading.Event(), threading.Event()

    def handle(data: bytes) -> bytes:
        entered.set()
        leave.wait(10)
        return data

    with served(handle) as server:
        calls = connected(server)
        waiting = asyncio.create_task(asyncio.to_thread(ask, calls, b"x"))
        await until(entered.is_set, "the call")
        server.close()
        assert await asyncio.wait_for(waiting, 5) is None
        leave.set()
    calls.close()
