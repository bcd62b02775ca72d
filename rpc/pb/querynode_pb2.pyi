from rpc.pb import call_pb2 as _call_pb2
from rpc.pb import catalog_pb2 as _catalog_pb2
from rpc.pb import manifest_pb2 as _manifest_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Read(_message.Message):
    __slots__ = ("collection", "shard", "partitions", "filter", "filter_params", "output", "consistency", "snapshot_ts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_PARAMS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TS_FIELD_NUMBER: _ClassVar[int]
    collection: int
    shard: int
    partitions: _containers.RepeatedScalarFieldContainer[int]
    filter: str
    filter_params: str
    output: _containers.RepeatedScalarFieldContainer[str]
    consistency: int
    snapshot_ts: int
    def __init__(self, collection: _Optional[int] = ..., shard: _Optional[int] = ..., partitions: _Optional[_Iterable[int]] = ..., filter: _Optional[str] = ..., filter_params: _Optional[str] = ..., output: _Optional[_Iterable[str]] = ..., consistency: _Optional[int] = ..., snapshot_ts: _Optional[int] = ...) -> None: ...

class SearchShape(_message.Message):
    __slots__ = ("read", "field_id", "type", "columns", "metric", "k", "params", "radius", "range_filter", "group_by", "group_size")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    READ_FIELD_NUMBER: _ClassVar[int]
    FIELD_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FILTER_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    read: Read
    field_id: int
    type: str
    columns: int
    metric: str
    k: int
    params: _containers.ScalarMap[str, float]
    radius: float
    range_filter: float
    group_by: str
    group_size: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., field_id: _Optional[int] = ..., type: _Optional[str] = ..., columns: _Optional[int] = ..., metric: _Optional[str] = ..., k: _Optional[int] = ..., params: _Optional[_Mapping[str, float]] = ..., radius: _Optional[float] = ..., range_filter: _Optional[float] = ..., group_by: _Optional[str] = ..., group_size: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("shape", "nq", "queries", "sizes")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    NQ_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    shape: bytes
    nq: int
    queries: bytes
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shape: _Optional[bytes] = ..., nq: _Optional[int] = ..., queries: _Optional[bytes] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("schema", "batch", "keys")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    batch: bytes
    keys: bytes
    def __init__(self, schema: _Optional[bytes] = ..., batch: _Optional[bytes] = ..., keys: _Optional[bytes] = ...) -> None: ...

class SearchReply(_message.Message):
    __slots__ = ("counts", "scores", "rows", "grouped")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    GROUPED_FIELD_NUMBER: _ClassVar[int]
    counts: bytes
    scores: bytes
    rows: Columns
    grouped: bool
    def __init__(self, counts: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., rows: _Optional[_Union[Columns, _Mapping]] = ..., grouped: _Optional[bool] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("read", "limit", "count_only")
    READ_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
    read: Read
    limit: int
    count_only: bool
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., limit: _Optional[int] = ..., count_only: _Optional[bool] = ...) -> None: ...

class QueryReply(_message.Message):
    __slots__ = ("count", "rows")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    count: int
    rows: Columns
    def __init__(self, count: _Optional[int] = ..., rows: _Optional[_Union[Columns, _Mapping]] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("node", "segments", "bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    segments: _containers.RepeatedScalarFieldContainer[int]
    bytes: int
    def __init__(self, node: _Optional[str] = ..., segments: _Optional[_Iterable[int]] = ..., bytes: _Optional[int] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("shard", "phase", "manifest_version", "frontier", "sealed_rows", "growing_rows", "bytes", "failure", "holders")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    FRONTIER_FIELD_NUMBER: _ClassVar[int]
    SEALED_ROWS_FIELD_NUMBER: _ClassVar[int]
    GROWING_ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    phase: int
    manifest_version: int
    frontier: int
    sealed_rows: int
    growing_rows: int
    bytes: int
    failure: str
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ..., phase: _Optional[int] = ..., manifest_version: _Optional[int] = ..., frontier: _Optional[int] = ..., sealed_rows: _Optional[int] = ..., growing_rows: _Optional[int] = ..., bytes: _Optional[int] = ..., failure: _Optional[str] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ...) -> None: ...

class ShardsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShardsReply(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("leader", "life")
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    leader: str
    life: str
    def __init__(self, leader: _Optional[str] = ..., life: _Optional[str] = ...) -> None: ...

class Kills(_message.Message):
    __slots__ = ("shard", "rows")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    rows: Columns
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ..., rows: _Optional[_Union[Columns, _Mapping]] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("shard", "segments")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    segments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ..., segments: _Optional[_Iterable[int]] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("session", "number", "kills", "releases")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    session: Session
    number: int
    kills: _containers.RepeatedCompositeFieldContainer[Kills]
    releases: _containers.RepeatedCompositeFieldContainer[Released]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., number: _Optional[int] = ..., kills: _Optional[_Iterable[_Union[Kills, _Mapping]]] = ..., releases: _Optional[_Iterable[_Union[Released, _Mapping]]] = ...) -> None: ...

class ForwardReply(_message.Message):
    __slots__ = ("free_bytes", "limit_bytes")
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    limit_bytes: int
    def __init__(self, free_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("session", "after", "collection", "shard_number", "segments", "tombstones", "kills", "replaced_bytes")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SHARD_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    REPLACED_BYTES_FIELD_NUMBER: _ClassVar[int]
    session: Session
    after: int
    collection: _catalog_pb2.Collection
    shard_number: int
    segments: _containers.RepeatedCompositeFieldContainer[_manifest_pb2.Segment]
    tombstones: _containers.RepeatedCompositeFieldContainer[_manifest_pb2.TombstoneFile]
    kills: Kills
    replaced_bytes: int
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., after: _Optional[int] = ..., collection: _Optional[_Union[_catalog_pb2.Collection, _Mapping]] = ..., shard_number: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[_manifest_pb2.Segment, _Mapping]]] = ..., tombstones: _Optional[_Iterable[_Union[_manifest_pb2.TombstoneFile, _Mapping]]] = ..., kills: _Optional[_Union[Kills, _Mapping]] = ..., replaced_bytes: _Optional[int] = ...) -> None: ...

class HoldReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Share(_message.Message):
    __slots__ = ("session", "after", "segments", "frontier")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    FRONTIER_FIELD_NUMBER: _ClassVar[int]
    session: Session
    after: int
    segments: _containers.RepeatedScalarFieldContainer[int]
    frontier: int
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., after: _Optional[int] = ..., segments: _Optional[_Iterable[int]] = ..., frontier: _Optional[int] = ...) -> None: ...

class SearchShareRequest(_message.Message):
    __slots__ = ("share", "request")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    share: Share
    request: SearchRequest
    def __init__(self, share: _Optional[_Union[Share, _Mapping]] = ..., request: _Optional[_Union[SearchRequest, _Mapping]] = ...) -> None: ...

class SearchShareReply(_message.Message):
    __slots__ = ("reply", "places")
    REPLY_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    reply: SearchReply
    places: bytes
    def __init__(self, reply: _Optional[_Union[SearchReply, _Mapping]] = ..., places: _Optional[bytes] = ...) -> None: ...

class QueryShareRequest(_message.Message):
    __slots__ = ("share", "request")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    share: Share
    request: QueryRequest
    def __init__(self, share: _Optional[_Union[Share, _Mapping]] = ..., request: _Optional[_Union[QueryRequest, _Mapping]] = ...) -> None: ...
