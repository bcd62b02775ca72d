"""Putting a proxy on a port: which server, TLS, refusals, and stopping."""

import asyncio
import contextlib
import operator
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from core.clock import HybridClock
from core.errors import StartRefused
from core.settings import ServerSettings, Settings
from proxy.call import Call, Group
from proxy.edge import methods
from proxy.listener import serve
from proxy.native_listener import NativeListener
from proxy.service import Proxy
from sheafdb.supervision import SCAN_INTERVAL_S, Supervisor
from storage.catalog import Catalog
from tests.fakes import FakeCoordinator, FakeLog, FakeMeta, FakeNodes, FakeQueryNode
from tests.waiting import until

LISTENERS = ["native", "grpc"]
TLS = Path(__file__).parents[1] / "tls"
"""A self-signed certificate of localhost and its key, good for a hundred years."""


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    clock, meta, log = HybridClock(), FakeMeta(), FakeLog()
    catalog = Catalog(meta)
    await catalog.start()
    nodes = FakeNodes(FakeQueryNode(catalog, log))
    proxy = Proxy(Settings(), catalog, FakeCoordinator(meta, clock), nodes, log, clock)
    await proxy.start()
    yield proxy
    await proxy.close()
    await catalog.close()


async def version(channel: aio.Channel) -> str:
    async with channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)
        return (await stub.GetVersion(milvus_pb2.GetVersionRequest(), timeout=10)).version


@pytest.mark.parametrize("kind", [*LISTENERS, "auto"])
async def test_serves_and_stops(proxy: Proxy, kind: str) -> None:
    listener = await serve(proxy, ServerSettings(port=0, listener=kind))
    address = f"127.0.0.1:{listener.port}"
    assert (await version(aio.insecure_channel(address))).startswith("2.6.")
    await listener.stop(1.0)
    with pytest.raises(grpc.RpcError):
        await version(aio.insecure_channel(address))


@pytest.mark.parametrize("kind", LISTENERS)
async def test_stop_waits_for_running_requests(proxy: Proxy, kind: str) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_request: Any, _call: Any) -> Any:
        entered.set()
        await leave.wait()
        return milvus_pb2.GetVersionResponse(version="slow")

    proxy.methods.update(GetVersion=methods({"GetVersion": slow}, Settings().proxy)["GetVersion"])
    listener = await serve(proxy, ServerSettings(port=0, listener=kind))
    running = asyncio.create_task(version(aio.insecure_channel(f"127.0.0.1:{listener.port}")))
    await entered.wait()
    stopping = asyncio.create_task(listener.stop(10.0))
    await asyncio.sleep(0.05)
    leave.set()
    assert await running == "slow"
    await asyncio.wait_for(stopping, 10)


@pytest.mark.parametrize("kind", LISTENERS)
async def test_a_client_that_leaves_ends_its_request(proxy: Proxy, kind: str) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def endless(_request: Any, _call: Any) -> Any:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    proxy.methods.update(GetVersion=methods({"GetVersion": endless}, Settings().proxy)["GetVersion"])
    listener = await serve(proxy, ServerSettings(port=0, listener=kind))
    calls = asyncio.create_task(version(aio.insecure_channel(f"127.0.0.1:{listener.port}")))
    await entered.wait()
    calls.cancel()
    await asyncio.wait_for(ended.wait(), 10)
    await listener.stop(0)


async def test_calls_whose_clients_leave_before_they_are_taken_are_not_begun(proxy: Proxy) -> None:
    running, taken, take = 0, threading.Event(), threading.Event()

    def prompt(calls: Sequence[Call]) -> Sequence[None]:
        taken.set()
        take.wait(30)
        return [None] * len(calls)

    async def endless(_request: Any, _call: Any) -> Any:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(60)
        finally:
            running -= 1

    method = methods({"GetVersion": endless}, Settings().proxy, {"GetVersion": prompt})["GetVersion"]
    proxy.methods.update(GetVersion=method)
    listener = await serve(proxy, ServerSettings(port=0, listener="native"))
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)

        def ask() -> Any:
            return stub.GetVersion.future(milvus_pb2.GetVersionRequest(), timeout=30)

        kept = ask()
        assert await asyncio.to_thread(taken.wait, 10)
        # All of these come while the listener is busy, so it takes calls and their ends at the same time.
        left = [ask() for _ in range(20)]
        await asyncio.sleep(0.2)
        for call in left:
            call.cancel()
        await asyncio.sleep(0.2)
        take.set()
        last = ask()
        await until(lambda: running == 2, "the calls of those that stay")
        await asyncio.sleep(0.1)
        assert running == 2
        kept.cancel()
        last.cancel()
        await until(lambda: running == 0, "all to end")
    await listener.stop(0)


async def test_an_answer_is_worked_on_while_one_of_those_that_share_it_waits(proxy: Proxy) -> None:
    """Calls that arrive while the event loop is busy are begun together."""
    grouped: list[int] = []
    entered, leave, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def find(calls: Sequence[Call]) -> Sequence[Group]:
        async def together() -> list[Any]:
            grouped.append(len(calls))
            entered.set()
            try:
                await leave.wait()
                return [milvus_pb2.GetVersionResponse(version=c.request_id) for c in calls]
            finally:
                ended.set()

        return [Group(range(len(calls)), together)]

    proxy.methods.update(GetVersion=methods({}, Settings().proxy, None, {"GetVersion": find})["GetVersion"])
    listener = await serve(proxy, ServerSettings(port=0, listener="native"))
    assert isinstance(listener, NativeListener)
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)

        def ask_while_nothing_turns(*names: str) -> list[Any]:
            ids = [(("client-request-id", name),) for name in names]
            asked = [stub.GetVersion.future(milvus_pb2.GetVersionRequest(), timeout=30, metadata=id) for id in ids]
            end = time.monotonic() + 10
            while len(listener._arrived) < len(names):
                assert time.monotonic() < end
                time.sleep(0.001)
            return asked

        first, second, third = ask_while_nothing_turns("a", "b", "c")
        await asyncio.wait_for(entered.wait(), 10)
        assert grouped == [3]
        second.cancel()
        await asyncio.sleep(0.1)
        assert not ended.is_set()
        leave.set()
        assert [(await asyncio.to_thread(f.result, 10)).version for f in (first, third)] == ["a", "c"]
        for event in (entered, leave, ended):
            event.clear()
        both = ask_while_nothing_turns("d", "e")
        await asyncio.wait_for(entered.wait(), 10)
        for left in both:
            left.cancel()
        await asyncio.wait_for(ended.wait(), 10)
    await listener.stop(0)


@pytest.mark.parametrize("kind", LISTENERS)
async def test_messages_beyond_four_megabytes(proxy: Proxy, kind: str) -> None:
    """The default limit of gRPC is no limit here; what is too large for us says so in a Status."""
    listener = await serve(proxy, ServerSettings(port=0, listener=kind))
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with aio.insecure_channel(f"127.0.0.1:{listener.port}", options=options) as channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)
        request = milvus_pb2.CreateCollectionRequest(collection_name="c", schema=bytes(40_000_000))
        assert (await stub.CreateCollection(request, timeout=30)).code == 1100
    await listener.stop(0)


@pytest.mark.parametrize("kind", LISTENERS)
async def test_a_taken_port_is_refused(proxy: Proxy, kind: str) -> None:
    listener = await serve(proxy, ServerSettings(port=0, listener=kind))
    with pytest.raises(StartRefused, match=f"can't listen on 127.0.0.1:{listener.port}"):
        await serve(proxy, ServerSettings(port=listener.port, listener=kind))
    await listener.stop(0)


@pytest.mark.parametrize("kind", LISTENERS)
async def test_no_call_fails_and_none_is_answered_twice_when_the_port_changes_hands(proxy: Proxy, kind: str) -> None:
    served = 0

    async def count(_request: Any, _call: Any) -> Any:
        nonlocal served
        served += 1
        await asyncio.sleep(0.002)
        return milvus_pb2.GetVersionResponse(version="counted")

    proxy.methods.update(GetVersion=methods({"GetVersion": count}, Settings().proxy)["GetVersion"])
    listener = await serve(proxy, ServerSettings(port=0, listener=kind, port_use="shared"))
    stopping = threading.Event()
    answered = [0, 0, 0]

    def load(client_number: int) -> None:
        with contextlib.closing(MilvusClient(f"http://127.0.0.1:{listener.port}", dedicated=True)) as client:
            while not stopping.is_set():
                assert client.get_server_version() == "counted"
                answered[client_number] += 1

    async def all_get_on() -> None:
        """pymilvus connects anew with one attempt: nobody may be about to do so when the port changes hands again."""
        enough = [n + 20 for n in answered]
        await until(lambda: failed() or all(map(operator.ge, answered, enough)), "all clients to go on")

    def failed() -> bool:
        return any(load.done() for load in loads)

    loads = [asyncio.create_task(asyncio.to_thread(load, n)) for n in range(len(answered))]
    try:
        for _ in range(4):
            await all_get_on()
            follower = await serve(proxy, ServerSettings(port=listener.port, listener=kind, port_use="shared"))
            await listener.stop(10)
            listener = follower
        await all_get_on()
    finally:
        stopping.set()
    await asyncio.gather(*loads)
    assert sum(answered) == served
    await listener.stop(0)


async def test_a_client_that_has_just_connected_when_the_listener_stops_is_told_who_it_is(proxy: Proxy) -> None:
    """pymilvus says hello once, and fails where that has no answer; any other call it sends again."""
    listener = await serve(proxy, ServerSettings(port=0, listener="native"))
    assert isinstance(listener, NativeListener)
    async with aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)
        assert (await stub.Connect(milvus_pb2.ConnectRequest(), timeout=10)).identifier
        stopping = asyncio.create_task(listener.stop(10))
        await until(lambda: listener._stopping, "the listener to take no calls any more")
        late = stub.GetVersion(milvus_pb2.GetVersionRequest(), timeout=10)
        assert (await stub.Connect(milvus_pb2.ConnectRequest(), timeout=10)).identifier
        with pytest.raises(grpc.RpcError) as error:
            await late
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        await stopping


async def test_a_listener_whose_thread_dies_is_noticed(proxy: Proxy) -> None:
    """It would serve nobody, in a process that looks well."""

    class Broken:
        def at_once(self, _arrived: Any) -> Any:
            raise RuntimeError("broken")

    proxy.methods.update(GetVersion=Broken())
    supervisor = Supervisor()
    listener = await serve(proxy, ServerSettings(port=0, listener="native"))
    await asyncio.sleep(2 * SCAN_INTERVAL_S)  # it watches what lives longer than that
    asking = asyncio.create_task(version(aio.insecure_channel(f"127.0.0.1:{listener.port}")))
    assert await asyncio.wait_for(supervisor.failed, 10) == "listener"
    supervisor.close()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await listener.stop(0.0)


async def test_tls(proxy: Proxy) -> None:
    cert, key = TLS / "localhost.pem", TLS / "localhost.key"
    listener = await serve(proxy, ServerSettings(host="localhost", port=0, tls_cert=str(cert), tls_key=str(key)))
    credentials = grpc.ssl_channel_credentials(cert.read_bytes())
    assert await version(aio.secure_channel(f"localhost:{listener.port}", credentials))
    await listener.stop(0)


async def test_refused_settings(proxy: Proxy) -> None:
    with pytest.raises(StartRefused, match="has no TLS"):
        await serve(proxy, ServerSettings(port=0, listener="native", tls_cert="c", tls_key="k"))
    with pytest.raises(StartRefused, match="readable files"):
        await serve(proxy, ServerSettings(port=0, tls_cert="/nowhere", tls_key="/nowhere"))
