"""The line between two nodes: many requests in few messages, each with a fate of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from core.errors import CollectionNotLoaded, Corrupted, RateLimited, SheafError, Timeout, TooLarge, Unavailable
from rpc import answering, batching
from rpc.channel import LINE, Peer
from rpc.pb.call_pb2 import Answer, Answers, Asks, Error
from rpc.query_node import RemoteQueryNode, query_node_handlers
from rpc.server import SERVER_OPTIONS
from tests.integration.rpc_rig import REPLY, FakeNode, connected, search

ECHO = "/sheafdb.v1.Test/Echo"


def later(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


async def echo(data: bytes, _deadline: float) -> bytes:
    return data


class OtherEnd:
    """A server that keeps the messages it gets and answers what a test tells it to."""

    def __init__(self) -> None:
        self.messages: list[Asks] = []
        self.got = asyncio.Event()
        self.answers: asyncio.Queue[Answers] = asyncio.Queue()

    async def converse(self, _requests: Any, context: Any) -> None:
        sending = asyncio.create_task(self._send(context))
        while (data := await context.read()) is not batching.END:
            self.messages.append(Asks.FromString(data))
            self.got.set()
        sending.cancel()

    async def _send(self, context: Any) -> None:
        while True:
            await context.write((await self.answers.get()).SerializeToString())

    async def until(self, count: int) -> list[Any]:
        """All requests so far, at least ``count``."""
        async with asyncio.timeout(5):
            while len(asks := [ask for message in self.messages for ask in message.asks]) < count:
                self.got.clear()
                await self.got.wait()
        return asks


@asynccontextmanager
async def other_end() -> AsyncIterator[tuple[OtherEnd, Peer]]:
    end, server = OtherEnd(), grpc.aio.server(options=SERVER_OPTIONS)
    _, service, name = LINE.split("/")
    handler = grpc.stream_stream_rpc_method_handler(end.converse)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    peer = Peer(f"127.0.0.1:{port}")
    yield end, peer
    await peer.close()
    await server.stop(0)


async def test_requests_that_come_together_share_a_message() -> None:
    async with other_end() as (end, peer):
        first = asyncio.ensure_future(peer.ask(ECHO, b"0", later(), bytes))
        await end.until(1)
        waiting = [asyncio.ensure_future(peer.ask(ECHO, b"%d" % n, later(), bytes)) for n in range(1, 21)]
        asks = await end.until(21)
        assert [len(m.asks) for m in end.messages] == [1, 20], "an idle line sends at once; the rest went as one"
        assert [ask.request for ask in asks] == [b"%d" % n for n in range(21)]
        assert all(9 < ask.timeout_s <= 10 for ask in asks)
        # In any order, one with an error.
        answers = [Answer(id=ask.id, reply=ask.request) for ask in reversed(asks[1:])]
        answers[0] = Answer(id=asks[-1].id, error=Error(type="CollectionNotLoaded", message="not here"))
        end.answers.put_nowait(Answers(answers=answers))
        *good, bad = await asyncio.gather(*waiting, return_exceptions=True)
        assert good == [b"%d" % n for n in range(1, 20)]
        assert isinstance(bad, CollectionNotLoaded)
        assert not first.done()
        end.answers.put_nowait(Answers(answers=[Answer(id=asks[0].id, reply=b"at last")]))
        assert await first == b"at last"


async def test_a_message_has_a_bound_and_large_requests_go_alone() -> None:
    async with connected({ECHO: echo}) as (_, real), other_end() as (end, peer):
        third = b"x" * (batching.MESSAGE_BYTES // 3)
        waiting = [asyncio.ensure_future(peer.ask(ECHO, third, later(), bytes)) for _ in range(10)]
        await end.until(10)
        assert max(len(m.asks) for m in end.messages) <= 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(SheafError, match="UNIMPLEMENTED"):
            await peer.ask(ECHO, b"x" * (batching.MESSAGE_BYTES + 1), later(), bytes)
        large = b"x" * (8 * batching.MESSAGE_BYTES)
        assert await real.ask(ECHO, large, later(), bytes) == large


async def test_who_gives_up_is_told_to_the_other_end() -> None:
    async with other_end() as (end, peer):
        kept = asyncio.ensure_future(peer.ask(ECHO, b"kept", later(), bytes))
        left = asyncio.ensure_future(peer.ask(ECHO, b"left", later(), bytes))
        asks = await end.until(2)
        left.cancel()
        with pytest.raises(Timeout, match=peer.address):
            await peer.ask(ECHO, b"late", later(0.1), bytes)
        late = (await end.until(3))[2]
        async with asyncio.timeout(5):
            while {id for m in end.messages for id in m.cancelled} < {asks[1].id, late.id}:
                end.got.clear()
                await end.got.wait()
        # An answer that comes all the same is nobody's.
        end.answers.put_nowait(Answers(answers=[Answer(id=a.id, reply=b"!") for a in (asks[1], late, asks[0])]))
        assert await kept == b"!"


async def test_who_gives_up_at_once_asks_nobody() -> None:
    async with other_end() as (end, peer):
        left = peer.ask(ECHO, b"left", later(), bytes)
        left.cancel()
        kept = peer.ask(ECHO, b"kept", later(), bytes)
        assert [ask.request for ask in await end.until(1)] == [b"kept"]
        end.answers.put_nowait(Answers(answers=[Answer(id=ask.id, reply=b"!") for ask in await end.until(1)]))
        assert await kept == b"!"
        assert not any(message.cancelled for message in end.messages)


async def test_an_answer_that_cannot_be_read_is_an_error_of_its_request_alone() -> None:
    def unreadable(_data: bytes) -> bytes:
        raise Corrupted("reply", "unreadable")

    async with connected({ECHO: echo}) as (_, peer):
        bad, good = peer.ask(ECHO, b"1", later(), unreadable), peer.ask(ECHO, b"2", later(), bytes)
        with pytest.raises(Corrupted, match="unreadable"):
            await bad
        assert await good == b"2"


async def test_too_many_waiting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING_MAX", 3)
    async with other_end() as (_, peer):
        waiting = [asyncio.ensure_future(peer.ask(ECHO, b"", later(), bytes)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await peer.ask(ECHO, b"", later(), bytes)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_answer_that_is_none_fails_the_line_and_not_the_process() -> None:
    async with other_end() as (end, peer):
        end.answers.put_nowait(Answers(answers=[Answer(id=99, reply=b"nobody asked")]))
        task = asyncio.ensure_future(peer.ask(ECHO, b"", later(), bytes))
        await end.until(1)
        end.answers.put_nowait(_Bytes(b"\xff\xff"))  # type: ignore[arg-type]  # stands in for a message
        with pytest.raises(Unavailable, match="not an answer"):
            await task
        again = asyncio.ensure_future(peer.ask(ECHO, b"again", later(), bytes))
        ask = (await end.until(2))[1]
        end.answers.put_nowait(Answers(answers=[Answer(id=ask.id, reply=b"fine")]))
        assert await again == b"fine"


class _Bytes(bytes):
    def SerializeToString(self) -> bytes:
        return bytes(self)


async def test_a_slow_request_holds_back_nobody() -> None:
    release = asyncio.Event()

    async def answer(request: Any) -> Any:
        if request.collection == 2:
            await release.wait()
        return REPLY

    async with connected(query_node_handlers(FakeNode(search=answer))) as (_, peer):
        node = RemoteQueryNode(peer)
        slow = [asyncio.create_task(node.search(search(later(), collection=2))) for _ in range(5)]
        fast = [node.search(search(later())) for _ in range(50)]
        async with asyncio.timeout(5):
            await asyncio.gather(*fast)
        assert not any(task.done() for task in slow)
        release.set()
        await asyncio.gather(*slow)


async def test_a_batch_of_deadlines() -> None:
    async def answer(request: Any) -> Any:
        await asyncio.sleep(60 if request.collection % 2 else 0)
        return REPLY

    async with connected(query_node_handlers(FakeNode(search=answer))) as (_, peer):
        node = RemoteQueryNode(peer)
        started = time.monotonic()
        results = await asyncio.gather(
            *(node.search(search(later(0.3 if n % 2 else 30), collection=n)) for n in range(40)), return_exceptions=True
        )
    assert time.monotonic() - started < 5
    assert [isinstance(r, Timeout) for r in results] == [bool(n % 2) for n in range(40)]


async def test_draining_finishes_what_was_taken_and_loses_nothing() -> None:
    """Callers that hurry on, as proxies do: every call is answered, or refused as ``Unavailable``
    after the drain began, never half."""
    answered = refused = 0
    draining = False
    taken = asyncio.Event()

    async def slowly(data: bytes, _deadline: float) -> bytes:
        if data == b"long":
            taken.set()
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.01)
        return data

    async def caller(peer: Peer) -> None:
        nonlocal answered, refused
        while True:
            try:
                assert await peer.ask(ECHO, b"x", later(), bytes) == b"x"
                answered += 1
            except Unavailable:
                assert draining
                refused += 1
                return

    async with connected({ECHO: slowly}) as (server, peer):
        callers = [asyncio.create_task(caller(peer)) for _ in range(20)]
        await asyncio.sleep(0.1)
        long = asyncio.ensure_future(peer.ask(ECHO, b"long", later(), bytes))
        await taken.wait()
        draining = True
        started = time.monotonic()
        await server.drain(5)
        assert time.monotonic() - started < 3
        assert await long == b"long"
        await asyncio.gather(*callers)
    assert answered > 20
    assert refused == 20


async def test_closing_waits_for_what_runs_within_its_grace() -> None:
    async def slowly(data: bytes, _deadline: float) -> bytes:
        await asyncio.sleep(float(data))
        return data

    async with connected({ECHO: slowly}) as (_, peer):
        short = asyncio.ensure_future(peer.ask(ECHO, b"0.2", later(), bytes))
        long = asyncio.ensure_future(peer.ask(ECHO, b"60", later(60), bytes))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await peer.close(0.5)
        assert time.monotonic() - started < 3
        assert await short == b"0.2"
        with pytest.raises(Unavailable):
            await long


async def test_too_large_an_answer_is_an_error_of_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MESSAGE_BYTES_MAX", 1000)

    async def times(data: bytes, _deadline: float) -> bytes:
        return b"x" * int(data)

    async with connected({ECHO: times}) as (_, peer):
        results = await asyncio.gather(
            *(peer.ask(ECHO, b"%d" % size, later(), bytes) for size in (10, 2000, 1000)), return_exceptions=True
        )
    assert results[0] == b"x" * 10
    assert isinstance(results[1], TooLarge)
    assert results[2] == b"x" * 1000


async def test_thousands_of_requests_at_once() -> None:
    def at_once(data: bytes, _deadline: float) -> bytes:
        return data

    async with connected({ECHO: at_once}) as (_, peer):
        payloads = [b"%d" % n for n in range(5000)]
        assert await asyncio.gather(*(peer.ask(ECHO, p, later(), bytes) for p in payloads)) == payloads
