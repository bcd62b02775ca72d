"""Vectors, scores, keys and columns as bytes. Nothing here is done row by row."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from rpc.pb.querynode_pb2 import Columns

INT64 = pa.int64()
SCHEMAS_MAX = 1024
"""Decoded schemas kept; a collection has one for every choice of output fields."""


def columns_message(columns: Sequence[tuple[str, pa.Array]]) -> Columns:
    """Arrays of the same length under their names, which may occur twice: readers go by place."""
    names, arrays = zip(*columns, strict=True)
    if len(arrays) == 1 and not names[0] and arrays[0].type == INT64 and not arrays[0].null_count:
        # An Arrow message costs more to write and to read than ten keys do all the rest of their way.
        return Columns(keys=to_bytes(arrays[0].to_numpy(), "<i8"))
    batch = pa.RecordBatch.from_arrays(list(arrays), names=list(names))
    return Columns(schema=batch.schema.serialize().to_pybytes(), batch=batch.serialize().to_pybytes())


def columns_of(message: Columns) -> tuple[list[str], list[pa.Array]]:
    """Names and arrays of ``columns_message``; they lie in the message's bytes."""
    if not message.schema:
        keys = message.keys
        return [""], [pa.Int64Array.from_buffers(INT64, len(keys) // 8, [None, pa.py_buffer(keys)])]
    batch = pa.ipc.read_record_batch(message.batch, _schema(message.schema))
    return batch.schema.names, batch.columns


@lru_cache(SCHEMAS_MAX)
def _schema(data: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(data))


def to_bytes(array: np.ndarray, type: str) -> bytes:
    """The values in C order. type: as NumPy writes it, ``<f4``."""
    return np.asarray(array, type).tobytes()


def from_bytes(data: bytes, type: str) -> np.ndarray:
    """The values of ``to_bytes`` [n]; they lie in ``data`` and are read-only."""
    return np.frombuffer(data, type)
