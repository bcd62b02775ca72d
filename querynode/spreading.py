"""Spreading a shard's sealed segments over the nodes of its replica: who holds what, and having it held."""

import asyncio
from collections.abc import Mapping, Sequence

from core.ids import NodeId, PartitionId, SegmentId
from core.manifest import Manifest, Segment
from core.rendezvous import spread_bytes
from querynode import keys as pk
from querynode.links import Links, RemoteSegment, WorkerLink
from querynode.opening import KilledKeys, declared_indexes
from querynode.shard import ShardState
from rpc.workers import Hold, Kills


class Spreader:
    """Shards with fewer bytes than ``bytes_min`` stay whole with their leader: a search of another node
    costs more than it saves."""

    def __init__(self, node: NodeId, links: Links, bytes_min: int) -> None:
        self._node, self._links, self._bytes_min = node, links, bytes_min

    def plan(
        self, shard: ShardState, manifest: Manifest, partitions: frozenset[PartitionId], nodes: Sequence[NodeId]
    ) -> dict[SegmentId, NodeId]:
        """The node of each segment that is not to be held here, given where they are now."""
        if len(nodes) < 2 and not shard.remote:
            return {}
        sizes = {s.id: s.object.bytes for s in manifest.segments if s.partition in partitions}
        here = dict.fromkeys(shard.sealed, self._node)
        there = {id: r.link.node for id, r in shard.remote.items() if not r.link.failure and id in sizes}
        if self._node not in nodes:
            return there  # another node is about to lead, and spreads anew
        if sum(sizes.values()) < self._bytes_min:
            return {}
        usable = [self._node, *self._links.usable(n for n in nodes if n != self._node)]
        given = spread_bytes(sizes, usable, here | there)
        return {id: node for id, node in given.items() if node != self._node}

    async def hold(
        self,
        shard: ShardState,
        manifest: Manifest,
        segments: Sequence[Segment],
        where: Mapping[SegmentId, NodeId],
        tail: KilledKeys | None,
    ) -> dict[SegmentId, RemoteSegment]:
        """Has the segments held, with the kills of the manifest and of the log's tail. Raises
        ``Unavailable`` when a worker is lost, and what opening a file does."""
        kills = Kills(shard.id, pk.to_arrow(tail[0]), tail[1]) if tail else None
        held: dict[SegmentId, RemoteSegment] = {}

        async def one(node: NodeId) -> None:
            link = self._links.get(node)
            mine = [s for s in segments if where[s.id] == node]
            known = {id: r for id, r in shard.remote.items() if r.link is link}
            new = [s for s in mine if s.id not in known]
            outdated = [s for s in mine if s.id in known and known[s.id].indexes != _names(s, shard)]
            if new:
                await link.hold(_message(shard, manifest, link, new, kills))
                held.update({s.id: RemoteSegment(s, link, shard.id, shard.collection.schema) for s in new})
            if outdated:
                await link.hold(_message(shard, None, link, outdated, None))
            for s in mine:
                held[s.id] = known.get(s.id) or held[s.id]
                held[s.id].indexes = _names(s, shard)

        await asyncio.gather(*(one(node) for node in sorted({where[s.id] for s in segments})))
        return held


def _message(
    shard: ShardState, manifest: Manifest | None, link: WorkerLink, segments: list[Segment], kills: Kills | None
) -> Hold:
    """manifest: None = the worker has its kills."""
    oldest = min(s.min_position for s in segments)
    tombstones = tuple(t for t in manifest.tombstones if t.max_position > oldest) if manifest else ()
    number = shard.id.number
    return Hold(link.session, link.after_all(), shard.collection, number, tuple(segments), tombstones, kills)


def _names(segment: Segment, shard: ShardState) -> tuple[str, ...]:
    return tuple(f.object.name for f in declared_indexes(segment, shard.collection))
