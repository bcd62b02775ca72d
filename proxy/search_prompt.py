"""Searches answered at once: run where they arrive, several as one, over views their shards' leaders prepared.

Only those whose like was answered before, the general way: what is done here is what remains to do
when everything but the vector is known. All are read as Bounded, the stricter one of their levels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from core.catalog import Consistency
from core.errors import InvalidArgument
from proxy.call import Call
from proxy.query_vectors import as_matrix
from proxy.reads import Shards
from proxy.search_ask import Scope, shard_request
from proxy.search_known import KnownSearches
from proxy.search_plan import SearchPlan
from proxy.search_reply import write_each
from rpc.newest import Newest
from rpc.reads import PreparedSearch


class PromptSearches:
    """Any thread may use it."""

    def __init__(self, known: KnownSearches, shards: Shards, in_process: bool) -> None:
        """in_process: as for ``proxy.service.Proxy``. If not, a thread waits for what it asks."""
        self._known = known
        self._shards = shards
        self._in_process = in_process

    def answer(self, calls: Sequence[Call]) -> Sequence[Any]:
        """The replies, in the thread that calls; None for a request that is not known, may wait or take
        long. Those that differ in their vectors only are searched together."""
        answers: list[Any] = [None] * len(calls)
        groups = self._known.alike(calls)
        if not self._in_process and [len(alike.numbers) for alike in groups] != [len(calls)]:
            return answers  # the event loop asks about all of them at the same time
        for alike in groups:
            prepared = self._prepared(alike.plan)
            if not prepared:
                continue
            try:
                queries = alike.queries()
            except InvalidArgument:
                continue  # said where it is said to all
            started = [p.start(queries, alike.sizes) for p in prepared]
            replies = [r for finish in started if (r := finish()) is not None]
            if len(replies) < len(started):
                alike.plan.newest.clear()  # another node leads a shard, perhaps
                continue
            for number, answer in zip(alike.numbers, write_each(alike.plan, replies, alike.sizes), strict=True):
                answers[number] = answer
        return answers

    def _prepared(self, plan: SearchPlan) -> list[PreparedSearch]:
        """The plan's search over the newest view of each shard; nothing when one can't be had."""
        if not plan.newest:
            scope = Scope(Consistency.BOUNDED, 0, plan.k, plan.near)
            nothing = as_matrix(b"", 0, plan.field)
            plan.newest[:] = [
                Newest(partial(node.prepare, shard_request(plan, nothing, scope, shard=shard)))
                for shard, node in enumerate(self._shards.leaders(plan.collection) or ())
            ]
        prepared = [p for newest in plan.newest if (p := newest.find()) is not None]
        if len(prepared) < len(plan.newest):
            plan.newest.clear()  # of a node that led the shard, perhaps
            return []
        return prepared
