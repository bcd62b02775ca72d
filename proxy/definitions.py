"""Carrying out DDL: the change goes to the coordinator, its effect is awaited in this proxy's catalog."""

from core.catalog import Collection
from core.errors import PartitionNotFound
from core.ids import PartitionId
from rpc.roles import CatalogChange, Coordinator
from storage.catalog import Catalog


class Definitions:
    """What every DDL handler works with."""

    def __init__(self, catalog: Catalog, coordinator: Coordinator) -> None:
        self.catalog = catalog
        self.coordinator = coordinator

    async def change(self, change: CatalogChange) -> None:
        """Returns once a read through this proxy sees the change."""
        await self.catalog.wait(await self.coordinator.change(change))


def partition_ids(collection: Collection, names: list[str] | tuple[str, ...]) -> tuple[PartitionId, ...]:
    """Ids of the named partitions, each once. Raises ``PartitionNotFound``."""
    ids = []
    for name in names:
        partition = collection.partition_by_name.get(name)
        if partition is None:
            raise PartitionNotFound(name)
        ids.append(partition.id)
    return tuple(dict.fromkeys(ids))
