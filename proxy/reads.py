"""Reading shards: finding a leader of each, asking it, and asking another when it is lost or has moved."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import TypeVar

from core.catalog import Collection
from core.errors import (
    CollectionNotFound,
    CollectionNotLoaded,
    CollectionNotReady,
    InvalidArgument,
    PartitionNotLoaded,
    SnapshotExpired,
    Unavailable,
)
from core.ids import NodeId, PartitionId
from proxy.call import Call
from proxy.definitions import partition_ids
from rpc.roles import Nodes, QueryNode
from storage.catalog import Catalog

T = TypeVar("T")
Ask = Callable[[QueryNode, int], Awaitable[T]]
"""Sends the request for a shard (by number) to its leader."""

PATIENCE_S = 20.0
"""How long a read follows a shard whose leader is lost, before it fails: longer than a node's lease."""
ELSEWHERE = (Unavailable, CollectionNotLoaded, CollectionNotReady, SnapshotExpired)
"""What one replica may answer, and another one better. A view that an iterator reads from may be held by
one of them only."""
SHUN_S = 1.0
"""How long a node that failed is asked only where there is no other."""
SILENT_S = 0.5
"""A node that owes an answer and has given none to anybody for this long may be paused or cut off, which
its connection shows only seconds later: another replica is asked too."""


class Shards:
    """The shards of loaded collections, wherever they are led.

    Of two replicas drawn at random, the one whose node has fewer requests of this proxy under way is
    asked ("the power of two choices", Mitzenmacher 2001): even without knowledge, and no herd.
    """

    def __init__(self, catalog: Catalog, nodes: Nodes) -> None:
        self._catalog = catalog
        self._nodes = nodes
        self._under_way: Counter[NodeId] = Counter()
        self._shunned: dict[NodeId, float] = {}
        """Nodes that failed lately, until when others are asked first."""
        self._heard: dict[NodeId, float] = {}
        """When a node of one of several replicas last answered."""

    async def ask(self, collection: Collection, call: Call, ask: Ask[T]) -> list[T]:
        """The answers of all shards, in shard order. Reads change nothing, so one that meets a lost
        or former leader is sent again to the next."""
        if len(collection.shards) == 1:
            return [await self._ask(collection, 0, call, ask)]
        numbers = range(len(collection.shards))
        return list(await asyncio.gather(*(self._ask(collection, n, call, ask) for n in numbers)))

    def leaders(self, collection: Collection) -> list[QueryNode] | None:
        """The node that leads each shard now; None when one of them is not to be had, or has to be chosen among
        replicas. Any thread."""
        try:
            leaders = [self._leaders(collection, shard) for shard in range(len(collection.shards))]
            return [self._nodes.query_node(nodes[0]) for nodes in leaders] if max(map(len, leaders)) == 1 else None
        except (Unavailable, CollectionNotReady):
            return None

    async def _ask(self, collection: Collection, shard: int, call: Call, ask: Ask[T]) -> T:
        try:
            leaders = self._leaders(collection, shard)
            if len(leaders) == 1:
                return await ask(self._nodes.query_node(leaders[0]), shard)
            return await self._ask_replica(leaders, self._choose(leaders, ()), shard, ask)
        except ELSEWHERE as e:
            return await self._ask_again(collection, shard, call, ask, e)

    async def _ask_replica(self, leaders: Sequence[NodeId], node: NodeId, shard: int, ask: Ask[T]) -> T:
        """The answer of ``node``, or of another one of ``leaders`` if that is there first after it went silent."""
        others = [n for n in leaders if n != node]
        if not others:
            return await self._ask_one(node, shard, ask)
        first = self._send(node, shard, ask)
        asked = [first]
        try:
            if not await self._went_silent(node, first):
                return await first
            self._shunned[node] = time.monotonic() + SHUN_S
            asked.append(self._send(self._choose(others, ()), shard, ask))
            return await _first_answer(asked)
        finally:
            if len(asked) > 1 or not first.done():
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _went_silent(self, node: NodeId, asked: asyncio.Task[T]) -> bool:
        """Waits for the answer; True once the node has let everybody wait for ``SILENT_S``."""
        since = time.monotonic()
        while (left_s := max(since, self._heard.get(node, 0.0)) + SILENT_S - time.monotonic()) > 0:
            if (await asyncio.wait({asked}, timeout=left_s))[0]:
                return False
        return True

    def _send(self, node: NodeId, shard: int, ask: Ask[T]) -> asyncio.Task[T]:
        """Asks a node; the request counts as under way at once."""
        self._under_way[node] += 1
        task = asyncio.create_task(self._ask_one(node, shard, ask))
        task.add_done_callback(lambda _: self._came_back(node))
        return task

    def _came_back(self, node: NodeId) -> None:
        self._under_way[node] -= 1
        if not self._under_way[node]:
            del self._under_way[node]

    async def _ask_one(self, node: NodeId, shard: int, ask: Ask[T]) -> T:
        try:
            answer = await ask(self._nodes.query_node(node), shard)
            self._heard[node] = time.monotonic()
            return answer
        except (Unavailable, CollectionNotLoaded, CollectionNotReady):
            self._shunned[node] = time.monotonic() + SHUN_S
            raise

    async def _ask_again(self, collection: Collection, shard: int, call: Call, ask: Ask[T], error: Exception) -> T:
        """Every replica in turn at once, then after longer and longer pauses."""
        pause_s = 0.005
        tried: set[NodeId] = set()
        limit = asyncio.timeout(call.remaining_s(PATIENCE_S))
        try:
            async with limit:
                while True:
                    _check_still_loaded(self._catalog, collection)
                    leaders = self._known_leaders(collection, shard)
                    if len(leaders) < 2 or tried.issuperset(leaders):
                        if isinstance(error, SnapshotExpired):
                            break  # no time brings it back
                        tried.clear()
                        await asyncio.sleep(pause_s)
                        pause_s = min(2 * pause_s, 0.2)
                    try:
                        leaders = self._leaders(collection, shard)
                        node = self._choose(leaders, tried)
                        tried.add(node)
                        return await self._ask_replica(leaders, node, shard, ask)
                    except ELSEWHERE as e:
                        error = e
        except TimeoutError:
            if not limit.expired():
                raise
        raise error

    def _choose(self, leaders: Sequence[NodeId], tried: Container[NodeId]) -> NodeId:
        left = [n for n in leaders if n not in tried] or leaders
        now = time.monotonic()
        left = [n for n in left if self._shunned.get(n, 0.0) <= now] or left
        two = random.sample(left, min(2, len(left)))
        return min(two, key=lambda n: self._under_way[n])

    def _leaders(self, collection: Collection, shard: int) -> Sequence[NodeId]:
        """One node of each replica, at least one; the same node may stand for two while they are separated."""
        leaders = self._known_leaders(collection, shard)
        if not leaders:
            raise CollectionNotReady(
                f"collection not fully loaded[collection={collection.name}]: shard {shard} has no leader"
            )
        return leaders

    def _known_leaders(self, collection: Collection, shard: int) -> Sequence[NodeId]:
        placement = self._catalog.placement(collection.id)
        return [r.leaders[shard] for r in placement.replicas if shard < len(r.leaders)] if placement else []


async def _first_answer(asked: Sequence[asyncio.Task[T]]) -> T:
    """Of replicas. Raises the last one's error when all fail."""
    error: Exception | None = None
    for answer in asyncio.as_completed(asked):
        try:
            return await answer
        except ELSEWHERE as e:
            error = e
    assert error
    raise error


def _check_still_loaded(catalog: Catalog, collection: Collection) -> None:
    now = catalog.get(collection.id)
    if now is None:
        raise CollectionNotFound(collection.name, collection.database)
    if not now.loaded:
        raise CollectionNotLoaded(collection.name)


def readable(collection: Collection, names: list[str]) -> tuple[PartitionId, ...]:
    """The partitions a read covers: the named ones, which must be loaded, or all that are loaded."""
    if not collection.loaded:
        raise CollectionNotLoaded(collection.name)
    if not names:
        return collection.loaded
    refuse_names_with_partition_key(collection)
    ids = partition_ids(collection, names)
    for id, name in zip(ids, dict.fromkeys(names), strict=True):
        if id not in collection.loaded:
            raise PartitionNotLoaded(f"partition not loaded[partition={name}]")
    return ids


def refuse_names_with_partition_key(collection: Collection) -> None:
    if collection.schema.partition_key is not None:
        raise InvalidArgument("not support manually specifying the partition names if partition key mode is used")
