"""What a large catalog costs grows no faster than the catalog, and nodes touch only their part of it."""

from pathlib import Path

from bench.scale import Report, measure
from coordinator.placement import MEMBERS

NODES = 20
SEGMENTS = 10
STALL_S = 0.5
"""Below a third of a lease's life, after which the leader renews it."""


async def test_work_and_memory_grow_linearly_and_a_node_touches_its_part(tmp_path: Path) -> None:
    small = await measure(tmp_path / "small", 300, 300 * SEGMENTS, NODES)
    large = await measure(tmp_path / "large", 1500, 1500 * SEGMENTS, NODES)
    for report in (small, large):
        check(report)
    for name in ("start", "first", "join"):
        before, after = getattr(small, name), getattr(large, name)
        assert after.cpu_s < 5 * 2 * before.cpu_s + 0.5, (name, before, after)
    assert large.rss_bytes < large.segments * 6_000, "encoded manifests, decoded collections"


def check(report: Report) -> None:
    collections, mean = report.collections, report.collections / NODES
    assert report.bytes["manifests"] < 500 * report.segments
    assert report.bytes["placements"] + report.bytes["collections"] < 600 * collections
    assert 0.4 * mean < report.least <= report.most < 1.8 * mean
    for change in (report.join, report.leave):
        assert change.moved < 2 * mean, "about what one node leads"
        assert change.rewritten < 1.5 * MEMBERS * mean, "about what one node is a member of"
    for cost in (report.start, report.first, report.join, report.leave):
        assert cost.stall_s < STALL_S, "leases are renewed meanwhile"
