from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyValue(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("id", "name", "type", "primary", "auto_id", "nullable", "partition_key", "dynamic", "description", "dim", "max_length", "max_capacity", "element_type", "default", "params")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    AUTO_ID_FIELD_NUMBER: _ClassVar[int]
    NULLABLE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    type: int
    primary: bool
    auto_id: bool
    nullable: bool
    partition_key: bool
    dynamic: bool
    description: str
    dim: int
    max_length: int
    max_capacity: int
    element_type: int
    default: str
    params: _containers.RepeatedCompositeFieldContainer[KeyValue]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., type: _Optional[int] = ..., primary: _Optional[bool] = ..., auto_id: _Optional[bool] = ..., nullable: _Optional[bool] = ..., partition_key: _Optional[bool] = ..., dynamic: _Optional[bool] = ..., description: _Optional[str] = ..., dim: _Optional[int] = ..., max_length: _Optional[int] = ..., max_capacity: _Optional[int] = ..., element_type: _Optional[int] = ..., default: _Optional[str] = ..., params: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ...) -> None: ...

class Schema(_message.Message):
    __slots__ = ("fields", "description", "version")
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    description: str
    version: int
    def __init__(self, fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., description: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Partition(_message.Message):
    __slots__ = ("id", "name", "created_ts")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_TS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    created_ts: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., created_ts: _Optional[int] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("number", "channel")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    number: int
    channel: int
    def __init__(self, number: _Optional[int] = ..., channel: _Optional[int] = ...) -> None: ...

class Index(_message.Message):
    __slots__ = ("id", "name", "field_id", "type", "metric", "params", "created_ts")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    CREATED_TS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    field_id: int
    type: str
    metric: str
    params: _containers.RepeatedCompositeFieldContainer[KeyValue]
    created_ts: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., field_id: _Optional[int] = ..., type: _Optional[str] = ..., metric: _Optional[str] = ..., params: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., created_ts: _Optional[int] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("id", "database", "name", "schema", "shards", "partitions", "indexes", "consistency", "properties", "loaded", "load_all", "replicas", "created_ts", "updated_ts", "dropped")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    LOAD_ALL_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CREATED_TS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_TS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    id: int
    database: str
    name: str
    schema: Schema
    shards: _containers.RepeatedCompositeFieldContainer[Shard]
    partitions: _containers.RepeatedCompositeFieldContainer[Partition]
    indexes: _containers.RepeatedCompositeFieldContainer[Index]
    consistency: int
    properties: _containers.RepeatedCompositeFieldContainer[KeyValue]
    loaded: _containers.RepeatedScalarFieldContainer[int]
    load_all: bool
    replicas: int
    created_ts: int
    updated_ts: int
    dropped: bool
    def __init__(self, id: _Optional[int] = ..., database: _Optional[str] = ..., name: _Optional[str] = ..., schema: _Optional[_Union[Schema, _Mapping]] = ..., shards: _Optional[_Iterable[_Union[Shard, _Mapping]]] = ..., partitions: _Optional[_Iterable[_Union[Partition, _Mapping]]] = ..., indexes: _Optional[_Iterable[_Union[Index, _Mapping]]] = ..., consistency: _Optional[int] = ..., properties: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ..., loaded: _Optional[_Iterable[int]] = ..., load_all: _Optional[bool] = ..., replicas: _Optional[int] = ..., created_ts: _Optional[int] = ..., updated_ts: _Optional[int] = ..., dropped: _Optional[bool] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("nodes", "leaders", "coming")
    NODES_FIELD_NUMBER: _ClassVar[int]
    LEADERS_FIELD_NUMBER: _ClassVar[int]
    COMING_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    leaders: _containers.RepeatedScalarFieldContainer[str]
    coming: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nodes: _Optional[_Iterable[str]] = ..., leaders: _Optional[_Iterable[str]] = ..., coming: _Optional[_Iterable[str]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("collection", "replicas")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    collection: int
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    def __init__(self, collection: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ...) -> None: ...

class PlacementV1(_message.Message):
    __slots__ = ("collection", "leaders")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    LEADERS_FIELD_NUMBER: _ClassVar[int]
    collection: int
    leaders: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[int] = ..., leaders: _Optional[_Iterable[str]] = ...) -> None: ...

class ChannelOwner(_message.Message):
    __slots__ = ("node", "process")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    node: str
    process: str
    def __init__(self, node: _Optional[str] = ..., process: _Optional[str] = ...) -> None: ...

class ChannelCheckpoint(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Garbage(_message.Message):
    __slots__ = ("objects", "not_before_ms")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedScalarFieldContainer[str]
    not_before_ms: int
    def __init__(self, objects: _Optional[_Iterable[str]] = ..., not_before_ms: _Optional[int] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("id", "format")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    id: str
    format: int
    def __init__(self, id: _Optional[str] = ..., format: _Optional[int] = ...) -> None: ...

class Adoption(_message.Message):
    __slots__ = ("cluster", "source", "revision")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    cluster: Cluster
    source: str
    revision: int
    def __init__(self, cluster: _Optional[_Union[Cluster, _Mapping]] = ..., source: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...
