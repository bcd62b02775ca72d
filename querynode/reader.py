"""Reads over a pinned view: what runs on the event loop, what in the pool, what is kept between reads."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np

from core.errors import FieldNotFound, PartitionNotLoaded, Timeout
from core.ids import FieldId, PartitionId
from core.limits import RESULT_ENTRIES_MAX, TOPK_MAX
from core.schema import Field
from engine.vector.metric import Metric
from querynode.cache import ByteCache
from querynode.gather import needs_reading, output_fields
from querynode.grouping import best_of_groups, pick
from querynode.matching import Matching, compiled
from querynode.query import run_query
from querynode.search import Merged, nothing, reply, search_cost, search_part
from querynode.shard import ShardState
from querynode.view import View
from rpc.reads import QueryReply, QueryRequest, Read, SearchReply, SearchRequest

MASK_BYTES = 32 * 1024 * 1024
"""Filters' masks kept between reads."""
WIDEN = 4
"""How much further a grouped search looks when it found too few groups."""

T = TypeVar("T")


class Reader:
    """Answers reads. inline_cost: estimated multiply-adds up to which one runs on the event loop."""

    def __init__(self, threads: Executor, inline_cost: int) -> None:
        self._threads, self._inline_cost = threads, inline_cost
        self._masks: ByteCache[np.ndarray] = ByteCache(MASK_BYTES)

    async def search(self, shard: ShardState, view: View, request: SearchRequest) -> SearchReply:
        schema = shard.collection.schema
        field = schema.by_id.get(request.field_id)
        if field is None:
            raise FieldNotFound(f"field {request.field_id} not exist")
        fields = output_fields(schema, request.output)
        matching = self._matching(shard, view, request, None if request.filter else field.id)
        if not matching.numbers:
            return nothing(schema, fields, request)
        inline = search_cost(matching, field, request) <= self._inline_cost
        if request.group_by:
            return await self._search_groups(matching, field, fields, request, inline)
        merged = await self._best(matching, field, request, request.k, inline)
        if inline and not (fields and needs_reading(merged.used(matching.parts), fields)):
            return reply(merged, matching.parts, schema, fields)
        return await self._in_pool(lambda: reply(merged, matching.parts, schema, fields), request)

    async def query(self, shard: ShardState, view: View, request: QueryRequest) -> QueryReply:
        schema = shard.collection.schema
        matching = self._matching(shard, view, request)
        reading = needs_reading(matching.parts, output_fields(schema, request.output))
        if matching.cost() <= self._inline_cost and not reading:
            return run_query(matching, request)
        return await self._in_pool(lambda: run_query(matching, request), request)

    def _matching(self, shard: ShardState, view: View, request: Read, indexed: FieldId | None = None) -> Matching:
        schema = shard.collection.schema
        parts = view.parts(_readable(shard, request.partitions), indexed)
        filter = compiled(request.filter, request.filter_params, schema)
        return Matching.over(view, parts, filter, schema, self._masks)

    async def _best(self, matching: Matching, field: Field, request: SearchRequest, k: int, inline: bool) -> Merged:
        metric, numbers = Metric(request.metric), matching.numbers
        if inline:
            return Merged([search_part(matching, n, field, request, k) for n in numbers], numbers, k, metric)
        searches = [self._in_pool(lambda n=n: search_part(matching, n, field, request, k), request) for n in numbers]
        return Merged(await asyncio.gather(*searches), numbers, k, metric)

    async def _search_groups(
        self, matching: Matching, field: Field, fields: list[Field], request: SearchRequest, inline: bool
    ) -> SearchReply:
        """Looks further and further until every query has its groups or no more rows."""
        by = output_fields(matching.schema, [request.group_by])[0]
        groups = -(-request.k // request.group_size)
        farthest = max(request.k, min(TOPK_MAX, RESULT_ENTRIES_MAX // len(request.queries)))
        k = min(request.k * WIDEN, farthest)
        while True:
            merged = await self._best(matching, field, request, k, inline)
            whole = await self._in_pool(
                lambda m=merged: reply(m, matching.parts, matching.schema, [*fields, by]), request
            )
            chosen, found = best_of_groups(whole.counts, whole.rows.columns[by.name], groups, request.group_size)
            if k == farthest or ((whole.counts < k) | (found == groups)).all():
                return pick(whole, chosen, fields, by)
            k = min(k * WIDEN, farthest)

    async def _in_pool(self, work: Callable[[], T], request: Read) -> T:
        def run() -> T:
            if time.monotonic() > request.deadline:
                raise Timeout("deadline passed while waiting for a search thread")
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _readable(shard: ShardState, partitions: tuple[PartitionId, ...]) -> tuple[PartitionId, ...]:
    readable = shard.readable(partitions)
    if not readable:
        raise PartitionNotLoaded(f"partition not loaded[collection={shard.collection.name}][partitions={partitions}]")
    return readable
