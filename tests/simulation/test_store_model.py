"""Random writes, flushes, compactions, partition drops, failures and restarts against a dict model.

The cluster is the real coordinator and data node on a real embedded store; its state is read from
manifests, files and log by the plain rules (``Rig.state``). ``SHEAFDB_SIMULATION_SEED`` replays one.
"""

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import ObjectNotFound
from core.failpoints import InjectedFailure, arm
from core.ids import ShardId
from core.schema import Schema
from rpc.roles import CreateIndex, CreatePartition, DropPartition
from tests.simulation.rig import DATA_NODE, SCHEMA, STRING_SCHEMA, Rig
from tests.waiting import until

GIVEN = int(os.environ.get("SHEAFDB_SIMULATION_SEED", "0"))
SEEDS = [GIVEN] if GIVEN else [random.SystemRandom().randrange(1, 2**32) for _ in range(3)]
POINTS = (
    *("seal.before_put", "seal.before_commit", "seal.committed"),
    *("compact.before_put", "compact.before_commit", "compact.committed"),
    *("gc.before_delete", "gc.deleted", "trim.before", "trim.done"),
    *("index.before_commit", "index.committed"),
)


class Simulation:
    """One collection with two shards, and what it must hold."""

    def __init__(self, rig: Rig, seed: int, schema: Schema) -> None:
        self.rig, self.chance = rig, random.Random(seed)
        self.key = str if schema is STRING_SCHEMA else int
        self.model: dict[Any, tuple[str, int]] = {}
        self.partitions = ["_default"]
        self.writes = 0

    async def begin(self, schema: Schema) -> None:
        await self.rig.create(shards=2, schema=schema)
        await self.rig.change(CreateIndex("", "c", "vector"))

    async def step(self) -> None:
        steps = [self.upsert] * 8 + [self.delete] * 3 + [self.flush] * 3 + [self.compact, self.restart, self.partition]
        await self.chance.choice(steps)()

    def keys(self) -> list[Any]:
        return [self.key(self.chance.randrange(80)) for _ in range(self.chance.randrange(1, 30))]

    async def upsert(self) -> None:
        self.writes += 1
        rows, partition = dict.fromkeys(self.keys(), self.writes), self.chance.choice(self.partitions)
        await self.rig.write(await self.rig.collection(), rows, partition=partition)
        self.model |= {k: (partition, n) for k, n in rows.items()}

    async def delete(self) -> None:
        gone = self.keys()
        await self.rig.delete(await self.rig.collection(), gone)
        for k in gone:
            self.model.pop(k, None)

    async def flush(self) -> None:
        await self.failing(self.rig.flush(await self.rig.collection()))

    async def compact(self) -> None:
        collection = await self.rig.collection()
        shard = ShardId(collection.id, self.chance.randrange(2))
        await self.failing(self.rig.data_node.compact(shard))

    async def failing(self, work) -> None:
        if self.chance.random() < 0.5:
            arm(f"{self.chance.choice(POINTS)}=fail@{self.chance.randrange(1, 4)}")
        try:
            await work
        except InjectedFailure:
            if self.chance.random() < 0.5:
                await self.rig.restart()
        finally:
            arm("")

    async def restart(self) -> None:
        await self.rig.restart()

    async def partition(self) -> None:
        if len(self.partitions) > 1:
            name = self.partitions.pop()
            await self.rig.change(DropPartition("", "c", name))
            self.model = {k: v for k, v in self.model.items() if v[0] != name}
        else:
            name = f"p{self.writes}"
            await self.rig.change(CreatePartition("", "c", name))
            self.partitions.append(name)

    async def check(self) -> None:
        collection = await self.rig.collection()
        assert await self.rig.state(collection) == {k: n for k, (_, n) in self.model.items()}


@pytest.mark.parametrize("schema", [SCHEMA, STRING_SCHEMA], ids=["integers", "strings"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_random_work(tmp_path: Path, seed: int, schema: Schema) -> None:
    rig = await Rig.open(tmp_path, replace(DATA_NODE, segment_bytes=2_000, compact_interval_s=0.02))
    simulation = Simulation(rig, seed, schema)
    await simulation.begin(schema)
    for n in range(80):
        await simulation.step()
        if n % 5 == 0:
            await simulation.check()
    await rig.restart()
    await simulation.check()
    collection = await rig.collection()
    await rig.flush(collection)
    await simulation.check()
    await rig.close()


async def test_a_compaction_whose_segments_were_dropped_and_collected_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await Rig.open(tmp_path)
    await rig.create()
    await rig.change(CreatePartition("", "c", "p"))
    collection = await rig.collection()
    for n in range(3):
        await rig.write(collection, {n: n}, partition="p")
        await rig.flush(collection)
    objects = rig.store.objects
    fetch, met = objects.fetch, []

    async def no_segments() -> bool:
        return not any(m.segments for m in await rig.manifests(collection))

    async def dropped_meanwhile(name: str) -> Path:
        monkeypatch.setattr(objects, "fetch", fetch)
        met.append(name)
        await rig.change(DropPartition("", "c", "p"))
        await until(no_segments, "the dropped segments to leave the manifest")
        raise ObjectNotFound(name)

    monkeypatch.setattr(objects, "fetch", dropped_meanwhile)
    async with asyncio.timeout(20):
        assert await rig.data_node.compact(collection.shard_ids[0]) == 0
    assert met
    await rig.close()


async def test_what_a_manifest_names_and_is_gone_is_said(tmp_path: Path) -> None:
    rig = await Rig.open(tmp_path)
    collection = await rig.create()
    for n in range(3):
        await rig.write(collection, {n: n})
        await rig.flush(collection)
    (manifest,) = await rig.manifests(collection)
    await rig.store.objects.delete(manifest.segments[0].object.name)
    with pytest.raises(ObjectNotFound):
        await rig.data_node.compact(collection.shard_ids[0])
    await rig.close()


async def test_log_objects_and_metadata_stay_bounded(tmp_path: Path) -> None:
    """Many upserts over few keys: what is kept depends on the keys, not on the writes."""
    settings = replace(DATA_NODE, segment_bytes=40_000, compact_interval_s=0.02, trim_interval_s=0.02)
    rig = await Rig.open(tmp_path, settings)
    collection = await rig.create()
    rows = {}
    for n in range(200):
        rows = {k: n for k in range(500)}
        await rig.write(collection, rows)
    await rig.flush(collection)
    assert await rig.state(collection) == rows
    channel = collection.shards[0].channel

    async def small() -> bool:
        (manifest,) = await rig.manifests(collection)
        objects = [o async for o in rig.store.objects.list("")]
        garbage, _ = await rig.store.meta.list("garbage/")
        kept = await rig.store.log.start(channel) == 200
        return kept and not garbage and len(objects) <= 8 and sum(s.rows for s in manifest.segments) <= 2_000

    await until(small, "everything old to be gone")
    await rig.close()
