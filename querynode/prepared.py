"""A search with everything settled but its vectors, over one view: what the next ones of its shape run.

Made and used by any thread: it only reads what never changes. A view's parts are made by the event loop,
so other threads find nothing prepared over a view that nobody has asked for yet.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from core.schema import Field
from engine.vector.metric import Metric
from querynode.best import Merged, best_of
from querynode.matching import Matching
from querynode.search import FoundRows, PartSearch, prepare_part, reply, search_cost
from querynode.shard import ShardState
from querynode.view import Part, View
from rpc.reads import SearchReply, SearchRequest, is_short

KEPT_MAX = 16
"""Those kept that refer to one search: more than one at a time are rare."""
NO_QUERIES, ONE_QUERY = np.empty((0, 0), np.float32), np.empty((1, 0), np.float32)


class ViewSearch:
    """The matching rows of a view's parts, without reading a file. The masks of a filter are not held here, but in
    the cache they are kept in; what it lacks is computed again."""

    def __init__(
        self, matching: Matching, field: Field, fields: Sequence[Field], request: SearchRequest, inline_cost: int
    ) -> None:
        """inline_cost: as for ``querynode.reader.Reader``."""
        self._matching, self._field, self._fields = matching, field, fields
        self._request = replace(request, queries=NO_QUERIES)
        self._metric = Metric(request.metric)
        self._inline_cost = inline_cost
        self._prepared: deque[object] = deque(maxlen=KEPT_MAX)
        self._cost = max(search_cost(matching, field, replace(request, queries=ONE_QUERY)) - matching.cost(), 1)

    def keep(self, prepared: object) -> None:
        """Holds what refers to it, the last few, for as long as it lives itself: others only refer to that weakly,
        or they would hold an outdated view."""
        self._prepared.append(prepared)

    @property
    def queries_max(self) -> int:
        """As in ``rpc.reads.PreparedSearch``."""
        return max(self._inline_cost - self._matching.cost(), 0) // self._cost

    @property
    def parts(self) -> Sequence[Part]:
        """Those of what it finds."""
        return self._matching.parts

    def short(self, request: SearchRequest) -> bool:
        """Whether it may run on the event loop."""
        return is_short(len(request.queries), len(request.sizes), self.queries_max)

    def found(self, queries: np.ndarray, sizes: Sequence[int]) -> FoundRows:
        """sizes: as in ``SearchRequest``."""
        matching = self._matching
        searches = self._of_all if matching.filter is None else map(self._prepare, matching.numbers)
        found = [search(queries, sizes) for search in searches]
        merged = Merged(best_of(found, matching.numbers, self._request.k, self._metric))
        rows = reply(merged, matching.parts, matching.schema, self._fields)
        return FoundRows(rows, matching.parts, merged.part_of)

    @cached_property
    def _of_all(self) -> list[PartSearch]:
        return [self._prepare(number) for number in self._matching.numbers]

    def _prepare(self, number: int) -> PartSearch:
        matching, request = self._matching, self._request
        return prepare_part(matching.parts[number].data, self._field, request, request.k, matching.mask(number))


def is_newest(shard: ShardState, view: View | None, staleness_s: float) -> bool:
    """Whether the view is the newest of its shard, which was known to be at the end of the log so lately."""
    return (
        view is not None
        and shard.made_view is view
        and not shard.released
        and time.monotonic() - shard.consumed.at_end_s <= staleness_s
    )


class PreparedSearch:
    """Implements ``rpc.reads.PreparedSearch``: rows of some partitions, for as long as ``view`` is the newest of
    its shard, and its filter's masks are there. staleness_s: how long ago the shard may have been known to be at
    the end of the log."""

    def __init__(self, shard: ShardState, view: View, search: ViewSearch, staleness_s: float) -> None:
        self._shard, self._view, self._search, self._staleness_s = shard, view, search, staleness_s

    @property
    def queries_max(self) -> int:
        return self._search.queries_max

    def keep(self) -> None:
        self._search.keep(self)

    @property
    def holds(self) -> bool:
        return is_newest(self._shard, self._view, self._staleness_s) and self.queries_max > 0

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchReply]:
        return lambda: self._search.found(queries, sizes).reply
