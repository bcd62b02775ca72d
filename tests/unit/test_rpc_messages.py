"""What crosses between roles comes out as it went in, and the ``.proto`` files offer what is served."""

import math
import typing
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.catalog import Collection, Consistency, Index, Partition, Shard
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, SegmentId, ShardId
from core.manifest import FieldStats, IndexFile, ObjectRef, Segment, TombstoneFile
from core.messages import from_message, to_message
from core.schema import Field, Schema
from core.types import DataType
from rpc import coordinator, data_node, index_node, query_node, read_messages, remote_worker, roles
from rpc.pb import coordinator_pb2, datanode_pb2, indexnode_pb2, querynode_pb2
from rpc.reads import Holder, QueryReply, QueryRequest, Rows, SearchReply, SearchRequest, ShardPhase, ShardStatus
from rpc.workers import Forward, Hold, Kills, Release, Session

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
COUNT = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
FLOAT = st.floats(allow_nan=False)
IDS = st.lists(st.integers(0, 2**63 - 1), max_size=4).map(tuple)
SHARD = st.builds(ShardId, st.integers(0, 2**63 - 1).map(CollectionId), st.integers(0, 15))

VALUE = st.recursive(
    st.booleans() | st.integers() | st.floats() | TEXT | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
READ: dict[str, Any] = {
    "collection": st.integers(0, 2**63 - 1).map(CollectionId),
    "shard": st.integers(0, 15),
    "partitions": IDS,
    "filter": TEXT,
    "filter_params": st.dictionaries(TEXT, VALUE, max_size=3),
    "output": st.lists(TEXT, max_size=3).map(tuple),
    "consistency": st.sampled_from(Consistency),
    "snapshot_ts": UINT64,
}
FLOATS = hnp.arrays("f4", st.tuples(st.integers(0, 4), st.integers(1, 9)))
BITS = hnp.arrays("u1", st.tuples(st.integers(0, 4), st.integers(1, 9)))
SEARCH = st.builds(
    SearchRequest,
    **READ,
    field_id=COUNT.map(FieldId),
    queries=FLOATS | BITS,
    metric=TEXT,
    k=COUNT,
    params=st.dictionaries(TEXT, FLOAT, max_size=3),
    radius=st.none() | FLOAT,
    range_filter=st.none() | FLOAT,
    group_by=TEXT,
    group_size=COUNT,
)
QUERY = st.builds(QueryRequest, **READ, limit=st.none() | COUNT, count_only=st.booleans())

COLUMN_TYPES = (
    (pa.int64(), INT64),
    (pa.string(), TEXT),
    (pa.bool_(), st.booleans()),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.list_(pa.field("item", pa.float32(), False), 2), st.tuples(*[st.floats(width=32, allow_nan=False)] * 2)),
)


@st.composite
def arrays(draw: Any, size: int, types: Any = COLUMN_TYPES, *, nulls: bool = True) -> pa.Array:
    """Of ``size`` values; often a slice of something larger."""
    type, values = draw(st.sampled_from(types))
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    total = before + size + after
    items = draw(st.lists(st.none() | values if nulls else values, min_size=total, max_size=total))
    return pa.array(items, type).slice(before, size)


@st.composite
def rows(draw: Any, size: int) -> Rows:
    names = draw(st.lists(TEXT, max_size=3, unique=True))
    keys = draw(arrays(size, COLUMN_TYPES[:2], nulls=False))
    return Rows(keys, {name: draw(arrays(size)) for name in names})


@st.composite
def search_replies(draw: Any) -> SearchReply:
    counts = draw(hnp.arrays("i8", st.integers(0, 4), elements=st.integers(0, 4)))
    total = int(counts.sum())
    scores = draw(hnp.arrays("f4", total, elements=st.floats(width=32, allow_nan=False)))
    return SearchReply(counts, scores, draw(rows(total)), draw(st.none() | arrays(total)))


OBJECT = st.builds(ObjectRef, TEXT, COUNT, UINT64)
INDEX_FILE = st.builds(IndexFile, COUNT.map(FieldId), COUNT.map(IndexId), OBJECT, TEXT)
FIELD = st.builds(
    Field,
    COUNT.map(FieldId),
    TEXT,
    st.sampled_from(DataType),
    primary=st.booleans(),
    nullable=st.booleans(),
    dim=COUNT,
    element_type=st.sampled_from(DataType),
    default=TEXT,
    params=PAIRS,
)
SCHEMA = st.builds(Schema, st.lists(FIELD, max_size=3).map(tuple), TEXT, COUNT)
INDEX = st.builds(Index, COUNT.map(IndexId), TEXT, COUNT.map(FieldId), TEXT, TEXT, PAIRS, UINT64)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
CHANGES: dict[type, st.SearchStrategy[Any]] = {
    roles.CreateCollection: st.builds(
        roles.CreateCollection, TEXT, TEXT, SCHEMA, COUNT, COUNT, st.sampled_from(Consistency), PAIRS
    ),
    roles.DropCollection: st.builds(roles.DropCollection, TEXT, TEXT),
    roles.CreatePartition: st.builds(roles.CreatePartition, TEXT, TEXT, TEXT),
    roles.DropPartition: st.builds(roles.DropPartition, TEXT, TEXT, TEXT),
    roles.Load: st.builds(roles.Load, TEXT, TEXT, NAMES, COUNT),
    roles.Release: st.builds(roles.Release, TEXT, TEXT, NAMES),
    roles.CreateIndex: st.builds(roles.CreateIndex, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, PAIRS),
    roles.DropIndex: st.builds(roles.DropIndex, TEXT, TEXT, TEXT),
}
COLLECTION = st.builds(
    Collection,
    COUNT.map(CollectionId),
    TEXT,
    TEXT,
    SCHEMA,
    st.lists(st.builds(Shard, COUNT, COUNT.map(Channel)), max_size=2).map(tuple),
    st.lists(st.builds(Partition, COUNT.map(PartitionId), TEXT, UINT64), max_size=2).map(tuple),
    st.lists(INDEX, max_size=2).map(tuple),
    st.sampled_from(Consistency),
    PAIRS,
)
STATS = st.builds(FieldStats, COUNT.map(FieldId), TEXT, TEXT, COUNT)
POSITION = st.integers(0, 2**63 - 1).map(Position)
SEGMENT = st.builds(
    Segment,
    COUNT.map(SegmentId),
    COUNT.map(PartitionId),
    OBJECT,
    COUNT,
    POSITION,
    POSITION,
    st.lists(STATS, max_size=2).map(tuple),
    st.lists(INDEX_FILE, max_size=2).map(tuple),
    COUNT,
)
SESSION = st.builds(Session, TEXT.map(NodeId), TEXT)


@st.composite
def kills(draw: Any) -> Kills:
    size = draw(st.integers(0, 4))
    positions = draw(hnp.arrays("i8", size))
    return Kills(draw(SHARD), draw(arrays(size, COLUMN_TYPES[:2], nulls=False)), positions)


FORWARD = st.builds(
    Forward,
    SESSION,
    COUNT,
    st.lists(kills(), max_size=2).map(tuple),
    st.lists(st.builds(Release, SHARD, IDS), max_size=2).map(tuple),
)
HOLD = st.builds(
    Hold,
    SESSION,
    COUNT,
    COLLECTION,
    st.integers(0, 15),
    st.lists(SEGMENT, max_size=2).map(tuple),
    st.lists(st.builds(TombstoneFile, OBJECT, COUNT, POSITION, POSITION), max_size=2).map(tuple),
    st.none() | kills(),
)
STATUS = st.builds(
    ShardStatus,
    SHARD,
    st.sampled_from(ShardPhase),
    *[COUNT] * 5,
    failure=TEXT,
    holders=st.lists(st.builds(Holder, TEXT.map(NodeId), IDS, COUNT), max_size=2).map(tuple),
)


def same(a: Any, b: Any) -> bool:
    """Equality that looks into arrays, and takes NaN for itself."""
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, pa.Array):
        return a.type == b.type and a.equals(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return isinstance(b, float) and (a == b or (math.isnan(a) and math.isnan(b)))
    return type(a) is type(b) and a == b


def crossed(message: Any) -> Any:
    """As it arrives at the other end."""
    return type(message).FromString(message.SerializeToString())


@given(SEARCH)
def test_search_requests(request: SearchRequest) -> None:
    assert same(read_messages.search_request(crossed(read_messages.search_message(request)), math.inf), request)


@given(QUERY)
def test_query_requests(request: QueryRequest) -> None:
    assert same(read_messages.query_request(crossed(read_messages.query_message(request)), math.inf), request)


@given(search_replies())
def test_search_replies(reply: SearchReply) -> None:
    assert same(read_messages.search_reply(crossed(read_messages.search_reply_message(reply))), reply)


@given(st.data())
def test_query_replies(data: Any) -> None:
    reply = QueryReply(data.draw(COUNT), data.draw(rows(data.draw(st.integers(0, 4)))))
    assert same(read_messages.query_reply(crossed(read_messages.query_reply_message(reply))), reply)


@given(STATUS)
def test_shard_status(status: ShardStatus) -> None:
    assert same(read_messages.shard_status(crossed(read_messages.status_message(status))), status)


@given(st.one_of(*CHANGES.values()))
def test_catalog_changes(change: roles.CatalogChange) -> None:
    assert same(coordinator.catalog_change(crossed(coordinator.change_message(change))), change)


def test_every_catalog_change_has_its_message() -> None:
    assert set(typing.get_args(roles.CatalogChange)) == CHANGES.keys()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            st.builds(
                roles.IndexTask,
                OBJECT,
                TEXT,
                st.sampled_from(DataType),
                COUNT,
                COUNT.map(FieldId),
                COUNT.map(IndexId),
                TEXT,
                TEXT,
                PAIRS,
                TEXT,
            ),
            indexnode_pb2.IndexTask,
        ),
        (st.builds(roles.CompactionState, COUNT, COUNT, COUNT), coordinator_pb2.CompactionState),
        (st.builds(roles.IndexProgress, INDEX, COUNT, COUNT, TEXT), coordinator_pb2.IndexProgress),
    ],
)
def test_plain_values(strategy: st.SearchStrategy[Any], message: Any) -> None:
    @given(strategy)
    def crosses(value: Any) -> None:
        assert same(from_message(type(value), crossed(to_message(value, message))), value)

    crosses()


@given(FORWARD)
def test_forwards(message: Forward) -> None:
    assert same(remote_worker.forward_of(crossed(remote_worker.forward_message(message))), message)


@given(HOLD)
def test_holds(hold: Hold) -> None:
    assert same(remote_worker.hold_of(crossed(remote_worker.hold_message(hold))), hold)


@pytest.mark.parametrize(
    ("handlers", "file", "service"),
    [
        (coordinator.coordinator_handlers, coordinator_pb2, "Coordinator"),
        (data_node.data_node_handlers, datanode_pb2, "DataNode"),
        (index_node.index_node_handlers, indexnode_pb2, "IndexNode"),
        (query_node.query_node_handlers, querynode_pb2, "QueryNode"),
        (remote_worker.worker_handlers, querynode_pb2, "Worker"),
    ],
)
def test_the_proto_files_offer_what_is_served(handlers: Any, file: Any, service: str) -> None:
    offered = file.DESCRIPTOR.services_by_name[service]
    assert {f"/{offered.full_name}/{m.name}" for m in offered.methods} == set(handlers(None))
