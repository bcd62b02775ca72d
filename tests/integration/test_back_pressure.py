"""Back-pressure, room by room: what fills up says so, writes wait and are refused, reads go on, all recovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymilvus import MilvusClient, MilvusException

from core.ids import Channel
from core.pressure import LEVELS, Pressure
from core.settings import QueryNodeSettings, ServerSettings, Settings
from datanode import service
from proxy.admission import REFUSED, SLOWED
from sheafdb.standalone import Standalone
from storage import keys, pressure
from storage.meta.port import Put
from storage.pressure import PressureSigns
from tests.integration.proxy_house import House
from tests.integration.proxy_tables import DIM, quick
from tests.integration.querynode_rig import Rig as QueryNodeRig
from tests.integration.querynode_rig import collection
from tests.simulation.rig import NODE, QUIET, Rig
from tests.waiting import until

SMALL = 200_000
"""Memory for growing rows that a thousand of them fill."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "TICK_S", 0.02)


# --- the proxy ------------------------------------------------------------------------------------
@pytest.fixture
def pressed(house: House, client: MilvusClient) -> Iterator[MilvusClient]:
    quick(client)
    yield client
    house.pressure.clear()


def press(house: House, level: int) -> None:
    channels = tuple(Channel(n) for n in range(house.log.channels))
    said = Pressure(level, channels, "growing rows of querynode q take 9 bytes of 9 (query_node.growing_bytes)")
    house.pressure.update(dict.fromkeys(channels, said))


def test_full_nodes_refuse_writes_and_nothing_else(house: House, pressed: MilvusClient) -> None:
    press(house, LEVELS)
    one = [{"id": 3, "vector": [0.0] * DIM, "n": 9}]
    for write in (
        lambda: pressed.insert("quick", one, retry_on_rate_limit=False),
        lambda: pressed.upsert("quick", one, retry_on_rate_limit=False),
        lambda: pressed.delete("quick", ids=[3], retry_on_rate_limit=False),
        lambda: pressed.delete("quick", filter="n > 3", retry_on_rate_limit=False),
    ):
        with pytest.raises(MilvusException, match=r"collection=quick.*take 9 bytes of 9.*growing_bytes") as raised:
            write()
        assert raised.value.code == 8
        assert raised.value.compatible_code == 49
    assert pressed.query("quick", output_fields=["count(*)"]) == [{"count(*)": 20}]
    assert pressed.search("quick", data=[[0.0] * DIM], limit=3)[0]
    pressed.create_partition("quick", "p")
    pressed.drop_collection("quick")


def test_a_client_repeats_a_refused_write_until_there_is_room(house: House, pressed: MilvusClient) -> None:
    press(house, LEVELS)
    house.loop.call_later(0.2, house.pressure.clear)
    pressed.insert("quick", [{"id": 100, "vector": [0.0] * DIM, "n": 9}])
    assert not house.pressure
    assert pressed.query("quick", output_fields=["count(*)"]) == [{"count(*)": 21}]


def test_writes_wait_while_nodes_fill_up(house: House, pressed: MilvusClient) -> None:
    waits = []
    for level in (0, 3, 5):
        press(house, level)
        started = time.monotonic()
        pressed.upsert("quick", [{"id": 3, "vector": [0.0] * DIM, "n": level}])
        waits.append(time.monotonic() - started)
        assert waits[-1] >= Pressure(level, (), "").delay_s
    assert pressed.get("quick", 3, output_fields=["n"])[0]["n"] == 5


# --- the data node --------------------------------------------------------------------------------
@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await Rig.open(tmp_path, replace(QUIET, buffer_bytes=2_000, backlog_bytes=20_000))
    yield rig
    await rig.close()


async def test_a_data_node_that_falls_behind_says_so_and_takes_it_back(rig: Rig) -> None:
    signs = PressureSigns(rig.store.meta)
    await signs.start()
    c = await rig.create()
    channel = c.shards[0].channel
    await rig.write(c, {-1: 1})
    assert not signs.by_channel
    busy = rig.data_node._resources.sealing
    for _ in range(2):
        await busy.acquire()  # as if the object store took for ever
    seen, n = [0], 0

    async def told() -> bool:
        sign = rig.data_node._sign
        due = pressure.level((await sign._measure()).used, 20_000, sign._level)
        return due == (signs.by_channel[channel].level if channel in signs.by_channel else 0)

    while seen[-1] < LEVELS:
        await rig.write(c, {k: k for k in range(n, n + 20)})
        n += 20
        await until(told, "the pressure to be told")
        seen.append(signs.by_channel[channel].level if channel in signs.by_channel else 0)
    assert seen == sorted(seen)
    assert len(set(seen)) > 4, "it rises step by step"
    assert signs.by_channel[channel].refuses
    assert "unsealed records of datanode rig take" in signs.by_channel[channel].reason
    assert "of 20000 (data_node.backlog_bytes)" in signs.by_channel[channel].reason
    for _ in range(2):
        busy.release()

    async def well() -> bool:
        return not signs.by_channel

    await until(well, "the pressure to go")
    assert await rig.state(c) == {k: k for k in range(n)} | {-1: 1}
    await signs.close()


async def test_rows_that_fill_a_query_node_are_sealed_early(rig: Rig) -> None:
    c = await rig.create()
    channel = c.shards[0].channel
    await rig.write(c, {k: k for k in range(10)})
    assert [m.segments for m in await rig.manifests(c)] == [()]
    said = Pressure(2, (channel,), "growing rows")
    await rig.store.meta.commit((), [Put(keys.pressure("querynode", NODE), said.text().encode())])

    async def sealed() -> bool:
        return all(m.segments for m in await rig.manifests(c))

    await until(sealed, "a seal that neither size, age nor a flush asked for")


# --- the query node -------------------------------------------------------------------------------
async def test_a_query_node_full_of_growing_rows_says_so_until_they_are_sealed(tmp_path: Path) -> None:
    rig = await QueryNodeRig.open(tmp_path, collection(), QueryNodeSettings(growing_bytes=60_000))
    signs = PressureSigns(rig.store.meta)
    await signs.start()
    n = 0
    while rig.channel not in signs.by_channel or not signs.by_channel[rig.channel].refuses:
        await rig.upsert([(k, k) for k in range(n, n + 50)])
        n += 50
        assert len(await rig.rows()) == n, "reads go on"
        assert n < 5000
    assert "query_node.growing_bytes" in signs.by_channel[rig.channel].reason
    await rig.seal()

    async def well() -> bool:
        return not signs.by_channel

    await until(well, "the pressure to go")
    assert len(await rig.rows()) == n
    await rig.upsert([(n, n)])
    await rig.node.close()  # with nothing said, nothing is left
    assert not (await rig.store.meta.list(keys.PRESSURES))[0]
    await signs.close()
    await rig.store.close()


# --- all of them ----------------------------------------------------------------------------------
async def test_a_writer_faster_than_sealing_is_held_back_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, as in many: more rows come than growing rows may take, and nobody does anything."""
    monkeypatch.setattr(service, "RELIEF_S", 0.02)
    settings = Settings(
        server=ServerSettings(port=0, metrics_port=-1), query_node=QueryNodeSettings(growing_bytes=SMALL)
    )
    server = await Standalone.open(tmp_path, settings)
    before = SLOWED._value.get() + REFUSED._value.get()
    assert await asyncio.to_thread(write, server.uri, 3000) == 3000
    assert SLOWED._value.get() + REFUSED._value.get() > before
    await server.close()


def write(uri: str, rows: int) -> int:
    """How many rows are counted after that many were written."""
    client = MilvusClient(uri, dedicated=True)
    client.create_collection("c", dimension=64, consistency_level="Strong")
    for n in range(0, rows, 50):
        client.insert("c", [{"id": i, "vector": [float(i)] * 64} for i in range(n, n + 50)], timeout=20)
    (found,) = client.query("c", output_fields=["count(*)"])
    client.close()
    return found["count(*)"]
