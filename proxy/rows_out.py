"""Rows to the wire: Arrow columns to FieldData, ids and scores."""

from typing import Any

import numpy as np
import pyarrow as pa

from core.schema import Field
from core.types import TYPES, DataType
from core.varint import varint
from proxy.rows_in import SCALARS
from proxy.wire import schema


def write_column(field: Field, column: pa.Array) -> Any:
    """One FieldData. Nullable fields carry ``valid_data``; their null scalars travel as fillers."""
    out = schema.FieldData(type=field.type.value, field_name=field.name, field_id=field.id, is_dynamic=field.dynamic)
    if field.is_vector:
        _write_vectors(field, column, out.vectors)
        return out
    if field.nullable:
        out.valid_data.extend(column.is_valid().to_numpy(zero_copy_only=False).tolist())
    target = getattr(out.scalars, SCALARS[field.type])
    target.SetInParent()
    if field.type is DataType.ARRAY:
        target.element_type = field.element_type.value
        _write_arrays(SCALARS[field.element_type], column, target.data)
    else:
        _write_scalars(field.type, column, target)
    return out


def _write_vectors(field: Field, column: pa.Array, target: Any) -> None:
    target.dim = field.dim
    if field.type is DataType.BINARY_VECTOR:
        width = field.dim // 8
        start = column.offset * width
        buffer = column.buffers()[1]
        target.binary_vector = buffer[start : start + len(column) * width].to_pybytes() if buffer else b""
    else:
        target.float_vector.SetInParent()
        write_floats(column.flatten().to_numpy(zero_copy_only=False), target.float_vector)


def _write_scalars(kind: DataType, column: pa.Array, target: Any) -> None:
    if kind is DataType.VARCHAR:
        target.data.extend(_filled(column, "").to_pylist())
    elif kind is DataType.JSON:
        target.data.extend(_filled(column, "null").cast(pa.binary()).to_pylist())
    else:
        zero = TYPES[kind].numpy.type(0).item()  # type: ignore[union-attr]  # numbers have one
        values = _filled(column, zero).to_numpy(zero_copy_only=False)
        if kind is DataType.FLOAT:
            write_floats(values, target)
        else:
            target.data.extend(values.tolist())


def _filled(column: pa.Array, filler: Any) -> pa.Array:
    return column.fill_null(filler) if column.null_count else column


def _write_arrays(slot: str, column: pa.Array, cells: Any) -> None:
    for values in column.to_pylist():
        target = getattr(cells.add(), slot)
        target.SetInParent()
        if values:
            target.data.extend(values)


def write_floats(values: np.ndarray, target: Any, field: int = 1) -> None:
    """Fills the repeated float field of that number (below 16); 1 is the only one of a FloatArray.

    On the wire such a field is a tag, a length and packed little-endian floats, the array's own
    bytes: so it is merged in as such, a copy instead of a Python float for each.
    """
    raw = np.ascontiguousarray(values, "<f4").tobytes()
    if raw:
        target.MergeFromString(bytes((field << 3 | 2,)) + varint(len(raw)) + raw)


def write_ids(keys: pa.Array, target: Any) -> None:
    """Fills an IDs message with primary keys; an empty array leaves it unset."""
    if not len(keys):
        return
    if pa.types.is_string(keys.type):
        target.str_id.data.extend(keys.to_pylist())
    else:
        # Not to_numpy(): it drops the GIL five times, which costs more than all the rest.
        values = np.frombuffer(keys.buffers()[1], np.int64, len(keys), 8 * keys.offset)
        target.int_id.data.extend(values.tolist())
