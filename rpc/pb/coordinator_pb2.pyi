from rpc.pb import call_pb2 as _call_pb2
from rpc.pb import catalog_pb2 as _catalog_pb2
from rpc.pb import datanode_pb2 as _datanode_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateCollection(_message.Message):
    __slots__ = ("database", "name", "schema", "shards", "partitions", "consistency", "properties")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    database: str
    name: str
    schema: _catalog_pb2.Schema
    shards: int
    partitions: int
    consistency: int
    properties: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.KeyValue]
    def __init__(self, database: _Optional[str] = ..., name: _Optional[str] = ..., schema: _Optional[_Union[_catalog_pb2.Schema, _Mapping]] = ..., shards: _Optional[int] = ..., partitions: _Optional[int] = ..., consistency: _Optional[int] = ..., properties: _Optional[_Iterable[_Union[_catalog_pb2.KeyValue, _Mapping]]] = ...) -> None: ...

class DropCollection(_message.Message):
    __slots__ = ("database", "name")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    database: str
    name: str
    def __init__(self, database: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CreatePartition(_message.Message):
    __slots__ = ("database", "collection", "name")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    name: str
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DropPartition(_message.Message):
    __slots__ = ("database", "collection", "name")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    name: str
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("database", "collection", "partitions", "replicas")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    partitions: _containers.RepeatedScalarFieldContainer[str]
    replicas: int
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., partitions: _Optional[_Iterable[str]] = ..., replicas: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("database", "collection", "partitions")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    partitions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., partitions: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateIndex(_message.Message):
    __slots__ = ("database", "collection", "field", "name", "type", "metric", "params")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    field: str
    name: str
    type: str
    metric: str
    params: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.KeyValue]
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., field: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., metric: _Optional[str] = ..., params: _Optional[_Iterable[_Union[_catalog_pb2.KeyValue, _Mapping]]] = ...) -> None: ...

class DropIndex(_message.Message):
    __slots__ = ("database", "collection", "name")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    database: str
    collection: str
    name: str
    def __init__(self, database: _Optional[str] = ..., collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("create_collection", "drop_collection", "create_partition", "drop_partition", "load", "release", "create_index", "drop_index")
    CREATE_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DROP_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    DROP_PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CREATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    DROP_INDEX_FIELD_NUMBER: _ClassVar[int]
    create_collection: CreateCollection
    drop_collection: DropCollection
    create_partition: CreatePartition
    drop_partition: DropPartition
    load: Load
    release: Release
    create_index: CreateIndex
    drop_index: DropIndex
    def __init__(self, create_collection: _Optional[_Union[CreateCollection, _Mapping]] = ..., drop_collection: _Optional[_Union[DropCollection, _Mapping]] = ..., create_partition: _Optional[_Union[CreatePartition, _Mapping]] = ..., drop_partition: _Optional[_Union[DropPartition, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., create_index: _Optional[_Union[CreateIndex, _Mapping]] = ..., drop_index: _Optional[_Union[DropIndex, _Mapping]] = ...) -> None: ...

class ChangeReply(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class DefinedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DefinedReply(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class LeaseIdsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class LeaseIdsReply(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class LoadProgressRequest(_message.Message):
    __slots__ = ("collection", "partitions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    collection: int
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, collection: _Optional[int] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class LoadProgressReply(_message.Message):
    __slots__ = ("percent",)
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    percent: int
    def __init__(self, percent: _Optional[int] = ...) -> None: ...

class FlushCollectionRequest(_message.Message):
    __slots__ = ("collection", "timestamp")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    collection: int
    timestamp: int
    def __init__(self, collection: _Optional[int] = ..., timestamp: _Optional[int] = ...) -> None: ...

class FlushedReply(_message.Message):
    __slots__ = ("flushed",)
    FLUSHED_FIELD_NUMBER: _ClassVar[int]
    flushed: bool
    def __init__(self, flushed: _Optional[bool] = ...) -> None: ...

class CollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: int
    def __init__(self, collection: _Optional[int] = ...) -> None: ...

class CompactReply(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class CompactionStateRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class CompactionState(_message.Message):
    __slots__ = ("executing", "completed", "failed")
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    executing: int
    completed: int
    failed: int
    def __init__(self, executing: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class IndexProgress(_message.Message):
    __slots__ = ("index", "indexed_rows", "total_rows", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_ROWS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: _catalog_pb2.Index
    indexed_rows: int
    total_rows: int
    error: str
    def __init__(self, index: _Optional[_Union[_catalog_pb2.Index, _Mapping]] = ..., indexed_rows: _Optional[int] = ..., total_rows: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class IndexProgressReply(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: _containers.RepeatedCompositeFieldContainer[IndexProgress]
    def __init__(self, indexes: _Optional[_Iterable[_Union[IndexProgress, _Mapping]]] = ...) -> None: ...

class CollectionStats(_message.Message):
    __slots__ = ("rows",)
    class RowsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.ScalarMap[int, int]
    def __init__(self, rows: _Optional[_Mapping[int, int]] = ...) -> None: ...

class ReportBadIndexRequest(_message.Message):
    __slots__ = ("shard", "segment", "object_name")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    segment: int
    object_name: str
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ..., segment: _Optional[int] = ..., object_name: _Optional[str] = ...) -> None: ...

class ReportBadIndexReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
