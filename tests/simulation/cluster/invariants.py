"""What must hold after every step, stated over the stores and the query nodes' views.

The numbers are those of ARCHITECTURE.md. Each method is told of one kind of step and raises
``Violation``; what it compares with is the log folded by hand (``oracle``).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from core.catalog import ChannelCheckpoint, ChannelOwner, Collection, Garbage, Placement
from core.ids import Channel, NodeId, PartitionId, Position, ShardId
from core.manifest import Manifest, ObjectRef
from querynode import keys as pk
from querynode.shard import ShardState
from querynode.view import View
from storage import keys
from storage.meta.port import Delete, Put
from tests.simulation.cluster.files import Segment, Tombstones
from tests.simulation.cluster.loop import EPOCH_S, Process
from tests.simulation.cluster.meta import MetaServer
from tests.simulation.cluster.objects import ObjectServer
from tests.simulation.cluster.oracle import Oracle, Rows

NOW = float("inf")
SETTLED_S = 12.0
"""So long after a process was paused or cut off it knows what happened meanwhile."""
STEADY_S = 5.0
"""What has been so for so long is so in the picture that a process which runs decides from."""
ON_THE_WAY_S = 2.0
"""Longest time from a decision to its commit, of a process that runs."""


class Violation(AssertionError):
    """An invariant does not hold."""


def check(holds: object, text: str) -> None:
    if not holds:
        raise Violation(text)


def rows_of(view: View, partitions: frozenset[PartitionId]) -> Rows:
    """The living rows of a view in these partitions, looked at anew. A key that lives twice is a violation."""
    found: Rows = {}
    for data in view._rows(partitions, None):
        mask = data.visible(view.frontier)
        living = zip(pk.to_list(data.keys), data.column("n").to_pylist(), strict=True)
        for row, (key, n) in enumerate(living):
            if mask is None or mask[row]:
                check(key not in found, f"6: key {key} is visible twice at {view.frontier}")
                found[key] = n
    return found


class Invariants:
    """grace_s: for which objects are kept after they left their manifest."""

    def __init__(self, oracle: Oracle, grace_s: float) -> None:
        self.oracle, self._grace_s = oracle, grace_s
        self.meta: MetaServer
        self.objects: ObjectServer
        self.ready: dict[tuple[NodeId, ShardId], float] = {}
        """The query nodes that have a shard ready (``NOW``), or had until then."""
        self._registered: dict[str, float] = {}
        self._named: set[str] = set()
        self._left: set[str] = set()
        self._due: dict[str, float] = {}
        self._put: set[str] = set()
        self._manifests: dict[ShardId, Manifest] = {}

    @property
    def _now(self) -> float:
        return self.meta.network.loop.now

    def value(self, cls: type, key: str) -> Any:
        """What the metadata store has now, decoded."""
        item = self.meta.values.get(key)
        return keys.decode(cls, item.value) if item else None

    def manifest(self, shard: ShardId) -> Manifest | None:
        """As the store has it."""
        return self._manifests.get(shard)

    # --- commits -----------------------------------------------------------------------------
    def committing(self, process: Process, writes: Sequence[Put | Delete]) -> None:
        for write in writes:
            folder = write.key.split("/")[0] + "/"
            if folder == keys.MANIFESTS:
                self._manifest(process, write)
            elif folder in (keys.OWNERS, keys.PLACEMENTS, keys.COLLECTIONS):
                if folder == keys.OWNERS and self._claims(process, write):
                    continue
                leader = self.value(str, keys.LEADER)
                check(process.name == leader, f"epoch: {process} wrote {write.key} while {leader} leads")
                if folder == keys.PLACEMENTS and isinstance(write, Put):
                    self._placement(process, keys.decode(Placement, write.value))
            elif folder == keys.CHECKPOINTS and isinstance(write, Put):
                channel = Channel(int(write.key.removeprefix(keys.CHECKPOINTS)))
                self._owned(process, channel, write.key)
                checkpoint = Position(keys.decode(ChannelCheckpoint, write.value).position)
                self._all_sealed(channel, checkpoint, "the channel's checkpoint")
            elif folder == keys.GARBAGE and isinstance(write, Put):
                self._garbage(process, keys.decode(Garbage, write.value))
            elif folder == keys.NODES and isinstance(write, Put):
                self._registered[write.key] = self._now

    def _claims(self, process: Process, write: Put | Delete) -> bool:
        """Whether a data node takes up a channel that it was given."""
        before = self.value(ChannelOwner, write.key)
        after = keys.decode(ChannelOwner, write.value) if isinstance(write, Put) else None
        return bool(before and after and before.node == after.node == process.name)

    def _owned(self, process: Process, channel: Channel, what: str) -> None:
        owner = self.value(ChannelOwner, keys.owner(channel))
        check(owner and owner.node == process.name, f"epoch: {process} wrote {what}, the owner is {owner}")

    def _manifest(self, process: Process, write: Put | Delete) -> None:
        collection, number = (int(x) for x in write.key.removeprefix(keys.MANIFESTS).split("/"))
        shard = ShardId(collection, number)
        old = self._manifests.get(shard)
        if isinstance(write, Delete):
            self._unnamed(o.name for o in (old.objects() if old else ()))
            self._manifests.pop(shard, None)
            return
        new = keys.decode(Manifest, write.value)
        if old is not None:
            if process.name != self.value(str, keys.LEADER):
                self._owned(process, self.channel(shard), write.key)
            check(new.version == old.version + 1, f"2: manifest {shard} went from {old.version} to {new.version}")
            check(new.checkpoint >= old.checkpoint, f"2: checkpoint of {shard} moved back to {new.checkpoint}")
            gone = {o.name for o in old.objects()} - {o.name for o in new.objects()}
            self._unnamed(gone)
        self._manifests[shard] = new
        self._named.update(o.name for o in new.objects())
        # Rows of partitions that are dropped stay until somebody takes them out.
        there, history = self.partitions(shard), self.oracle.of(shard)
        rows, expected = history.within(self._stored(new), there), history.at(new.checkpoint, there)
        check(rows == expected, f"2: files of manifest {new.version} of {shard} {diff(rows, expected)}")

    def _garbage(self, process: Process, garbage: Garbage) -> None:
        grace_s = garbage.not_before_ms / 1000 - EPOCH_S - self._now
        # Counted from the decision: it may have been on its way, or its node asleep, until now.
        if self._runs(process):
            early = grace_s < self._grace_s - ON_THE_WAY_S
            check(not early, f"5: the grace of what {process} gives up is {grace_s:.2f} s")
        self._due.update(dict.fromkeys(garbage.objects, garbage.not_before_ms / 1000 - EPOCH_S))

    def _unnamed(self, names: Iterable[str]) -> None:
        for name in names:
            self._named.discard(name)
            self._left.add(name)

    def _stored(self, manifest: Manifest) -> Rows:
        """The living rows of a manifest's files, by the plain rules of the design."""
        kills: dict[int, int] = {}
        for file in manifest.tombstones:
            for key, position in self._content(file.object, Tombstones):
                kills[key] = max(position, kills.get(key, -1))
        rows: Rows = {}
        for segment in manifest.segments:
            check(segment.max_position < manifest.checkpoint, f"2: segment {segment.id} is past the checkpoint")
            for key, n, position in self._content(segment.object, Segment):
                if kills.get(key, -1) <= position:
                    check(key not in rows, f"6: key {key} lives twice in manifest {manifest.version}")
                    rows[key] = n
        return rows

    def _content(self, ref: ObjectRef, kind: type) -> list[Any]:
        held: Any = self.objects.held.get(ref.name)
        check(isinstance(held, kind), f"3: manifest names {ref.name}, which is not there")
        return held.rows

    def partitions(self, shard: ShardId) -> frozenset[PartitionId]:
        """Those that the catalog has."""
        collection: Collection | None = self.value(Collection, keys.collection(shard.collection))
        return collection.partition_ids if collection else frozenset()

    def channel(self, shard: ShardId) -> Channel:
        collection: Collection = self.value(Collection, keys.collection(shard.collection))
        return collection.shards[shard.number].channel

    # --- placement ---------------------------------------------------------------------------
    def _placement(self, process: Process, new: Placement) -> None:
        """Make before break: who led and lives goes only when the shard is led by ready nodes as often."""
        old: Placement | None = self.value(Placement, keys.placement(new.collection))
        collection: Collection = self.value(Collection, keys.collection(new.collection))
        for replica in new.replicas:
            check(len(replica.leaders) == len(collection.shards), f"placement of {new.collection} lacks a leader")
        for shard in collection.shard_ids if old and self._runs(process) else ():
            before = self._leaders(old, shard) if old else []
            after = [n for n in self._leaders(new, shard) if self._now - self.ready.get((n, shard), 0.0) < STEADY_S]
            steady = [n for n in before if self._registered_s(n) > STEADY_S and self.ready.get((n, shard)) == NOW]
            least = min(len(steady), len(new.replicas))
            check(len(after) >= least, f"break before make: {shard} was led by {before}, now by {after} of those ready")

    def _leaders(self, placement: Placement, shard: ShardId) -> list[NodeId]:
        return [r.leaders[shard.number] for r in placement.replicas if shard.number < len(r.leaders)]

    def _registered_s(self, node: NodeId) -> float:
        """For how long a query node is registered without a break."""
        key = keys.node("querynode", node)
        return self._now - self._registered[key] if key in self.meta.values else 0.0

    def _runs(self, process: Process) -> bool:
        """Whether it knows how things are: it was neither paused nor cut off lately."""
        return self._now - max(process.woken_s, self.meta.network.cut_s.get(process.name, -NOW)) > SETTLED_S

    # --- log and objects ---------------------------------------------------------------------
    def trimming(self, channel: Channel, before: Position) -> None:
        self._all_sealed(channel, before, "a trim of the log")

    def _all_sealed(self, channel: Channel, before: Position, what: str) -> None:
        for shard, history in self.oracle.shards.items():
            manifest = self._manifests.get(shard)
            collection = self.value(Collection, keys.collection(shard.collection))
            if manifest is None or collection.dropped or collection.shards[shard.number].channel != channel:
                continue
            lost = history.between(manifest.checkpoint, before)
            check(not lost, f"5: {what} to {before} passes unsealed records {lost} of {shard}")

    def putting(self, name: str) -> None:
        check(name not in self._put, f"3: name {name} is used again")
        self._put.add(name)

    def deleting(self, name: str) -> None:
        check(name not in self._named, f"5: {name} is deleted, a manifest names it")
        due_s = self._due.get(name, float("inf") if name in self._left else 0.0)
        check(self._now >= due_s, f"5: {name} is deleted before its grace is over")

    # --- views -------------------------------------------------------------------------------
    def shard_moved(self, node: NodeId, shard: ShardState) -> None:
        """A query node's state of a shard changed: what can be read of it must be right."""
        if shard.ready:
            self.ready[node, shard.id] = NOW
            if not (shard.collection.dropped or shard.remote):
                self.view(shard.id, shard.view, f"on {node}")
        else:
            self._unready((node, shard.id))

    def view(
        self,
        shard: ShardId,
        view: View,
        what: str,
        rows: Rows | None = None,
        partitions: frozenset[PartitionId] | None = None,
    ) -> Rows:
        """A view holds what the log says up to its frontier: nothing lost, doubled or risen again.

        rows: what was answered, None = what it holds here. partitions: those that were asked for, None = those it says
        it holds. The rows that are not of dropped partitions are given back."""
        asked = (view.partitions if partitions is None else partitions) & self.partitions(shard)
        history = self.oracle.of(shard)
        rows = rows_of(view, asked) if rows is None else history.within(rows, asked)
        expected = history.at(view.frontier, asked)
        where = f"{shard} {what} at manifest {view.version}, frontier {view.frontier}"
        check(rows == expected, f"7: view of {where} {diff(rows, expected)}")
        return rows

    def _unready(self, place: tuple[NodeId, ShardId]) -> None:
        if self.ready.get(place) == NOW:
            self.ready[place] = self._now

    def forget(self, node: NodeId) -> None:
        """The process of a node has ended."""
        for place in [p for p in self.ready if p[0] == node]:
            self._unready(place)


def diff(found: Rows, expected: Rows) -> str:
    """How two states differ."""
    lost = {k: n for k, n in expected.items() if k not in found}
    extra = {k: n for k, n in found.items() if k not in expected}
    other = {k: (n, expected[k]) for k, n in found.items() if k in expected and n != expected[k]}
    return f"lack {lost}, have risen {extra}, have others {other}"
