"""What a search request asks for, without its vectors: checked once per (collection, request shape).

Wordings are those of Milvus's ``search_util.go``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from core import limits
from core.catalog import Collection, Index
from core.errors import CollectionNotReady, InvalidArgument, NotYet
from core.ids import PartitionId
from core.schema import Field
from core.types import INTEGERS, TYPES, DataType
from engine.vector.declare import check_search_params
from engine.vector.metric import Metric
from proxy import output_fields, request_params
from proxy.filters import checked, template_values
from proxy.output_fields import Output
from proxy.partition_pruning import narrowed
from proxy.reads import readable
from proxy.request_params import Params
from proxy.status import ok
from proxy.wire import milvus
from rpc.newest import Newest
from rpc.reads import PreparedSearch

GROUPABLE = INTEGERS | {DataType.BOOL, DataType.VARCHAR}
UNSERVED_PARAMS = ("order_by_fields", "group_by_fields", "json_path", "analyzer_name")
UNSERVED_PARTS = ("function_score", "highlighter", "search_aggregation")


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """limit: rows (groups, when grouping) per query in the reply, after ``offset`` of them.
    near, far: bounds on the score; see ``rpc.reads.SearchRequest`` range_filter and radius.
    iterator: a page of an iterator, V1 or V2. page_size: rows of a V2 page, 0 = no V2 page.
    last_bound: score at which the previous V2 page ended."""

    collection: Collection
    field: Field
    metric: Metric
    limit: int
    offset: int
    params: dict[str, float]
    near: float | None
    far: float | None
    partitions: tuple[PartitionId, ...]
    filter: str
    filter_params: dict[str, Any]
    output: Output
    round_decimal: int
    group_by: Field | None
    group_size: int
    iterator: bool
    page_size: int
    last_bound: float | None
    token: str
    template: bytes
    """The reply's part that is the same each time: a serialized ``SearchResults``."""
    newest: list[Newest[PreparedSearch]] = dataclass_field(default_factory=list, compare=False)
    """The search over the newest view of each shard, where it can be run at once; empty = not, or not known."""

    @property
    def pages(self) -> bool:
        """Whether the search is one page of an iterator."""
        return self.iterator or self.page_size > 0

    @property
    def k(self) -> int:
        """Rows to ask a shard for per query."""
        return (self.limit + self.offset) * (self.group_size if self.group_by else 1)


def make(request: Any, collection: Collection) -> SearchPlan:
    """Raises ``InvalidArgument``, ``NotYet``, ``CollectionNotLoaded``, ..."""
    params = request_params.read(request.search_params)
    _refuse_unserved(request, params)
    schema = collection.schema
    field = _anns_field(collection, params.get("anns_field", ""))
    index = _index(collection, field)
    inner = request_params.json_object(params, "params")
    metric = _metric(index, params.get("metric_type", "") or inner.get("metric_type", ""))
    limit, offset = _window(params)
    group_by, group_size = _grouping(collection, params)
    k = (limit + offset) * group_size
    near, far = _bounds(metric, {**params, **inner})
    filter_params = template_values(request.expr_template_values)
    filter = checked("query", request.dsl, schema, filter_params)
    output = output_fields.resolve(request.output_fields, schema, with_primary=False)
    v2 = request_params.flag(params, "search_iter_v2")
    iterator = request_params.flag(params, "iterator")
    _check_iterator(iterator, offset, group_by)
    if group_by and (near is not None or far is not None):
        raise InvalidArgument("Not allowed to do range-search when doing search-group-by")
    return SearchPlan(
        collection=collection,
        field=field,
        metric=metric,
        limit=limit,
        offset=offset,
        params=check_search_params(index.type, {**params, **inner}, k),
        near=near,
        far=far,
        partitions=narrowed(collection, readable(collection, list(request.partition_names)), filter),
        filter=request.dsl if request.dsl.strip() else "",
        filter_params=filter_params,
        output=output,
        round_decimal=_round_decimal(params),
        group_by=group_by,
        group_size=group_size,
        iterator=iterator,
        page_size=_page_size(params, limit) if v2 else 0,
        last_bound=request_params.number(params, "search_iter_last_bound") if v2 else None,
        token=params.get("search_iter_id", ""),
        template=_template(collection, limit, output),
    )


def _template(collection: Collection, limit: int, output: Output) -> bytes:
    reply = milvus.SearchResults(status=ok(), collection_name=collection.name)
    reply.results.top_k = limit
    reply.results.primary_field_name = collection.schema.primary.name
    reply.results.output_fields.extend(output.names)
    return reply.SerializeToString()


def _refuse_unserved(request: Any, params: Params) -> None:
    for name in UNSERVED_PARAMS:
        if params.get(name):
            raise NotYet(f"search with {name} is not served by this version yet")
    for name in UNSERVED_PARTS:
        if request.HasField(name):
            raise NotYet(f"search with {name} is not served by this version yet")
    if request.function_chains or request.sub_reqs:
        raise NotYet("search with function chains is not served by this version yet")
    if request.namespace:
        raise NotYet("namespaces are not served by this version yet")


def _anns_field(collection: Collection, name: str) -> Field:
    vectors = collection.schema.vectors
    if not name:
        if len(vectors) != 1:
            raise InvalidArgument("multiple anns_fields exist, please specify a anns_field in search_params")
        return vectors[0]
    field = collection.schema.by_name.get(name)
    if field is None:
        raise InvalidArgument(
            f"failed to create query plan: failed to get field schema by name: fieldName({name}) not found"
        )
    if not field.is_vector:
        raise InvalidArgument(f"failed to create query plan: field ({name}) to search is not of vector data type")
    return field


def _index(collection: Collection, field: Field) -> Index:
    index = collection.index_by_field.get(field.id)
    if index is None:
        raise CollectionNotReady(f"field {field.name} of collection {collection.name} has no index")
    return index


def _metric(index: Index, asked: Any) -> Metric:
    if asked and str(asked).upper() != index.metric:
        raise InvalidArgument(
            f"metric type not match: invalid parameter[expected={index.metric}][actual={str(asked).upper()}]"
        )
    return Metric(index.metric)


def _window(params: Params) -> tuple[int, int]:
    limit = request_params.integer(params, "topk", -1)
    offset = request_params.integer(params, "offset", 0)
    if not 1 <= limit <= limits.TOPK_MAX:
        raise InvalidArgument(
            f"topk [{limit}] is invalid, top k should be in range [1, {limits.TOPK_MAX}], but got {limit}"
        )
    if not 0 <= offset <= limits.TOPK_MAX:
        raise InvalidArgument(
            f"offset [{offset}] is invalid, it should be in range [0, {limits.TOPK_MAX}], but got {offset}"
        )
    request_params.check_window(offset, limit)
    return limit, offset


def _grouping(collection: Collection, params: Params) -> tuple[Field | None, int]:
    name = params.get("group_by_field", "")
    if not name:
        return None, 1
    field = collection.schema.by_name.get(name)
    if field is None:
        raise InvalidArgument(f"groupBy field not found in schema: field not found[field={name}]")
    if field.type not in GROUPABLE:
        raise InvalidArgument(f"unsupported data type {TYPES[field.type].label} for group by operator")
    size = request_params.integer(params, "group_size", 1)
    if size < 1:
        raise InvalidArgument(f"input group size:{size} is negative, failed to do search_groupby")
    if size > limits.GROUP_SIZE_MAX:
        raise InvalidArgument(f"input group size:{size} exceeds configured max group size:{limits.GROUP_SIZE_MAX}")
    if size > 1 and request_params.flag(params, "strict_group_size"):
        raise NotYet("strict_group_size is not served by this version yet")
    return field, size


def _bounds(metric: Metric, values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    near, far = request_params.number(values, "range_filter"), request_params.number(values, "radius")
    if near is None or far is None:
        return near, far
    if metric.larger_is_better and near <= far:
        raise InvalidArgument(f"range_filter({near}) must be greater than radius({far}), metric type {metric}")
    if not metric.larger_is_better and near >= far:
        raise InvalidArgument(f"range_filter({near}) must be less than radius({far}), metric type {metric}")
    return near, far


def _round_decimal(params: Params) -> int:
    digits = request_params.integer(params, "round_decimal", -1)
    if not -1 <= digits <= 6:
        raise InvalidArgument(
            f"round_decimal [{digits}] is invalid, round_decimal should be -1 or an integer in range [0, 6]"
        )
    return digits


def _check_iterator(iterator: bool, offset: int, group_by: Field | None) -> None:
    if iterator and group_by:
        raise InvalidArgument("Not allowed to do groupBy when doing iteration")
    if iterator and offset:
        raise InvalidArgument("Not support offset when searching iteration")


def _page_size(params: Params, limit: int) -> int:
    size = request_params.integer(params, "search_iter_batch_size", limit)
    if not 1 <= size <= limits.TOPK_MAX:
        raise InvalidArgument(
            f"batch size [{size}] is invalid, it should be in range [1, {limits.TOPK_MAX}], but got {size}"
        )
    return size
