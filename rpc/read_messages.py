"""Reads between dataclass and message. By hand, not field by field: every search passes here."""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from core.catalog import Consistency
from core.ids import CollectionId, FieldId, NodeId, PartitionId, SegmentId, ShardId
from rpc.arrays import columns_message, columns_of, from_bytes, to_bytes
from rpc.pb import call_pb2, querynode_pb2
from rpc.reads import Holder, QueryReply, QueryRequest, Read, Rows, SearchReply, SearchRequest, ShardPhase, ShardStatus

SHAPES_MAX = 1024
SHAPE_BYTES_MAX = 4096
"""Bounds of the decoded shapes that are kept: those with long filters are decoded each time."""


def shard_message(shard: ShardId) -> call_pb2.ShardId:
    return call_pb2.ShardId(collection=shard.collection, number=shard.number)


def shard_id(message: call_pb2.ShardId) -> ShardId:
    return ShardId(CollectionId(message.collection), message.number)


def search_message(request: SearchRequest) -> querynode_pb2.SearchRequest:
    return querynode_pb2.SearchRequest(
        shape=shape_of(request),
        nq=len(request.queries),
        queries=to_bytes(request.queries, request.queries.dtype.str),
        sizes=request.sizes,
    )


def shape_of(request: SearchRequest) -> bytes:
    """All of a search but its queries and deadline: the same search always has the same bytes."""
    if request.filter_params or len(request.filter) > SHAPE_BYTES_MAX:
        return _shape_bytes(request)
    key = (
        request.collection,
        request.shard,
        request.partitions,
        request.filter,
        request.output,
        request.consistency,
        request.snapshot_ts,
        request.field_id,
        request.queries.dtype.str,
        request.queries.shape[1],
        request.metric,
        request.k,
        tuple(request.params.items()),
        request.radius,
        request.range_filter,
        request.group_by,
        request.group_size,
    )
    shape = _known_shapes.get(key)
    if shape is None:
        if len(_known_shapes) >= SHAPES_MAX:
            _known_shapes.clear()
        shape = _known_shapes[key] = _shape_bytes(request)
    return shape


_known_shapes: dict[tuple[Any, ...], bytes] = {}


def _shape_bytes(request: SearchRequest) -> bytes:
    shape = querynode_pb2.SearchShape(
        read=_read_message(request),
        field_id=request.field_id,
        type=request.queries.dtype.str,
        columns=request.queries.shape[1],
        metric=request.metric,
        k=request.k,
        radius=request.radius,
        range_filter=request.range_filter,
        group_by=request.group_by,
        group_size=request.group_size,
    )
    for name, value in request.params.items():
        shape.params[name] = value
    return shape.SerializeToString(deterministic=True)


def search_request(message: querynode_pb2.SearchRequest, deadline: float) -> SearchRequest:
    shape = search_shape(message.shape)
    return replace(shape, queries=search_queries(message, shape), sizes=tuple(message.sizes), deadline=deadline)


def search_shape(data: bytes) -> SearchRequest:
    """The request without queries and deadline."""
    return _kept_shape(data) if len(data) <= SHAPE_BYTES_MAX else _shape(data)


def search_queries(message: querynode_pb2.SearchRequest, shape: SearchRequest) -> np.ndarray:
    """They lie in the message's bytes and are read-only."""
    return np.frombuffer(message.queries, shape.queries.dtype).reshape(message.nq, shape.queries.shape[1])


def _shape(data: bytes) -> SearchRequest:
    shape = querynode_pb2.SearchShape.FromString(data)
    return SearchRequest(
        **_read_fields(shape.read, float("inf")),
        field_id=FieldId(shape.field_id),
        queries=np.empty((0, shape.columns), shape.type),
        metric=shape.metric,
        k=shape.k,
        params=dict(shape.params),
        radius=shape.radius if shape.HasField("radius") else None,
        range_filter=shape.range_filter if shape.HasField("range_filter") else None,
        group_by=shape.group_by,
        group_size=shape.group_size,
    )


_kept_shape = lru_cache(SHAPES_MAX)(_shape)


def search_reply_message(reply: SearchReply) -> querynode_pb2.SearchReply:
    groups = [] if reply.groups is None else [("", reply.groups)]
    return querynode_pb2.SearchReply(
        counts=to_bytes(reply.counts, "<i8"),
        scores=to_bytes(reply.scores, "<f4"),
        rows=columns_message([("", reply.rows.pks), *groups, *reply.rows.columns.items()]),
        grouped=reply.groups is not None,
    )


def search_reply(message: querynode_pb2.SearchReply) -> SearchReply:
    names, columns = columns_of(message.rows)
    first = 1 + message.grouped
    return SearchReply(
        from_bytes(message.counts, "<i8"),
        from_bytes(message.scores, "<f4"),
        Rows(columns[0], dict(zip(names[first:], columns[first:], strict=True))),
        columns[1] if message.grouped else None,
    )


def query_message(request: QueryRequest) -> querynode_pb2.QueryRequest:
    return querynode_pb2.QueryRequest(read=_read_message(request), limit=request.limit, count_only=request.count_only)


def query_request(message: querynode_pb2.QueryRequest, deadline: float) -> QueryRequest:
    return QueryRequest(
        **_read_fields(message.read, deadline),
        limit=message.limit if message.HasField("limit") else None,
        count_only=message.count_only,
    )


def query_reply_message(reply: QueryReply) -> querynode_pb2.QueryReply:
    rows = columns_message([("", reply.rows.pks), *reply.rows.columns.items()])
    return querynode_pb2.QueryReply(count=reply.count, rows=rows)


def query_reply(message: querynode_pb2.QueryReply) -> QueryReply:
    names, columns = columns_of(message.rows)
    return QueryReply(message.count, Rows(columns[0], dict(zip(names[1:], columns[1:], strict=True))))


def status_message(status: ShardStatus) -> querynode_pb2.ShardStatus:
    return querynode_pb2.ShardStatus(
        shard=shard_message(status.shard),
        phase=status.phase,
        manifest_version=status.manifest_version,
        frontier=status.frontier,
        sealed_rows=status.sealed_rows,
        growing_rows=status.growing_rows,
        bytes=status.bytes,
        failure=status.failure,
        holders=[querynode_pb2.Holder(node=h.node, segments=h.segments, bytes=h.bytes) for h in status.holders],
    )


def shard_status(message: querynode_pb2.ShardStatus) -> ShardStatus:
    return ShardStatus(
        shard_id(message.shard),
        ShardPhase(message.phase),
        message.manifest_version,
        message.frontier,
        message.sealed_rows,
        message.growing_rows,
        message.bytes,
        message.failure,
        tuple(Holder(NodeId(h.node), tuple(map(SegmentId, h.segments)), h.bytes) for h in message.holders),
    )


def _read_message(read: Read) -> querynode_pb2.Read:
    return querynode_pb2.Read(
        collection=read.collection,
        shard=read.shard,
        partitions=read.partitions,
        filter=read.filter,
        # Not orjson: it turns NaN into null.
        filter_params=json.dumps(read.filter_params) if read.filter_params else "",
        output=read.output,
        consistency=read.consistency,
        snapshot_ts=read.snapshot_ts,
    )


def _read_fields(message: querynode_pb2.Read, deadline: float) -> dict[str, Any]:
    return {
        "collection": CollectionId(message.collection),
        "shard": message.shard,
        "partitions": tuple(map(PartitionId, message.partitions)),
        "filter": message.filter,
        "filter_params": json.loads(message.filter_params) if message.filter_params else {},
        "output": tuple(message.output),
        "consistency": Consistency(message.consistency),
        "snapshot_ts": message.snapshot_ts,
        "deadline": deadline,
    }
