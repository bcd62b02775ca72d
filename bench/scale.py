"""The coordinator over a large catalog: what it stores, how it starts, and what nodes that come and go cost.

``python -m bench.scale --collections 100000 --segments 1000000`` fills an embedded store through the real
codecs, starts the real coordinator over it, places everything, and has a query node join and leave. Only
the query nodes are simulated: they say at once that they have loaded what they are to lead.
"""

import argparse
import asyncio
import gc
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import structlog
import uvloop

from coordinator.service import CoordinatorService
from core.catalog import Collection, Index, Partition, Placement, Shard
from core.clock import HybridClock
from core.errors import Unavailable
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, SegmentId, ShardId
from core.manifest import FieldStats, IndexFile, Manifest, ObjectRef, Segment
from core.schema import Field, Schema
from core.settings import CoordinatorSettings, IndexNodeSettings, LogSettings
from core.types import DataType
from rpc.reads import ShardPhase, ShardStatus
from rpc.roles import CreateCollection
from storage import keys, names
from storage.embedded import Store, open_store
from storage.meta.mirror import Mirror
from storage.meta.port import Delete, Put

FIRST_ID = 1 << 57
CHANNELS = 16
WRITES = 128
"""Of one commit while the store is filled."""
LOOK_S = 0.01
QUIET_S = 0.5
"""Without a change of any placement for so long, everything is settled."""
SCHEMA = Schema(
    (
        Field(FieldId(100), "id", DataType.INT64, primary=True),
        Field(FieldId(101), "vector", DataType.FLOAT_VECTOR, dim=768),
        Field(FieldId(102), "text", DataType.VARCHAR, max_length=1000),
        Field(FieldId(103), "tenant", DataType.INT64),
        Field(FieldId(104), "price", DataType.FLOAT),
    )
)
HNSW = Index(IndexId(FIRST_ID - 1), "vector", FieldId(101), "HNSW", "COSINE", (("M", "16"), ("efConstruction", "200")))

log = structlog.get_logger()


def collection(number: int) -> Collection:
    """A loaded collection of one shard, as the coordinator stores it."""
    partition = Partition(PartitionId(FIRST_ID + 2 * number + 1), "_default", 1 << 60)
    return Collection(
        id=CollectionId(FIRST_ID + 2 * number),
        database="default",
        name=f"collection_{number}",
        schema=SCHEMA,
        shards=(Shard(0, Channel(number % CHANNELS)),),
        partitions=(partition,),
        indexes=(HNSW,),
        loaded=(partition.id,),
        load_all=True,
        created_ts=1 << 60,
        updated_ts=1 << 60,
    )


def manifest(of: Collection, segments: int) -> Manifest:
    """Sealed, indexed segments with the bounds of four scalar fields each."""
    made = [_segment(of, (of.id - FIRST_ID) * 1000 + n) for n in range(segments)]
    return Manifest(of.id, 0, version=2 * segments, checkpoint=Position(10**9), segments=tuple(made))


def _segment(of: Collection, number: int) -> Segment:
    id = SegmentId(FIRST_ID + number)
    name = names.segment(names.folder(of), 0, id)
    bounds = {
        100: ("1", "123456"),
        102: ('"aaaaaaaaaaaaaaaa"', '"zzzzzzzzzzzzzzzz"'),
        103: ("1", "1000"),
        104: ("0.5", "99.75"),
    }
    return Segment(
        id,
        of.partitions[0].id,
        ObjectRef(name, 1_000_000, (1 << 63) + number),
        1000,
        Position(number),
        Position(number + 999),
        stats=tuple(FieldStats(FieldId(f), least, most, 0) for f, (least, most) in bounds.items()),
        indexes=(
            IndexFile(
                FieldId(101), HNSW.id, ObjectRef(names.index(name, HNSW.id, id), 1_600_000, number), "faiss 1.15"
            ),
        ),
    )


class QueryNodes:
    """Simulated ones, each of which serves at once what placements name it for."""

    def __init__(self, store: Store) -> None:
        self._placements: Mirror[Placement] = Mirror(store.meta, keys.PLACEMENTS, Placement)
        self.leaders: dict[str, tuple[NodeId, ...]] = {}
        self._coming: dict[str, tuple[NodeId, ...]] = {}
        self.rewritten: set[str] = set()
        self.moved: set[str] = set()
        self.changed_s = time.monotonic()

    async def start(self) -> None:
        await self._placements.start()
        self._placements.listen(self._placed)

    async def close(self) -> None:
        await self._placements.close()

    def _placed(self, key: str, placement: Placement | None) -> None:
        assert placement is not None, "nothing is released here"
        leaders = placement.replicas[0].leaders
        if key in self.leaders and leaders != self.leaders[key]:
            self.moved.add(key)
        self.rewritten.add(key)
        self.leaders[key] = leaders
        self._coming[key] = placement.replicas[0].coming
        self.changed_s = time.monotonic()

    def settled(self, count: int) -> bool:
        quiet = time.monotonic() - self.changed_s > QUIET_S
        return quiet and len(self.leaders) >= count and self.leaders == self._coming

    def of(self, node: NodeId) -> "QueryNode":
        return QueryNode(self, node)

    def coming_to(self, node: NodeId) -> list[ShardId]:
        waiting = (k for k, nodes in self._coming.items() if nodes != self.leaders[k] and node in nodes)
        return [ShardId(CollectionId(int(k.removeprefix(keys.PLACEMENTS))), 0) for k in waiting]


@dataclass(frozen=True)
class QueryNode:
    """Says of every shard that it is to lead that it is ready."""

    nodes: QueryNodes
    id: NodeId

    async def shards(self) -> list[ShardStatus]:
        return [ShardStatus(s, ShardPhase.READY, 0, 0, 0, 0, 0) for s in self.nodes.coming_to(self.id)]


@dataclass(frozen=True)
class Nodes:
    query: QueryNodes

    def query_node(self, id: NodeId) -> Any:
        return self.query.of(id)

    def data_node(self, id: NodeId) -> Any:
        raise Unavailable(f"no data node {id}")

    def index_nodes(self) -> Sequence[Any]:
        return ()


@dataclass(frozen=True)
class Cost:
    """cpu_s: of this process, its store's threads and the simulated nodes included. stall_s: longest work of the
    event loop during which it looked at nothing else. rewritten, moved: placements, and leaders among them.
    ddl_s: slowest creation of a collection meanwhile."""

    wall_s: float
    cpu_s: float
    stall_s: float
    rewritten: int
    moved: int
    ddl_s: float = 0.0


@dataclass(frozen=True)
class Report:
    """bytes: of metadata per kind of key. rss_bytes: what the process grew by until the coordinator led with
    everything placed. least, most: shards that a query node leads."""

    collections: int
    segments: int
    query_nodes: int
    bytes: dict[str, int]
    file_bytes: int
    start: Cost
    first: Cost
    join: Cost
    leave: Cost
    rss_bytes: int
    least: int
    most: int


async def fill(store: Store, collections: int, segments: int, nodes: Sequence[NodeId]) -> dict[str, int]:
    """Writes the catalog and the nodes' registrations; bytes of keys and values per kind."""
    sizes: Counter[str] = Counter()
    made = _puts(collections, segments, nodes)
    while some := list(islice(made, WRITES)):
        for put in some:
            sizes[put.key.partition("/")[0]] += len(put.key) + len(put.value)
        await store.meta.commit([], some)
    return dict(sizes)


def _puts(collections: int, segments: int, nodes: Sequence[NodeId]) -> Iterator[Put]:
    for node in nodes:
        yield Put(keys.node("querynode", node), b"simulated")
    for number in range(collections):
        of = collection(number)
        held = segments // collections + (number < segments % collections)
        yield Put(keys.collection(of.id), keys.encode(of))
        yield Put(keys.name(of.database, of.name), str(of.id).encode())
        yield Put(keys.manifest(ShardId(of.id, 0)), keys.encode(manifest(of, held)))


class Rig:
    """A coordinator over a store that is full."""

    def __init__(self, store: Store, collections: int) -> None:
        self.store, self.collections = store, collections
        self.query = QueryNodes(store)
        settings = CoordinatorSettings()
        self.coordinator = CoordinatorService(
            settings,
            IndexNodeSettings(rows_min=1),
            NodeId("coordinator"),
            store.meta,
            store.log,
            store.objects,
            Nodes(self.query),
            HybridClock(),
        )
        self._created = 0

    async def cost(self, what: str, of: Awaitable[Any], *, ddl: bool = False) -> Cost:
        """What it takes; with ``ddl`` collections are created meanwhile."""
        self.query.rewritten.clear()
        self.query.moved.clear()
        watch = asyncio.create_task(self._stall())
        users = asyncio.create_task(self._create()) if ddl else None
        began_s, cpu_s = time.monotonic(), time.process_time()
        await of
        wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        ddl_s = 0.0
        for task in filter(None, (watch, users)):
            task.cancel()
        (stall_s,) = await asyncio.gather(watch)
        if users:
            (ddl_s,) = await asyncio.gather(users)
        cost = Cost(wall_s, cpu_s, stall_s, len(self.query.rewritten), len(self.query.moved), ddl_s)
        log.info(what, **asdict(cost))
        return cost

    async def settle(self, *puts: Put, gone: str = "") -> None:
        """Writes, and waits until every placement has followed."""
        self.query.changed_s = time.monotonic()
        if puts:
            await self.store.meta.commit([], puts)
        if gone:
            await self.store.meta.commit([], [Delete(gone)])
        while True:
            await asyncio.sleep(LOOK_S)
            if self.query.settled(self.collections):
                return

    async def _stall(self) -> float:
        worst_s = 0.0
        try:
            while True:
                # Of this thread: what others take of the machine meanwhile does not count.
                began_s = time.thread_time()
                await asyncio.sleep(LOOK_S)
                worst_s = max(worst_s, time.thread_time() - began_s)
        except asyncio.CancelledError:
            return worst_s

    async def _create(self) -> float:
        worst_s = 0.0
        try:
            while True:
                asked_s = time.monotonic()
                await self.coordinator.change(CreateCollection("", f"created_{self._created}", SCHEMA))
                self._created += 1
                worst_s = max(worst_s, time.monotonic() - asked_s)
                await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            return worst_s


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def measure(folder: Path, collections: int, segments: int, query_nodes: int) -> Report:
    """Fills a store in the folder and measures. One process, one event loop, no other work on it."""
    nodes = [NodeId(f"querynode-{n}") for n in range(query_nodes)]
    store = await open_store(folder, LogSettings(channels=CHANNELS))
    sizes = await fill(store, collections, segments, nodes)
    rig = Rig(store, collections)
    gc.collect()
    before = _rss_bytes()
    start = await rig.cost("start", rig.coordinator.start())
    # As every process does once it serves (``sheafdb.serve``).
    gc.collect()
    gc.freeze()
    await rig.query.start()
    first = await rig.cost("first placement", rig.settle(), ddl=True)
    grown = _rss_bytes() - before
    loads = Counter(node for leaders in rig.query.leaders.values() for node in leaders)
    newcomer = keys.node("querynode", NodeId("newcomer"))
    join = await rig.cost("a node joins", rig.settle(Put(newcomer, b"simulated")), ddl=True)
    leave = await rig.cost("a node leaves", rig.settle(gone=newcomer), ddl=True)
    items, _ = await store.meta.list(keys.PLACEMENTS)
    sizes["placements"] = sum(len(item.key) + len(item.value) for item in items)
    await rig.query.close()
    await rig.coordinator.close()
    await store.close()
    file_bytes = (folder / "meta.db").stat().st_size
    return Report(
        collections,
        segments,
        query_nodes,
        sizes,
        file_bytes,
        start,
        first,
        join,
        leave,
        grown,
        min(loads[n] for n in nodes),
        max(loads.values()),
    )


def _phases(_logger: Any, level: str, event: Any) -> Any:
    """Warnings, and what a phase took; not each move."""
    if level == "info" and "stall_s" not in event:
        raise structlog.DropEvent
    return event


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--collections", type=int, default=100_000)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--query-nodes", type=int, default=20)
    arguments = parser.parse_args()
    progress = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(processors=[_phases, structlog.dev.ConsoleRenderer(colors=False)], logger_factory=progress)
    with tempfile.TemporaryDirectory(prefix="sheafdb-scale-") as folder:
        report = uvloop.run(measure(Path(folder), arguments.collections, arguments.segments, arguments.query_nodes))
    print(orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
