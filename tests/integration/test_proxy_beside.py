"""Several proxies: what one of them acknowledged holds at another that hears of it late, or not at all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from pymilvus import MilvusClient, MilvusException
from pymilvus.client.types import LoadState

from core.clock import HybridClock
from core.errors import Unavailable
from core.ids import Revision
from core.settings import ServerSettings
from proxy.definitions import PATIENCE_S
from proxy.listener import serve
from proxy.service import Proxy
from storage.catalog import Catalog
from storage.meta.port import Event, Item
from tests.fakes import FakeMeta, FakeNodes
from tests.integration.proxy_house import House, open_house
from tests.integration.proxy_tables import quick, vectors

LATE_S = 0.2


class Late:
    """The store as one sees it whose watches are late, and whose ``get`` fails (``lost``) or never answers
    (``stalled``) if so told."""

    def __init__(self, meta: FakeMeta) -> None:
        self._meta, self.list = meta, meta.list
        self.late_s = LATE_S
        self.stalled = self.lost = False

    async def get(self, key: str) -> Item | None:
        if self.lost:
            raise Unavailable("the metadata store is lost")
        if self.stalled:
            await asyncio.Event().wait()
        return await self._meta.get(key)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Sequence[Event]]:
        async for events in self._meta.watch(prefix, after):
            await asyncio.sleep(self.late_s)
            yield events


class Beside:
    """One more proxy beside that of a house."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.meta = Late(house.meta)
        house.run(self._open)

    async def _open(self) -> None:
        house = self._house
        self._catalog = Catalog(self.meta)  # type: ignore[arg-type]  # reading is all a catalog does
        await self._catalog.start()
        nodes = FakeNodes(house.query_node)
        self._proxy = Proxy(house.settings, self._catalog, house.coordinator, nodes, house.log, HybridClock())
        await self._proxy.start()
        self._listener = await serve(self._proxy, ServerSettings(port=0, listener="native"))

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://127.0.0.1:{self._listener.port}", dedicated=True)

    async def close(self) -> None:
        await self._listener.stop(0.0)
        await self._proxy.close()
        await self._catalog.close()


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_house("native") as house:
        yield house


@pytest.fixture
def beside(house: House) -> Iterator[Beside]:
    beside = Beside(house)
    yield beside
    house.run(beside.close)


@pytest.fixture
def other(beside: Beside) -> Iterator[MilvusClient]:
    with contextlib.closing(beside.client()) as client:
        yield client


def row(id: int) -> dict[str, Any]:
    return {"id": id, "vector": vectors(1)[0]}


USES: dict[str, Callable[[MilvusClient], Any]] = {
    "has": lambda c: c.has_collection("quick"),
    "describe": lambda c: c.describe_collection("quick")["collection_name"] == "quick",
    "list": lambda c: c.list_collections() == ["quick"],
    "partitions": lambda c: c.list_partitions("quick") == ["_default"],
    "index": lambda c: c.list_indexes("quick") == ["vector"],
    "state": lambda c: c.get_load_state("quick")["state"] == LoadState.Loaded,
    "insert": lambda c: c.insert("quick", [row(7)])["insert_count"] == 1,
    "delete": lambda c: c.delete("quick", ids=[7]) is not None,
    "query": lambda c: len(c.query("quick", "id < 5")) == 5,
    "search": lambda c: len(c.search("quick", vectors(1), limit=3)[0]) == 3,
}


@pytest.mark.parametrize("use", USES)
def test_what_one_proxy_defined_is_used_through_another(client: MilvusClient, other: MilvusClient, use: str) -> None:
    quick(client)
    assert USES[use](other)


def test_a_partition_and_what_is_loaded(client: MilvusClient, other: MilvusClient) -> None:
    quick(client)
    client.create_partition("quick", "p")
    assert other.insert("quick", [row(100)], partition_name="p")["insert_count"] == 1
    client.release_collection("quick")
    assert other.get_load_state("quick")["state"] == LoadState.NotLoad
    client.load_collection("quick")
    assert len(other.query("quick", "id < 5")) == 5


def test_what_one_proxy_dropped_is_gone_for_those_who_ask(client: MilvusClient, other: MilvusClient) -> None:
    quick(client)
    assert other.has_collection("quick")
    client.drop_collection("quick")
    assert not other.has_collection("quick")
    quick(client, 3)
    client.drop_collection("quick")
    assert other.list_collections() == []


def test_what_is_not_there_is_still_refused(other: MilvusClient) -> None:
    with pytest.raises(MilvusException, match="collection not found") as e:
        other.query("nobody", "id >= 0")
    assert e.value.code == 100


@pytest.mark.parametrize("fault", ["lost", "stalled"])
def test_without_the_metadata_store_what_is_known_has_to_do(
    client: MilvusClient, beside: Beside, other: MilvusClient, fault: str
) -> None:
    quick(client)
    assert other.has_collection("quick")
    beside.meta.late_s = 60.0
    setattr(beside.meta, fault, True)
    client.create_partition("quick", "p")
    since = time.monotonic()
    assert len(other.query("quick", "id < 5")) == 5, "reads go on"
    assert time.monotonic() - since < PATIENCE_S / 2
    with pytest.raises(MilvusException, match="partition not found"):
        other.insert("quick", [row(100)], partition_name="p")
    assert other.list_partitions("quick") == ["_default"]
    assert time.monotonic() - since < 2 * PATIENCE_S, "one look was waited for, not two"
