"""A search with everything settled but its vectors, over one view: what a thread besides the event loop runs.

Made and used by any thread: it only reads what never changes. A view's parts are made by the event loop,
so a view nobody has asked for yet has no prepared searches.
"""

import time
from collections.abc import Sequence

import numpy as np

from core.schema import Field, Schema
from engine.segment import estimate_cost
from engine.vector.metric import Metric
from querynode.best import Merged, best_of
from querynode.gather import gather
from querynode.search import prepare_part
from querynode.shard import ShardState
from querynode.view import Part, View
from rpc.reads import SearchReply, SearchRequest


class PreparedSearch:
    """Implements ``rpc.reads.PreparedSearch``: all rows of some partitions, for as long as ``view`` is
    the newest of its shard.

    inline_cost: estimated multiply-adds up to which it answers. staleness_s: how long ago the shard
    may have been known to be at the end of the log.
    """

    def __init__(  # noqa: PLR0917 -- all that a search would find out each time
        self,
        shard: ShardState,
        view: View,
        parts: Sequence[Part],
        field: Field,
        fields: Sequence[Field],
        request: SearchRequest,
        inline_cost: int,
        staleness_s: float,
    ) -> None:
        self._shard, self._view, self._parts = shard, view, parts
        self._schema: Schema = shard.collection.schema
        self._fields, self._staleness_s = fields, staleness_s
        self._metric, self._k, self._numbers = Metric(request.metric), request.k, range(len(parts))
        self._searches = [prepare_part(p.data, field, request, request.k, p.visible) for p in parts]
        cost = sum(estimate_cost(p.data, field, 1, request.k, request.params) for p in parts)
        self.queries_max = inline_cost // max(cost, 1)

    def keep(self) -> None:
        self._view.keep(self)

    @property
    def holds(self) -> bool:
        shard = self._shard
        return (
            shard.made_view is self._view
            and not shard.released
            and time.monotonic() - shard.consumed.at_end_s <= self._staleness_s
        )

    def search(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> SearchReply:
        found = [search(queries, sizes) for search in self._searches]
        merged = Merged(best_of(found, self._numbers, self._k, self._metric))
        rows = gather(self._parts, merged.part_of, merged.rows, self._schema, self._fields)
        return SearchReply(merged.counts, merged.scores, rows)
