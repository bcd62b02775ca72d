"""What a proxy of a simulated cluster has of definitions, and rows it writes by them. Clients ask query nodes."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from core.catalog import Collection
from core.errors import CollectionNotFound
from core.ids import CollectionId
from proxy.call import Call
from proxy.definitions import Definitions
from rpc.roles import CatalogChange
from storage import record
from storage.catalog import Catalog
from storage.log.port import Log
from storage.meta.port import MetaStore


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, which is its own message. number: of the row that is to be inserted."""

    name: str
    number: int = 0

    @staticmethod
    def FromString(message: "Ask") -> "Ask":
        return message


@dataclass(frozen=True, slots=True)
class Told:
    """found: the collection that has the name, or took the row; None = there is none. blind: neither the metadata store
    nor a coordinator told the proxy whether that is so."""

    found: CollectionId | None
    blind: bool


class ProxyService:
    """Over a mirror of its own, as every proxy."""

    def __init__(self, meta: MetaStore, log: Log, coordinator: Any) -> None:
        self._catalog, self._log = Catalog(meta), log
        self._definitions = Definitions(self._catalog, coordinator, alone=False)
        self._has = self._definitions.current("HasCollection", self._find)
        self._insert = self._definitions.current("Insert", self._append)

    async def start(self) -> None:
        await self._catalog.start()

    async def change(self, change: CatalogChange) -> None:
        await self._definitions.change(change)

    async def has(self, name: str, _number: int) -> Told:
        return await self._told(self._has, Ask(name))

    async def insert(self, name: str, number: int) -> Told:
        """A row of that number."""
        return await self._told(self._insert, Ask(name, number))

    async def _told(self, handler: Any, ask: Any) -> Told:
        guesses = self._definitions.guesses
        try:
            found = await handler(ask, Call("", "", float("inf"), ask))
        except CollectionNotFound:
            found = None
        return Told(found, self._definitions.guesses > guesses)

    async def _find(self, ask: Any, _call: Call) -> Any:
        return self._catalog.find("", ask.name).id

    async def _append(self, ask: Any, _call: Call) -> Any:
        collection = self._catalog.find("", ask.name)
        await self._definitions.not_dropped(collection, lambda: self._store(collection, ask.number))
        return collection.id

    async def _store(self, collection: Collection, number: int) -> None:
        pks = pa.array([number], pa.int64())
        batch = pa.RecordBatch.from_arrays([pks, pks], schema=collection.schema.arrow)
        shard, partition = collection.shards[0], collection.partitions[0].id
        value = record.Record(record.UPSERT, collection.shard_ids[0], partition, 1, number, batch)
        await self._log.append([(shard.channel, record.encode(value))])
