"""Definitions, by whichever proxy they were changed.

A change goes to the coordinator, and its effect is awaited in this proxy's catalog. The others hear of it from the
metadata store a moment later, or much later where they are cut off from it; so they look before they say what is
defined, and before they refuse what is not.
"""

import asyncio
import time
from typing import Any

import structlog

from core.catalog import Collection
from core.errors import (
    CollectionNotFound,
    CollectionNotLoaded,
    IndexNotFound,
    PartitionNotFound,
    PartitionNotLoaded,
    Timeout,
    Unavailable,
)
from core.ids import PartitionId
from proxy.call import Call, Handler
from rpc.roles import CatalogChange, Coordinator
from storage.catalog import Catalog

LOOKS = frozenset(
    {
        "HasCollection",
        "DescribeCollection",
        "ShowCollections",
        "GetCollectionStatistics",
        "HasPartition",
        "ShowPartitions",
        "GetPartitionStatistics",
        "DescribeIndex",
        "GetLoadState",
        "GetLoadingProgress",
    }
)
"""RPCs that ask what is defined."""
UNDEFINED = (CollectionNotFound, CollectionNotLoaded, PartitionNotFound, PartitionNotLoaded, IndexNotFound)
"""What others answer where something is not, or not yet."""
PATIENCE_S = 1.0
"""How long a look at the metadata store may take; then what is known has to do, for as long again."""

log = structlog.get_logger()


class Definitions:
    """What every DDL handler works with."""

    def __init__(self, catalog: Catalog, coordinator: Coordinator) -> None:
        self.catalog = catalog
        self.coordinator = coordinator
        self._blind_until = 0.0

    async def change(self, change: CatalogChange) -> None:
        """Returns once a read through this proxy sees the change."""
        await self.catalog.wait(await self.coordinator.change(change))

    def current(self, rpc: str, handler: Handler) -> Handler:
        """The handler, of what is defined as of each call."""

        async def look(request: Any, call: Call) -> Any:
            await self._catch_up()
            return await handler(request, call)

        async def use(request: Any, call: Call) -> Any:
            known = self.catalog.collections.revision
            try:
                return await handler(request, call)
            except UNDEFINED:
                await self._catch_up()
                if self.catalog.collections.revision == known:
                    raise
            return await handler(type(request).FromString(call.message), call)  # the first may have taken it apart

        return look if rpc in LOOKS else use

    async def _catch_up(self) -> None:
        if time.monotonic() < self._blind_until:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.catalog.catch_up()
        except (Unavailable, Timeout, TimeoutError) as e:
            self._blind_until = time.monotonic() + PATIENCE_S
            log.warning("definitions may be outdated: the metadata store does not answer", error=str(e))


def partition_ids(collection: Collection, names: list[str] | tuple[str, ...]) -> tuple[PartitionId, ...]:
    """Ids of the named partitions, each once. Raises ``PartitionNotFound``."""
    ids = []
    for name in names:
        partition = collection.partition_by_name.get(name)
        if partition is None:
            raise PartitionNotFound(name)
        ids.append(partition.id)
    return tuple(dict.fromkeys(ids))
