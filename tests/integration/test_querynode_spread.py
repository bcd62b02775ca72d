"""A shard spread over several nodes answers, row by row, as one node that holds the whole."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test

from core.errors import SnapshotExpired, Unavailable
from core.settings import QueryNodeSettings
from core.types import DataType
from querynode import links
from rpc.reads import ShardPhase
from rpc.workers import SESSION_TTL_S
from tests.integration.querynode_rig import NODE, PARTITIONS, collection, vector
from tests.integration.spread_rig import WORKERS, SpreadRig
from tests.integration.test_querynode_machine import Machine
from tests.waiting import until

SETTINGS = QueryNodeSettings(spread_bytes=0)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SpreadRig]:
    monkeypatch.setattr(links, "ANSWER_S", 0.3)
    monkeypatch.setattr(links, "MET_S", 0.3)
    monkeypatch.setattr(links, "BEAT_S", 0.1)
    monkeypatch.setattr(links, "RETRY_S", (0.2, 0.2))
    rig = await SpreadRig.open(tmp_path, collection(), SETTINGS)
    yield rig
    await rig.close()


def rows(*numbers: int) -> list[tuple[int, int]]:
    return [(n, n) for n in numbers]


async def fill(rig: SpreadRig, segments: int = 6, each: int = 20) -> None:
    for s in range(segments):
        await rig.upsert(rows(*range(s * each, (s + 1) * each)), PARTITIONS[s % 2])
        await rig.seal()
    await rig.spread()


QUERIES = np.stack([vector(10**6 + i) for i in range(5)])


async def test_segments_are_spread_evenly_and_answers_are_the_same(rig: SpreadRig) -> None:
    await fill(rig)
    assert await rig.holders() == dict.fromkeys(WORKERS, 2)
    await rig.upsert(rows(*range(120, 130)))
    await rig.delete([0, 21, 42, 63, 84, 105, 125])
    await rig.upsert([(1, 500), (41, 501), (119, 502)])
    reads: list[dict[str, Any]] = [
        {},
        {"filter": "n % 3 == 0"},
        {"filter": "id in [2, 41, 99]"},
        {"partitions": PARTITIONS[1:]},
    ]
    for more in reads:
        reply = await rig.same_search(QUERIES, 10, output=("n", "v"), **more)
        assert reply.counts.sum()
        await rig.same_query(**more)
        await rig.same_query(limit=7, **more)
        await rig.same_query(count_only=True, **more)
    assert len(await rig.rows()) == 123
    assert all(line.asked for node, line in rig.lines.items() if node in WORKERS)
    await rig.same_search(QUERIES, 10, output=())
    assert all(line.at_once for node, line in rig.lines.items() if node in WORKERS)
    (status,) = await rig.node.shards()
    assert (status.phase, status.sealed_rows, status.growing_rows) == (ShardPhase.READY, 120, 13)


async def test_groups_and_ranges_are_those_of_the_whole(rig: SpreadRig) -> None:
    for s in range(6):
        await rig.upsert([(s * 20 + i, i % 7) for i in range(20)], PARTITIONS[s % 2])
        await rig.seal()
    await rig.spread()
    await rig.same_search(QUERIES, 5, metric="L2", group_by="n", group_size=1)
    reply = await rig.same_search(QUERIES, 12, metric="L2", group_by="n", group_size=4, output=())
    assert list(reply.rows.columns) == []
    await rig.same_search(QUERIES, 30, metric="L2", radius=14.0, range_filter=4.0)


async def test_equal_scores_come_in_one_order_wherever_segments_are(rig: SpreadRig) -> None:
    await fill(rig, segments=9, each=5)
    await rig.upsert(rows(*range(50, 60)))
    zero = np.zeros((2, 8), np.float32)
    first = await rig.same_search(zero, 17, metric="IP")
    assert set(first.scores.tolist()) == {0.0}
    for members in ((NODE, WORKERS[0]), (NODE,), (NODE, *WORKERS)):
        await rig.move(*members)
        await rig.spread()
        again = await rig.same_search(zero, 17, metric="IP")
        assert again.rows.pks.equals(first.rows.pks)


async def test_indexes_built_later_are_opened_by_the_holders(rig: SpreadRig) -> None:
    await fill(rig)
    await rig.index()
    await rig.spread()
    held = [s for n in WORKERS for h in rig.services[n].worker._sessions.values() for s in h.shards.values()]
    segments = [s for h in held for s in h.sealed.values()]
    assert len(segments) == 4
    assert all(s._indexes for s in segments)
    await rig.same_search(QUERIES, 10)
    assert [len(rig.lines[n].held[-1]) for n in WORKERS] == [2, 2], "told once of what both lack"


async def test_a_node_that_comes_takes_its_share_and_one_that_goes_gives_it_back(rig: SpreadRig) -> None:
    await rig.move(NODE, WORKERS[0])
    await fill(rig)
    assert await rig.holders() == {WORKERS[0]: 3}
    reads = asyncio.create_task(read_on(rig))
    await rig.move(NODE, *WORKERS)
    await rig.spread()
    assert await rig.holders() == dict.fromkeys(WORKERS, 2)
    await until(lambda: held(rig, 2, 2))
    await rig.move(NODE, WORKERS[1])
    await rig.spread()
    await until(lambda: held(rig, 0, 3))
    assert await stop(reads) > 0


async def read_on(rig: SpreadRig) -> int:
    """Reads until cancelled; none may fail or miss a row. How many there were."""
    done = 0
    try:
        while True:
            assert (await super(SpreadRig, rig).query(count_only=True)).count == 120
            reply = await super(SpreadRig, rig).search(QUERIES, 120)
            assert reply.counts.tolist() == [120] * len(QUERIES)
            done += 1
            await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        return done


async def stop(reads: asyncio.Task[int]) -> int:
    reads.cancel()
    return await reads


async def held(rig: SpreadRig, *segments: int) -> bool:
    return [rig.services[n].worker.segments for n in WORKERS] == list(segments)


async def test_iterators_keep_what_they_read_from(rig: SpreadRig) -> None:
    await fill(rig)
    timestamp = await rig.barrier()
    before = await rig.rows(snapshot_ts=timestamp)
    await rig.delete(range(0, 120, 2))
    await rig.compact()
    await rig.move(NODE)
    await rig.spread()
    assert len(await rig.rows()) == 60
    assert await rig.rows(snapshot_ts=timestamp) == before
    assert await held(rig, 2, 2)
    served = rig.node._placed.get(rig.shard)
    assert served
    served.shard.pins._held.clear()
    served.shard._view = None
    await until(lambda: held(rig, 0, 0))


async def test_a_read_overtakes_no_delete_it_must_see(rig: SpreadRig) -> None:
    await fill(rig)
    for line in rig.lines.values():
        line.slow_s = 0.05
    for key in range(0, 120, 9):
        await rig.delete([key])
        assert key not in await rig.rows()
        assert key not in (await rig.search(QUERIES[:1], 120)).rows.pks.to_pylist()


async def test_kills_sealed_in_tombstone_files_reach_a_new_holder(rig: SpreadRig) -> None:
    await rig.move(NODE)
    await fill(rig)
    await rig.delete(range(0, 120, 2))
    await rig.seal()
    await rig.delete(range(0, 120, 3))
    await rig.spread()
    await rig.move(NODE, *WORKERS)
    await rig.spread()
    assert (await rig.holders()).keys() == set(WORKERS)
    await rig.delete(range(0, 120, 5))
    assert set(await rig.rows()) == {n for n in range(120) if n % 2 and n % 3 and n % 5}


async def test_deletes_in_the_middle_of_a_move_are_not_lost(rig: SpreadRig) -> None:
    await rig.move(NODE)
    await fill(rig)
    for line in rig.lines.values():
        line.answers_holds.clear()
    await rig.move(NODE, *WORKERS)

    async def opened() -> bool:
        return await held(rig, 2, 2)

    await until(opened)
    await rig.delete(range(0, 120, 2))
    assert len(await rig.rows()) == 60, "served meanwhile from where the segments were"
    for line in rig.lines.values():
        line.answers_holds.set()
    await rig.spread()
    assert (await rig.holders()).keys() == set(WORKERS)
    assert len(await rig.rows()) == 60


async def test_a_restarted_worker_is_told_again(rig: SpreadRig) -> None:
    await fill(rig)
    await rig.delete([3, 30])
    early = await rig.barrier()
    seen = await rig.rows(snapshot_ts=early)
    await rig.delete([4, 40])
    await rig.lose(WORKERS[0])
    assert len(await rig.rows()) == 116

    async def back() -> bool:
        await rig.spread()
        return (await rig.holders()).keys() == set(WORKERS)

    await until(back)
    await rig.same_query()
    assert await rig.rows(snapshot_ts=early) == seen, "what the iterator reads from is held anew"


async def test_an_iterator_ends_when_what_it_reads_from_is_sealed_over_and_lost(rig: SpreadRig) -> None:
    await fill(rig)
    await rig.delete([3, 30])
    timestamp = await rig.barrier()
    await rig.rows(snapshot_ts=timestamp)
    await rig.delete([4, 40])
    await rig.compact()
    await rig.spread()
    assert await rig.rows(snapshot_ts=timestamp)
    await rig.seal()
    await rig.spread()
    for worker in WORKERS:
        await rig.lose(worker)
    assert len(await rig.rows()) == 116
    with pytest.raises(SnapshotExpired, match="start it again"):
        await rig.rows(snapshot_ts=timestamp)


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_a_lost_worker_fails_reads_at_once_until_others_hold_its_share(rig: SpreadRig, how: str) -> None:
    await fill(rig)
    setattr(rig.lines[WORKERS[0]], how, True)
    started_s = time.monotonic()
    with pytest.raises(Unavailable, match=r"querynode-2 is lost|connection refused"):
        await super(SpreadRig, rig).query(count_only=True)
    assert time.monotonic() - started_s < 2
    await rig.upsert(rows(200))
    assert len(await rig.rows()) == 121
    assert time.monotonic() - started_s < 3
    assert (await rig.holders()).keys() == {WORKERS[1]}
    await rig.same_search(QUERIES, 10)
    setattr(rig.lines[WORKERS[0]], how, False)

    async def back() -> bool:
        return (await rig.holders()).keys() == set(WORKERS)

    await until(back)
    assert len(await rig.rows()) == 121


async def test_a_lost_worker_fails_a_read_that_another_one_still_works_on(rig: SpreadRig) -> None:
    await fill(rig)
    lost, busy = (rig.lines[worker] for worker in WORKERS)
    busy.answers_reads.clear()
    lost.silent = True
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="querynode-2 is lost"):
            await super(SpreadRig, rig).query(count_only=True)
    busy.answers_reads.set()
    assert len(await rig.rows()) == 120


async def test_a_worker_lets_go_of_a_silent_leader(rig: SpreadRig) -> None:
    await fill(rig)
    worker = rig.services[WORKERS[0]].worker
    rig.lines[WORKERS[0]].cut = True
    await until(lambda: _lost(rig))
    assert worker.segments == 2
    worker._now = lambda: time.monotonic() + SESSION_TTL_S
    worker.expire()
    assert worker.segments == 0


async def _lost(rig: SpreadRig) -> bool:
    return WORKERS[0] not in await rig.holders()


async def test_a_small_shard_stays_whole(tmp_path: Path) -> None:
    rig = await SpreadRig.open(tmp_path, collection(), QueryNodeSettings(spread_bytes=10**6))
    await fill(rig)
    assert await rig.holders() == {}
    await rig.close()


class SpreadMachine(Machine):
    """The same against the dict, with members that come, go and are lost; and against the whole."""

    rig: SpreadRig
    rig_type = SpreadRig
    settings = SETTINGS

    @rule(members=st.sampled_from([(NODE,), (NODE, WORKERS[0]), (NODE, WORKERS[1]), (NODE, *WORKERS)]))
    def move(self, members: tuple) -> None:
        self.run(self.rig.move(*members))

    @rule(worker=st.sampled_from(WORKERS))
    def lose(self, worker) -> None:
        self.run(self.rig.lose(worker))
        self.pinned.clear()

    @rule(target=Machine.pins)
    def pin(self) -> int:
        while True:
            with suppress(SnapshotExpired):  # its view had a part at a node that was lost: a client starts again
                return super().pin()

    @rule(worker=st.sampled_from(WORKERS), slow_s=st.sampled_from([0.0, 0.003]))
    def slow(self, worker, slow_s: float) -> None:
        self.rig.lines[worker].slow_s = slow_s

    @rule(seed=st.integers(0, 5), k=st.integers(1, 12), bound=st.none() | st.integers(0, 40))
    def check_against_the_whole(self, seed: int, k: int, bound: int | None) -> None:
        queries = np.stack([vector(10**6 + seed), vector(10**6 + seed + 1)])
        self.run(self.rig.spread())
        self.run(self.rig.same_search(queries, k, filter="" if bound is None else f"n < {bound}"))
        self.run(self.rig.same_query("" if bound is None else f"n < {bound}", limit=k))


class StringKeySpreadMachine(SpreadMachine):
    key_type = DataType.VARCHAR


@pytest.mark.parametrize("machine", [SpreadMachine, StringKeySpreadMachine])
def test_answers_are_those_of_a_dict(machine: type[SpreadMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "RETRY_S", (0.01, 0.01))
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=40))
