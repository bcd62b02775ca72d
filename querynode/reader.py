"""Reads over a pinned view: what runs on the event loop, what in the pool, what is kept between reads."""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from core.errors import FieldNotFound, PartitionNotLoaded, Timeout
from core.ids import FieldId, PartitionId
from core.schema import Field, Schema
from engine.vector.metric import Metric
from querynode.best import Best, Merged, best_of, best_of_runs
from querynode.cache import ByteCache
from querynode.gather import needs_reading, output_fields
from querynode.grouping import search_groups
from querynode.matching import Matching, compiled
from querynode.prepared import PreparedSearch, ViewSearch
from querynode.query import run_query
from querynode.search import FoundRows, cut, nothing, reply, search_cost, search_part, search_run
from querynode.shard import ShardState
from querynode.view import Part, View
from rpc.reads import QueryReply, QueryRequest, Read, SearchReply, SearchRequest, inline_share

MASK_BYTES = 32 * 1024 * 1024
"""Filters' masks kept between reads."""
RUNS_MAX = 16
"""Pieces of work a search is cut into: each holds an answer in memory, and nobody has more cores for one."""
PREPARED_MAX = 1024
"""Prepared searches of one view; and those with a filter of all views."""
FILTERED_PARTS_MAX = 256
"""Parts of a view over which a search with a filter is prepared: of more, it is not the way here that takes long."""
LONG_FILTER = 4096
"""Characters of a filter from which it is compiled in the pool: thousands of terms take tens of ms."""

T = TypeVar("T")
R = TypeVar("R", bound=Read)
Shape = tuple[Any, ...]
PartsOf = Callable[[tuple[PartitionId, ...], FieldId | None], list[Part] | None]
"""``View.parts`` on the event loop, ``View.made_parts`` anywhere."""


class Reader:
    """Answers reads. inline_cost: estimated multiply-adds up to which one runs on the event loop."""

    def __init__(self, threads: Executor, inline_cost: int) -> None:
        self._threads, self._inline_cost = threads, inline_cost
        self._masks: ByteCache[np.ndarray] = ByteCache(MASK_BYTES)
        self._filtered: deque[tuple[weakref.ref[View], Shape]] = deque()
        """What was prepared for searches with a filter, of all views together: most filters are asked once."""

    async def search(self, shard: ShardState, view: View, request: SearchRequest) -> SearchReply:
        if not request.group_by:
            return (await self.found(shard.collection.schema, view, of_loaded(shard, request))).reply
        schema = shard.collection.schema
        field, fields = _searched(schema, request), output_fields(schema, request.output)
        matching = await self._matching(schema, view, of_loaded(shard, request), None if request.filter else field.id)
        if not matching.numbers:
            return nothing(schema, fields, request)
        inline = search_cost(matching, field, request) <= self._inline_cost
        by = output_fields(schema, [request.group_by])[0]

        def finish(merged: Merged) -> SearchReply:
            return reply(merged, matching.parts, schema, [*fields, by])

        async def best(k: int) -> SearchReply:
            if not inline:
                return await self._best_in_pool(matching, field, request, k, finish)
            merged = self._best_at_once(matching, field, request, k)
            return await self._in_pool(lambda: finish(merged), request)

        return await search_groups(request, fields, by, best)

    def found_at_once(self, schema: Schema, view: View, request: SearchRequest) -> FoundRows | None:
        """As ``found``; None when it is long, or would read files. Call it on the event loop."""
        search = view.searches.get(shape_of(request)) or self._made(schema, view, request, view.parts)
        return search.found(request.queries, request.sizes) if search and search.short(request) else None

    async def found(self, schema: Schema, view: View, request: SearchRequest) -> FoundRows:
        """The best rows of the segments and growing rows held here, whatever their groups; of partitions
        that are loaded."""
        if found := self.found_at_once(schema, view, request):
            return found
        field, fields = _searched(schema, request), output_fields(schema, request.output)
        matching = await self._matching(schema, view, request, None if request.filter else field.id)
        parts = matching.parts
        if not matching.numbers:
            return FoundRows(nothing(schema, fields, request), parts, None)

        def finish(merged: Merged) -> FoundRows:
            return FoundRows(reply(merged, parts, schema, fields), parts, merged.part_of)

        if search_cost(matching, field, request) > self._inline_cost * inline_share(len(request.sizes)):
            return await self._best_in_pool(matching, field, request, request.k, finish)
        merged = self._best_at_once(matching, field, request, request.k)
        if fields and needs_reading(merged.used(parts), fields):
            return await self._in_pool(lambda: finish(merged), request)
        return finish(merged)

    def prepare(
        self, shard: ShardState, view: View, request: SearchRequest, staleness_s: float
    ) -> PreparedSearch | None:
        """The search prepared over this view; None when it has groups, is long, would read files, or needs what
        only the event loop may make."""
        if request.group_by or request.snapshot_ts:
            return None
        search = self.made(shard.collection.schema, view, of_loaded(shard, request))
        return PreparedSearch(shard, view, search, staleness_s) if search else None

    def made(self, schema: Schema, view: View, request: SearchRequest) -> ViewSearch | None:
        """One for all short searches of this shape over what is held here of the view, whatever their groups. Any
        thread may ask; None where only the event loop may make it, and as of ``prepare``."""
        search = view.searches.get(shape_of(request))
        if search is None and not request.filter:
            search = self._made(schema, view, request, view.made_parts)
        return search if search and search.queries_max else None

    def _made(self, schema: Schema, view: View, request: SearchRequest, parts_of: PartsOf) -> ViewSearch | None:
        """One for all searches of this shape over the view; None when its filter names keys or is none that others
        have, too, or it would read files. With a filter, call it on the event loop."""
        shape = shape_of(request)
        if shape is None:
            return None
        field, fields = _searched(schema, request), output_fields(schema, request.output)
        parts = parts_of(request.partitions, None if request.filter else field.id)
        if not parts or _reads(parts, field, fields) or (request.filter and len(parts) > FILTERED_PARTS_MAX):
            return None
        filter = compiled(request.filter, {}, schema)
        if filter is not None and filter.keys is not None:
            return None
        matching = Matching.over(view, parts, filter, schema, self._masks)
        if not matching.numbers:
            return None
        search = ViewSearch(matching, field, fields, request, self._inline_cost)
        if len(view.searches) >= PREPARED_MAX:
            view.searches.clear()
        view.searches[shape] = search
        if filter is not None:
            self._filtered.append((weakref.ref(view), shape))
            if len(self._filtered) > PREPARED_MAX:
                of, oldest = self._filtered.popleft()
                if (outdated := of()) is not None:
                    outdated.searches.pop(oldest, None)
        return search

    async def query(self, shard: ShardState, view: View, request: QueryRequest) -> QueryReply:
        return await self.matching_rows(shard.collection.schema, view, of_loaded(shard, request))

    async def matching_rows(self, schema: Schema, view: View, request: QueryRequest) -> QueryReply:
        """The rows of what is held here; of partitions that are loaded."""
        matching = await self._matching(schema, view, request)
        reading = needs_reading(matching.parts, output_fields(schema, request.output))
        if matching.cost() <= self._inline_cost and not reading:
            return run_query(matching, request)
        return await self._in_pool(lambda: run_query(matching, request), request)

    async def _matching(self, schema: Schema, view: View, request: Read, indexed: FieldId | None = None) -> Matching:
        if len(request.filter) > LONG_FILTER:
            filter = await self._in_pool(lambda: compiled(request.filter, request.filter_params, schema), request)
        else:
            filter = compiled(request.filter, request.filter_params, schema)
        parts = view.parts(request.partitions, indexed)
        return Matching.over(view, parts, filter, schema, self._masks)

    def _best_at_once(self, matching: Matching, field: Field, request: SearchRequest, k: int) -> Merged:
        found = [search_part(matching, n, field, request, k) for n in matching.numbers]
        return Merged(best_of(found, matching.numbers, k, Metric(request.metric)))

    async def _best_in_pool(
        self, matching: Matching, field: Field, request: SearchRequest, k: int, finish: Callable[[Merged], T]
    ) -> T:
        """``finish`` of the best rows. Each way to the pool and back costs as much as a short search: of a single
        run it is one."""
        metric = Metric(request.metric)

        def search(numbers: Sequence[int]) -> Best:
            return search_run(matching, numbers, field, request, k)

        def finished(runs: Sequence[Best]) -> T:
            return finish(Merged(best_of_runs(runs, k, metric)))

        numbers = cut(matching, RUNS_MAX)
        if len(numbers) == 1:
            return await self._in_pool(lambda: finished([search(numbers[0])]), request)
        runs = await asyncio.gather(*(self._in_pool(partial(search, run), request) for run in numbers))
        return await self._in_pool(lambda: finished(runs), request)

    async def _in_pool(self, work: Callable[[], T], request: Read) -> T:
        def run() -> T:
            if time.monotonic() > request.deadline:
                raise Timeout("deadline passed while waiting for a search thread")
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def shape_of(request: SearchRequest) -> Shape | None:
    """The same for searches that differ in their vectors only; None where hardly one is like another."""
    if request.filter_params or len(request.filter) > LONG_FILTER:
        return None
    return (
        request.partitions,
        request.filter,
        request.field_id,
        request.metric,
        request.k,
        request.output,
        request.radius,
        request.range_filter,
        *request.params.items(),
    )


def _reads(parts: Sequence[Part], field: Field, fields: Sequence[Field]) -> bool:
    """Whether a search of them has to read files."""
    return needs_reading(parts, fields) or any(not p.data.index(field) and not p.data.resident(field) for p in parts)


def _searched(schema: Schema, request: SearchRequest) -> Field:
    field = schema.by_id.get(request.field_id)
    if field is None:
        raise FieldNotFound(f"field {request.field_id} not exist")
    return field


def of_loaded(shard: ShardState, request: R) -> R:
    """The request, of those of its partitions that are loaded. Raises ``PartitionNotLoaded``."""
    partitions = readable(shard, request.partitions)
    return request if partitions is request.partitions else replace(request, partitions=partitions)


def readable(shard: ShardState, partitions: tuple[PartitionId, ...]) -> tuple[PartitionId, ...]:
    """Those that are loaded. Raises ``PartitionNotLoaded`` when none is."""
    readable = shard.readable(partitions)
    if not readable:
        raise PartitionNotLoaded(f"partition not loaded[collection={shard.collection.name}][partitions={partitions}]")
    return readable
