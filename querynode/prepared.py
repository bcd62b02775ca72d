"""A search with everything settled but its vectors, over one view: what the next ones of its shape run.

Made and used by any thread: it only reads what never changes. A view's parts are made by the event loop,
so other threads find nothing prepared over a view that nobody has asked for yet.
"""

import time
from collections.abc import Sequence

import numpy as np

from core.schema import Field, Schema
from engine.vector.metric import Metric
from querynode.best import Merged, best_of
from querynode.search import FoundRows, prepare_part, reply
from querynode.shard import ShardState
from querynode.view import Part, View
from rpc.reads import SearchReply, SearchRequest, inline_share


class ViewSearch:
    """All rows of some parts of a view, without reading a file. queries_max: as in ``rpc.reads.PreparedSearch``."""

    def __init__(  # noqa: PLR0917 -- all that a search would find out each time
        self,
        parts: Sequence[Part],
        schema: Schema,
        field: Field,
        fields: Sequence[Field],
        request: SearchRequest,
        queries_max: int,
    ) -> None:
        self._parts, self._schema, self._fields = parts, schema, fields
        self._metric, self._k, self._numbers = Metric(request.metric), request.k, range(len(parts))
        self._searches = [prepare_part(p.data, field, request, request.k, p.visible) for p in parts]
        self.queries_max = queries_max

    def short(self, request: SearchRequest) -> bool:
        """Whether it may run on the event loop."""
        return len(request.queries) <= self.queries_max * inline_share(len(request.sizes))

    def found(self, queries: np.ndarray, sizes: Sequence[int]) -> FoundRows:
        """sizes: as in ``SearchRequest``."""
        found = [search(queries, sizes) for search in self._searches]
        merged = Merged(best_of(found, self._numbers, self._k, self._metric))
        return FoundRows(reply(merged, self._parts, self._schema, self._fields), self._parts, merged.part_of)


class PreparedSearch:
    """Implements ``rpc.reads.PreparedSearch``: all rows of some partitions, for as long as ``view`` is
    the newest of its shard. staleness_s: how long ago the shard may have been known to be at the end of
    the log."""

    def __init__(self, shard: ShardState, view: View, search: ViewSearch, staleness_s: float) -> None:
        self._shard, self._view, self._search, self._staleness_s = shard, view, search, staleness_s
        self.queries_max = search.queries_max

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
        return self._search.found(queries, sizes).reply
