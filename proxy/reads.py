"""Reading shards: finding each one's leader, asking it, and asking again when it has moved."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.catalog import Collection
from core.errors import (
    CollectionNotFound,
    CollectionNotLoaded,
    CollectionNotReady,
    InvalidArgument,
    PartitionNotLoaded,
    Unavailable,
)
from core.ids import PartitionId
from proxy.call import Call
from proxy.definitions import partition_ids
from rpc.roles import Nodes, QueryNode
from storage.catalog import Catalog

T = TypeVar("T")
Ask = Callable[[QueryNode, int], Awaitable[T]]
"""Sends the request for a shard (by number) to its leader."""

PATIENCE_S = 20.0
"""How long a read follows a shard whose leader is lost, before it fails: longer than a node's lease."""


class Shards:
    """The shards of loaded collections, wherever they are led."""

    def __init__(self, catalog: Catalog, nodes: Nodes) -> None:
        self._catalog = catalog
        self._nodes = nodes

    async def ask(self, collection: Collection, call: Call, ask: Ask[T]) -> list[T]:
        """The answers of all shards, in shard order. Reads change nothing, so one that meets a lost
        or former leader is sent again to the next."""
        if len(collection.shards) == 1:
            return [await self._ask(collection, 0, call, ask)]
        numbers = range(len(collection.shards))
        return list(await asyncio.gather(*(self._ask(collection, n, call, ask) for n in numbers)))

    async def _ask(self, collection: Collection, shard: int, call: Call, ask: Ask[T]) -> T:
        try:
            return await ask(self._leader(collection, shard), shard)
        except (Unavailable, CollectionNotLoaded, CollectionNotReady) as e:
            return await self._ask_again(collection, shard, call, ask, e)

    async def _ask_again(self, collection: Collection, shard: int, call: Call, ask: Ask[T], error: Exception) -> T:
        pause_s = 0.005
        limit = asyncio.timeout(call.remaining_s(PATIENCE_S))
        try:
            async with limit:
                while True:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 0.2)
                    _check_still_loaded(self._catalog, collection)
                    try:
                        return await ask(self._leader(collection, shard), shard)
                    except (Unavailable, CollectionNotLoaded, CollectionNotReady) as e:
                        error = e
        except TimeoutError:
            if not limit.expired():
                raise
            raise error from None

    def _leader(self, collection: Collection, shard: int) -> QueryNode:
        placement = self._catalog.placement(collection.id)
        if placement is None or shard >= len(placement.leaders) or not placement.leaders[shard]:
            raise CollectionNotReady(
                f"collection not fully loaded[collection={collection.name}]: shard {shard} has no leader"
            )
        return self._nodes.query_node(placement.leaders[shard])


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
