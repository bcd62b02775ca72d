"""Query nodes of limited memory: what one cannot hold is spread, what nobody can hold is refused, and why."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import MemoryFull
from core.ids import NodeId
from core.settings import QueryNodeSettings
from querynode import handoff, links
from querynode.memory import HeldMemory, available_bytes, needed_bytes
from querynode.service import QueryNodeService
from rpc.reads import ShardPhase
from tests.integration.querynode_rig import DIM, NODE, PARTITIONS, collection
from tests.integration.spread_rig import ALONE, WORKERS, SpreadRig
from tests.integration.test_querynode_spread import QUERIES, rows
from tests.waiting import until

EACH = 20
SEGMENT = EACH * (24 + 4 * DIM)
LIMITED = QueryNodeSettings(memory_bytes=2 * SEGMENT + SEGMENT // 2, growing_bytes=1 << 30)


@dataclass
class LimitedRig(SpreadRig):
    """The node that holds the whole, to compare with, has no limit."""

    def service(self, node: NodeId, **more: Any) -> QueryNodeService:
        limited = self.settings
        self.settings = replace(limited, memory_bytes=0) if node == ALONE else limited
        try:
            return super().service(node, **more)
        finally:
            self.settings = limited


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LimitedRig]:
    monkeypatch.setattr(links, "BEAT_S", 0.02)
    monkeypatch.setattr(handoff, "RETRY_S", (0.01, 0.05))
    rig = await LimitedRig.open(tmp_path, collection(), LIMITED)
    yield rig
    await rig.close()


async def fill(rig: LimitedRig, *segments: int) -> None:
    for s in segments:
        await rig.upsert(rows(*range(s * EACH, (s + 1) * EACH)), PARTITIONS[s % 2])
        await rig.seal()


async def test_a_small_shard_is_spread_when_its_leader_has_no_room_for_it(rig: LimitedRig) -> None:
    await fill(rig, 0, 1)
    await rig.spread()
    assert await rig.holders() == {}, "a search of another node costs more than it saves"
    await fill(rig, 2, 3, 4, 5)
    await rig.spread()
    assert await rig.holders() == dict.fromkeys(WORKERS, 2)
    await rig.same_search(QUERIES, 10)
    await rig.same_query()


async def test_what_nobody_can_hold_is_refused_until_a_node_comes(rig: LimitedRig) -> None:
    await rig.move(NODE, WORKERS[0])
    await rig.restart()
    await fill(rig, *range(4))
    await rig.spread()
    await fill(rig, 4, 5)

    async def refused() -> bool:
        (status,) = await rig.node.shards()
        return bool(status.failure)

    await until(refused)
    (status,) = await rig.node.shards()
    assert f"collection things takes {6 * SEGMENT} bytes of memory; for {2 * SEGMENT} of them" in status.failure
    assert f"{NODE} {SEGMENT // 2} of {LIMITED.memory_bytes}, {WORKERS[0]} {SEGMENT // 2} of" in status.failure
    assert "query_node.memory_bytes" in status.failure
    # What is served stays complete: rows of a segment that does not fit go on growing.
    await rig.same_query()
    assert status.phase is ShardPhase.READY
    assert status.growing_rows == 2 * EACH
    await rig.move(NODE, *WORKERS)
    await rig.spread()
    (status,) = await rig.node.shards()
    assert (status.failure, status.growing_rows) == ("", 0)
    assert await rig.holders() == dict.fromkeys(WORKERS, 2)
    await rig.same_search(QUERIES, 10)


async def test_segments_that_replace_others_fit_where_those_were(rig: LimitedRig) -> None:
    """Full nodes take what compaction made of their own segments: the limit is passed only until those go."""
    await rig.move(NODE, WORKERS[0])
    await fill(rig, *range(4))
    await rig.spread()
    assert await rig.holders() == {WORKERS[0]: 2}
    await rig.compact()  # two segments, of two each
    await rig.spread()
    assert await rig.holders() == {WORKERS[0]: 1}
    await rig.same_query()
    await rig.same_search(QUERIES, 10)


def test_memory_is_given_back_with_the_last_that_needs_it() -> None:
    memory, first = HeldMemory(100), type("Segment", (), {})()
    assert memory.room == (100, 100)
    with memory.opening(60, "a segment"):
        assert memory.room.free == 40
        memory.hold(first, 60)
    memory.hold(first, 70)
    assert (memory.room.free, memory.held(first)) == (30, 70)
    said = r"takes 31 bytes .* 30 of 100 bytes are free \(query_node.memory_bytes\)"
    with pytest.raises(MemoryFull, match=said), memory.opening(31, "a share"):
        pass
    with memory.opening(100, "what replaces it", 70):
        assert memory.room.free == 0
    del first
    assert memory.room.free == 100
    assert 0 < available_bytes() == HeldMemory(0).limit


async def test_an_index_counts_instead_of_the_vectors(rig: LimitedRig) -> None:
    await fill(rig, 0)
    (segment,) = rig.manifest.segments
    assert needed_bytes(segment, rig.collection) == SEGMENT
    await rig.index()
    (segment,) = rig.manifest.segments
    assert needed_bytes(segment, rig.collection) == EACH * 24 + segment.indexes[0].object.bytes
    assert needed_bytes(segment, replace(rig.collection, indexes=())) == SEGMENT
