"""Mirrors over a metadata store that forgets and fails; leases of a process that slept."""

import asyncio
import time
from pathlib import Path

from core.errors import Unavailable, WatchCompacted
from core.ids import NodeId
from storage import keys
from storage.faults import Action, Fault, FaultPlan, FaultyMeta
from storage.membership import Membership
from storage.meta.mirror import Mirror
from storage.meta.port import Delete, Put
from storage.meta.sqlite import SqliteMeta


async def test_a_mirror_survives_a_failure_while_it_lists_again(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    plan = FaultPlan(
        Fault("watch", Action.FAIL, nth=2, error=WatchCompacted("gone")),
        Fault("list", Action.FAIL, nth=2, times=2, error=Unavailable("away")),
    )
    mirror: Mirror[str] = Mirror(FaultyMeta(meta, plan), "m/", str)
    await meta.commit([], [Put("m/1", b"a"), Put("m/2", b"a")])
    await mirror.start()
    told: list[tuple[str, str | None]] = []
    mirror.listen(lambda key, value: told.append((key, value)), replay=False)
    await mirror.wait(await meta.commit([], [Put("m/1", b"b")]))
    await mirror.wait(await meta.commit([], [Delete("m/2"), Put("m/3", b"c")]))
    assert mirror.values == {"m/1": "b", "m/3": "c"}
    assert sorted(told) == [("m/1", "b"), ("m/2", None), ("m/3", "c")]
    assert plan.passages["list"] == 4, "at start, twice in vain, once well"
    await mirror.close()
    await meta.close()


async def test_a_process_that_slept_keeps_its_leases_in_its_own_store(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    member = Membership(meta, "datanode", NodeId("n"), "here", 0.6)
    await member.start()
    before = await meta.get(keys.node("datanode", NodeId("n")))
    time.sleep(1.5)  # noqa: ASYNC251, all of the process stands still, as under SIGSTOP
    await asyncio.sleep(0.5)
    assert await meta.get(keys.node("datanode", NodeId("n"))) == before, "nobody else could have looked"
    await member.close()
    await meta.close()


async def test_a_mirror_that_keeps_few_values_decoded_shows_the_same(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    await meta.commit([], [Put(f"m/{n}", str(n).encode()) for n in range(9)])
    mirror: Mirror[str] = Mirror(meta, "m/", str, 3)
    await mirror.start()
    assert dict(mirror.values) == {f"m/{n}": str(n) for n in range(9)}
    told: list[tuple[str, str | None]] = []
    mirror.listen(lambda key, value: told.append((key, value)), replay=False)
    await mirror.wait(await meta.commit([], [Put("m/1", b"b"), Delete("m/2")]))
    assert told == [("m/1", "b"), ("m/2", None)]
    assert (mirror.values["m/1"], mirror.values.get("m/2"), "m/2" in mirror.values, len(mirror.values)) == (
        "b",
        None,
        False,
        8,
    )
    assert mirror.values["m/3"] is mirror.values["m/3"], "decoded once while it is looked at often"
    await mirror.close()
    await meta.close()
