"""From (part, row) pairs to keys and columns."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from core.errors import FieldNotFound
from core.schema import Field, Schema
from querynode import keys as pk
from querynode.view import Part
from rpc.reads import Rows


def output_fields(schema: Schema, names: Sequence[str]) -> list[Field]:
    """The fields to return. Raises ``FieldNotFound``."""
    try:
        return [schema.by_name[n] for n in names]
    except KeyError as e:
        raise FieldNotFound(f"field {e.args[0]} not exist") from None


def needs_reading(parts: Sequence[Part], fields: Sequence[Field]) -> bool:
    """Whether gathering these fields has to read files."""
    return any(not part.data.resident(f) for part in parts for f in fields)


def gather(
    parts: Sequence[Part], part_of: np.ndarray | None, rows: np.ndarray, schema: Schema, fields: Sequence[Field]
) -> Rows:
    """The rows in the order given: ``rows[i]`` of ``parts[part_of[i]]``, both int64 [n]; of part 0
    when ``part_of`` is None."""
    if not len(rows):
        return no_rows(schema, fields)
    if part_of is None:
        return _of_one(parts[0], rows, schema, fields)
    counts = np.bincount(part_of)
    numbers = np.flatnonzero(counts)
    if len(numbers) == 1:
        return _of_one(parts[numbers.item()], rows, schema, fields)
    order = np.argsort(part_of, kind="stable")
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    by_part, ends = rows[order], np.cumsum(counts[numbers]).tolist()
    runs = [(parts[n].data, by_part[i:j]) for n, i, j in zip(numbers.tolist(), [0, *ends], ends, strict=False)]
    keys = pk.concat([pk.keys_of(data.take(schema.primary, run)) for data, run in runs])
    columns = {f.name: pa.concat_arrays([data.take(f, run) for data, run in runs]).take(pa.array(back)) for f in fields}
    return Rows(pk.to_arrow(pk.take(keys, back)), columns)


def _of_one(part: Part, rows: np.ndarray, schema: Schema, fields: Sequence[Field]) -> Rows:
    return Rows(part.data.take(schema.primary, rows), {f.name: part.data.take(f, rows) for f in fields})


def no_rows(schema: Schema, fields: Sequence[Field]) -> Rows:
    """An answer without rows."""
    return Rows(pa.array([], schema.primary.arrow_type), {f.name: pa.array([], f.arrow_type) for f in fields})
