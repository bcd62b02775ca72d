"""When to seal, what to compact: decisions without I/O."""

from dataclasses import replace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from core.ids import Channel, CollectionId, PartitionId, Position, SegmentId, ShardId
from core.manifest import Manifest, ObjectRef, Segment, TombstoneFile
from core.settings import DataNodeSettings
from datanode.compaction_plan import Job, Policy, compacted, plan, worth_a_look
from datanode.state import RETRY_S, ChannelState, Entry, over_budget
from storage import record

SETTINGS = DataNodeSettings(segment_bytes=800, seal_age_s=60.0)


def entry(position: int, collection: int = 1, rows: int = 10) -> Entry:
    shard = ShardId(CollectionId(collection), 0)
    batch = pa.record_batch({"pk": pa.array(range(rows), pa.int64())})
    return Entry(Position(position), record.Record(record.DELETE, shard, PartitionId(0), 1, 1, batch))


def shard(collection: int) -> ShardId:
    return ShardId(CollectionId(collection), 0)


def channel(settings: DataNodeSettings = SETTINGS) -> ChannelState:
    return ChannelState(settings, Channel(0), Position(0))


# --- sealing ---------------------------------------------------------------------------------
def test_bytes_and_age_make_a_buffer_due() -> None:
    state = channel()
    state.add(entry(0, 1), now_s=0.0)
    state.add(entry(1, 2, rows=100), now_s=1.0)
    assert state.due(1.0) == [shard(2)]
    assert set(state.due(60.0)) == {shard(1), shard(2)}


def test_a_buffer_is_sealed_once_at_a_time_and_rests_after_a_failure() -> None:
    state = channel()
    state.add(entry(0, rows=100), now_s=0.0)
    state.cut(shard(1))
    assert state.due(5.0) == []
    state.failed(shard(1), 5.0)
    assert state.due(5.0 + RETRY_S[0] / 2) == []
    assert state.due(5.0 + RETRY_S[0]) == [shard(1)]


def test_the_checkpoint_is_the_oldest_unsealed_record_or_the_frontier() -> None:
    state = channel()
    assert state.checkpoint == 0
    state.skip(Position(4))
    assert state.checkpoint == 5
    state.add(entry(7, 1), 0.0)
    state.add(entry(9, 2), 0.0)
    assert state.checkpoint == 7
    state.sealed(shard(1), Position(10), 0.0)
    assert state.checkpoint == 9
    state.sealed(shard(2), Position(10), 0.0)
    assert state.checkpoint == 10


def test_a_cut_is_frozen_while_the_buffer_goes_on() -> None:
    state = channel()
    state.add(entry(0), 0.0)
    cut = state.cut(shard(1))
    state.add(entry(1), 1.0)
    assert [e.position for e in cut.entries] == [0]
    assert cut.frontier == 1
    state.sealed(shard(1), cut.frontier, 2.0)
    assert [e.position for e in state.buffers[shard(1)].entries] == [1]
    assert state.bytes == entry(1).bytes


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["add", "skip", "cut", "sealed", "failed"])), max_size=40))
def test_no_unsealed_record_is_ever_behind_the_checkpoint(events) -> None:
    state, unsealed, cuts, now = channel(), {}, {}, 0.0
    for position, (n, event) in enumerate(events):
        now += 1.0
        match event:
            case "add":
                state.add(entry(position, n), now)
                unsealed.setdefault(n, []).append(position)
            case "skip":
                state.skip(Position(position))
            case "cut":
                cuts[n] = state.cut(shard(n))
                assert [e.position for e in cuts[n].entries] == unsealed.get(n, [])
            case "sealed" if n in cuts:
                frontier = cuts.pop(n).frontier
                state.sealed(shard(n), frontier, now)
                unsealed[n] = [p for p in unsealed.get(n, []) if p >= frontier]
            case "failed" if n in cuts:
                del cuts[n]
                state.failed(shard(n), now)
        left = [p for positions in unsealed.values() for p in positions]
        assert state.checkpoint == min(left, default=state.frontier)
        assert state.bytes == len(left) * entry(0).bytes


def test_the_largest_buffers_go_first_when_memory_is_short() -> None:
    a, b = channel(), ChannelState(SETTINGS, Channel(1), Position(0))
    a.add(entry(0, 1, rows=10), 0.0)
    a.add(entry(1, 2, rows=30), 0.0)
    b.add(entry(0, 3, rows=20), 0.0)
    assert over_budget([a, b], 60 * 8, 1.0) == []
    assert over_budget([a, b], 59 * 8, 1.0) == [(0, shard(2))]
    assert over_budget([a, b], 20 * 8, 1.0) == [(0, shard(2)), (1, shard(3))]
    a.cut(shard(2))
    assert over_budget([a, b], 30 * 8, 1.0) == [], "what is being sealed will be gone soon"


# --- compaction ------------------------------------------------------------------------------
POLICY = Policy(segments_min=3, bytes_max=100 << 20, dead_ratio=0.2)
THOROUGH = replace(POLICY, segments_min=2, dead_ratio=0.0, tiered=False)


def segment(id: int, mb: float, partition: int = 1, rows: int = 100) -> Segment:
    ref = ObjectRef(f"s{id}", int(mb * (1 << 20)), 0)
    return Segment(SegmentId(id), PartitionId(partition), ref, rows, Position(id), Position(id))


def tombstones(id: int) -> TombstoneFile:
    return TombstoneFile(ObjectRef(f"t{id}", 1, 1), 1, Position(id), Position(id))


def manifest(*segments: Segment, kills: int = 0) -> Manifest:
    files = tuple(tombstones(n) for n in range(kills))
    return Manifest(CollectionId(1), 0, segments=segments, tombstones=files)


def chosen(job: Job | None) -> list[int]:
    assert job is not None
    return [s.id for s in job.segments]


def test_small_segments_of_one_partition_are_merged() -> None:
    m = manifest(*(segment(n, 0.1) for n in range(3)), segment(7, 0.1, partition=2))
    assert chosen(plan(m, {}, POLICY)) == [0, 1, 2]
    assert plan(manifest(segment(0, 0.1), segment(1, 0.1)), {}, POLICY) is None


def test_a_large_segment_is_not_rewritten_for_small_ones() -> None:
    m = manifest(segment(0, 60), *(segment(n, 0.1) for n in range(1, 4)))
    assert chosen(plan(m, {}, POLICY)) == [1, 2, 3]


def test_a_full_tier_takes_what_is_below_with_it() -> None:
    m = manifest(segment(0, 0.1), segment(1, 5), segment(2, 6), segment(3, 7))
    assert chosen(plan(m, {}, POLICY)) == [0, 1, 2, 3]


def test_merges_stay_below_the_limit() -> None:
    assert chosen(plan(manifest(*(segment(n, 30) for n in range(5))), {}, POLICY)) == [0, 1, 2]
    assert plan(manifest(*(segment(n, 60) for n in range(5))), {}, POLICY) is None


def test_rotten_segments_are_rewritten() -> None:
    m = manifest(segment(0, 60), segment(1, 60), kills=1)
    assert plan(m, {SegmentId(0): 20}, POLICY) is None
    assert chosen(plan(m, {SegmentId(0): 21, SegmentId(1): 50}, POLICY)) == [1]
    assert chosen(plan(m, {SegmentId(0): 1}, THOROUGH)) == [0]


def test_many_tombstone_files_are_folded() -> None:
    assert plan(manifest(segment(0, 60), kills=2), {}, POLICY) is None
    assert chosen(plan(manifest(segment(0, 60), kills=3), {}, POLICY)) == []
    assert worth_a_look(manifest(segment(0, 60), kills=1), POLICY)
    assert not worth_a_look(manifest(segment(0, 60)), POLICY)


@given(st.lists(st.tuples(st.floats(0.01, 90), st.integers(1, 2), st.booleans()), max_size=30), st.booleans())
def test_planning_comes_to_an_end(segments, thorough: bool) -> None:
    policy = THOROUGH if thorough else POLICY
    m = manifest(*(segment(n, mb, p) for n, (mb, p, _) in enumerate(segments)), kills=5)
    dead = {SegmentId(n): 90 for n, (_, _, rotten) in enumerate(segments) if rotten}
    rewritten = 0
    for n in range(200):
        job = plan(m, dead, policy)
        if job is None:
            break
        assert len({s.partition for s in job.segments}) <= 1
        assert sum(s.object.bytes for s in job.segments) <= policy.bytes_max or len(job.segments) == 1
        rewritten += len(job.segments)
        merged = None
        if job.segments:
            size = sum(s.object.bytes for s in job.segments) / (1 << 20)
            merged = segment(1000 + n, size, job.segments[0].partition)
        new = compacted(m, job, merged, None, keep_tombstones=False)
        assert new is not None
        m = new
    else:
        raise AssertionError("still planning")
    assert rewritten <= 5 * len(segments)


def test_what_was_sealed_during_a_job_stays() -> None:
    before = manifest(segment(0, 1), segment(1, 1), segment(2, 1), kills=2)
    job = plan(before, {}, POLICY)
    assert job is not None
    present = before.bump(segments=(*before.segments, segment(9, 1)), tombstones=(*before.tombstones, tombstones(9)))
    after = compacted(present, job, segment(50, 3), tombstones(40), keep_tombstones=False)
    assert after is not None
    assert [s.id for s in after.segments] == [9, 50]
    assert [t.object.name for t in after.tombstones] == ["t40", "t9"]
    assert compacted(present.bump(segments=present.segments[1:]), job, None, None, keep_tombstones=False) is None
