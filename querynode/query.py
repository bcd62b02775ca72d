"""Rows by filter over one view, in primary key order."""

import numpy as np

from querynode import keys as pk
from querynode.gather import gather, no_rows, output_fields
from querynode.matching import Matching
from rpc.reads import QueryReply, QueryRequest


def run_query(matching: Matching, request: QueryRequest) -> QueryReply:
    """Answers a query from the parts of one view. Safe in any thread."""
    parts, schema = matching.parts, matching.schema
    fields = output_fields(schema, request.output)
    if request.count_only:
        return QueryReply(sum(map(matching.count, matching.numbers)), no_rows(schema, fields))
    found: list[tuple[int, np.ndarray, pk.Keys]] = []
    for number in matching.numbers:
        rows = _first(number, matching, request.limit)
        if len(rows):
            found.append((number, rows, pk.take(parts[number].data.keys, rows)))
    if not found:
        return QueryReply(0, no_rows(schema, fields))
    rows = np.concatenate([r for _, r, _ in found])
    part_of = np.repeat([n for n, _, _ in found], [len(r) for _, r, _ in found])
    if len(found) > 1 or not parts[found[0][0]].data.ordered:
        chosen = pk.order(pk.concat([k for _, _, k in found]))[: request.limit]
        rows, part_of = rows[chosen], part_of[chosen]
    return QueryReply(len(rows), gather(parts, part_of, rows, schema, fields))


def _first(number: int, matching: Matching, limit: int | None) -> np.ndarray:
    """The matching rows; where the part is in key order only the first ``limit`` of them."""
    data, visible = matching.parts[number]
    if matching.filter is None and visible is None and data.ordered and limit is not None:
        return np.arange(min(limit, data.rows))
    rows = matching.rows(number)
    return rows[:limit] if data.ordered else rows
