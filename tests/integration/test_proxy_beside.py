"""Several proxies: what one of them acknowledged holds at another that hears of it late, or not at all."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from statistics import median
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
from storage import keys
from storage.catalog import Catalog
from storage.meta.port import Event, Item
from tests.fakes import FakeCoordinator, FakeMeta, FakeNodes
from tests.integration.proxy_house import House, open_house
from tests.integration.proxy_tables import quick, vectors
from tests.waiting import until, wait_until


class Late:
    """The store as one sees it whose watch of collections brings no change before its revision was looked up. ``get``
    fails (``lost``) or waits (``stalled``) if so told."""

    def __init__(self, meta: FakeMeta) -> None:
        self._meta, self.list = meta, meta.list
        self._looked = 0
        self.stalled = self.lost = False

    async def get(self, key: str) -> Item | None:
        if self.lost:
            raise Unavailable("the metadata store is lost")
        await until(lambda: not self.stalled, "it answers again")
        found = await self._meta.get(key)
        self._looked = found.revision if found else 0
        return found

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Sequence[Event]]:
        async for events in self._meta.watch(prefix, after):
            if prefix == keys.COLLECTIONS:
                await until(lambda seen=events: seen[-1].revision <= self._looked, "somebody looked", 600.0)
            yield events


class Distant:
    """The coordinator as one sees it who is not told what is defined when it is ``lost`` (it fails) or ``stalled``."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        self._coordinator = coordinator
        self.stalled = self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coordinator, name)

    async def defined(self) -> Revision:
        if self.lost:
            raise Unavailable("the coordinator is lost")
        await until(lambda: not self.stalled, "it answers again")
        return await self._coordinator.defined()


class Beside:
    """One more proxy beside that of a house."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.meta, self.coordinator = Late(house.meta), Distant(house.coordinator)
        house.run(self._open)

    async def _open(self) -> None:
        house = self._house
        self._catalog = Catalog(self.meta)  # type: ignore[arg-type]  # reading is all a catalog does
        await self._catalog.start()
        nodes = FakeNodes(house.query_node)
        self._proxy = Proxy(
            house.settings, self._catalog, self.coordinator, nodes, house.log, HybridClock(), in_process=False
        )
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


def strong_count(client: MilvusClient) -> int:
    return client.query("quick", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def unless_cut_off(use: Callable[[MilvusClient], Any], client: MilvusClient) -> Any:
    """False while it is."""
    try:
        return use(client)
    except MilvusException as e:
        if e.code != Unavailable.code:
            raise
        return False


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


def test_what_one_proxy_dropped_is_not_written_to(client: MilvusClient, other: MilvusClient) -> None:
    quick(client)
    assert USES["insert"](other), "its client knows the schema from now on"
    client.drop_collection("quick")
    for write in (USES["insert"], USES["delete"], lambda c: c.upsert("quick", [row(1)])):
        with pytest.raises(MilvusException, match="collection not found"):
            write(other)


@pytest.mark.parametrize("auto_id", [False, True])
def test_rows_go_to_the_collection_that_has_the_name_now(
    client: MilvusClient, other: MilvusClient, auto_id: bool
) -> None:
    quick(client)
    assert USES["insert"](other), "its client knows the schema from now on"
    client.drop_collection("quick")
    quick(client, 0, auto_id=auto_id)
    rows = [{"vector": vector} if auto_id else {"id": n, "vector": vector} for n, vector in enumerate(vectors(3))]
    assert other.insert("quick", rows)["insert_count"] == 3
    assert strong_count(client) == 3


def test_a_strong_read_is_of_the_collection_that_has_the_name_now(client: MilvusClient, other: MilvusClient) -> None:
    quick(client)
    assert other.has_collection("quick")
    client.drop_collection("quick")
    quick(client, 2)
    assert strong_count(other) == 2
    assert len(other.search("quick", vectors(1), limit=5, consistency_level="Strong")[0]) == 2


def test_a_delete_by_filter_reaches_partitions_made_by_another_proxy(client: MilvusClient, other: MilvusClient) -> None:
    quick(client, 3)
    assert other.has_collection("quick")
    client.create_partition("quick", "p")
    client.insert("quick", [row(100)], partition_name="p")
    assert other.delete("quick", filter="id >= 2")["delete_count"] == 2
    assert strong_count(client) == 2


def test_what_is_refused_for_a_dropped_partition_ends_no_row(client: MilvusClient, other: MilvusClient) -> None:
    quick(client, 3)
    client.create_partition("quick", "p")
    assert other.insert("quick", [row(100)], partition_name="p")["insert_count"] == 1
    client.release_partitions("quick", ["p"])
    client.drop_partition("quick", "p")
    with pytest.raises(MilvusException, match="partition not found"):
        other.upsert("quick", [row(1)], partition_name="p")
    assert strong_count(client) == 3


def test_rows_of_a_shape_that_only_the_new_collection_has_are_taken(client: MilvusClient, other: MilvusClient) -> None:
    quick(client)
    assert USES["insert"](other), "its client knows the schema from now on"
    client.drop_collection("quick")
    client.create_collection("quick", dimension=2)
    assert other.insert("quick", [{"id": 1, "vector": [1.0, 0.0]}])["insert_count"] == 1
    assert strong_count(client) == 1


def test_what_is_not_there_is_still_refused(other: MilvusClient) -> None:
    with pytest.raises(MilvusException, match="collection not found") as e:
        other.query("nobody", "id >= 0")
    assert e.value.code == 100


@pytest.mark.parametrize("fault", ["lost", "stalled"])
def test_without_the_metadata_store_a_proxy_serves_until_something_is_defined(
    client: MilvusClient, beside: Beside, other: MilvusClient, fault: str
) -> None:
    quick(client, 0)
    assert other.has_collection("quick")
    setattr(beside.meta, fault, True)
    for n in range(10):
        assert other.insert("quick", [row(n)])["insert_count"] == 1
    assert strong_count(other) == 10
    client.drop_collection("quick")
    quick(client, 0)
    for use in (USES["insert"], USES["delete"], USES["has"], USES["describe"], strong_count):
        with pytest.raises(MilvusException, match="cut off from the metadata store, and something was defined") as e:
            use(other)
        assert e.value.code == Unavailable.code
    assert strong_count(client) == 0, "what was refused was not written"
    setattr(beside.meta, fault, False)
    wait_until(lambda: unless_cut_off(USES["insert"], other), "the store answers again")
    assert strong_count(client) == 1


@pytest.mark.parametrize("fault", ["lost", "stalled"])
def test_without_the_metadata_store_and_a_coordinator_what_is_known_has_to_do(
    client: MilvusClient, beside: Beside, other: MilvusClient, fault: str
) -> None:
    quick(client)
    assert other.has_collection("quick")
    setattr(beside.meta, fault, True)
    setattr(beside.coordinator, fault, True)
    client.create_partition("quick", "p")
    since = time.monotonic()
    assert len(other.query("quick", "id < 5")) == 5, "reads go on"
    assert time.monotonic() - since < PATIENCE_S / 2
    with pytest.raises(MilvusException, match="partition not found"):
        other.insert("quick", [row(100)], partition_name="p")
    assert other.list_partitions("quick") == ["_default"]
    assert time.monotonic() - since < 4 * PATIENCE_S, "one look and one answer were waited for, not two"


def test_writes_wait_for_a_silent_metadata_store_once_only(
    beside: Beside, client: MilvusClient, other: MilvusClient
) -> None:
    quick(client, 0)
    assert other.has_collection("quick")
    beside.meta.stalled = True
    took_s = []
    for n in range(10):
        since = time.monotonic()
        other.insert("quick", [row(n)])
        took_s.append(time.monotonic() - since)
    assert took_s[0] >= PATIENCE_S
    assert median(took_s) < PATIENCE_S / 2
    assert strong_count(client) == 10
    beside.meta.stalled = False
    client.create_collection("mark", dimension=2)
    wait_until(lambda: unless_cut_off(lambda c: c.has_collection("mark"), other), "the store answers again")
    client.drop_collection("quick")
    quick(client, 0)
    other.insert("quick", [row(1)])
    assert strong_count(client) == 1, "it looks again"
