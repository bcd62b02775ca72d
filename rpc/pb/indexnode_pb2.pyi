from rpc.pb import catalog_pb2 as _catalog_pb2
from rpc.pb import manifest_pb2 as _manifest_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IndexTask(_message.Message):
    __slots__ = ("source", "column", "column_type", "dim", "field_id", "index_id", "type", "metric", "params", "target")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    COLUMN_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    FIELD_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    source: _manifest_pb2.ObjectRef
    column: str
    column_type: int
    dim: int
    field_id: int
    index_id: int
    type: str
    metric: str
    params: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.KeyValue]
    target: str
    def __init__(self, source: _Optional[_Union[_manifest_pb2.ObjectRef, _Mapping]] = ..., column: _Optional[str] = ..., column_type: _Optional[int] = ..., dim: _Optional[int] = ..., field_id: _Optional[int] = ..., index_id: _Optional[int] = ..., type: _Optional[str] = ..., metric: _Optional[str] = ..., params: _Optional[_Iterable[_Union[_catalog_pb2.KeyValue, _Mapping]]] = ..., target: _Optional[str] = ...) -> None: ...
