"""RPCs about the stored state (flush, compaction) and about the server itself."""

import asyncio
import secrets
from importlib import metadata
from typing import Any

from core.clock import HybridClock, physical_ms
from core.errors import InvalidArgument
from core.ids import CollectionId
from proxy.call import Call, Handlers
from proxy.definitions import Definitions
from proxy.status import ok
from proxy.wire import common, milvus, schema

PROTOCOL = "2.6.0"
"""The Milvus version whose protocol this is; clients switch features on by it."""


def server_version() -> str:
    """As clients see it: they read the leading number as Milvus's."""
    try:
        own = metadata.version("sheafdb")
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "dev"
    return f"{PROTOCOL}-sheafdb-{own}"


class Upkeep:
    def __init__(self, definitions: Definitions, clock: HybridClock) -> None:
        self._catalog = definitions.catalog
        self._coordinator = definitions.coordinator
        self._clock = clock
        self._version = server_version()

    def handlers(self) -> Handlers:
        return {
            "Flush": self.flush,
            "GetFlushState": self.flush_state,
            "ManualCompaction": self.compact,
            "GetCompactionState": self.compaction_state,
            "AllocTimestamp": self.timestamp,
            "Connect": self.connect,
            "GetVersion": self.version,
            "CheckHealth": self.health,
            "GetComponentStates": self.components,
        }

    async def flush(self, request: Any, call: Call) -> Any:
        if not request.collection_names:
            raise InvalidArgument("no collection to flush was named")
        database = call.database(request)
        collections = [self._catalog.find(database, name) for name in dict.fromkeys(request.collection_names)]
        timestamp = self._clock.now()
        flushed = await asyncio.gather(*(self._coordinator.flush(c.id, timestamp) for c in collections))
        reply = milvus.FlushResponse(status=ok(), db_name=database)
        for collection, segments in zip(collections, flushed, strict=True):
            ids = sorted({id for of_shard in segments.values() for id in of_shard})
            reply.coll_segIDs[collection.name].CopyFrom(schema.LongArray(data=ids))
            reply.flush_coll_segIDs[collection.name].CopyFrom(schema.LongArray(data=ids))
            reply.coll_seal_times[collection.name] = physical_ms(timestamp) // 1000
            reply.coll_flush_ts[collection.name] = timestamp
        return reply

    async def flush_state(self, request: Any, call: Call) -> Any:
        done = True
        # Older clients name segments only: those exist once they have an id.
        if request.collection_name:
            collection = self._catalog.find(call.database(request), request.collection_name)
            done = await self._coordinator.flushed(collection.id, request.flush_ts)
        return milvus.GetFlushStateResponse(status=ok(), flushed=done)

    async def compact(self, request: Any, call: Call) -> Any:
        id = CollectionId(request.collectionID)
        if request.collection_name or self._catalog.get(id) is None:
            id = self._catalog.find(call.database(request), request.collection_name or str(id)).id
        compaction = await self._coordinator.compact(id)
        return milvus.ManualCompactionResponse(status=ok(), compactionID=compaction, compactionPlanCount=1)

    async def compaction_state(self, request: Any, _call: Call) -> Any:
        state = await self._coordinator.compaction_state(request.compactionID)
        return milvus.GetCompactionStateResponse(
            status=ok(),
            state=common.CompactionState.Executing if state.executing else common.CompactionState.Completed,
            executingPlanNo=state.executing,
            completedPlanNo=state.completed,
            failedPlanNo=state.failed,
        )

    async def timestamp(self, _request: Any, _call: Call) -> Any:
        return milvus.AllocTimestampResponse(status=ok(), timestamp=self._clock.now())

    async def connect(self, _request: Any, _call: Call) -> Any:
        info = common.ServerInfo(build_tags=self._version, deploy_mode="STANDALONE")
        return milvus.ConnectResponse(status=ok(), server_info=info, identifier=secrets.randbits(62) + 1)

    async def version(self, _request: Any, _call: Call) -> Any:
        return milvus.GetVersionResponse(status=ok(), version=self._version)

    async def health(self, _request: Any, _call: Call) -> Any:
        return milvus.CheckHealthResponse(status=ok(), isHealthy=True)

    async def components(self, _request: Any, _call: Call) -> Any:
        info = milvus.ComponentInfo(role="proxy", state_code=common.StateCode.Healthy)
        return milvus.ComponentStates(status=ok(), state=info)
