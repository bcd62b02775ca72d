"""RPCs that declare, describe and drop indexes."""

from typing import Any

import orjson

from core.catalog import Collection, Index
from core.errors import IndexNotFound, InvalidArgument
from core.limits import PROPERTIES_MAX
from proxy.call import Call, Handlers
from proxy.definitions import Definitions
from proxy.names import check_index_name
from proxy.schema_wire import pairs
from proxy.status import ok
from proxy.wire import common, milvus
from rpc.roles import CreateIndex, DropIndex, IndexProgress


class Indexes:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._catalog = definitions.catalog

    def handlers(self) -> Handlers:
        return {"CreateIndex": self.create, "DescribeIndex": self.describe, "DropIndex": self.drop}

    async def create(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        check_index_name(request.index_name)
        if request.field_name not in collection.schema.by_name:
            raise InvalidArgument(f"cannot create index on non-exist field: {request.field_name}")
        params = _params(request.extra_params)
        await self._definitions.change(
            CreateIndex(
                collection.database,
                collection.name,
                request.field_name,
                request.index_name,
                type=params.pop("index_type", ""),
                metric=params.pop("metric_type", "").upper(),
                params=tuple(params.items()),
            )
        )
        return ok()

    async def describe(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        indexes = [
            i
            for i in collection.indexes
            if request.index_name in ("", i.name) and request.field_name in ("", _field_name(collection, i))
        ]
        if not indexes:
            named = f"[indexName={request.index_name}]" if request.index_name else f"[collection={collection.name}]"
            raise IndexNotFound(f"index not found{named}")
        progress = {p.index.id: p for p in await self._definitions.coordinator.index_progress(collection.id)}
        return milvus.DescribeIndexResponse(
            status=ok(), index_descriptions=[_description(collection, i, progress.get(i.id)) for i in indexes]
        )

    async def drop(self, request: Any, call: Call) -> Any:
        collection = self._find(request, call)
        name = request.index_name
        if not name and request.field_name:
            of_field = [i.name for i in collection.indexes if _field_name(collection, i) == request.field_name]
            name = of_field[0] if of_field else ""
        if name in {i.name for i in collection.indexes}:
            await self._definitions.change(DropIndex(collection.database, collection.name, name))
        return ok()

    def _find(self, request: Any, call: Call) -> Collection:
        return self._catalog.find(call.database(request), request.collection_name)


def _params(items: Any) -> dict[str, str]:
    """Flat parameters; older SDKs put some of them as JSON under the key "params"."""
    flat = {kv.key: kv.value for kv in items}
    nested = flat.pop("params", "")
    if nested:
        try:
            inner = orjson.loads(nested)
        except orjson.JSONDecodeError as e:
            raise InvalidArgument(f"index params are not valid JSON: {nested:.64}") from e
        if not isinstance(inner, dict):
            raise InvalidArgument(f"index params are not a JSON object: {nested:.64}")
        flat = {k: v if isinstance(v, str) else orjson.dumps(v).decode() for k, v in inner.items()} | flat
    if len(flat) > PROPERTIES_MAX:
        raise InvalidArgument(f"an index takes at most {PROPERTIES_MAX} parameters, got {len(flat)}")
    return flat


def _field_name(collection: Collection, index: Index) -> str:
    return collection.schema.by_id[index.field_id].name


def _description(collection: Collection, index: Index, progress: IndexProgress | None) -> Any:
    total = progress.total_rows if progress else 0
    indexed = progress.indexed_rows if progress else 0
    error = progress.error if progress else ""
    if error:
        state = common.IndexState.Failed
    else:
        state = common.IndexState.Finished if indexed >= total else common.IndexState.InProgress
    params = [("index_type", index.type), ("metric_type", index.metric), *index.params]
    return milvus.IndexDescription(
        index_name=index.name,
        indexID=index.id,
        field_name=_field_name(collection, index),
        params=pairs((k, v) for k, v in params if v),
        indexed_rows=indexed,
        total_rows=total,
        pending_index_rows=total - indexed,
        state=state,
        index_state_fail_reason=error,
    )
