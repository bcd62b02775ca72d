"""The steps to one cluster id in three places, interleaved and cut off at will."""

import asyncio
import random

import pytest

from core.catalog import Cluster
from core.errors import Fenced, StartRefused
from core.ids import Revision
from storage import keys
from storage.identity import Claim, Origin, Place, claim, establish
from storage.meta.port import Put
from tests.fakes import FakeMeta


class World:
    """Three stores whose calls take a random number of turns of the event loop."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.meta = SlowMeta(self)
        self.values: dict[str, bytes] = {}

    async def turns(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    def place(self, name: str) -> Place:
        async def read() -> bytes | None:
            await self.turns()
            return self.values.get(name)

        async def write(value: bytes) -> None:
            await self.turns()
            self.values[name] = value
            await self.turns()

        async def used() -> str:
            await self.turns()
            return f"something in {name}" if name in self.values else ""

        return Place(name, read, write, used)

    async def start(self) -> Cluster:
        return await establish(self.meta, "meta", (self.place("log"), self.place("objects")), "do something")

    async def claim(self) -> Claim:
        places = (self.place("log"), self.place("objects"))
        return await claim(self.meta, "meta", places, "do something", Origin("other", Revision(1)))


class SlowMeta(FakeMeta):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def get(self, key: str):
        await self._world.turns()
        item = await super().get(key)
        await self._world.turns()
        return item

    async def commit(self, conditions, writes):
        await self._world.turns()
        revision = await super().commit(conditions, writes)
        await self._world.turns()
        return revision


@pytest.mark.parametrize("seed", range(300))
async def test_whoever_starts_or_dies_all_agree(seed: int):
    world = World(seed)
    starts = [asyncio.create_task(world.start()) for _ in range(world.rng.randrange(1, 6))]
    for start in starts:
        if world.rng.random() < 0.5:
            for _ in range(world.rng.randrange(30)):
                await asyncio.sleep(0)
            start.cancel()
    done = await asyncio.gather(*starts, return_exceptions=True)
    cluster = await world.start()
    assert all(c == cluster or isinstance(c, asyncio.CancelledError) for c in done), done
    assert all(cluster.id in value.decode() for value in world.values.values())
    assert set(world.values) == {"log", "objects"}
    assert set(world.meta.items) == {keys.CLUSTER}


@pytest.mark.parametrize("seed", range(100))
async def test_a_store_is_either_new_or_filled_by_the_last_who_claimed_it(seed: int):
    world = World(seed)
    starts = [asyncio.create_task(world.start()) for _ in range(world.rng.randrange(3))]
    claims = [asyncio.create_task(world.claim()) for _ in range(world.rng.randrange(1, 4))]
    for task in (*starts, *claims):
        if world.rng.random() < 0.3:
            for _ in range(world.rng.randrange(30)):
                await asyncio.sleep(0)
            task.cancel()
    told = await asyncio.gather(*starts, *claims, return_exceptions=True)
    assert all(isinstance(t, Cluster | Claim | StartRefused | asyncio.CancelledError) for t in told), told
    if keys.ADOPTING not in world.meta.items:
        assert not any(isinstance(t, Claim) for t in told), "a start was first"
        await world.start()
        with pytest.raises(StartRefused, match=r"belongs to cluster .* already"):
            await world.claim()
        return
    assert not any(isinstance(t, Cluster) for t in told)
    with pytest.raises(StartRefused, match="not finished"):
        await world.start()
    last = await world.claim()
    assert {t.cluster for t in told if isinstance(t, Claim)} <= {last.cluster}
    for earlier in told:
        if isinstance(earlier, Claim):
            with pytest.raises(Fenced):
                await earlier.complete()
    await last.complete()
    assert await world.start() == last.cluster


@pytest.mark.parametrize("lost", ["log", "objects", "meta"])
async def test_a_lost_identity_is_named(lost: str):
    world = World(1)
    await world.start()
    if lost == "meta":
        world.meta.items.clear()
    else:
        del world.values[lost]
    with pytest.raises(StartRefused, match=f"{lost} has no cluster id.*do something"):
        await world.start()


async def test_a_used_place_without_identity_is_refused():
    world = World(1)
    await world.meta.commit([], [Put("k", b"v")])
    with pytest.raises(StartRefused, match="k in meta"):
        await world.start()


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b'{"cluster": 1, "format": 1}', b"\xff\xff"])
async def test_a_damaged_identity_is_named(value: bytes):
    world = World(1)
    await world.start()
    world.values["objects"] = value
    with pytest.raises(StartRefused, match="objects is damaged"):
        await world.start()
