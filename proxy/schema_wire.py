"""Between the protocol's CollectionSchema and ``core.schema``, with every check a new schema must pass.

Wordings are those of Milvus's proxy (``internal/proxy/util.go``): clients' test suites match on them.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from core import limits
from core.errors import InvalidArgument, NotYet
from core.ids import FieldId
from core.schema import DYNAMIC, RESERVED_NAMES, Field, Schema
from core.types import ELEMENTS, KEYS, TYPES, DataType
from proxy.names import check_field_name
from proxy.wire import common, schema

CLUSTERING = "clustering_key"
"""Kept among a field's params: clustering has no effect here, describing it back does."""

DEFAULTS: dict[DataType, str] = {
    DataType.BOOL: "bool_data",
    DataType.INT8: "int_data",
    DataType.INT16: "int_data",
    DataType.INT32: "int_data",
    DataType.INT64: "long_data",
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.VARCHAR: "string_data",
}
"""Where a ValueField holds a default of each type that may have one."""
LIKENESS = {"int_data": "integer", "long_data": "integer", "float_data": "float", "double_data": "float"}
"""Clients choose the slot by the Python type, so an Int8's default may come as a long."""


# --- from the wire ----------------------------------------------------------------------------
def read_schema(data: bytes) -> Schema:
    """The checked schema of a CreateCollection request; ids are 0. The dynamic field is added last.

    Raises ``InvalidArgument``, and ``NotYet`` for types and features not served yet.
    """
    try:
        message = schema.CollectionSchema.FromString(data)
    except DecodeError as e:
        raise InvalidArgument("the schema is not a valid CollectionSchema message") from e
    _refuse_unserved(message)
    if len(message.fields) > limits.FIELDS_MAX:
        raise InvalidArgument(f"maximum field's number should be limited to {limits.FIELDS_MAX}")
    fields = tuple(_read_field(f, message.autoID) for f in message.fields)
    _check_fields(fields)
    if message.enable_dynamic_field:
        fields += (Field(FieldId(0), DYNAMIC, DataType.JSON, dynamic=True),)
    return Schema(fields, message.description)


def _refuse_unserved(message: Any) -> None:
    if message.functions:
        raise NotYet("functions (full text search, embedding) are not served by this version yet")
    if message.struct_array_fields:
        raise NotYet("struct array fields are not served by this version yet")
    if message.enable_namespace or message.external_source or message.external_spec:
        raise NotYet("namespaces and external collections are not served by this version yet")


def _read_field(f: Any, auto_id_of_collection: bool) -> Field:
    _check_name(f.name)
    kind = _data_type(f.data_type, f.name)
    params = {kv.key: kv.value for kv in f.type_params}
    element = _element_type(f) if kind is DataType.ARRAY else DataType.NONE
    text = kind is DataType.VARCHAR or element is DataType.VARCHAR
    kept = dict(params)
    dim = _dim(kind, f.name, kept.pop("dim", None)) if TYPES[kind].vector else 0
    max_length = _max_length(f.name, kept.pop("max_length", None)) if text else 0
    max_capacity = _max_capacity(f.name, kept.pop("max_capacity", None)) if kind is DataType.ARRAY else 0
    if f.is_clustering_key:
        kept[CLUSTERING] = "true"
    if f.is_function_output or f.external_field:
        raise NotYet(f"field {f.name}: function outputs and external fields are not served by this version yet")
    field = Field(
        FieldId(0),
        f.name,
        kind,
        primary=f.is_primary_key,
        auto_id=f.autoID or (auto_id_of_collection and f.is_primary_key),
        nullable=f.nullable,
        partition_key=f.is_partition_key,
        description=f.description,
        dim=dim,
        max_length=max_length,
        max_capacity=max_capacity,
        element_type=element,
        params=tuple(kept.items()),
    )
    return _with_default(field, f.default_value)


def _check_name(name: str) -> None:
    if name in RESERVED_NAMES:
        raise InvalidArgument(f"Invalid field name: {name}. The name is reserved by the system.")
    check_field_name(name)


def _data_type(number: int, name: str) -> DataType:
    if number not in DataType.__members__.values() or number == 0:
        raise InvalidArgument(f"field {name}: data type {number} is not valid")
    kind = DataType(number)
    if not TYPES[kind].served:
        raise NotYet(f"field {name}: fields of type {TYPES[kind].label} are not served by this version yet")
    return kind


def _element_type(f: Any) -> DataType:
    number = f.element_type
    if number not in ELEMENTS:
        known = DataType(number).name if number in DataType.__members__.values() else number
        raise InvalidArgument(f"element type {known} is not supported")
    return DataType(number)


def _number(text: str) -> int:
    digits = text.strip().strip('"')
    return int(digits) if digits.lstrip("-").isascii() and digits.lstrip("-").isdigit() and len(digits) < 19 else -1


def _dim(kind: DataType, name: str, text: str | None) -> int:
    if text is None:
        raise InvalidArgument(f"dimension is not defined in field type params, field name: {name}")
    dim, most = _number(text), limits.DIM_MAX
    if kind is DataType.BINARY_VECTOR:
        most = limits.BINARY_DIM_MAX
        if dim % 8:
            raise InvalidArgument(f"invalid dimension: {text:.32} of field {name}. should be multiple of 8. ")
    if not 1 <= dim <= most:
        raise InvalidArgument(f"invalid dimension: {text:.32}. should be in range 1 ~ {most}")
    return dim


def _max_length(name: str, text: str | None) -> int:
    if text is None:
        raise InvalidArgument(f"type param(max_length) should be specified for the field({name})")
    length = _number(text)
    if not 1 <= length <= limits.VARCHAR_LENGTH_MAX:
        raise InvalidArgument(
            f"the maximum length specified for the field({name}) should be in "
            f"(0, {limits.VARCHAR_LENGTH_MAX}], but got {text:.32} instead: invalid parameter"
        )
    return length


def _max_capacity(name: str, text: str | None) -> int:
    if text is None:
        raise InvalidArgument(f"type param(max_capacity) should be specified for array field {name}")
    capacity = _number(text)
    if not 1 <= capacity <= limits.ARRAY_CAPACITY_MAX:
        raise InvalidArgument(
            f"the maximum capacity specified for a Array should be in (0, {limits.ARRAY_CAPACITY_MAX}], "
            f"field name: {name}, but got {text:.32}"
        )
    return capacity


def _with_default(field: Field, value: Any) -> Field:
    slot = value.WhichOneof("data")
    if slot is None:
        return field
    label = TYPES[field.type].label
    if field.primary:
        raise InvalidArgument("primary field not support default_value")
    if field.type not in DEFAULTS:
        raise InvalidArgument(f"type not support default_value, type:{label}, name:{field.name}")
    if LIKENESS.get(slot, slot) != LIKENESS.get(DEFAULTS[field.type], DEFAULTS[field.type]):
        raise InvalidArgument(
            f"type ({label}) of field ({field.name}) is not equal to the type({slot}) of default_value"
        )
    given: Any = getattr(value, slot)
    if isinstance(given, str) and len(given.encode()) > field.max_length:
        raise InvalidArgument(f"the length ({len(given.encode())}) of string exceeds max length ({field.max_length})")
    dtype = TYPES[field.type].numpy
    if dtype is not None and dtype.kind == "i" and isinstance(given, int):
        bits = dtype.itemsize * 8 - 1
        if not -(1 << bits) <= given < 1 << bits:
            raise InvalidArgument(f"default value {given} of field {field.name} is out of range for {label}")
    if isinstance(given, float) and given - given != 0:
        raise InvalidArgument(f"default value {given} of field {field.name} is not a number or infinity")
    return replace(field, default=orjson.dumps(given).decode())


# --- checks over all fields ---------------------------------------------------------------------
def _check_fields(fields: tuple[Field, ...]) -> None:
    if len({f.name for f in fields}) != len(fields):
        raise InvalidArgument("duplicated field name")
    _check_primary([f for f in fields if f.primary])
    _check_partition_key([f for f in fields if f.partition_key])
    for f in fields:
        if f.auto_id and not f.primary:
            raise InvalidArgument(f"only primary field can specify AutoID with true, field name = {f.name}")
        if f.nullable and f.is_vector:
            raise NotYet(f"field {f.name}: nullable vector fields are not served by this version yet")
    vectors = [f for f in fields if f.is_vector]
    if not vectors:
        raise InvalidArgument("schema does not contain vector field: invalid parameter")
    if len(vectors) > limits.VECTOR_FIELDS_MAX:
        raise InvalidArgument(f"maximum vector field's number should be limited to {limits.VECTOR_FIELDS_MAX}")


def _check_primary(primaries: list[Field]) -> None:
    if not primaries:
        raise InvalidArgument("primary key is not specified")
    if len(primaries) > 1:
        raise InvalidArgument(
            f"there are more than one primary key, field name = {primaries[0].name}, {primaries[1].name}"
        )
    if primaries[0].type not in KEYS:
        raise InvalidArgument("the data type of primary key should be Int64 or VarChar")
    if primaries[0].nullable:
        raise InvalidArgument("primary field not support null")


def _check_partition_key(keys: list[Field]) -> None:
    if not keys:
        return
    if len(keys) > 1:
        raise InvalidArgument(f"there are more than one partition key, field name = {keys[0].name}, {keys[1].name}")
    if keys[0].primary:
        raise InvalidArgument("the partition key field must not be primary field")
    if keys[0].type not in KEYS:
        raise InvalidArgument("the data type of partition key should be Int64 or VarChar")


# --- to the wire --------------------------------------------------------------------------------
def write_schema(name: str, value: Schema) -> Any:
    """The CollectionSchema message that describes a collection; internal fields are left out."""
    return schema.CollectionSchema(
        name=name,
        description=value.description,
        autoID=value.primary.auto_id,
        fields=[_write_field(f) for f in value.fields if not f.dynamic],
        enable_dynamic_field=value.dynamic,
        version=value.version,
    )


def _write_field(f: Field) -> Any:
    sizes = [(k, str(v)) for k in ("dim", "max_length", "max_capacity") if (v := getattr(f, k))]
    kept = [(k, v) for k, v in f.params if k != CLUSTERING]
    message = schema.FieldSchema(
        fieldID=f.id,
        name=f.name,
        is_primary_key=f.primary,
        description=f.description,
        data_type=f.type.value,
        type_params=pairs(sizes + kept),
        autoID=f.auto_id,
        state=schema.FieldState.FieldCreated,
        element_type=f.element_type.value,
        is_partition_key=f.partition_key,
        is_clustering_key=len(kept) != len(f.params),
        nullable=f.nullable,
    )
    if f.default:
        setattr(message.default_value, DEFAULTS[f.type], orjson.loads(f.default))
    return message


def pairs(items: Iterable[tuple[str, str]]) -> list[Any]:
    return [common.KeyValuePair(key=k, value=v) for k, v in items]
