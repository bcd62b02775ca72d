"""The Search RPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.catalog import Collection, Consistency
from core.errors import InvalidArgument, SheafError, TooLarge
from core.limits import RESULT_ENTRIES_MAX
from core.types import TYPES, DataType
from proxy import consistency, search_plan
from proxy.call import Call, Handlers, PromptHandlers
from proxy.filters import CHARACTER_BYTES
from proxy.query_vectors import check_nq, read_vectors
from proxy.reads import Shards
from proxy.rows_out import write_column, write_floats, write_ids
from proxy.search_merge import Hits, merge, merge_groups
from proxy.search_pages import Best, Page, read_page
from proxy.search_plan import SearchPlan
from proxy.search_prompt import PromptSearches
from proxy.snapshots import Snapshots
from proxy.threads import Threads
from proxy.wire import milvus, schema
from rpc.reads import QueryReply, QueryRequest, SearchReply, SearchRequest
from rpc.roles import QueryNode
from storage.catalog import Catalog

PLANS_MAX = 1024
PLAN_KEY_BYTES_MAX = 4096
"""Bounds of the plan cache: requests with long filters or id lists are planned anew each time."""

NO_QUERIES = np.empty((0, 0), np.float32)
PROMPT_LEVELS = frozenset({Consistency.BOUNDED, Consistency.EVENTUALLY})
"""Levels that most often need no wait. At once both are read as the stricter one, Bounded."""

ENTRY_BYTES = 24
"""What an id and a score cost in a reply, with the Python objects made on the way."""
SCORES: int = schema.SearchResultData.DESCRIPTOR.fields_by_name["scores"].number


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a search that differs between the pages of an iterator."""

    level: Consistency
    snapshot_ts: int
    k: int
    near: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says. queries: None = the vectors of stored rows, named by ``request.ids``."""

    plan: SearchPlan
    level: Consistency
    guarantee_ts: int
    queries: np.ndarray | None


class Search:
    def __init__(self, catalog: Catalog, shards: Shards, snapshots: Snapshots, threads: Threads) -> None:
        self._catalog = catalog
        self._shards = shards
        self._snapshots = snapshots
        self._threads = threads
        self._prompt = PromptSearches(shards)
        self._plans: dict[bytes, SearchPlan] = {}

    def handlers(self) -> Handlers:
        return {"Search": self.search}

    def prompt_handlers(self) -> PromptHandlers:
        return {"Search": self.search_at_once}

    async def search(self, request: Any, call: Call) -> Any:
        asked = await self._threads.run(len(request.dsl) * CHARACTER_BYTES, self._read, request, call)
        plan, queries = asked.plan, asked.queries
        if queries is None:
            queries = await self._vectors_of(request.ids, plan, asked.level, call)
        if len(queries) * plan.k > RESULT_ENTRIES_MAX:
            raise TooLarge(
                f"number of result entries is too large: nq ({len(queries)}) x topk ({plan.k}), "
                f"should be at most {RESULT_ENTRIES_MAX}"
            )
        if plan.pages:
            best = self._best(plan, queries, call)
            page = await read_page(plan, len(queries), asked.guarantee_ts, self._snapshots, best)
            return await self._reply(plan, len(queries), page.hits, page)
        replies = await self._ask(plan, queries, Scope(asked.level, 0, plan.k, plan.near), call)
        return await self._reply(plan, len(queries), _glue(plan, replies), None)

    def search_at_once(self, requests: Sequence[tuple[Any, Call]]) -> Sequence[Any]:
        """As ``search`` in the thread that calls; None for a request that may wait or take long. Those
        that differ in their vectors only are searched together."""
        answers: list[Any] = [None] * len(requests)
        alike: dict[int, list[tuple[int, Asked, np.ndarray]]] = {}
        for number, (request, call) in enumerate(requests):
            if request.dsl:
                continue
            try:
                asked = self._read(request, call)
            except SheafError as e:
                answers[number] = e
                continue
            if asked.queries is not None and asked.level in PROMPT_LEVELS and not asked.plan.pages:
                alike.setdefault(id(asked.plan), []).append((number, asked, asked.queries))
        for group in alike.values():
            plan, call = group[0][1].plan, requests[group[0][0]][1]
            found = self._prompt.run(
                plan,
                lambda shard, plan=plan, call=call: _shard_request(
                    plan, NO_QUERIES, Scope(Consistency.BOUNDED, 0, plan.k, plan.near), call, shard
                ),
                [queries for _, _, queries in group],
            )
            for (number, _, queries), replies in zip(group, found, strict=True):
                if replies is not None:
                    answers[number] = write_reply(plan, len(queries), _glue(plan, replies), None)
        return answers

    def _read(self, request: Any, call: Call) -> Asked:
        """Takes the request apart; it loses the parts that its plan does not depend on."""
        collection = self._catalog.find(call.database(request), request.collection_name)
        vectors, guarantee_ts = request.placeholder_group, request.guarantee_timestamp
        plan = self._plan(request, collection)
        level = consistency.of_request(
            request.use_default_consistency, request.consistency_level, guarantee_ts, collection.consistency
        )
        queries = None if request.HasField("ids") else read_vectors(vectors, plan.field)
        return Asked(plan, level, guarantee_ts, queries)

    # --- planning -------------------------------------------------------------------------------
    def _plan(self, request: Any, collection: Collection) -> SearchPlan:
        """The plan of the request's shape: everything but the vectors and the session's time stamp."""
        request.ClearField("placeholder_group")
        request.ClearField("guarantee_timestamp")
        key = request.SerializeToString()
        plan = self._plans.get(key)
        # A collection value is replaced when anything about it changes, so identity is enough.
        if plan is None or plan.collection is not collection:
            plan = search_plan.make(request, collection)
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            if len(key) <= PLAN_KEY_BYTES_MAX:
                self._plans[key] = plan
        return plan

    # --- asking ---------------------------------------------------------------------------------
    async def _ask(self, plan: SearchPlan, queries: np.ndarray, scope: Scope, call: Call) -> list[SearchReply]:
        def ask(node: QueryNode, shard: int) -> Any:
            return node.search(_shard_request(plan, queries, scope, call, shard))

        return await self._shards.ask(plan.collection, call, ask)

    def _best(self, plan: SearchPlan, queries: np.ndarray, call: Call) -> Best:
        async def best(snapshot_ts: int, k: int, near: float | None) -> Hits:
            replies = await self._ask(plan, queries, Scope(Consistency.STRONG, snapshot_ts, k, near), call)
            return merge(replies, k, 0, plan.metric.larger_is_better)

        return best

    async def _vectors_of(self, ids: Any, plan: SearchPlan, level: Consistency, call: Call) -> np.ndarray:
        """The vectors of stored rows, in the order of the ids. Raises ``InvalidArgument`` for an unknown id."""
        primary = plan.collection.schema.primary
        wanted = ids.str_id.data[:] if primary.type is DataType.VARCHAR else ids.int_id.data[:]
        if not wanted:
            label = TYPES[primary.type].label
            raise InvalidArgument(f"search by ids needs ids of the primary key's type {label}")
        check_nq(len(wanted))

        def ask(node: QueryNode, shard: int) -> Any:
            return node.query(
                QueryRequest(
                    plan.collection.id,
                    shard,
                    plan.partitions,
                    f"{primary.name} in {{ids}}",
                    {"ids": list(dict.fromkeys(wanted))},
                    (plan.field.name,),
                    level,
                    deadline=call.deadline,
                )
            )

        replies: list[QueryReply] = await self._shards.ask(plan.collection, call, ask)
        found = [key for r in replies for key in r.rows.pks.to_pylist()]
        row_of = {key: row for row, key in enumerate(found)}
        if missing := [key for key in wanted if key not in row_of]:
            raise InvalidArgument(
                f"search by ids: {len(missing)} of the primary keys do not exist, first {missing[0]!r}"
            )
        column = pa.concat_arrays([r.rows.columns[plan.field.name] for r in replies])
        chosen = column.take(pa.array([row_of[key] for key in wanted], pa.int64()))
        if plan.field.type is DataType.BINARY_VECTOR:
            raw = b"".join(chosen.to_pylist())
            return np.frombuffer(raw, np.uint8).reshape(len(wanted), plan.field.dim // 8)
        return chosen.flatten().to_numpy(zero_copy_only=False).reshape(len(wanted), plan.field.dim)

    # --- answering ------------------------------------------------------------------------------
    async def _reply(self, plan: SearchPlan, nq: int, hits: Hits, page: Page | None) -> Any:
        size = ENTRY_BYTES * len(hits.scores) + sum(c.nbytes for c in hits.rows.columns.values())
        return await self._threads.run(size, write_reply, plan, nq, hits, page)


def _shard_request(plan: SearchPlan, queries: np.ndarray, scope: Scope, call: Call, shard: int) -> SearchRequest:
    return SearchRequest(
        plan.collection.id,
        shard,
        plan.partitions,
        plan.filter,
        plan.filter_params,
        plan.output.fetch,
        scope.level,
        scope.snapshot_ts,
        call.deadline,
        field_id=plan.field.id,
        queries=queries,
        metric=plan.metric,
        k=scope.k,
        params=plan.params,
        radius=plan.far,
        range_filter=scope.near,
        group_by=plan.group_by.name if plan.group_by else "",
        group_size=plan.group_size,
    )


def _glue(plan: SearchPlan, replies: list[SearchReply]) -> Hits:
    better = plan.metric.larger_is_better
    if plan.group_by:
        return merge_groups(replies, plan.limit, plan.offset, plan.group_size, better)
    return merge(replies, plan.limit, plan.offset, better)


def write_reply(plan: SearchPlan, nq: int, hits: Hits, page: Page | None) -> Any:
    scores = hits.scores
    if plan.round_decimal >= 0:
        scores = np.round(scores.astype(np.float64), plan.round_decimal)
    reply = milvus.SearchResults.FromString(plan.template)
    data = reply.results
    data.num_queries = nq
    data.topks.extend(hits.counts.tolist())
    data.all_search_count = len(scores)
    write_floats(scores, data, SCORES)
    write_ids(hits.rows.pks, data.ids)
    for field in plan.output.fields:
        column = hits.rows.pks if field.primary else hits.rows.columns[field.name]
        data.fields_data.append(write_column(field, column))
    if plan.group_by and hits.groups is not None:
        data.group_by_field_value.CopyFrom(write_column(plan.group_by, hits.groups))
    if page is not None:
        reply.session_ts = page.snapshot_ts
        if page.token:
            reply.results.search_iterator_v2_results.token = page.token
            reply.results.search_iterator_v2_results.last_bound = page.last_bound
    return reply
