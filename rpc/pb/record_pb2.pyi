from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    INSERT: _ClassVar[Kind]
    UPSERT: _ClassVar[Kind]
    DELETE: _ClassVar[Kind]
    BARRIER: _ClassVar[Kind]
KIND_UNSPECIFIED: Kind
INSERT: Kind
UPSERT: Kind
DELETE: Kind
BARRIER: Kind

class Record(_message.Message):
    __slots__ = ("format", "kind", "collection", "shard", "partition", "schema_version", "timestamp", "rows", "body")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    format: int
    kind: Kind
    collection: int
    shard: int
    partition: int
    schema_version: int
    timestamp: int
    rows: int
    body: bytes
    def __init__(self, format: _Optional[int] = ..., kind: _Optional[_Union[Kind, str]] = ..., collection: _Optional[int] = ..., shard: _Optional[int] = ..., partition: _Optional[int] = ..., schema_version: _Optional[int] = ..., timestamp: _Optional[int] = ..., rows: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
