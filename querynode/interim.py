"""Interim indexes: growing rows that are many are searched through a graph before they are sealed.

Only full blocks are covered, which no longer change; the rest is searched exactly. The index is
built in the background and grows by whole blocks; it goes when the first of its blocks is sealed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from core.ids import FieldId
from core.schema import Field
from engine.vector.index import VectorIndex
from engine.vector.interim import InterimIndex
from engine.vector.metric import Metric
from querynode import keys as pk
from querynode.block import BLOCK_ROWS, Block, BlockView


class PrefixIndex:
    """The first rows of an index that goes on growing. Implements ``engine.vector.index.VectorIndex``."""

    exact = False

    def __init__(self, index: InterimIndex, rows: int) -> None:
        self.growing, self.rows, self.engine = index, rows, index.engine
        self._all = np.ones(rows, np.bool_)

    @property
    def bytes(self) -> int:
        return self.growing.bytes

    def search(
        self, queries: np.ndarray, k: int, params: Mapping[str, float], allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        # Rows past the end of ``allowed`` are forbidden, so later ones never come.
        return self.growing.search(queries, k, params, self._all if allowed is None else allowed)


class FrozenBlocks:
    """Full blocks of one partition as one stretch of rows with interim indexes."""

    ordered = False

    def __init__(self, blocks: tuple[Block, ...], indexes: Mapping[FieldId, InterimIndex]) -> None:
        assert all(b.full for b in blocks)
        self.blocks, self.partition = blocks, blocks[0].partition
        self.rows = len(blocks) * BLOCK_ROWS
        self._views = [BlockView(b, b.rows) for b in blocks]
        self.indexes = {field: PrefixIndex(index, self.rows) for field, index in indexes.items()}

    def visible(self, frontier: int) -> np.ndarray | None:
        """bool [rows]: rows that a view at this frontier sees; None = all of them."""
        masks = [v.visible(frontier) for v in self._views]
        if all(m is None for m in masks):
            return None
        return np.concatenate([np.ones(BLOCK_ROWS, np.bool_) if m is None else m for m in masks])

    @property
    def keys(self) -> pk.Keys:
        return pk.concat([v.keys for v in self._views])

    def column(self, name: str) -> pa.Array:
        return pa.concat_arrays([v.column(name) for v in self._views])

    def vectors(self, field: Field) -> np.ndarray:
        return np.concatenate([v.vectors(field) for v in self._views])

    def index(self, field: Field) -> VectorIndex | None:
        return self.indexes.get(field.id)

    def exact(self, field: Field, metric: Metric) -> VectorIndex | None:
        """None: it is made to be searched by its interim indexes."""
        return None

    def bounds(self) -> Mapping[str, tuple[Any, Any, int]]:
        return {}

    def resident(self, field: Field) -> bool:
        """Whether ``take`` needs no reading of a file."""
        return True

    def take(self, field: Field, rows: np.ndarray) -> pa.Array:
        """Values of one field at these rows."""
        block_of, places = np.divmod(rows, BLOCK_ROWS)
        order = np.argsort(block_of, kind="stable")
        taken = [self._views[b].take(field, places[block_of == b]) for b in np.unique(block_of)]
        if len(taken) == 1:
            return taken[0]
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.concat_arrays(taken).take(pa.array(back))
