"""Builds interim indexes in the background, over growing rows that became many."""

import asyncio
from concurrent.futures import Executor

from core.catalog import Collection
from core.ids import FieldId
from core.types import DataType
from engine.vector.interim import InterimIndex
from engine.vector.metric import Metric
from querynode.block import BLOCK_ROWS, Block
from querynode.interim import FrozenBlocks
from querynode.shard import ShardState


class Freezing:
    """rows_min: full blocks' rows of a shard and partition from which an index is kept over them."""

    def __init__(self, rows_min: int, threads: Executor) -> None:
        self.rows_min, self._threads = max(rows_min, BLOCK_ROWS), threads

    async def freeze(self, shard: ShardState) -> None:
        """Covers all full blocks of the partitions with many growing rows. A long piece of work."""
        for partition, blocks in list(shard.growing.blocks.items()):
            full = tuple(b for b in blocks if b.full)
            held = shard.growing.frozen.get(partition)
            if len(full) * BLOCK_ROWS >= self.rows_min and len(full) > (len(held.blocks) if held else 0):
                await self._cover(shard, full, held)

    async def _cover(self, shard: ShardState, full: tuple[Block, ...], held: FrozenBlocks | None) -> None:
        if held:
            indexes = {field: prefix.growing for field, prefix in held.indexes.items()}
        else:
            indexes = _empty_indexes(shard.collection, len(full) * BLOCK_ROWS)
        names = {field: shard.collection.schema.by_id[field].name for field in indexes}
        if not indexes:
            return
        for block in full[len(held.blocks) if held else 0 :]:
            for field, index in indexes.items():
                vectors = block.vectors[names[field]]
                await asyncio.get_running_loop().run_in_executor(self._threads, index.add, vectors)
            if not shard.growing.holds(full):
                return  # sealed meanwhile
        shard.freeze(FrozenBlocks(full, indexes))


def _empty_indexes(collection: Collection, rows: int) -> dict[FieldId, InterimIndex]:
    """One for each field that a graph can serve."""
    declared = ((collection.schema.by_id.get(i.field_id), i) for i in collection.indexes)
    return {
        field.id: InterimIndex(field.dim, Metric(index.metric), rows)
        for field, index in declared
        if field is not None and field.type is DataType.FLOAT_VECTOR and index.type != "FLAT"
    }
