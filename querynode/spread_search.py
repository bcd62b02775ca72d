"""A search of a spread shard with everything settled but its vectors, run by a thread that waits for the workers."""

import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from engine.vector.metric import Metric
from querynode.prepared import ViewSearch, is_newest
from querynode.reader import PREPARED_MAX, Reader, of_loaded, shape_of
from querynode.shard import ShardState
from querynode.shares import held_by, merge_best, places_of_parts, places_of_rows
from querynode.view import View
from rpc.reads import SearchReply, SearchRequest
from rpc.workers import PreparedShare, SearchShare


class _Share(NamedTuple):
    """A worker's. place: int64 [segments], those of its segments in the view's order."""

    search: PreparedShare
    place: np.ndarray


class SpreadSearch:
    """Implements ``rpc.reads.PreparedSearch``, over the newest view of its shard.

    The view holds it, and it must not hold the view, or nobody would tell the workers that they may let go of what
    nobody needs any more.
    """

    def __init__(
        self,
        shard: ShardState,
        view: View,
        request: SearchRequest,
        *,
        own: ViewSearch | None,
        shares: Sequence[_Share],
        staleness_s: float,
    ) -> None:
        """own: of what is held here; None = nothing is."""
        self._shard, self._view, self._own, self._shares = shard, weakref.ref(view), own, shares
        self._own_places = places_of_parts(own.parts if own else (), view)
        self._k, self._metric, self._staleness_s = request.k, Metric(request.metric), staleness_s

    @property
    def queries_max(self) -> int:
        return self._own.queries_max if self._own else sys.maxsize  # the workers say what is too long for them

    def keep(self) -> None:
        """The view does, since it was made."""

    @property
    def holds(self) -> bool:
        view = self._view()
        return (
            view is not None
            and is_newest(self._shard, view, self._staleness_s)
            and not view.lost
            and all(share.search.holds for share in self._shares)
        )

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchReply | None]:
        return partial(self._search, queries, sizes)

    def _search(self, queries: np.ndarray, sizes: Sequence[int]) -> SearchReply | None:
        started = [share.search.start(queries, sizes) for share in self._shares]
        try:
            own = self._own.found(queries, sizes) if self._own else None
        finally:
            replies = [finish() for finish in started]
        answers = [(own.reply, places_of_rows(own, self._own_places))] if own else []
        for reply, (_, place) in zip(replies, self._shares, strict=True):
            if reply is None:
                return None
            answers.append((reply.reply, place[reply.places]))
        return merge_best(answers, self._k, self._metric)


def prepare_spread(
    reader: Reader, shard: ShardState, view: View, request: SearchRequest, staleness_s: float
) -> SpreadSearch | None:
    """The search over this view, parts of which are held elsewhere. None when it has groups, or a part of it can't
    be had at once. Any thread."""
    if request.group_by or request.snapshot_ts or view.lost:
        return None
    request = of_loaded(shard, request)
    shape = shape_of(request)
    if shape is None:
        return None
    key = SpreadSearch, staleness_s, *shape
    search = view.searches.get(key)
    if search is None or not search.holds:
        parts = view.made_parts(request.partitions, None if request.filter else request.field_id)
        own = reader.made(shard.collection.schema, view, request) if parts else None
        if parts is None or (parts and own is None):
            return None
        shares = _shares(shard, view, request)
        if shares is None or not (own or shares):
            return None
        search = SpreadSearch(shard, view, request, own=own, shares=shares, staleness_s=staleness_s)
        if len(view.searches) >= PREPARED_MAX:
            view.searches.clear()
        view.searches[key] = search
    return search


def _shares(shard: ShardState, view: View, request: SearchRequest) -> list[_Share] | None:
    shares: list[_Share] = []
    for link, segments in held_by(view, request.partitions):
        share = SearchShare(link.session, link.after(shard.id), segments, view.frontier, request)
        search = link.worker.prepare_share(share)
        if search is None:
            return None
        shares.append(_Share(search, np.array([view.place[id] for id in segments])))
    return shares
