"""The Insert, Upsert and Delete RPCs: check, hash to shards, append to the log, answer."""

from collections.abc import Coroutine
from typing import Any

import pyarrow as pa

from core.catalog import DEFAULT_PARTITION, Collection, Consistency, Partition
from core.clock import HybridClock
from core.errors import InvalidArgument, NotYet, PartitionNotFound, SchemaMismatch, TooLarge
from core.failpoints import failpoint
from core.ids import Channel
from core.limits import INSERT_BYTES_MAX
from core.pressure import Pressure
from engine.filter import Filter
from proxy.admission import admit
from proxy.call import Call, Handlers
from proxy.definitions import Definitions, Work
from proxy.filters import CHARACTER_BYTES, checked, template_values
from proxy.ids import AutoIds
from proxy.log_entries import Entry, Writer, newest_of_each_key
from proxy.partition_pruning import narrowed
from proxy.query import Query, Selection
from proxy.reads import readable, refuse_names_with_partition_key
from proxy.rows_in import read_rows
from proxy.rows_out import write_ids
from proxy.status import ok
from proxy.threads import Threads
from proxy.wire import milvus
from storage.log.port import Log
from storage.record import INSERT, UPSERT

Made = tuple[pa.Array, list[Entry]]
"""The keys that a request is about, and the log entries that store it."""


class Writes:
    def __init__(
        self,
        *,
        definitions: Definitions,
        log: Log,
        ids: AutoIds,
        clock: HybridClock,
        query: Query,
        threads: Threads,
        pressure: dict[Channel, Pressure],
    ) -> None:
        """pressure: of the channels under pressure, as it is now."""
        self._definitions = definitions
        self._catalog = definitions.catalog
        self._log = log
        self._ids = ids
        self._clock = clock
        self._query = query
        self._threads = threads
        self._pressure = pressure

    def handlers(self) -> Handlers:
        return {"Insert": self.insert, "Upsert": self.upsert, "Delete": self.delete}

    # --- rows -----------------------------------------------------------------------------------
    async def insert(self, request: Any, call: Call) -> Any:
        """With explicit keys an insert has upsert meaning: a key is unique, the last write wins."""
        collection = self._collection(request, call)
        primary, rows = collection.schema.primary, _checked_rows(request, call)
        keys = await self._ids.keys(primary, rows) if primary.auto_id else None
        kind = INSERT if primary.auto_id else UPSERT
        reply = await self._write(collection, request, call, keys, kind)
        reply.insert_cnt = rows
        return reply

    async def upsert(self, request: Any, call: Call) -> Any:
        """Rows replace those of their keys. With auto ids too: a given key is kept, no new one made."""
        if request.partial_update or request.field_ops:
            raise NotYet("upsert with partial_update is not served by this version yet: send whole rows")
        collection = self._collection(request, call)
        _checked_rows(request, call)
        primary = collection.schema.primary.name
        if all(data.field_name != primary for data in request.fields_data):
            raise InvalidArgument(f"must assign pk when upsert, primary field: {primary}")
        reply = await self._write(collection, request, call, None, UPSERT)
        reply.upsert_cnt = request.num_rows
        return reply

    def _collection(self, request: Any, call: Call) -> Collection:
        collection = self._catalog.find(call.database(request), request.collection_name)
        if 0 < request.schema_timestamp < (collection.updated_ts or collection.created_ts):
            raise SchemaMismatch(f"the schema of collection {collection.name} has changed: describe it again")
        if request.namespace:
            raise NotYet("namespaces are not served by this version yet")
        return collection

    async def _write(self, collection: Collection, request: Any, call: Call, keys: pa.Array | None, kind: int) -> Any:
        partition = _partition(collection, request.partition_name)
        if self._pressure:
            await admit(collection, self._pressure, call)
        writer = Writer(collection, self._clock.now(), self._log.record_bytes_max)

        def make() -> Coroutine[Any, Any, Made]:
            return self._threads.run(len(call.message), _entries, writer, request, keys, kind, partition)

        named = request.partition_name not in ("", DEFAULT_PARTITION)
        keys = await self._append(collection, make, certain_first=named)
        reply = milvus.MutationResult(
            status=ok(), acknowledged=True, timestamp=writer.timestamp, succ_index=range(request.num_rows)
        )
        write_ids(keys, reply.IDs)
        return reply

    async def _append(self, collection: Collection, make: Work[Made], *, certain_first: bool) -> pa.Array:
        """Appends what ``make`` makes, and gives the keys; the collection is certain to be there by then.

        certain_first: definitions that are not known here yet may make a difference even where the collection is
        there: then they are waited for first, as what is refused must have changed nothing. What was appended for
        a dropped collection has changed nothing.
        """
        if certain_first:
            return await self._store(lambda: self._definitions.unchanged(collection, make))
        return await self._definitions.not_dropped(collection, lambda: self._store(make))

    async def _store(self, make: Work[Made]) -> pa.Array:
        keys, entries = await make()
        failpoint("write.before_append")
        if entries:
            await self._log.append(entries)
        failpoint("write.appended")
        return keys

    # --- deletes --------------------------------------------------------------------------------
    async def delete(self, request: Any, call: Call) -> Any:
        """Deletes by key go straight to the log; by any other filter the keys are read first."""
        collection = self._catalog.find(call.database(request), request.collection_name)
        if request.namespace:
            raise NotYet("namespaces are not served by this version yet")
        params = template_values(request.expr_template_values)
        weight = len(request.expr) * CHARACTER_BYTES
        filter = await self._threads.run(weight, checked, "delete", request.expr, collection.schema, params)
        if filter is None:
            raise InvalidArgument("failed to create delete plan: expr cannot be empty: invalid parameter")
        if self._pressure:
            await admit(collection, self._pressure, call)
        writer = Writer(collection, self._clock.now(), self._log.record_bytes_max)

        async def entries() -> Made:
            keys = await self._doomed(collection, request, filter, params, call)
            return keys, writer.deletes(keys)

        read_first = bool(request.partition_name) or not filter.keys_only
        keys = await self._append(collection, entries, certain_first=read_first)
        return milvus.MutationResult(status=ok(), acknowledged=True, timestamp=writer.timestamp, delete_cnt=len(keys))

    async def _doomed(
        self, collection: Collection, request: Any, filter: Filter, params: dict[str, Any], call: Call
    ) -> pa.Array:
        name = request.partition_name
        if name:
            refuse_names_with_partition_key(collection)
            if name not in collection.partition_by_name:
                raise PartitionNotFound(name)
        if filter.keys_only and (not name or len(collection.partitions) == 1):
            assert filter.keys is not None
            return filter.keys
        partitions = narrowed(collection, readable(collection, [name] if name else []), filter)
        selection = Selection(collection, partitions, request.expr, params, Consistency.STRONG)
        return (await self._query.rows(selection, (), call)).pks


def _checked_rows(request: Any, call: Call) -> int:
    if request.num_rows < 1:
        raise InvalidArgument("num_rows should be greater than 0: invalid parameter[expected=> 0][actual=0]")
    # A vector takes at least a byte, so more rows than bytes can only be wrong.
    if request.num_rows > len(call.message):
        raise InvalidArgument(f"num_rows {request.num_rows} is more than the request holds")
    return request.num_rows


def _entries(writer: Writer, request: Any, keys: pa.Array | None, kind: int, partition: Partition | None) -> Made:
    schema = writer.collection.schema
    batch = read_rows(request.fields_data, request.num_rows, schema, keys)
    if batch.nbytes > INSERT_BYTES_MAX:
        raise TooLarge(f"the rows take {batch.nbytes} bytes, one request at most {INSERT_BYTES_MAX}: send fewer")
    stored = newest_of_each_key(batch, schema.primary.name) if kind == UPSERT else batch
    return batch.column(schema.primary.name), writer.rows(stored, kind, partition.id if partition else None)


def _partition(collection: Collection, name: str) -> Partition | None:
    """The partition all rows go to; None = by partition key."""
    if collection.schema.partition_key is not None:
        if name:
            refuse_names_with_partition_key(collection)
        return None
    partition = collection.partition_by_name.get(name or DEFAULT_PARTITION)
    if partition is None:
        raise PartitionNotFound(name or DEFAULT_PARTITION)
    return partition
