"""Membership, and the decorators of the ports: faults and metrics."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from core.errors import DiskFull, ObjectNotFound, Unavailable, WatchCompacted
from core.ids import Channel, NodeId, Position, Revision
from storage import keys
from storage.faults import Action, Fault, FaultPlan, FaultyLog, FaultyMeta, FaultyObjects
from storage.log.sqlite import SqliteLog
from storage.membership import Membership
from storage.meta.history import History
from storage.meta.port import Event, Put
from storage.meta.sqlite import SqliteMeta
from storage.metrics import MeteredLog, MeteredMeta, MeteredObjects, StorageMetrics
from storage.objects.folder import FolderObjects

PATIENCE_S = 20
KEY = keys.node("querynode", NodeId("n1"))


async def test_a_member_is_seen_until_it_leaves(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    member = Membership(meta, "querynode", NodeId("n1"), "127.0.0.1:1", 0.3)
    await member.start()
    item = await meta.get(KEY)
    assert item
    assert item.value == b"127.0.0.1:1"
    await asyncio.sleep(0.8)
    assert await meta.get(KEY) == item, "kept alive past its time to live"
    await member.close()
    await member.close()
    assert await meta.get(KEY) is None
    await meta.close()


async def test_a_member_that_lost_its_lease_registers_again(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    member = Membership(meta, "querynode", NodeId("n1"), "address", 0.3)
    await member.start()
    _, revision = await meta.list("")
    await meta.revoke(member._lease)
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        async for batch in meta.watch(KEY, revision):
            events += batch
            if events[-1].value is not None:
                break
    assert [e.value for e in events] == [None, b"address"]
    await member.close()
    await meta.close()


async def test_a_failing_heartbeat_is_tried_again(tmp_path: Path):
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    plan = FaultPlan(Fault("keep_alive", Action.FAIL, nth=1, times=2))
    member = Membership(FaultyMeta(meta, plan), "querynode", NodeId("n1"), "address", 0.6)
    await member.start()
    async with asyncio.timeout(PATIENCE_S):
        while plan.passages["keep_alive"] < 5:  # noqa: ASYNC110, a counter is all there is to watch
            await asyncio.sleep(0.02)
    assert await meta.get(KEY)
    await member.close()
    await meta.close()


def test_history_is_bounded_and_says_so():
    history = History(Revision(10), events_max=5)
    for revision in range(11, 21):
        history.add(Revision(revision), (Event("k", b"", Revision(revision)),))
    assert [e.revision for e in history.next(Revision(15))] == [16]
    assert [e.revision for e in history.next(Revision(19))] == [20]
    with pytest.raises(WatchCompacted):
        history.next(Revision(14))


async def test_faults_happen_where_planned(tmp_path: Path):
    log = await SqliteLog.open(tmp_path / "log.db", 1, 1000)
    plan = FaultPlan(
        Fault("append", Action.FAIL, nth=2, error=DiskFull("full")),
        Fault("append", Action.FAIL_AFTER, nth=3),
        Fault("read", Action.FAIL, nth=2),
    )
    faulty = FaultyLog(log, plan)
    entry = [(Channel(0), b"x")]
    assert await faulty.append(entry) == [0]
    with pytest.raises(DiskFull):
        await faulty.append(entry)
    assert await log.end([Channel(0)]) == [1]
    with pytest.raises(Unavailable):
        await faulty.append(entry)
    assert await faulty.end([Channel(0)]) == [2]
    batches = faulty.read(Channel(0), Position(0))
    assert len(await anext(batches)) == 2
    with pytest.raises(Unavailable):
        await anext(batches)
    assert plan.passages == {"append": 3, "end": 1, "read": 2}
    await faulty.close()


async def test_a_delayed_call_is_late_and_done(tmp_path: Path):
    objects = FolderObjects(tmp_path / "o")
    faulty = FaultyObjects(objects, FaultPlan(Fault("put", Action.DELAY, delay_s=0.2)))
    putting = asyncio.create_task(faulty.put("a", b"1"))
    with pytest.raises(ObjectNotFound):
        await faulty.get("a")
    await putting
    assert await faulty.get("a") == b"1"
    assert [o.name async for o in faulty.list("")] == ["a"]
    await faulty.close()


@pytest.mark.parametrize(("action", "there"), [("CRASH_BEFORE", False), ("CRASH_AFTER", True)])
async def test_a_crash_kills_the_process(tmp_path: Path, action: str, there: bool):
    script = f"""
import asyncio, sys
from pathlib import Path
from storage.faults import *
from storage.objects.folder import FolderObjects
async def main():
    plan = FaultPlan(Fault("put", Action.{action}, nth=2))
    objects = FaultyObjects(FolderObjects(Path(sys.argv[1])), plan)
    await objects.put("first", b"")
    await objects.put("second", b"")
asyncio.run(main())
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    objects = FolderObjects(tmp_path)
    assert [o.name async for o in objects.list("")] == ["first", "second"][: 1 + there]
    await objects.close()


async def test_metrics_count_calls_errors_and_bytes(tmp_path: Path):
    registry = CollectorRegistry()
    metrics = StorageMetrics(registry)
    log = MeteredLog(await SqliteLog.open(tmp_path / "log.db", 1, 1000), metrics)
    meta = MeteredMeta(await SqliteMeta.open(tmp_path / "meta.db"), metrics)
    objects = MeteredObjects(FolderObjects(tmp_path / "o"), metrics)
    await log.append([(Channel(0), b"12345"), (Channel(0), b"678")])
    async for batch in log.read(Channel(0), Position(0)):
        assert len(batch) == 2
        break
    await meta.commit([], [Put("a", b"1234")])
    assert await meta.get("a")
    await objects.put("o", memoryview(b"123456"))
    await objects.put("p", tmp_path / "log.db-acked")
    with pytest.raises(ObjectNotFound):
        await objects.get("none")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("sheafdb_storage_seconds_count", port="log", method="append") == 1
    assert value("sheafdb_log_records_total") == 2
    assert value("sheafdb_storage_bytes_total", port="log", direction="written") == 8
    assert value("sheafdb_storage_bytes_total", port="log", direction="read") == 8
    assert value("sheafdb_storage_bytes_total", port="meta", direction="written") == 4
    assert value("sheafdb_storage_bytes_total", port="meta", direction="read") == 4
    assert value("sheafdb_storage_bytes_total", port="objects", direction="written") == 6 + 32
    assert value("sheafdb_storage_errors_total", port="objects", method="get", error="ObjectNotFound") == 1
    await log.close()
    await meta.close()
    await objects.close()
