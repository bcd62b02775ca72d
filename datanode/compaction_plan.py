"""What to compact in a shard, and how its manifest changes by it. Pure.

Segments are merged in tiers, as in Cassandra's size-tiered compaction: only segments of like size
meet, so a row is rewritten about log(size) times, not once per new segment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.ids import PartitionId, SegmentId
from core.manifest import Manifest, Segment, TombstoneFile
from core.settings import DataNodeSettings

TIER_BASE_BYTES = 1 << 20
"""Below it all segments are alike small."""


@dataclass(frozen=True)
class Policy:
    """segments_min: how many small segments start a merge, tombstone files a fold, and by what
    factor tiers grow; tiered False = small segments of any size are merged.
    dead_ratio: a segment with a larger share of dead rows is rewritten."""

    segments_min: int
    bytes_max: int
    dead_ratio: float
    tiered: bool = True

    @classmethod
    def background(cls, settings: DataNodeSettings) -> "Policy":
        return cls(settings.compact_segments, settings.compact_bytes, settings.compact_dead_ratio)

    @classmethod
    def thorough(cls, settings: DataNodeSettings) -> "Policy":
        """For who asks for a compaction: everything there is to gain."""
        return cls(2, settings.compact_bytes, 0.0, tiered=False)


@dataclass(frozen=True)
class Job:
    """Rewrite these segments of one partition as one, and fold all tombstone files of the shard.

    No segments = only fold. The manifest is the one that was looked at.
    """

    manifest: Manifest
    segments: tuple[Segment, ...]

    @property
    def remaining(self) -> tuple[Segment, ...]:
        """The segments that stay; of a later manifest's new ones none is older than a kill here."""
        return tuple(s for s in self.manifest.segments if s not in self.segments)


def worth_a_look(manifest: Manifest, policy: Policy) -> bool:
    """False: there is surely no job. Cheap, so that idle shards cost nothing."""
    return bool(manifest.tombstones) or len(manifest.segments) >= policy.segments_min


def plan(manifest: Manifest, dead: Mapping[SegmentId, int], policy: Policy) -> Job | None:
    """The most useful job; None when there is nothing to gain.

    dead: dead rows of segments, where there are any. A job leaves less to do than it found, so
    planning again and again comes to an end.
    """
    partitions: dict[PartitionId, list[Segment]] = {}
    for segment in manifest.segments:
        partitions.setdefault(segment.partition, []).append(segment)
    for segments in partitions.values():
        if chosen := _merge(segments, policy):
            return Job(manifest, chosen)
    rotten = [s for s in manifest.segments if dead.get(s.id, 0) > policy.dead_ratio * s.rows]
    if rotten:
        return Job(manifest, (max(rotten, key=lambda s: dead[s.id] / s.rows),))
    return Job(manifest, ()) if len(manifest.tombstones) >= policy.segments_min else None


def _merge(segments: Sequence[Segment], policy: Policy) -> tuple[Segment, ...]:
    """The lowest full tier with all that is below it, up to ``bytes_max``; empty when none is full."""
    ordered = sorted(segments, key=lambda s: s.object.bytes)
    chosen: list[Segment] = []
    total, in_tier, tier = 0, 0, -1
    for segment in ordered:
        its_tier = _tier(segment, policy)
        if its_tier != tier:
            if in_tier >= policy.segments_min:
                break
            tier, in_tier = its_tier, 0
        total += segment.object.bytes
        if total > policy.bytes_max:
            break
        chosen.append(segment)
        in_tier += 1
    # A tier that did not fill is left alone, and with it what is below: it would be rewritten for little.
    return tuple(chosen) if in_tier >= policy.segments_min else ()


def _tier(segment: Segment, policy: Policy) -> int:
    if not policy.tiered:
        return 0
    tier, bound = 0, TIER_BASE_BYTES
    while segment.object.bytes >= bound:
        tier, bound = tier + 1, bound * policy.segments_min
    return tier


def compacted(
    present: Manifest, job: Job, merged: Segment | None, folded: TombstoneFile | None, *, keep_tombstones: bool
) -> Manifest | None:
    """The present manifest with a job's outcome; None when a segment of the job is gone meanwhile.

    Seals committed since the job was planned stay as they are: their rows are newer than every
    kill that was folded, and their kills reach the merged segment as they reached its sources
    (``TombstoneFile``: it reaches segments whose ``min_position`` is below).
    """
    sources = {s.id for s in job.segments}
    if not sources <= present.segment_by_id.keys():
        return None
    names = set() if keep_tombstones else {t.object.name for t in job.manifest.tombstones}
    segments = tuple(s for s in present.segments if s.id not in sources)
    tombstones = tuple(t for t in present.tombstones if t.object.name not in names)
    return present.bump(
        segments=segments if merged is None else (*segments, merged),
        tombstones=tombstones if folded is None else (folded, *tombstones),
    )
