"""Spreading a shard's sealed segments over the nodes of its replica: who holds what, and having it held."""

import asyncio
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from core.errors import MemoryFull
from core.ids import NodeId, PartitionId, SegmentId
from core.manifest import Manifest, Segment
from core.rendezvous import spread_bytes
from querynode import keys as pk
from querynode.links import Links, RemoteSegment, WorkerLink
from querynode.memory import HeldMemory, needed_bytes
from querynode.opening import KilledKeys, declared_indexes
from querynode.shard import ShardState
from rpc.workers import Hold, Kills, Room


class Plan(NamedTuple):
    """away: the node of each segment that another one is to hold. unplaced: nobody has room for these."""

    away: dict[SegmentId, NodeId]
    unplaced: tuple[SegmentId, ...]


class Spreader:
    """Shards with fewer bytes than ``bytes_min`` stay whole with their leader: a search of another node
    costs more than it saves. Unless it has no room for them.
    """

    def __init__(self, node: NodeId, links: Links, bytes_min: int, memory: HeldMemory) -> None:
        self._node, self._links, self._bytes_min, self._memory = node, links, bytes_min, memory

    def plan(
        self, shard: ShardState, manifest: Manifest, partitions: frozenset[PartitionId], nodes: Sequence[NodeId]
    ) -> Plan:
        """The node of each segment that is not to be held here, given where they are now."""
        sizes = _sizes(shard, manifest, partitions)
        here = dict.fromkeys(shard.sealed, self._node)
        there = {id: r.link.node for id, r in shard.remote.items() if not r.link.failure and id in sizes}
        if self._node not in nodes:
            return Plan(there, ())  # another node is about to lead, and spreads anew
        room = self._room(shard, sizes, nodes)
        total, more = sum(sizes.values()), sum(size for id, size in sizes.items() if id not in here)
        if (total < self._bytes_min or len(nodes) < 2) and more <= room[self._node].free:
            return Plan({}, ())
        unbounded = [n for n in self._links.usable(nodes) if n not in room]
        free = {n: r.free for n, r in room.items()}
        given = spread_bytes(sizes, [*room, *unbounded], here | there, free)
        away = {id: node for id, node in given.items() if node != self._node}
        return Plan(away, tuple(id for id in sizes if id not in given))

    def full(
        self,
        shard: ShardState,
        manifest: Manifest,
        partitions: frozenset[PartitionId],
        nodes: Sequence[NodeId],
        unplaced: Sequence[SegmentId],
    ) -> MemoryFull:
        """Says what does not fit, and why."""
        sizes = _sizes(shard, manifest, partitions)
        room = self._room(shard, sizes, nodes)
        each = ", ".join(f"{node} {r.free} of {r.limit}" for node, r in sorted(room.items()))
        return MemoryFull(
            f"shard {shard.id} of collection {shard.collection.name} takes {sum(sizes.values())} bytes of memory; for"
            f" {sum(sizes[id] for id in unplaced)} of them no query node has room (free bytes: {each};"
            f" query_node.memory_bytes)"
        )

    def _room(self, shard: ShardState, sizes: Mapping[SegmentId, int], nodes: Sequence[NodeId]) -> dict[NodeId, Room]:
        """What each node can take, as far as known."""
        room = {self._node: self._memory.room}
        for node in self._links.usable(n for n in nodes if n != self._node):
            if (found := self._links.room(node)) is not None:
                room[node] = found
        going = self._going(shard, sizes)
        return {n: Room(r.free + going[n], r.limit) for n, r in room.items()}

    def replaced_here(self, shard: ShardState, manifest: Manifest) -> int:
        """Memory of segments held here that the manifest no longer has."""
        return self._going(shard, {s.id for s in manifest.segments})[self._node]

    def _going(self, shard: ShardState, staying: Container[SegmentId]) -> Counter[NodeId]:
        going: Counter[NodeId] = Counter()
        for id, segment in shard.sealed.items():
            going[self._node] += 0 if id in staying else self._memory.held(segment)
        for id, remote in shard.remote.items():
            going[remote.link.node] += 0 if id in staying else remote.bytes
        return going

    async def hold(
        self,
        shard: ShardState,
        manifest: Manifest,
        segments: Sequence[Segment],
        where: Mapping[SegmentId, NodeId],
        tail: KilledKeys | None,
    ) -> dict[SegmentId, RemoteSegment]:
        """Has the segments held, with the kills of the manifest and of the log's tail. Raises
        ``Unavailable`` when a worker is lost, ``MemoryFull``, and what opening a file does."""
        kills = Kills(shard.id, pk.to_arrow(tail[0]), tail[1]) if tail else None
        going = self._going(shard, {s.id for s in manifest.segments})
        held: dict[SegmentId, RemoteSegment] = {}

        async def one(node: NodeId) -> None:
            link = self._links.get(node)
            mine = [s for s in segments if where[s.id] == node]
            known = {id: r for id, r in shard.remote.items() if r.link is link}
            new = [s for s in mine if s.id not in known]
            outdated = [s for s in mine if s.id in known and known[s.id].indexes != _names(s, shard)]
            if new:
                message = _message(shard, manifest, link, new, kills)
                await link.hold(replace(message, replaced_bytes=going[node]))
                held.update({s.id: _remote(s, link, shard) for s in new})
            if outdated:
                await link.hold(_message(shard, None, link, outdated, None))
            for s in mine:
                held[s.id] = known.get(s.id) or held[s.id]
                held[s.id].indexes = _names(s, shard)
                held[s.id].bytes = needed_bytes(s, shard.collection)

        await asyncio.gather(*(one(node) for node in sorted({where[s.id] for s in segments})))
        return held


def _sizes(shard: ShardState, manifest: Manifest, partitions: frozenset[PartitionId]) -> dict[SegmentId, int]:
    return {s.id: needed_bytes(s, shard.collection) for s in manifest.segments if s.partition in partitions}


def _remote(segment: Segment, link: WorkerLink, shard: ShardState) -> RemoteSegment:
    bytes = needed_bytes(segment, shard.collection)
    return RemoteSegment(segment, bytes, link, shard.id, shard.collection.schema)


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
