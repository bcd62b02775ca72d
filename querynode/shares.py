"""Reads of a view that is spread over several nodes: every holder answers its share, the leader merges.

The answer is that of one node holding everything, row by row: each segment is searched on its own
wherever it is, and between equal scores the manifest's order of segments decides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from core.errors import SnapshotExpired, Unavailable
from core.ids import PartitionId, SegmentId
from engine.vector.metric import Metric
from querynode import keys as pk
from querynode.best import Best, Merged, flat
from querynode.gather import output_fields
from querynode.grouping import search_groups
from querynode.links import WorkerLink
from querynode.reader import Reader, of_loaded
from querynode.sealed import SealedSegment
from querynode.search import FoundRows
from querynode.shard import ShardState
from querynode.view import Part, View
from rpc.reads import QueryReply, QueryRequest, Read, Rows, SearchReply, SearchRequest
from rpc.workers import QueryShare, SearchShare, SearchShareReply

NOWHERE = np.iinfo(np.int32).max
"""Sorts after the place of every segment."""

T = TypeVar("T")
H = TypeVar("H")


class SpreadReader:
    """Answers reads as ``Reader`` does. Raises ``Unavailable`` when a holder is lost: another replica, or
    the next view of this one, can answer the whole."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def search(self, shard: ShardState, view: View, request: SearchRequest) -> SearchReply:
        request = of_loaded(shard, request)
        if not request.group_by:
            return await self._best(shard, view, request)
        schema = shard.collection.schema
        by = output_fields(schema, [request.group_by])[0]
        output = tuple(dict.fromkeys((*request.output, request.group_by)))
        plain = replace(request, group_by="", group_size=1, output=output)
        fields = output_fields(schema, request.output)
        return await search_groups(request, fields, by, lambda k: self._best(shard, view, replace(plain, k=k)))

    async def query(self, shard: ShardState, view: View, request: QueryRequest) -> QueryReply:
        request = of_loaded(shard, request)

        def ask(link: WorkerLink, segments: tuple[SegmentId, ...]) -> Awaitable[QueryReply]:
            return link.worker.query_share(
                QueryShare(link.session, link.after(shard.id), segments, view.frontier, request)
            )

        here = self._reader.matching_rows(shard.collection.schema, view, request)
        own, others = await _ask(shard, view, request, here, ask)
        return merge_rows([own, *(reply for _, reply in others)], request.limit)

    async def _best(self, shard: ShardState, view: View, request: SearchRequest) -> SearchReply:
        def ask(link: WorkerLink, segments: tuple[SegmentId, ...]) -> Awaitable[SearchShareReply]:
            return link.worker.search_share(
                SearchShare(link.session, link.after(shard.id), segments, view.frontier, request)
            )

        here = self._reader.found(shard.collection.schema, view, request)
        own, others = await _ask(shard, view, request, here, ask)
        answers = [(own.reply, places(own, view))]
        for segments, reply in others:
            answers.append((reply.reply, np.array([view.place[id] for id in segments])[reply.places]))
        return merge_best(answers, request.k, Metric(request.metric))


async def _ask(
    shard: ShardState,
    view: View,
    request: Read,
    here: Coroutine[Any, Any, H],
    ask: Callable[[WorkerLink, tuple[SegmentId, ...]], Awaitable[T]],
) -> tuple[H, list[tuple[tuple[SegmentId, ...], T]]]:
    """The answers of this node, and of all others with the segments they are about; or an error."""
    if lost := view.lost:
        here.close()
        # The hand-off under way may mend the view of an iterator.
        if request.snapshot_ts and not shard.view.lost:
            raise SnapshotExpired(f"a part of the iterator's view was lost with node {lost.link.node}; start it again")
        raise Unavailable(f"worker {lost.link.node} is lost: {lost.link.failure}")
    asked = held_by(view, request.partitions)
    calls: dict[asyncio.Future[T], WorkerLink] = {}
    try:
        for link, segments in asked:
            calls[link.begin(ask(link, segments))] = link
        await asyncio.sleep(0)  # they are on their way before this node does its own part
        own = await here
        under_way = set(calls)
        while under_way:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for call in done:  # the first that fails ends it all; a lost worker's is cancelled
                await calls[call].result(call)
    finally:
        here.close()
        for call in calls:
            call.cancel()
    return own, [(segments, call.result()) for (_, segments), call in zip(asked, calls, strict=True)]


def held_by(view: View, partitions: Container[PartitionId]) -> list[tuple[WorkerLink, tuple[SegmentId, ...]]]:
    """The workers, and the segments of these partitions that each holds."""
    held: dict[WorkerLink, list[SegmentId]] = {}
    for remote in view.remote:
        if remote.partition in partitions:
            held.setdefault(remote.link, []).append(remote.id)
    return [(link, tuple(segments)) for link, segments in held.items()]


def places(found: FoundRows, view: View) -> np.ndarray:
    """int32 [rows]: the place of each row's segment in the view's order; growing rows come after all."""
    return places_of_rows(found, places_of_parts(found.parts, view))


def places_of_parts(parts: Sequence[Part], view: View) -> np.ndarray:
    """The same of each part, int32 [parts]."""
    place, end = view.place, len(view.order)
    return np.array(
        [place[p.data.id] if isinstance(p.data, SealedSegment) else end + n for n, p in enumerate(parts)], np.int32
    )


def places_of_rows(found: FoundRows, of_part: np.ndarray) -> np.ndarray:
    """``places``, given those of the parts."""
    if found.part_of is None:
        return np.full(len(found.reply.scores), of_part[0] if len(of_part) else 0, np.int32)
    return of_part[found.part_of]


def merge_best(answers: Sequence[tuple[SearchReply, np.ndarray]], k: int, metric: Metric) -> SearchReply:
    """The ``k`` best rows of each query over all answers, each with the places of its rows' segments."""
    if len(answers[0][0].counts) == 1:
        return _merge_one(answers, k, metric)
    worst = -np.inf if metric.larger_is_better else np.inf
    first = np.cumsum([0, *(len(place) for _, place in answers)])
    wide = [
        (
            _wide(reply.scores, reply.counts, worst),
            _wide(place, reply.counts, NOWHERE),
            _wide(np.arange(start, start + len(place)), reply.counts, -1),
        )
        for (reply, place), start in zip(answers, first, strict=False)
    ]
    scores, order_of, rows = (np.concatenate(columns, axis=1) for columns in zip(*wide, strict=True))
    distance = -scores if metric.larger_is_better else scores
    at = flat(np.lexsort((order_of, distance))[:, :k], rows)
    merged = Merged(Best(scores.take(at), rows.take(at), None))
    return SearchReply(merged.counts, merged.scores, _take([reply.rows for reply, _ in answers], merged.rows))


def _merge_one(answers: Sequence[tuple[SearchReply, np.ndarray]], k: int, metric: Metric) -> SearchReply:
    """The same for one query: what the general way does beside the sorting takes longer than a short search's."""
    scores = np.concatenate([reply.scores for reply, _ in answers])
    order_of = np.concatenate([place for _, place in answers])
    at = np.lexsort((order_of, -scores if metric.larger_is_better else scores))[:k]
    return SearchReply(np.array([len(at)]), scores[at], _take([reply.rows for reply, _ in answers], at))


def _wide(flat: np.ndarray, counts: np.ndarray, nothing: float) -> np.ndarray:
    """The values query by query, [nq, largest count], and ``nothing`` where there is none."""
    shape = len(counts), counts.max(initial=0)
    if len(flat) == shape[0] * shape[1]:
        return flat.reshape(shape)
    wide = np.full(shape, nothing, flat.dtype)
    wide[np.arange(shape[1]) < counts[:, None]] = flat
    return wide


def merge_rows(replies: Sequence[QueryReply], limit: int | None) -> QueryReply:
    """The rows of all replies in key order, at most ``limit``."""
    rows = [r.rows for r in replies]
    if not any(len(r.pks) for r in rows):
        return QueryReply(sum(r.count for r in replies), rows[0])
    chosen = pk.order(pk.concat([pk.keys_of(r.pks) for r in rows]))[:limit]
    return QueryReply(len(chosen), _take(rows, chosen))


def _take(rows: Iterable[Rows], chosen: np.ndarray) -> Rows:
    every, index = list(rows), pa.array(chosen)

    def take(columns: Iterable[pa.Array]) -> pa.Array:
        return pa.concat_arrays(list(columns)).take(index)

    pks = pk.take(pk.concat([pk.keys_of(r.pks) for r in every]), chosen)
    return Rows(pk.to_arrow(pks), {n: take(r.columns[n] for r in every) for n in every[0].columns})
