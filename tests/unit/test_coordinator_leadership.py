"""Leadership while the metadata store answers late, wrong or not at all."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.leadership import Leadership
from core.errors import NotReady
from core.ids import NodeId
from storage import keys
from storage.faults import Action, Fault, FaultPlan, FaultyMeta
from storage.meta.port import MetaStore, Put
from storage.meta.sqlite import SqliteMeta
from tests.waiting import until


@pytest.fixture
async def meta(tmp_path: Path) -> AsyncIterator[SqliteMeta]:
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    yield meta
    await meta.close()


class Candidate:
    """A campaigner that writes down when it leads."""

    def __init__(self, meta: MetaStore, name: str, ttl_s: float) -> None:
        self.history: list[str] = []
        self.leadership = Leadership(meta, NodeId(name), ttl_s, self._gained, self._lost)

    async def _gained(self) -> None:
        self.history.append("leads")

    async def _lost(self) -> None:
        self.history.append("lost")


async def test_a_standby_follows_a_leader_that_leaves_at_once(meta: SqliteMeta):
    one, two = Candidate(meta, "one", 60), Candidate(meta, "two", 60)
    await one.leadership.start()
    await two.leadership.start()
    with pytest.raises(NotReady):
        assert two.leadership.authority
    began = time.monotonic()
    await one.leadership.close()
    await until(lambda: two.history == ["leads"])
    assert time.monotonic() - began < 1.0
    assert one.history == ["leads", "lost"]
    await two.leadership.close()


async def test_a_leader_that_does_not_reach_the_store_steps_down_in_time(meta: SqliteMeta):
    plan = FaultPlan(Fault("keep_alive", Action.FAIL, nth=1, times=1000))
    cut_off, standby = Candidate(FaultyMeta(meta, plan), "one", 0.6), Candidate(meta, "two", 0.6)
    await cut_off.leadership.start()
    await standby.leadership.start()
    began = time.monotonic()
    await until(lambda: "lost" in cut_off.history)
    assert time.monotonic() - began < 1.5
    with pytest.raises(NotReady):
        assert cut_off.leadership.authority
    await until(lambda: standby.history == ["leads"])
    for each in (cut_off, standby):
        await each.leadership.close()


async def test_a_heartbeat_that_hangs_is_tried_again_before_the_lease_ends(meta: SqliteMeta):
    plan = FaultPlan(Fault("keep_alive", Action.DELAY, nth=1, delay_s=60))
    leader = Candidate(FaultyMeta(meta, plan), "one", 1.0)
    await leader.leadership.start()
    await until(lambda: plan.passages["keep_alive"] >= 4)
    assert leader.history == ["leads"]
    await leader.leadership.close()


async def test_a_campaign_whose_answer_was_lost_leaves_no_ghost(meta: SqliteMeta):
    plan = FaultPlan(Fault("commit", Action.FAIL_AFTER, nth=2))
    one, two = Candidate(meta, "one", 60), Candidate(FaultyMeta(meta, plan), "two", 60)
    await one.leadership.start()
    await two.leadership.start()
    await one.leadership.close()
    await until(lambda: two.history == ["leads"])
    item = await meta.get(keys.LEADER)
    assert item
    assert item.revision == two.leadership.authority.epoch
    await two.leadership.close()


async def test_a_leader_whose_key_was_taken_steps_down(meta: SqliteMeta):
    leader = Candidate(meta, "one", 0.6)
    await leader.leadership.start()
    await meta.commit([], [Put(keys.LEADER, b"usurper")])
    await until(lambda: leader.history == ["leads", "lost"])
    await leader.leadership.close()
