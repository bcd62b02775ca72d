"""Rows from the wire: FieldData columns to one checked ``pa.RecordBatch`` (``core.schema``).

Wordings are those of Milvus's ``validate_util.go``. No Python loop over rows except where protobuf
keeps every value an object of its own (strings, JSON, arrays).
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InvalidArgument, TooLarge
from core.limits import INSERT_BYTES_MAX
from core.schema import DYNAMIC, Field, Schema
from core.types import TYPES, DataType
from proxy import json_text

SCALARS: dict[DataType, str] = {
    DataType.BOOL: "bool_data",
    DataType.INT8: "int_data",
    DataType.INT16: "int_data",
    DataType.INT32: "int_data",
    DataType.INT64: "long_data",
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.VARCHAR: "string_data",
    DataType.JSON: "json_data",
    DataType.ARRAY: "array_data",
}
"""Where a ScalarField holds the values of each type."""


def read_rows(columns: Iterable[Any], rows: int, schema: Schema, keys: pa.Array | None = None) -> pa.RecordBatch:
    """The request's rows in schema form.

    keys: generated primary keys of an auto-id insert, which must not bring its own.
    Raises ``InvalidArgument``; the message names field and row.
    """
    given = _by_field(columns, schema)
    if keys is not None and schema.primary.name in given:
        raise InvalidArgument(f"can not assign primary field data when auto id enabled {schema.primary.name}")
    arrays = []
    for field in schema.fields:
        if field.primary and keys is not None:
            arrays.append(keys)
        elif (data := given.get(field.name)) is not None:
            arrays.append(_read_column(field, data, rows))
        else:
            arrays.append(_absent(field, rows))
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def _by_field(columns: Iterable[Any], schema: Schema) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for data in columns:
        name = DYNAMIC if data.is_dynamic else data.field_name
        if name not in schema.by_name:
            raise InvalidArgument(f"fieldName {name} not exist in collection schema")
        if name in given:
            raise InvalidArgument(f"duplicated field name: {name} was passed twice")
        given[name] = data
    return given


def _absent(field: Field, rows: int) -> pa.Array:
    if field.default:
        return pa.repeat(_default(field, rows), rows)
    if field.dynamic:
        return pa.repeat(pa.scalar("{}"), rows)
    if field.nullable:
        return pa.nulls(rows, field.arrow_type)
    if field.primary:
        raise InvalidArgument(f"must assign the primary key, primary field: {field.name}")
    raise InvalidArgument(f"fieldSchema({field.name}) has no corresponding fieldData pass in: invalid parameter")


def _default(field: Field, rows: int) -> pa.Scalar:
    if len(field.default) * rows > INSERT_BYTES_MAX:
        raise TooLarge(f"{rows} rows with the default of field {field.name} are too large for one request: send fewer")
    return pa.scalar(orjson.loads(field.default), field.arrow_type)


def _read_column(field: Field, data: Any, rows: int) -> pa.Array:
    if data.type not in (field.type, DataType.NONE):
        got = TYPES[DataType(data.type)].label if data.type in TYPES else data.type
        raise InvalidArgument(
            f"field ({field.name}) has type {TYPES[field.type].label}, the data passed has type {got}: "
            "invalid parameter"
        )
    values = _vectors(field, data.vectors) if field.is_vector else _scalars(field, data.scalars)
    if not data.valid_data:
        if len(values) != rows:
            raise _wrong_rows(field, len(values), rows)
        return values
    return _spread(field, values, np.array(data.valid_data, dtype=bool), rows)


def _wrong_rows(field: Field, got: int, rows: int) -> InvalidArgument:
    return InvalidArgument(
        f"the num_rows ({got}) of field ({field.name}) is not equal to passed num_rows ({rows}): "
        f"invalid parameter[expected={rows}][actual={got}]"
    )


def _spread(field: Field, values: pa.Array, valid: np.ndarray, rows: int) -> pa.Array:
    """Puts nulls (or the default) where the client marked a row as not valid. Clients send either
    all rows with fillers, or only the valid ones."""
    if len(valid) != rows:
        raise InvalidArgument(
            f"the length of valid_data ({len(valid)}) of field ({field.name}) is not equal to passed num_rows ({rows})"
        )
    present = int(valid.sum())
    if len(values) not in (present, rows):
        raise _wrong_rows(field, len(values), rows)
    if present == rows:
        return values
    if not (field.nullable or field.default or field.dynamic):
        raise InvalidArgument(
            f"field ({field.name}) is not nullable and has no default value, row {int(valid.argmin())} has none"
        )
    source = np.arange(rows) if len(values) == rows else np.cumsum(valid) - 1
    out = values.take(pa.array(source, pa.int64(), mask=~valid))
    if field.default:
        return out.fill_null(_default(field, rows))
    return out.fill_null("{}") if field.dynamic else out


# --- vectors ------------------------------------------------------------------------------------
def _vectors(field: Field, data: Any) -> pa.Array:
    if data.dim != field.dim:
        raise InvalidArgument(
            f"the dim ({data.dim}) of field data({field.name}) is not equal to schema dim ({field.dim}): "
            f"invalid parameter[expected={field.dim}][actual={data.dim}]"
        )
    if field.type is DataType.BINARY_VECTOR:
        raw, width = data.binary_vector, field.dim // 8
        if len(raw) % width:
            raise InvalidArgument(f"the length({len(raw)}) of binary data should divide the dim({field.dim})")
        return pa.Array.from_buffers(field.arrow_type, len(raw) // width, [None, pa.py_buffer(raw)])
    values = np.array(data.float_vector.data, dtype=np.float32)
    if len(values) % field.dim:
        raise InvalidArgument(f"the length({len(values)}) of float data should divide the dim({field.dim})")
    check_finite(field.name, values, field.dim)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), type=field.arrow_type)


def check_finite(name: str, values: np.ndarray, per_row: int = 1) -> None:
    """Raises ``InvalidArgument`` for the first NaN or infinity of a flat array."""
    finite = np.isfinite(values)
    if not finite.all():
        at = int(finite.argmin())
        raise InvalidArgument(
            f"value '{values[at]}' is not a number or infinity, field ({name}), row {at // per_row}: invalid parameter"
        )


# --- scalars ------------------------------------------------------------------------------------
def _scalars(field: Field, data: Any) -> pa.Array:
    slot = data.WhichOneof("data")
    if slot is not None and slot != SCALARS[field.type]:
        raise InvalidArgument(
            f"field ({field.name}) has type {TYPES[field.type].label}, the data passed is {slot}: invalid parameter"
        )
    values = getattr(data, SCALARS[field.type]).data
    match field.type:
        case DataType.JSON:
            return pa.array(json_text.compact(field.name, values, objects=field.dynamic), pa.binary()).cast(pa.string())
        case DataType.ARRAY:
            return _arrays(field, values)
        case DataType.VARCHAR:
            return _strings(field, values[:])
        case _:
            return _numbers(field.name, field.type, values)


def _numbers(name: str, kind: DataType, values: Any) -> pa.Array:
    dtype = TYPES[kind].numpy
    assert dtype is not None
    wide = np.int32 if kind in (DataType.INT8, DataType.INT16) else dtype
    array = np.array(values, dtype=wide)
    if dtype.kind == "f":
        check_finite(name, array)
    elif wide is not dtype and len(array):
        bounds = np.iinfo(dtype)
        outside = (array < bounds.min) | (array > bounds.max)
        if outside.any():
            at = int(outside.argmax())
            raise InvalidArgument(
                f"the {at}th element ({array[at]}) out of range: [{bounds.min}, {bounds.max}], field ({name}): "
                "invalid parameter[expected=integer doesn't overflow][actual=out of range]"
            )
    return pa.array(array.astype(dtype, copy=False))


def _strings(field: Field, values: list[str]) -> pa.Array:
    array = pa.array(values, pa.string())
    # Milvus counts bytes, as Go's len() does.
    lengths = pc.call_function("binary_length", [array]).to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.max() > field.max_length:
        at = int((lengths > field.max_length).argmax())
        raise InvalidArgument(
            f"the length ({lengths[at]}) of {at}th string exceeds max length ({field.max_length}): "
            "invalid parameter[expected=valid length string][actual=string length exceeds max length], "
            f"field ({field.name})"
        )
    return array


def _arrays(field: Field, cells: Any) -> pa.Array:
    slot = SCALARS[field.element_type]
    for row, cell in enumerate(cells):
        kind = cell.WhichOneof("data")
        if kind not in (slot, None):
            raise InvalidArgument(
                f"row {row} of array field ({field.name}) holds {kind}, "
                f"its element type is {TYPES[field.element_type].label}: invalid parameter"
            )
    lists = [getattr(cell, slot).data for cell in cells]
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    if len(lengths) and lengths.max() > field.max_capacity:
        at = int((lengths > field.max_capacity).argmax())
        raise InvalidArgument(
            f"the length ({lengths[at]}) of {at}th array exceeds max capacity ({field.max_capacity}): "
            "invalid parameter[expected=valid length array][actual=array length exceeds max capacity]"
        )
    flat = list(chain.from_iterable(lists))
    if field.element_type is DataType.VARCHAR:
        elements = _strings(field, flat)
    else:
        elements = _numbers(field.name, field.element_type, flat)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), elements)
