"""Searches answered at once: run where they arrive, several as one, over views their shards' leaders prepared."""

import weakref
from collections.abc import Callable, Sequence

import numpy as np

from proxy.reads import Shards
from proxy.search_plan import SearchPlan
from rpc.reads import PreparedSearch, SearchReply, SearchRequest

ENTRIES_MAX = 4096
"""Entries of an answer up to which it is worth trying at once."""


class PromptSearches:
    """What is prepared for each plan. Any thread may use it.

    The nodes hold what they prepared for as long as its view is the newest; here it is only referred to,
    so that a plan nobody uses any more keeps no outdated view alive.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def run(
        self, plan: SearchPlan, request: Callable[[int], SearchRequest], batch: Sequence[np.ndarray]
    ) -> list[list[SearchReply] | None]:
        """To the queries of each request the answers of all shards; None where it takes waiting or long.

        request: what a shard, by number, is asked, but for the queries.
        """
        nothing: list[list[SearchReply] | None] = [None] * len(batch)
        prepared = self._prepared(plan, request)
        if not prepared:
            return nothing
        most = min(ENTRIES_MAX // plan.k, *(p.queries_max for p in prepared))
        short = [n for n, queries in enumerate(batch) if len(queries) <= most]
        if not short:
            return nothing
        by_shard = [p.search([batch[n] for n in short]) for p in prepared]
        for n, replies in zip(short, zip(*by_shard, strict=True), strict=True):
            nothing[n] = list(replies)
        return nothing

    def _prepared(self, plan: SearchPlan, request: Callable[[int], SearchRequest]) -> list[PreparedSearch]:
        """The plan's search over the newest view of each shard; nothing when one can't be had."""
        held = [p for reference in plan.prepared if (p := reference()) is not None and p.holds]
        if held and len(held) == len(plan.prepared):
            return held
        nodes = self._shards.leaders(plan.collection) or []
        made = [p for shard, node in enumerate(nodes) if (p := node.prepare(request(shard))) is not None]
        if len(made) < len(nodes):
            made = []
        for prepared in made:
            prepared.keep()
        plan.prepared[:] = [weakref.ref(p) for p in made]
        return made
