"""Which rows of a part a read may return: those the view sees and the filter passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.schema import Schema
from core.types import DataType
from engine.filter import Filter
from engine.filter import compile as compile_filter
from querynode import keys as pk
from querynode.cache import ByteCache
from querynode.sealed import SealedSegment
from querynode.view import Part, PartData, View

LOOKUP_KEYS_MAX = 4096
"""A filter that names more keys than this is evaluated as a scan."""
SCAN_COST = 20
DOCUMENT_SCAN_COST = 2000
"""Cost of passing one row through a filter, in the multiply-adds of ``engine.segment.estimate_cost``:
of plain columns, and where JSON text must be read."""


@dataclass(frozen=True, slots=True)
class Matching:
    """One read's filter (None = every row passes) over the parts of its view.

    located: per part the only rows that can match, where keys or bounds tell; None where only a scan does.
    numbers: the parts that may have a match.
    masks: filters' masks over sealed segments, which never change.
    """

    filter: Filter | None
    schema: Schema
    parts: list[Part]
    located: list[np.ndarray | None]
    numbers: list[int]
    masks: ByteCache[np.ndarray]

    @classmethod
    def over(
        cls, view: View, parts: list[Part], filter: Filter | None, schema: Schema, masks: ByteCache[np.ndarray]
    ) -> "Matching":
        """With a filter, call it on the event loop."""
        located: list[np.ndarray | None] = [None] * len(parts)
        if filter is not None:
            if filter.keys is not None and len(filter.keys) <= LOOKUP_KEYS_MAX:
                located = view.locate(parts, pk.keys_of(filter.keys))
            for number, (data, _) in enumerate(parts):
                bounds = data.bounds()
                if bounds and not filter.may_match(bounds):
                    located[number] = np.empty(0, np.int64)
        numbers = [n for n, rows in enumerate(located) if rows is None or len(rows)]
        return cls(filter, schema, parts, located, numbers, masks)

    def cost(self) -> int:
        """Estimated cost of evaluating the filter, masks already known left out."""
        if self.filter is None:
            return 0
        documents = any(self.schema.by_name[name].type is DataType.JSON for name in self.filter.fields)
        scanned = (p.data for p, rows in zip(self.parts, self.located, strict=True) if rows is None)
        rows = sum(d.rows for d in scanned if self._kept(d) is None)
        return rows * (DOCUMENT_SCAN_COST if documents else SCAN_COST)

    def mask(self, number: int) -> np.ndarray | None:
        """bool [rows] of part ``number``; None = all rows."""
        part = self.parts[number]
        if self.filter is None:
            return part.visible
        if self.located[number] is not None:
            mask = np.zeros(part.data.rows, np.bool_)
            mask[self.rows(number)] = True
            return mask
        passed = self._passed(part.data)
        return passed if part.visible is None else passed & part.visible

    def rows(self, number: int) -> np.ndarray:
        """int64 [hits]: the matching rows of part ``number``, ascending."""
        data, visible = self.parts[number]
        rows = self.located[number]
        if self.filter is None or rows is None:
            mask = self.mask(number)
            return np.arange(data.rows) if mask is None else np.flatnonzero(mask)
        rows = np.sort(rows if visible is None else rows[visible[rows]])
        if self.filter.keys_only or not len(rows):
            return rows
        return rows[self.filter.mask(lambda name: data.take(self.schema.by_name[name], rows), len(rows))]

    def count(self, number: int) -> int:
        """How many rows of part ``number`` match."""
        if self.filter is None:
            return self.parts[number].live
        if self.located[number] is not None:
            return len(self.rows(number))
        mask = self.mask(number)
        return self.parts[number].data.rows if mask is None else int(np.count_nonzero(mask))

    def _kept(self, data: PartData) -> np.ndarray | None:
        return self.masks.get((data.id, self.filter)) if isinstance(data, SealedSegment) else None

    def _passed(self, data: PartData) -> np.ndarray:
        assert self.filter is not None
        mask = self._kept(data)
        if mask is None:
            mask = self.filter.mask(data.column, data.rows)
            if isinstance(data, SealedSegment):
                self.masks.put((data.id, self.filter), mask)
        return mask


def compiled(text: str, params: Mapping[str, Any], schema: Schema) -> Filter | None:
    """The filter of a read; None when it passes every row. Raises ``FilterError``."""
    return compile_filter(text, schema, params) if text else None
