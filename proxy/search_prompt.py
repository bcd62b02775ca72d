"""Searches answered at once: run where they arrive, several as one, over views their shards' leaders prepared.

Only those whose like was answered before, the general way: what is done here is what remains to do
when everything but the vector is known.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from core.catalog import Consistency
from core.errors import InvalidArgument
from proxy.call import Call
from proxy.query_vectors import as_matrix
from proxy.reads import Shards
from proxy.search_ask import Scope, shard_request
from proxy.search_plan import SearchPlan
from proxy.search_reply import glue, write_reply
from proxy.search_shapes import Shapes
from rpc.gathering import split
from rpc.newest import Newest
from rpc.reads import PreparedSearch
from storage.catalog import Catalog

ENTRIES_MAX = 4096
"""Entries of an answer up to which it is worth trying at once."""
LEVELS = frozenset({Consistency.BOUNDED, Consistency.EVENTUALLY})
"""Levels that most often need no wait. At once both are read as the stricter one, Bounded."""

NO_QUERIES = np.empty((0, 0), np.float32)


class PromptSearches:
    """Searches with one vector and without a filter. Any thread may use it."""

    def __init__(self, catalog: Catalog, shards: Shards) -> None:
        self._catalog = catalog
        self._shards = shards
        self._shapes = Shapes()

    def remember(self, plan: SearchPlan, level: Consistency, queries: np.ndarray, call: Call) -> None:
        """Takes note of a request that is being answered the general way: the next like it may be at once."""
        if len(queries) == 1 and level in LEVELS and not plan.filter and plan.k <= ENTRIES_MAX:
            self._shapes.remember(call.message, call.named_database, queries.tobytes(), plan)

    def answer(self, calls: Sequence[Call]) -> Sequence[Any]:
        """The replies, in the thread that calls; None for a request that is not known, may wait or take
        long. Those that differ in their vectors only are searched together."""
        answers: list[Any] = [None] * len(calls)
        alike: dict[int, tuple[SearchPlan, list[int], list[np.ndarray]]] = {}
        for number, call in enumerate(calls):
            found = self._shapes.find(call.message, call.named_database)
            if found is None:
                continue
            plan, vector = found
            try:
                queries = as_matrix(vector, 1, plan.field)
            except InvalidArgument:
                continue  # said where it is said to all
            group = alike.get(id(plan))
            if group is None:
                group = alike[id(plan)] = plan, [], []
            group[1].append(number)
            group[2].append(queries)
        for plan, numbers, batch in alike.values():
            prepared = self._prepared(plan)
            if not prepared:
                continue
            queries, sizes = (batch[0], ()) if len(batch) == 1 else (np.concatenate(batch), (1,) * len(batch))
            by_shard = [split(p.search(queries, sizes), sizes) for p in prepared]
            for number, replies in zip(numbers, zip(*by_shard, strict=True), strict=True):
                answers[number] = write_reply(plan, 1, glue(plan, list(replies)))
        return answers

    def _prepared(self, plan: SearchPlan) -> list[PreparedSearch]:
        """The plan's search over the newest view of each shard; nothing when one can't be had."""
        # A collection value is replaced when anything about it changes, so identity is enough.
        if self._catalog.get(plan.collection.id) is not plan.collection:
            return []
        if not plan.newest:
            scope = Scope(Consistency.BOUNDED, 0, plan.k, plan.near)
            plan.newest[:] = [
                Newest(node, partial(shard_request, plan, NO_QUERIES, scope, shard=shard))
                for shard, node in enumerate(self._shards.leaders(plan.collection) or ())
            ]
        prepared = [p for newest in plan.newest if (p := newest.find()) is not None]
        if len(prepared) < len(plan.newest):
            plan.newest.clear()  # of a node that led the shard, perhaps
            return []
        return prepared
