"""RPCs that load and release collections and partitions, and tell how far that is."""

import asyncio
from typing import Any

from core.catalog import Collection
from core.errors import CollectionNotFound, CollectionNotLoaded, InvalidArgument, PartitionNotLoaded, Refused
from core.ids import PartitionId
from proxy.call import Call, Handlers
from proxy.definitions import Definitions, partition_ids
from proxy.status import ok
from proxy.wire import common, milvus
from rpc.roles import Load, Release

SETTLE_S = 1.0
"""How long a load waits for readiness before it answers: clients look again only every 0.2 s, and a
small collection is ready in a few milliseconds."""


class Loading:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._catalog = definitions.catalog

    def handlers(self) -> Handlers:
        return {
            "LoadCollection": self.load,
            "LoadPartitions": self.load_partitions,
            "ReleaseCollection": self.release,
            "ReleasePartitions": self.release_partitions,
            "GetLoadingProgress": self.progress,
            "GetLoadState": self.state,
        }

    async def load(self, request: Any, call: Call) -> Any:
        return await self._load(self._find(request, call), request, (), call)

    async def load_partitions(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        names = _named(collection, request, "load")
        return await self._load(collection, request, names, call)

    async def _load(self, collection: Collection, request: Any, names: tuple[str, ...], call: Call) -> Any:
        if request.replica_number < 0:
            raise InvalidArgument(f"replica number {request.replica_number} is not valid")
        _check_load_fields(collection, list(request.load_fields))
        change = Load(collection.database, collection.name, names, replicas=request.replica_number)
        await self._definitions.change(change)
        await self._settle(collection, names, call)
        return ok()

    async def _settle(self, collection: Collection, names: tuple[str, ...], call: Call) -> None:
        ids = partition_ids(collection, names) or tuple(p.id for p in collection.partitions)
        pause_s = 0.002
        try:
            async with asyncio.timeout(call.remaining_s(SETTLE_S)):
                while await self._definitions.coordinator.load_progress(collection.id, ids) < 100:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 0.05)
        except TimeoutError:
            return  # not an error: the client asks for the progress itself

    async def release(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        await self._definitions.change(Release(collection.database, collection.name))
        return ok()

    async def release_partitions(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        names = _named(collection, request, "release")
        await self._definitions.change(Release(collection.database, collection.name, names))
        return ok()

    async def progress(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        ids = partition_ids(collection, request.partition_names)
        if not collection.loaded:
            raise CollectionNotLoaded(collection.name)
        for id, name in zip(ids, request.partition_names, strict=False):
            if id not in collection.loaded:
                raise PartitionNotLoaded(f"partition not loaded[partition={name}]")
        percent = await self._percent(collection, ids or collection.loaded)
        return milvus.GetLoadingProgressResponse(status=ok(), progress=percent, refresh_progress=percent)

    async def state(self, request: Any, call: Call) -> Any:
        try:
            collection = self._find(request, call)
        except CollectionNotFound:
            return milvus.GetLoadStateResponse(status=ok(), state=common.LoadState.LoadStateNotExist)
        ids = partition_ids(collection, request.partition_names) or collection.loaded
        if not ids or not set(ids) <= set(collection.loaded):
            state = common.LoadState.LoadStateNotLoad
        elif await self._percent(collection, ids) < 100:
            state = common.LoadState.LoadStateLoading
        else:
            state = common.LoadState.LoadStateLoaded
        return milvus.GetLoadStateResponse(status=ok(), state=state)

    async def _percent(self, collection: Collection, ids: tuple[PartitionId, ...]) -> int:
        return await self._definitions.coordinator.load_progress(collection.id, ids)

    def _find(self, request: Any, call: Call) -> Collection:
        return self._catalog.find(call.database(request), request.collection_name)


def _named(collection: Collection, request: Any, verb: str) -> tuple[str, ...]:
    if collection.schema.partition_key is not None:
        raise Refused(f"disable {verb} partitions if partition key mode is used")
    names = tuple(request.partition_names)
    if not names:
        raise InvalidArgument(f"due to no partition specified, the {verb} request is invalid: invalid parameter")
    partition_ids(collection, names)
    return names


def _check_load_fields(collection: Collection, names: list[str]) -> None:
    """Everything is loaded whatever is named (columns are mapped, not copied); names must exist."""
    for name in names:
        if name not in collection.schema.by_name:
            raise InvalidArgument(f"field {name} not exist: invalid parameter")
