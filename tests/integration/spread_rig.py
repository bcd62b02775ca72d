"""A query node that spreads its shard over two others, and one that holds the whole, to compare with."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from core.catalog import Placement, Replica
from core.errors import Unavailable
from core.ids import NodeId, SegmentId
from querynode.service import QueryNodeService
from rpc.reads import QueryReply, SearchReply
from rpc.workers import Forward, Hold, PreparedShare, QueryShare, Room, SearchShare, SearchShareReply, Worker
from storage import keys
from tests.integration.querynode_rig import NODE, Rig
from tests.unit.test_rpc_messages import same

WORKERS = (NodeId("querynode-2"), NodeId("querynode-3"))
ALONE = NodeId("querynode-9")

T = TypeVar("T")


class Line:
    """A worker at the other end of a line that can be cut or fall silent. Implements ``Worker``."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.cut = False
        self.silent = False
        self.slow_s = 0.0
        """How long a message of the stream is under way."""
        self.answers_holds, self.answers_reads = asyncio.Event(), asyncio.Event()
        self.answers_holds.set()
        self.answers_reads.set()
        self.asked = 0
        """Shares of reads asked for."""
        self.at_once = 0
        """Searches among them that need no wait."""
        self.held: list[tuple[SegmentId, ...]] = []

    async def _through(self, call: Callable[[Any], Awaitable[T]], message: Any) -> T:
        await asyncio.sleep(0)
        if self.cut:
            raise Unavailable("connection refused")
        if self.silent:
            await asyncio.Event().wait()
        return await call(message)

    async def forward(self, message: Forward) -> Room:
        await asyncio.sleep(self.slow_s)
        return await self._through(self.worker.forward, message)

    async def hold(self, hold: Hold) -> None:
        self.held.append(tuple(s.id for s in hold.segments))
        await self._through(self.worker.hold, hold)
        await self.answers_holds.wait()

    async def search_share(self, share: SearchShare) -> SearchShareReply:
        self.asked += 1
        await self.answers_reads.wait()
        return await self._through(self._at_once_or_not, share)

    async def _at_once_or_not(self, share: SearchShare) -> SearchShareReply:
        at_once, later = self.worker.search_share_at_once(share), await self.worker.search_share(share)
        assert at_once is None or same(at_once, later)
        self.at_once += at_once is not None
        return later

    def prepare_share(self, share: SearchShare) -> PreparedShare | None:
        return None if self.cut or self.silent else self.worker.prepare_share(share)

    async def query_share(self, share: QueryShare) -> QueryReply:
        self.asked += 1
        await self.answers_reads.wait()
        return await self._through(self.worker.query_share, share)


@dataclass
class SpreadRig(Rig):
    """``node`` leads and spreads; reads of it are asked again as a proxy does when a worker is lost."""

    members: tuple[NodeId, ...] = (NODE, *WORKERS)
    lines: dict[NodeId, Line] = field(default_factory=dict)
    services: dict[NodeId, QueryNodeService] = field(default_factory=dict)

    async def place(self) -> None:
        id = self.collection.id
        replicas = (Replica(self.members, (NODE,), (NODE,)), Replica((ALONE,), (ALONE,), (ALONE,)))
        await self.put(keys.placement(id), Placement(id, replicas))

    async def start(self) -> None:
        if not self.services:
            for node in (*WORKERS, ALONE):
                await self.begin(node)
        self.node = self.service(NODE, find_worker=self.lines.__getitem__)
        await self.node.start()

    async def begin(self, node: NodeId) -> None:
        """Starts the process of a node that does not lead by spreading."""
        service = self.services[node] = self.service(node)
        self.lines[node] = Line(service.worker)
        await service.start()

    async def lose(self, node: NodeId) -> None:
        """Ends a worker's process and starts it anew: it has forgotten everything."""
        await self.services[node].close()
        await self.begin(node)

    async def close(self) -> None:
        await self.node.close()
        for service in self.services.values():
            await service.close()
        await self.store.close()

    @property
    def alone(self) -> QueryNodeService:
        return self.services[ALONE]

    async def move(self, *members: NodeId) -> None:
        """The replica has these nodes from now on."""
        self.members = members
        await self.place()

    async def holders(self) -> dict[NodeId, int]:
        """How many segments each other node holds, as the leader says."""
        (status,) = await self.node.shards()
        return {h.node: len(h.segments) for h in status.holders}

    async def spread(self) -> None:
        """Returns once both leaders serve the newest manifest, and the one is spread over its members."""
        await self.settled()
        await self.settled(self.alone)
        served = self.node._placed.get(self.shard)
        assert served
        deadline = time.monotonic() + 10
        while served.handoff.nodes != self.members or served.handoff._target() != served.handoff._done:
            assert time.monotonic() < deadline, f"not spread over {self.members}: {await self.holders()}"
            await asyncio.sleep(0.002)

    async def query(self, filter: str = "", **more: Any) -> QueryReply:
        return await _again(lambda: super(SpreadRig, self).query(filter, **more))

    async def search(self, queries: np.ndarray, k: int, **more: Any) -> SearchReply:
        return await _again(lambda: super(SpreadRig, self).search(queries, k, **more))

    async def same_search(self, queries: np.ndarray, k: int, **more: Any) -> SearchReply:
        """The answer, after comparing it row by row with that of the node that holds the whole."""
        spread, whole = await self.search(queries, k, **more), await self._by_alone(super().search, queries, k, **more)
        assert spread.counts.tolist() == whole.counts.tolist()
        assert spread.scores.tolist() == whole.scores.tolist()
        assert spread.rows.pks.to_pylist() == whole.rows.pks.to_pylist()
        assert list(spread.rows.columns) == list(whole.rows.columns)
        for name, column in spread.rows.columns.items():
            assert column.equals(whole.rows.columns[name]), name
        if more.get("group_by"):
            assert spread.groups is not None
            assert spread.groups.equals(whole.groups)
        return spread

    async def same_query(self, filter: str = "", **more: Any) -> QueryReply:
        spread, whole = await self.query(filter, **more), await self._by_alone(super().query, filter, **more)
        assert spread.count == whole.count
        assert spread.rows.pks.equals(whole.rows.pks)
        for name, column in spread.rows.columns.items():
            assert column.equals(whole.rows.columns[name]), name
        return spread

    async def _by_alone(self, read: Callable[..., Awaitable[T]], *args: Any, **more: Any) -> T:
        node, self.node = self.node, self.alone
        try:
            return await read(*args, **more)
        finally:
            self.node = node


async def _again(read: Callable[[], Awaitable[T]]) -> T:
    deadline = time.monotonic() + 10
    while True:
        try:
            return await read()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
