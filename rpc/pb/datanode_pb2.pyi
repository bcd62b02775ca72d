from rpc.pb import call_pb2 as _call_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FlushRequest(_message.Message):
    __slots__ = ("shards", "timestamp")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[_call_pb2.ShardId]
    timestamp: int
    def __init__(self, shards: _Optional[_Iterable[_Union[_call_pb2.ShardId, _Mapping]]] = ..., timestamp: _Optional[int] = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("shard", "segments")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    segments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ..., segments: _Optional[_Iterable[int]] = ...) -> None: ...

class SealedReply(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[Sealed]
    def __init__(self, shards: _Optional[_Iterable[_Union[Sealed, _Mapping]]] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: _call_pb2.ShardId
    def __init__(self, shard: _Optional[_Union[_call_pb2.ShardId, _Mapping]] = ...) -> None: ...

class CompactShardReply(_message.Message):
    __slots__ = ("merges",)
    MERGES_FIELD_NUMBER: _ClassVar[int]
    merges: int
    def __init__(self, merges: _Optional[int] = ...) -> None: ...
