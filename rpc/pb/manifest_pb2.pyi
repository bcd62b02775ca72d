from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObjectRef(_message.Message):
    __slots__ = ("name", "bytes", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    digest: int
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class IndexFile(_message.Message):
    __slots__ = ("field_id", "index_id", "object", "engine")
    FIELD_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    field_id: int
    index_id: int
    object: ObjectRef
    engine: str
    def __init__(self, field_id: _Optional[int] = ..., index_id: _Optional[int] = ..., object: _Optional[_Union[ObjectRef, _Mapping]] = ..., engine: _Optional[str] = ...) -> None: ...

class FieldStats(_message.Message):
    __slots__ = ("field_id", "min", "max", "nulls")
    FIELD_ID_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    NULLS_FIELD_NUMBER: _ClassVar[int]
    field_id: int
    min: str
    max: str
    nulls: int
    def __init__(self, field_id: _Optional[int] = ..., min: _Optional[str] = ..., max: _Optional[str] = ..., nulls: _Optional[int] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("id", "partition", "object", "rows", "min_position", "max_position", "stats", "indexes", "schema_version")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITION_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    id: int
    partition: int
    object: ObjectRef
    rows: int
    min_position: int
    max_position: int
    stats: _containers.RepeatedCompositeFieldContainer[FieldStats]
    indexes: _containers.RepeatedCompositeFieldContainer[IndexFile]
    schema_version: int
    def __init__(self, id: _Optional[int] = ..., partition: _Optional[int] = ..., object: _Optional[_Union[ObjectRef, _Mapping]] = ..., rows: _Optional[int] = ..., min_position: _Optional[int] = ..., max_position: _Optional[int] = ..., stats: _Optional[_Iterable[_Union[FieldStats, _Mapping]]] = ..., indexes: _Optional[_Iterable[_Union[IndexFile, _Mapping]]] = ..., schema_version: _Optional[int] = ...) -> None: ...

class TombstoneFile(_message.Message):
    __slots__ = ("object", "rows", "min_position", "max_position")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITION_FIELD_NUMBER: _ClassVar[int]
    object: ObjectRef
    rows: int
    min_position: int
    max_position: int
    def __init__(self, object: _Optional[_Union[ObjectRef, _Mapping]] = ..., rows: _Optional[int] = ..., min_position: _Optional[int] = ..., max_position: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("collection", "shard", "version", "checkpoint", "segments", "tombstones", "flushed_ts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_TS_FIELD_NUMBER: _ClassVar[int]
    collection: int
    shard: int
    version: int
    checkpoint: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    tombstones: _containers.RepeatedCompositeFieldContainer[TombstoneFile]
    flushed_ts: int
    def __init__(self, collection: _Optional[int] = ..., shard: _Optional[int] = ..., version: _Optional[int] = ..., checkpoint: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., tombstones: _Optional[_Iterable[_Union[TombstoneFile, _Mapping]]] = ..., flushed_ts: _Optional[int] = ...) -> None: ...
