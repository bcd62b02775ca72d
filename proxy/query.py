"""The Query RPC: rows by filter, in primary key order, and counts."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.catalog import Collection, Consistency
from core.errors import InvalidArgument, NotYet
from core.ids import PartitionId
from core.types import DataType
from proxy import consistency, output_fields, request_params
from proxy.call import Call, Handlers
from proxy.consistency import BOUNDED_TS
from proxy.definitions import Definitions
from proxy.filters import CHARACTER_BYTES, checked, template_values
from proxy.output_fields import Output
from proxy.partition_pruning import narrowed
from proxy.reads import Shards, readable
from proxy.request_params import Params
from proxy.rows_out import write_column
from proxy.snapshots import Snapshots
from proxy.status import ok
from proxy.threads import Threads
from proxy.wire import milvus, schema
from rpc.reads import QueryReply, QueryRequest, Rows
from rpc.roles import QueryNode

COUNT = "count(*)"
UNSERVED_PARAMS = ("order_by_fields", "group_by_fields", "query_iter_last_pk", "query_iter_last_element_offset")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a query is about, and at which moment. limit None = all."""

    collection: Collection
    partitions: tuple[PartitionId, ...]
    filter: str
    filter_params: dict[str, Any]
    level: Consistency
    snapshot_ts: int = 0
    limit: int | None = None


class Query:
    def __init__(self, definitions: Definitions, shards: Shards, snapshots: Snapshots, threads: Threads) -> None:
        self._definitions = definitions
        self._catalog = definitions.catalog
        self._shards = shards
        self._snapshots = snapshots
        self._threads = threads

    def handlers(self) -> Handlers:
        return {"Query": self.query}

    async def query(self, request: Any, call: Call) -> Any:
        collection = self._catalog.find(call.database(request), request.collection_name)
        params = request_params.read(request.query_params)
        _refuse_unserved(request, params)
        limit, offset = _window(params)
        count = COUNT in request.output_fields
        _check_shape(request, limit, count)
        output = output_fields.resolve([] if count else request.output_fields, collection.schema, with_primary=True)
        filter_params = template_values(request.expr_template_values)
        weight = len(request.expr) * CHARACTER_BYTES
        filter = await self._threads.run(weight, checked, "query", request.expr, collection.schema, filter_params)
        level = consistency.of_request(
            request.use_default_consistency,
            request.consistency_level,
            request.guarantee_timestamp,
            collection.consistency,
        )
        partitions = narrowed(collection, readable(collection, list(request.partition_names)), filter)
        selection = Selection(
            collection,
            partitions,
            request.expr.strip() and request.expr,
            filter_params,
            level,
            await self._snapshot(collection, params, request.guarantee_timestamp),
            None if limit is None else offset + limit,
        )
        if count:
            counted = await self._definitions.as_read(collection, level, lambda: self.count(selection, call))
            return _count_reply(collection, counted)
        found = await self._definitions.as_read(collection, level, lambda: self.rows(selection, output.fetch, call))
        rows = _window_of(found, limit, offset)
        size = sum(c.nbytes for c in rows.columns.values())
        return await self._threads.run(size, _reply, selection, output, rows)

    async def rows(self, selection: Selection, fetch: tuple[str, ...], call: Call) -> Rows:
        """All matching rows in primary key order, the first ``limit`` of them."""
        replies = await self._ask(selection, fetch, False, call)
        return _in_key_order([r.rows for r in replies], selection.limit)

    async def count(self, selection: Selection, call: Call) -> int:
        """How many rows match."""
        return sum(r.count for r in await self._ask(selection, (), True, call))

    async def _ask(
        self, selection: Selection, fetch: tuple[str, ...], count_only: bool, call: Call
    ) -> list[QueryReply]:
        def ask(node: QueryNode, shard: int) -> Any:
            return node.query(
                QueryRequest(
                    selection.collection.id,
                    shard,
                    selection.partitions,
                    selection.filter,
                    selection.filter_params,
                    fetch,
                    selection.level,
                    selection.snapshot_ts,
                    call.deadline,
                    limit=selection.limit,
                    count_only=count_only,
                )
            )

        return await self._shards.ask(selection.collection, call, ask)

    async def _snapshot(self, collection: Collection, params: Params, guarantee_ts: int) -> int:
        """The cut an iterator reads at, made by its first request; 0 for other queries."""
        if "iterator" not in params:
            return 0
        if guarantee_ts > BOUNDED_TS:
            return guarantee_ts
        return await self._snapshots.cut(collection) if request_params.flag(params, "iterator") else 0


def _refuse_unserved(request: Any, params: Params) -> None:
    for name in UNSERVED_PARAMS:
        if params.get(name):
            raise NotYet(f"query with {name} is not served by this version yet")
    if request.namespace:
        raise NotYet("namespaces are not served by this version yet")


def _window(params: Params) -> tuple[int | None, int]:
    """(limit, offset). Without a limit the offset has no effect, as in Milvus."""
    if not params.get("limit"):
        return None, 0
    limit, offset = request_params.integer(params, "limit", 0), request_params.integer(params, "offset", 0)
    if limit < 1:
        raise InvalidArgument(f"invalid max query result window, limit [{limit}] is invalid, should be greater than 0")
    request_params.check_window(offset, limit)
    return limit, offset


def _check_shape(request: Any, limit: int | None, count: bool) -> None:
    if count and len(request.output_fields) > 1:
        raise InvalidArgument("count(*) can not be combined with other output fields")
    if count and limit is not None:
        raise InvalidArgument("count entities with pagination is not allowed")
    if not count and limit is None and not request.expr.strip():
        raise InvalidArgument("empty expression should be used with limit")


def _in_key_order(parts: list[Rows], limit: int | None) -> Rows:
    if len(parts) == 1:
        return parts[0]
    keys = pa.concat_arrays([p.pks for p in parts])
    order = pc.call_function("sort_indices", [keys])
    order = order if limit is None else order.slice(0, limit)
    columns = {name: pa.concat_arrays([p.columns[name] for p in parts]).take(order) for name in parts[0].columns}
    return Rows(keys.take(order), columns)


def _window_of(rows: Rows, limit: int | None, offset: int) -> Rows:
    if limit is None or (offset == 0 and len(rows.pks) <= limit):
        return rows
    return Rows(rows.pks.slice(offset, limit), {name: c.slice(offset, limit) for name, c in rows.columns.items()})


def _reply(selection: Selection, output: Output, rows: Rows) -> Any:
    primary = selection.collection.schema.primary.name
    return milvus.QueryResults(
        status=ok(),
        collection_name=selection.collection.name,
        fields_data=[write_column(f, rows.pks if f.primary else rows.columns[f.name]) for f in output.fields],
        output_fields=output.names,
        primary_field_name=primary,
        session_ts=selection.snapshot_ts,
    )


def _count_reply(collection: Collection, rows: int) -> Any:
    counted = schema.FieldData(type=DataType.INT64.value, field_name=COUNT)
    counted.scalars.long_data.data.append(rows)
    return milvus.QueryResults(
        status=ok(), collection_name=collection.name, fields_data=[counted], output_fields=[COUNT]
    )
