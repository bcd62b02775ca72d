"""The Search RPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from core.catalog import Collection, Consistency
from core.errors import InvalidArgument, TooLarge
from core.limits import RESULT_ENTRIES_MAX
from core.types import TYPES, DataType
from proxy import consistency, search_plan
from proxy.call import Call, Group, GroupHandlers, Handlers, PromptHandlers
from proxy.definitions import Definitions
from proxy.filters import CHARACTER_BYTES
from proxy.query_vectors import check_nq, read_vectors
from proxy.reads import Shards
from proxy.search_ask import Scope, shard_request
from proxy.search_known import Alike, KnownSearches
from proxy.search_merge import Hits, merge
from proxy.search_pages import Best, Page, PageEnds, read_page
from proxy.search_plan import SearchPlan
from proxy.search_prompt import PromptSearches
from proxy.search_reply import glue, write_each, write_reply
from proxy.snapshots import Snapshots
from proxy.threads import Threads
from rpc.reads import QueryReply, QueryRequest, SearchReply
from rpc.roles import QueryNode

PLANS_MAX = 1024
PLAN_KEY_BYTES_MAX = 4096
"""Bounds of the plan cache: requests with long filters or id lists are planned anew each time."""

ENTRY_BYTES = 24
"""What an id and a score cost in a reply, with the Python objects made on the way."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says. queries: None = the vectors of stored rows, named by ``request.ids``."""

    plan: SearchPlan
    level: Consistency
    guarantee_ts: int
    queries: np.ndarray | None


class Search:
    def __init__(
        self, definitions: Definitions, shards: Shards, snapshots: Snapshots, threads: Threads, *, in_process: bool
    ) -> None:
        """in_process: as for ``Proxy``."""
        self._definitions = definitions
        self._catalog = definitions.catalog
        self._shards = shards
        self._snapshots = snapshots
        self._threads = threads
        self._known = KnownSearches(self._catalog)
        self._prompt = PromptSearches(self._known, shards, in_process)
        self._in_process = in_process
        self._ends = PageEnds()
        self._plans: dict[bytes, SearchPlan] = {}

    def handlers(self) -> Handlers:
        return {"Search": self.search}

    def prompt_handlers(self) -> PromptHandlers:
        return {"Search": self._prompt.answer}

    def group_handlers(self) -> GroupHandlers:
        """Where searches go to other processes, those alike go as one from here on."""
        return {} if self._in_process else {"Search": self._groups}

    async def search(self, request: Any, call: Call) -> Any:
        asked = await self._threads.run(len(request.dsl) * CHARACTER_BYTES, self._read, request, call)
        return await self._definitions.as_read(
            asked.plan.collection, asked.level, lambda: self._answer(asked, request, call)
        )

    async def _answer(self, asked: Asked, request: Any, call: Call) -> Any:
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
            page = await read_page(plan, len(queries), asked.guarantee_ts, self._snapshots, self._ends, best)
            return await self._reply(plan, len(queries), page.hits, page)
        self._known.remember(plan, asked.level, queries, call)
        replies = await self._ask(plan, queries, Scope(asked.level, 0, plan.k, plan.near), call)
        return await self._reply(plan, len(queries), glue(plan, replies), None)

    def _groups(self, calls: Sequence[Call]) -> list[Group]:
        known = self._known.alike(calls)
        return [Group(a.numbers, partial(self._together, a, [calls[n] for n in a.numbers])) for a in known]

    async def _together(self, alike: Alike, calls: Sequence[Call]) -> list[Any]:
        plan, longest = alike.plan, max(calls, key=lambda call: call.deadline)
        scope = Scope(alike.level, 0, plan.k, plan.near)
        replies = await self._ask(plan, alike.queries(), scope, longest, alike.sizes)
        return await self._threads.run(sum(map(_bytes, replies)), write_each, plan, replies, alike.sizes)

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
    async def _ask(
        self, plan: SearchPlan, queries: np.ndarray, scope: Scope, call: Call, sizes: tuple[int, ...] = ()
    ) -> list[SearchReply]:
        def ask(node: QueryNode, shard: int) -> Any:
            return node.search(shard_request(plan, queries, scope, call.deadline, shard=shard, sizes=sizes))

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
        return await self._threads.run(_bytes(hits), write_reply, plan, nq, hits, page)


def _bytes(found: Hits | SearchReply) -> int:
    return ENTRY_BYTES * len(found.scores) + sum(c.nbytes for c in found.rows.columns.values())
