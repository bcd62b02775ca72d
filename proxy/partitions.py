"""RPCs that create, list and drop partitions."""

from typing import Any

from core.catalog import Collection
from core.clock import physical_ms
from core.errors import PartitionNotFound, Refused
from proxy.call import Call, Handlers
from proxy.definitions import Definitions, partition_ids
from proxy.names import check_partition_name
from proxy.schema_wire import pairs
from proxy.status import ok
from proxy.wire import milvus
from rpc.roles import CreatePartition, DropPartition


class Partitions:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._catalog = definitions.catalog

    def handlers(self) -> Handlers:
        return {
            "CreatePartition": self.create,
            "DropPartition": self.drop,
            "HasPartition": self.has,
            "ShowPartitions": self.show,
            "GetPartitionStatistics": self.statistics,
        }

    async def create(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        check_partition_name(request.partition_name)
        _refuse_partition_key(collection, "create")
        if request.partition_name not in collection.partition_by_name:
            await self._definitions.change(
                CreatePartition(collection.database, collection.name, request.partition_name)
            )
        return ok()

    async def drop(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        check_partition_name(request.partition_name)
        _refuse_partition_key(collection, "drop")
        await self._definitions.change(DropPartition(collection.database, collection.name, request.partition_name))
        return ok()

    async def has(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        return milvus.BoolResponse(status=ok(), value=request.partition_name in collection.partition_by_name)

    async def show(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        partition_ids(collection, request.partition_names)
        wanted = set(request.partition_names) or collection.partition_by_name.keys()
        partitions = [p for p in collection.partitions if p.name in wanted]
        if request.type == milvus.ShowType.InMemory:
            partitions = [p for p in partitions if p.id in collection.loaded]
        return milvus.ShowPartitionsResponse(
            status=ok(),
            partition_names=[p.name for p in partitions],
            partitionIDs=[p.id for p in partitions],
            created_timestamps=[p.created_ts for p in partitions],
            created_utc_timestamps=[physical_ms(p.created_ts) for p in partitions],
            inMemory_percentages=[100 if p.id in collection.loaded else 0 for p in partitions],
        )

    async def statistics(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        partition = collection.partition_by_name.get(request.partition_name)
        if partition is None:
            raise PartitionNotFound(request.partition_name)
        stats = await self._definitions.coordinator.stats(collection.id)
        rows = stats.rows.get(partition.id, 0)
        return milvus.GetPartitionStatisticsResponse(status=ok(), stats=pairs([("row_count", str(rows))]))

    def _find(self, request: Any, call: Call) -> Collection:
        return self._catalog.find(call.database(request), request.collection_name)


def _refuse_partition_key(collection: Collection, verb: str) -> None:
    if collection.schema.partition_key is not None:
        raise Refused(f"disable {verb} partition if partition key mode is used")
