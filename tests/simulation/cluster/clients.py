"""What clients do to a simulated cluster, and what each answer promises."""

import asyncio
import random
from typing import Any

import pyarrow as pa

from core.catalog import Collection, Consistency, Placement
from core.errors import CollectionNotFound, SheafError, Unavailable
from core.ids import CollectionId, NodeId, PartitionId, Position, ShardId
from core.schema import Field, Schema
from core.types import DataType
from querynode.reader import readable
from querynode.view import View
from rpc.reads import QueryRequest
from rpc.roles import CatalogChange, CreatePartition, DropPartition, Load, Release
from storage import keys, record
from tests.simulation.cluster.invariants import Invariants, check, rows_of
from tests.simulation.cluster.log import LogPort
from tests.simulation.cluster.loop import EPOCH_S
from tests.simulation.cluster.network import Network
from tests.simulation.cluster.nodes import Cluster
from tests.simulation.cluster.oracle import Rows

SCHEMA = Schema(
    (Field(0, "pk", DataType.INT64, primary=True), Field(0, "n", DataType.INT64)),
)
EXTRA = "extra"
"""A partition that comes and goes."""
KEYS = 10
"""Keys of a shard that are written again and again."""
READ_S = 5.0
RETRY_S = 0.3
READ_AFTER_WRITE = 0.4
"""Share of writes that are read back at once."""
HELD_MAX = 6
"""Views that are held and looked at again."""


class Clients:
    """Writers, readers and whoever changes the catalog. All work of one seed draws from ``chance``."""

    def __init__(self, network: Network, cluster: Cluster, invariants: Invariants, chance: random.Random) -> None:
        self._network, self._cluster, self._invariants, self._chance = network, cluster, invariants, chance
        self._log = LogPort(cluster.stores.log)
        self._numbers = 0
        self._partitioning = asyncio.Lock()
        self.held: list[tuple[ShardId, View, frozenset[PartitionId], Rows]] = []
        self.answered = dict.fromkeys(("write", "read", "flush", "defined", "used", "blind", "refused"), 0)

    def collection(self, name: str) -> Collection | None:
        """As the store has it."""
        id = self._invariants.value(str, keys.name("default", name))
        return self._invariants.value(Collection, keys.collection(CollectionId(int(id)))) if id else None

    # --- asking the coordinator ---------------------------------------------------------------
    async def change(self, change: CatalogChange) -> None:
        """Until it is done, or there is nothing to do it to."""
        while True:
            try:
                await self._cluster.served(self._cluster.leader, lambda s: s.change(change))
            except CollectionNotFound:
                return  # dropped meanwhile
            except SheafError:
                await self._pause()
            else:
                return

    async def partition(self, name: str) -> None:
        """Makes one more partition, or drops it. What is refused is left."""
        async with self._partitioning:
            collection = self.collection(name)
            if collection is None:
                return
            steps: tuple[CatalogChange, ...] = (CreatePartition("", name, EXTRA), Load("", name))
            if EXTRA in collection.partition_by_name:
                steps = (Release("", name, (EXTRA,)), DropPartition("", name, EXTRA), Load("", name))
            for step in steps:
                try:
                    await self._cluster.served(self._cluster.leader, lambda s, step=step: s.change(step))
                except SheafError:
                    self.answered["refused"] += 1
                    await self._pause()
                else:
                    self.answered["defined"] += 1
        # Not everyone has heard of it yet.
        await self.write(name)
        await self.read(name)

    async def flush(self, name: str) -> bool:
        """Whether it was done. Then the manifests have what was in the log when it was asked for."""
        collection = self.collection(name)
        if collection is None:
            return False
        ends = {s: self._end(collection, s) for s in collection.shard_ids}
        timestamp = int((EPOCH_S + self._network.loop.now) * 1000) << 18
        try:
            await self._cluster.served(self._cluster.leader, lambda s: s.flush(collection.id, timestamp))
        except SheafError:
            self.answered["refused"] += 1
            return False
        self.answered["flush"] += 1
        now = self._invariants.value(Collection, keys.collection(collection.id))
        if now is None or now.dropped:
            return True
        for shard, end in ends.items():
            manifest = self._invariants.manifest(shard)
            if manifest is not None:
                left = self._invariants.oracle.of(shard).between(manifest.checkpoint, end)
                check(not left, f"1: flush of {shard} is acknowledged, records {left} are not in its manifest")
        return True

    # --- writing -----------------------------------------------------------------------------
    async def write(self, name: str) -> None:
        collection = self.collection(name)
        if collection is None:
            return
        shard = self._chance.choice(collection.shard_ids)
        self._numbers += 1
        kind = self._chance.choices((record.UPSERT, record.DELETE, record.INSERT), (7, 3, 1))[0]
        pks = self._keys(kind)
        batch = pa.record_batch({"pk": pa.array(pks, pa.int64())})
        if kind != record.DELETE:
            numbers = pa.array([self._numbers] * len(pks), pa.int64())
            batch = pa.RecordBatch.from_arrays([batch.column(0), numbers], schema=collection.schema.arrow)
        partition = self._chance.choice(collection.partitions).id
        value = record.Record(kind, shard, partition, 1, self._numbers, batch)
        position = await self._append(collection, shard, value)
        if position is not None and self._chance.random() < READ_AFTER_WRITE:
            await self._read(shard, Position(position + 1))

    async def barrier(self, name: str) -> None:
        """Fixes a cut, then reads exactly there on some replica."""
        collection = self.collection(name)
        if collection is None:
            return
        shard = self._chance.choice(collection.shard_ids)
        self._numbers += 1
        timestamp = int((EPOCH_S + self._network.loop.now) * 1000) << 18 | self._numbers
        value = record.Record(record.BARRIER, shard, collection.partitions[0].id, 1, timestamp, None)
        position = await self._append(collection, shard, value)
        for _ in range(2):
            if position is not None:
                await self._read(shard, Position(0), timestamp, position)
                await self._pause()

    async def _append(self, collection: Collection, shard: ShardId, value: record.Record) -> Position | None:
        channel = collection.shards[shard.number].channel
        try:
            (position,) = await self._log.append([(channel, record.encode(value))])
        except Unavailable:
            self.answered["refused"] += 1  # it may have happened
            return None
        self.answered["write"] += 1
        durable = value.batch is None or position in self._invariants.oracle.of(shard).positions
        check(durable, f"1: {position} is acknowledged and not durable")
        return position

    def _keys(self, kind: Any) -> list[int]:
        if kind == record.INSERT:  # ids nobody had before
            return [1_000 * self._numbers + n for n in range(self._chance.randrange(1, 4))]
        return self._chance.sample(range(KEYS), self._chance.randrange(1, 6))

    # --- reading -----------------------------------------------------------------------------
    async def read(self, name: str) -> None:
        """A strong read sees all that was acknowledged before it began."""
        collection = self.collection(name)
        if collection is not None:
            shard = self._chance.choice(collection.shard_ids)
            await self._read(shard, self._end(collection, shard))

    async def _read(self, shard: ShardId, seen: Position, snapshot: int = 0, cut: Position | None = None) -> bool:
        leaders = self.leaders(shard)
        if not leaders:
            return False
        return await self.read_on(self._chance.choice(leaders), shard, seen, snapshot, cut)

    async def read_on(
        self, node: NodeId, shard: ShardId, seen: Position, snapshot: int = 0, cut: Position | None = None
    ) -> bool:
        """Whether that node answered. seen: what the answer must have. cut: where it must be exactly."""
        partitions = self._partitions(shard)

        async def read(service: Any) -> None:
            deadline = self._network.loop.now + READ_S
            request = QueryRequest(
                shard.collection,
                shard.number,
                partitions,
                consistency=Consistency.STRONG,
                snapshot_ts=snapshot,
                deadline=deadline,
                output=("n",),
            )
            state, view = await service._pin(request)
            there = frozenset(self._partitions(shard))
            if view.remote:
                reply = await service._spread_reader.query(state, view, request)
                rows = dict(zip(reply.rows.pks.to_pylist(), reply.rows.columns["n"].to_pylist(), strict=True))
                check(len(rows) == len(reply.rows.pks), f"6: a key is answered twice by {node} and its workers")
            else:
                rows = rows_of(view, frozenset(readable(state, partitions)))
            # One that was released meanwhile need not be in the answer.
            there &= frozenset(self._partitions(shard)).intersection(partitions)
            self._answer(node, shard, view, rows, seen, cut, there)

        try:
            await self._cluster.served(node, read)
        except SheafError:
            self.answered["refused"] += 1
            return False
        self.answered["read"] += 1
        return True

    def _answer(
        self,
        node: NodeId,
        shard: ShardId,
        view: View,
        rows: Rows,
        seen: Position,
        cut: Position | None,
        there: frozenset[PartitionId],
    ) -> None:
        """rows: what is answered. there: the partitions that must be in it."""
        # A collection dropped meanwhile is told from an older state by nobody.
        if self._invariants.manifest(shard) is None:
            return
        rows = self._invariants.view(shard, view, f"read on {node}", rows, there)
        unseen = self._invariants.oracle.of(shard).between(view.frontier, seen)
        check(not unseen, f"1: a strong read of {shard} on {node} lacks {unseen}, acknowledged before it")
        if cut is not None:
            beside = self._invariants.oracle.of(shard).between(*sorted((view.frontier, cut)))
            check(not beside, f"4: the view of barrier {cut} is at {view.frontier}, {beside} lie between")
        if not view.remote:
            self.held = [*self.held[-HELD_MAX + 1 :], (shard, view, there, rows)]

    def look_again(self) -> None:
        """Views that are still held have not changed."""
        for shard, view, there, rows in self.held:
            if self._invariants.manifest(shard) is not None:
                now = self._invariants.view(shard, view, "held", None, there)
                before = self._invariants.oracle.of(shard).within(rows, self._invariants.partitions(shard))
                check(now == before, f"4: the view of {shard} at {view.frontier} changed while it was held")

    # --- parts of the above ------------------------------------------------------------------
    def leaders(self, shard: ShardId) -> list[NodeId]:
        placement: Placement | None = self._invariants.value(Placement, keys.placement(shard.collection))
        return [r.leaders[shard.number] for r in placement.replicas] if placement else []

    def _partitions(self, shard: ShardId) -> tuple[PartitionId, ...]:
        """Those that are loaded."""
        collection = self._invariants.value(Collection, keys.collection(shard.collection))
        return collection.loaded if collection else ()

    def _end(self, collection: Collection, shard: ShardId) -> Position:
        return self._cluster.stores.log.channels[collection.shards[shard.number].channel].end

    async def _pause(self) -> None:
        await asyncio.sleep(RETRY_S * (0.5 + self._chance.random()))
