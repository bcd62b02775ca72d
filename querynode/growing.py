"""Growing rows: the shard's log since the checkpoint, in memory.

Rows lie in blocks of one partition each. A row's number is ``block number * BLOCK_ROWS + place in
the block``; one dict leads from a key to the number of its newest row.
"""

from collections.abc import Iterable
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa

from core.ids import NEVER, PartitionId, Position
from core.schema import Schema
from querynode import keys as pk
from querynode.block import BLOCK_ROWS, Block, BlockView
from querynode.interim import FrozenBlocks


class Growing:
    """All growing rows of a shard.

    frozen: stretches of full blocks with an interim index.
    changes: counts what was applied; a view of the same count sees the newest rows of ``locate``.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.blocks: dict[PartitionId, list[Block]] = {}
        self.changes = 0
        self.rows = 0
        self._by_number: dict[int, Block] = {}
        # From 1: a row number is never 0, so filter(None, ...) drops only what was not found.
        self._numbers = count(1)
        self._newest: dict[Any, int] = {}
        self.frozen: dict[PartitionId, FrozenBlocks] = {}

    def freeze(self, frozen: FrozenBlocks) -> None:
        """An interim index covers these blocks from now on, if they are still here."""
        if self.holds(frozen.blocks):
            self.frozen[frozen.partition] = frozen

    def holds(self, blocks: Iterable[Block]) -> bool:
        return all(b.number in self._by_number for b in blocks)

    @property
    def bytes(self) -> int:
        return sum(b.bytes for b in self._by_number.values())

    def append(self, partition: PartitionId, batch: pa.RecordBatch, position: Position) -> None:
        """Adds the rows of one record; of a key that occurs twice in it the last row lives."""
        columns = {f.name: batch.column(f.name) for f in self.schema.fields}
        columns = {n: c if self.schema.by_name[n].is_vector else pk.owned(c) for n, c in columns.items()}
        keys = pk.to_list(pk.keys_of(columns[self.schema.primary.name]))
        done = 0
        while done < len(keys):
            block = self._open(partition)
            rows = min(len(keys) - done, BLOCK_ROWS - block.rows)
            part = keys[done : done + rows]
            numbers = range(block.number * BLOCK_ROWS + block.rows, (block.number + 1) * BLOCK_ROWS)
            block.append({n: c.slice(done, rows) for n, c in columns.items()}, rows, position)
            if len(set(part)) != rows:
                self._end_repeated(block, part, numbers, position)
            self.kill(part, position)
            self._newest.update(zip(part, numbers, strict=False))
            done += rows
        self.rows += len(keys)
        self.changes += 1

    def _end_repeated(self, block: Block, keys: list[Any], numbers: range, position: Position) -> None:
        last = set(dict(zip(keys, numbers, strict=False)).values())
        repeated = [n % BLOCK_ROWS for n in numbers[: len(keys)] if n not in last]
        block.kill(np.array(repeated), position)

    def _open(self, partition: PartitionId) -> Block:
        blocks = self.blocks.setdefault(partition, [])
        if not blocks or blocks[-1].full:
            blocks.append(self._register(Block(next(self._numbers), partition, self.schema)))
        return blocks[-1]

    def _register(self, block: Block) -> Block:
        self._by_number[block.number] = block
        return block

    def kill(self, keys: list[Any], position: Position) -> None:
        """Ends the rows of these keys; they were all applied before ``position``."""
        self.changes += 1
        for block, rows in self.locate(keys):
            block.kill(rows, position)

    def locate(self, keys: Iterable[Any]) -> list[tuple[Block, np.ndarray]]:
        """The newest row of each key that has one, alive or not, by block."""
        numbers = np.array(list(filter(None, map(self._newest.get, keys))), np.int64)
        if not len(numbers):
            return []
        blocks, rows = np.divmod(numbers, BLOCK_ROWS)
        return [(self._by_number[int(b)], rows[blocks == b]) for b in np.unique(blocks)]

    def drop(self, before: Position) -> None:
        """Forgets the rows with ``position < before``: a sealed segment holds them now."""
        kept: dict[PartitionId, list[Block]] = {}
        for partition, blocks in self.blocks.items():
            for block in blocks:
                first = block.before(before)
                if first == block.rows:
                    continue
                rest = block if first == 0 else block.since(first, next(self._numbers))
                kept.setdefault(partition, []).append(rest)
        self.blocks = kept
        self._by_number = {b.number: b for blocks in kept.values() for b in blocks}
        self.rows = sum(b.rows for b in self._by_number.values())
        self._newest = self._renumbered()
        covered, self.frozen = self.frozen, {}
        for frozen in covered.values():
            self.freeze(frozen)
        self.changes += 1

    def _renumbered(self) -> dict[Any, int]:
        newest: dict[Any, int] = {}
        for block in self._by_number.values():
            # Only a living row can end later, and a key has at most one (invariant 6).
            alive = np.flatnonzero(block.deleted_at[: block.rows] == NEVER)
            keys = pk.take(BlockView(block, block.rows).keys, alive)
            newest.update(zip(pk.to_list(keys), (alive + block.number * BLOCK_ROWS).tolist(), strict=True))
        return newest
