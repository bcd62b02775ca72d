"""Every Milvus data type in one table: its Arrow and NumPy form, and whether it is served yet.

Numbers are those of the public protocol's ``DataType``. A type that is not served yet keeps its
row, so that the error a client gets is "not yet", never "unknown".
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa


class DataType(IntEnum):
    NONE = 0
    BOOL = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    FLOAT = 10
    DOUBLE = 11
    STRING = 20
    VARCHAR = 21
    ARRAY = 22
    JSON = 23
    GEOMETRY = 24
    TEXT = 25
    TIMESTAMPTZ = 26
    BINARY_VECTOR = 100
    FLOAT_VECTOR = 101
    FLOAT16_VECTOR = 102
    BFLOAT16_VECTOR = 103
    SPARSE_FLOAT_VECTOR = 104
    INT8_VECTOR = 105
    ARRAY_OF_VECTOR = 106
    ARRAY_OF_STRUCT = 107
    STRUCT = 201


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """One row of the table.

    label: the name clients see (``FloatVector``, ``VarChar``), as in Milvus's messages.
    arrow: Arrow type of a column; called with the dimension for vectors, with 0 otherwise.
    numpy: dtype of a column's values (of one component for vectors); None where NumPy has none.
    vector: a vector type; takes ``dim``.
    served: this version stores and searches it.
    """

    label: str
    arrow: Callable[[int], pa.DataType]
    numpy: np.dtype | None
    vector: bool = False
    served: bool = True


def _row(
    label: str,
    arrow: pa.DataType | Callable[[int], pa.DataType],
    numpy: str | None,
    *,
    vector: bool = False,
    served: bool = True,
) -> TypeInfo:
    make = arrow if callable(arrow) else (lambda _dim, arrow=arrow: arrow)
    return TypeInfo(label, make, np.dtype(numpy) if numpy else None, vector, served)


TYPES: dict[DataType, TypeInfo] = {
    DataType.BOOL: _row("Bool", pa.bool_(), "?"),
    DataType.INT8: _row("Int8", pa.int8(), "i1"),
    DataType.INT16: _row("Int16", pa.int16(), "i2"),
    DataType.INT32: _row("Int32", pa.int32(), "i4"),
    DataType.INT64: _row("Int64", pa.int64(), "i8"),
    DataType.FLOAT: _row("Float", pa.float32(), "f4"),
    DataType.DOUBLE: _row("Double", pa.float64(), "f8"),
    DataType.VARCHAR: _row("VarChar", pa.string(), None),
    # The Arrow type of an ARRAY depends on its element type: see ``Field.arrow_type``.
    DataType.ARRAY: _row("Array", pa.list_(pa.null()), None),
    DataType.JSON: _row("JSON", pa.string(), None),
    DataType.STRING: _row("String", pa.string(), None, served=False),
    DataType.GEOMETRY: _row("Geometry", pa.binary(), None, served=False),
    DataType.TEXT: _row("Text", pa.string(), None, served=False),
    DataType.TIMESTAMPTZ: _row("Timestamptz", pa.timestamp("us", "UTC"), "i8", served=False),
    DataType.FLOAT_VECTOR: _row(
        "FloatVector", lambda dim: pa.list_(pa.field("item", pa.float32(), False), dim), "f4", vector=True
    ),
    DataType.BINARY_VECTOR: _row("BinaryVector", lambda dim: pa.binary(dim // 8), "u1", vector=True),
    DataType.FLOAT16_VECTOR: _row(
        "Float16Vector",
        lambda dim: pa.list_(pa.field("item", pa.float16(), False), dim),
        "f2",
        vector=True,
        served=False,
    ),
    DataType.BFLOAT16_VECTOR: _row("BFloat16Vector", lambda dim: pa.binary(dim * 2), "u2", vector=True, served=False),
    DataType.SPARSE_FLOAT_VECTOR: _row("SparseFloatVector", pa.binary(), None, vector=True, served=False),
    DataType.INT8_VECTOR: _row(
        "Int8Vector", lambda dim: pa.list_(pa.field("item", pa.int8(), False), dim), "i1", vector=True, served=False
    ),
    DataType.ARRAY_OF_VECTOR: _row("ArrayOfVector", pa.null(), None, vector=True, served=False),
    DataType.ARRAY_OF_STRUCT: _row("ArrayOfStruct", pa.null(), None, served=False),
    DataType.STRUCT: _row("Struct", pa.null(), None, served=False),
}

INTEGERS = frozenset({DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64})
FLOATS = frozenset({DataType.FLOAT, DataType.DOUBLE})
KEYS = frozenset({DataType.INT64, DataType.VARCHAR})
"""Types a primary key may have."""
ELEMENTS = frozenset({DataType.BOOL, DataType.VARCHAR}) | INTEGERS | FLOATS
"""Types the elements of an ARRAY may have."""
