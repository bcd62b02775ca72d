"""A proxy over fakes, served on a real port for the real client."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop
from pymilvus import MilvusClient

from core.clock import HybridClock
from core.ids import Channel
from core.pressure import Pressure
from core.settings import ProxySettings, ServerSettings, Settings
from proxy.listener import serve
from proxy.service import Proxy
from storage.catalog import Catalog
from tests.fakes import FakeCoordinator, FakeLog, FakeMeta, FakeNodes, FakeQueryNode

T = TypeVar("T")


class House:
    """Parts are reached from the test's thread; ``run`` executes on the proxy's event loop."""

    meta: FakeMeta
    log: FakeLog
    catalog: Catalog
    coordinator: FakeCoordinator
    query_node: FakeQueryNode
    proxy: Proxy
    loop: asyncio.AbstractEventLoop
    port: int

    def __init__(self, listener: str, settings: Settings | None = None) -> None:
        self._listener = listener
        self.settings = settings or Settings(proxy=ProxySettings(id_lease=64))
        self.pressure: dict[Channel, Pressure] = {}

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> MilvusClient:
        return MilvusClient(self.uri, dedicated=True)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(30)

    async def _live(self, ready: threading.Event, stop: asyncio.Event) -> None:
        clock = HybridClock()
        self.meta, self.log = FakeMeta(), FakeLog()
        self.catalog = Catalog(self.meta)
        self.coordinator = FakeCoordinator(self.meta, clock)
        self.query_node = FakeQueryNode(self.catalog, self.log)
        await self.catalog.start()
        nodes = FakeNodes(self.query_node)
        self.proxy = Proxy(
            self.settings, self.catalog, self.coordinator, nodes, self.log, clock, pressure=self.pressure
        )
        await self.proxy.start()
        listener = await serve(self.proxy, ServerSettings(port=0, listener=self._listener))
        self.port = listener.port
        self.loop = asyncio.get_running_loop()
        ready.set()
        await stop.wait()
        await listener.stop(1.0)
        await self.proxy.close()
        await self.catalog.close()


@contextmanager
def open_house(listener: str, settings: Settings | None = None) -> Iterator[House]:
    """A served house; gone with its thread afterwards."""
    house, ready, stop = House(listener, settings), threading.Event(), asyncio.Event()
    failed: list[BaseException] = []

    def live() -> None:
        try:
            uvloop.run(house._live(ready, stop))
        except BaseException as e:
            failed.append(e)
        finally:
            ready.set()

    thread = threading.Thread(target=live, name="house", daemon=True)
    thread.start()
    assert ready.wait(30), "the house did not open"
    if failed:
        raise failed[0]
    try:
        yield house
    finally:
        house.loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not failed, failed
