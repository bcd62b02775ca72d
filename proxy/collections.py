"""RPCs that create, describe and drop collections."""

from typing import Any

from core import limits
from core.catalog import DEFAULT_DATABASE, Collection
from core.clock import physical_ms
from core.errors import CollectionNotFound, InvalidArgument, NotYet
from core.ids import CollectionId
from core.schema import Schema
from proxy.call import Call, Handlers
from proxy.consistency import LEVELS
from proxy.definitions import Definitions
from proxy.names import check_collection_name
from proxy.schema_wire import pairs, read_schema, write_schema
from proxy.status import ok
from proxy.wire import common, milvus
from rpc.roles import CreateCollection, DropCollection

PARTITION_KEY_PARTITIONS = 16
"""Partitions of a partition-key collection that names no number, as in Milvus."""

UNSERVED_PROPERTIES = frozenset({"collection.ttl.seconds", "partitionkey.isolation", "replicate.id"})
"""Properties that promise behaviour this version does not have; others are kept and described back."""


class Collections:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._catalog = definitions.catalog

    def handlers(self) -> Handlers:
        return {
            "CreateCollection": self.create,
            "DropCollection": self.drop,
            "HasCollection": self.has,
            "DescribeCollection": self.describe,
            "ShowCollections": self.show,
            "GetCollectionStatistics": self.statistics,
            "ListDatabases": self.databases,
            "DescribeDatabase": self.describe_database,
        }

    async def create(self, request: Any, call: Call) -> Any:
        database = call.database(request)
        self._catalog.check_database(database)
        check_collection_name(request.collection_name)
        schema = read_schema(request.schema)
        consistency = LEVELS.get(request.consistency_level)
        if consistency is None:
            raise InvalidArgument(f"consistency level {request.consistency_level} is not valid")
        await self._definitions.change(
            CreateCollection(
                database,
                request.collection_name,
                schema,
                shards=_shards(request.shards_num),
                partitions=_partitions(schema, request.num_partitions),
                consistency=consistency,
                properties=_properties(request.properties),
            )
        )
        return ok()

    async def drop(self, request: Any, call: Call) -> Any:
        database = call.database(request)
        self._catalog.check_database(database)
        await self._definitions.change(DropCollection(database, request.collection_name))
        return ok()

    async def has(self, request: Any, call: Call) -> Any:
        try:
            self._catalog.find(call.database(request), request.collection_name)
        except CollectionNotFound:
            return milvus.BoolResponse(status=ok(), value=False)
        return milvus.BoolResponse(status=ok(), value=True)

    async def describe(self, request: Any, call: Call) -> Any:
        database = call.database(request)
        if request.collection_name:
            collection = self._catalog.find(database, request.collection_name)
        else:
            self._catalog.check_database(database)
            by_id = self._catalog.get(CollectionId(request.collectionID))
            if by_id is None:
                raise CollectionNotFound(request.collectionID, database)
            collection = by_id
        return _description(collection)

    async def show(self, request: Any, call: Call) -> Any:
        collections = self._catalog.all(call.database(request))
        if request.type == milvus.ShowType.InMemory:
            collections = [c for c in collections if c.loaded]
            if missing := set(request.collection_names) - {c.name for c in collections}:
                raise CollectionNotFound(min(missing), call.database(request))
        if request.collection_names:
            collections = [c for c in collections if c.name in set(request.collection_names)]
        return milvus.ShowCollectionsResponse(
            status=ok(),
            collection_names=[c.name for c in collections],
            collection_ids=[c.id for c in collections],
            created_timestamps=[c.created_ts for c in collections],
            created_utc_timestamps=[physical_ms(c.created_ts) for c in collections],
            inMemory_percentages=[100 if c.loaded else 0 for c in collections],
            query_service_available=[bool(c.loaded) for c in collections],
            shards_num=[len(c.shards) for c in collections],
        )

    async def statistics(self, request: Any, call: Call) -> Any:
        collection = self._catalog.find(call.database(request), request.collection_name)
        stats = await self._definitions.coordinator.stats(collection.id)
        rows = sum(stats.rows.get(p.id, 0) for p in collection.partitions)
        return milvus.GetCollectionStatisticsResponse(status=ok(), stats=pairs([("row_count", str(rows))]))

    async def databases(self, _request: Any, _call: Call) -> Any:
        return milvus.ListDatabasesResponse(status=ok(), db_names=[DEFAULT_DATABASE], db_ids=[1], created_timestamp=[0])

    async def describe_database(self, request: Any, _call: Call) -> Any:
        self._catalog.check_database(request.db_name)
        return milvus.DescribeDatabaseResponse(status=ok(), db_name=DEFAULT_DATABASE, dbID=1)


def _shards(number: int) -> int:
    if not 0 <= number <= limits.SHARDS_MAX:
        raise InvalidArgument(f"maximum shards's number should be limited to {limits.SHARDS_MAX}")
    return number or 1


def _partitions(schema: Schema, number: int) -> int:
    if schema.partition_key is None:
        if number:
            raise InvalidArgument("num_partitions should only be specified with partition key field enabled")
        return 0
    if not 0 <= number <= limits.PARTITIONS_MAX:
        raise InvalidArgument(f"partition number ({number}) exceeds max configuration ({limits.PARTITIONS_MAX})")
    return number or PARTITION_KEY_PARTITIONS


def _properties(items: Any) -> tuple[tuple[str, str], ...]:
    if len(items) > limits.PROPERTIES_MAX:
        raise InvalidArgument(f"at most {limits.PROPERTIES_MAX} properties can be set, got {len(items)}")
    kept = {kv.key: kv.value for kv in items}
    if unserved := UNSERVED_PROPERTIES & kept.keys():
        raise NotYet(f"the property {min(unserved)} is not served by this version yet")
    return tuple(kept.items())


def _description(c: Collection) -> Any:
    return milvus.DescribeCollectionResponse(
        status=ok(),
        schema=write_schema(c.name, c.schema),
        collectionID=c.id,
        collection_name=c.name,
        db_name=c.database,
        created_timestamp=c.created_ts,
        created_utc_timestamp=physical_ms(c.created_ts),
        update_timestamp=c.updated_ts or c.created_ts,
        shards_num=len(c.shards),
        num_partitions=len(c.partitions),
        consistency_level=common.ConsistencyLevel.Name(c.consistency),
        properties=pairs(c.properties),
        physical_channel_names=[f"channel-{s.channel}" for s in c.shards],
        virtual_channel_names=[f"channel-{s.channel}_{c.id}v{s.number}" for s in c.shards],
    )
