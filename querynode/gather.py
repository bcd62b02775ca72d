"""From (part, row) pairs to keys and columns."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from core.errors import FieldNotFound
from core.schema import Field, Schema
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
        taken = {f.name: parts[0].data.take(f, rows) for f in (schema.primary, *fields)}
    else:
        order = np.argsort(part_of, kind="stable")
        numbers, first = np.unique(part_of[order], return_index=True)
        groups = list(zip(numbers.tolist(), np.split(rows[order], first[1:]), strict=True))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        taken = {f.name: _scatter(parts, groups, pa.array(back), f) for f in (schema.primary, *fields)}
    return Rows(taken[schema.primary.name], {f.name: taken[f.name] for f in fields})


def no_rows(schema: Schema, fields: Sequence[Field]) -> Rows:
    """An answer without rows."""
    return Rows(pa.array([], schema.primary.arrow_type), {f.name: pa.array([], f.arrow_type) for f in fields})


def _scatter(parts: Sequence[Part], groups: list[tuple[int, np.ndarray]], back: pa.Array, field: Field) -> pa.Array:
    taken = [parts[number].data.take(field, rows) for number, rows in groups]
    return taken[0].take(back) if len(taken) == 1 else pa.concat_arrays(taken).take(back)
