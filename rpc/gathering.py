"""Searches that differ in their vectors only and wait for the same node go to it as one request.

One is sent at once when no other of its kind is under way. Those that come meanwhile gather, and go when it
is answered, or after ``HELD_S`` if it takes longer. So the busier a node, the more searches share one call
of its index, and the messages and arrays around it: most of what a short search costs is spent per call.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.errors import Timeout
from rpc.batching import LONGEST_S
from rpc.reads import Rows, SearchReply, SearchRequest

REQUESTS_MAX = 16
QUERIES_MAX = 4
"""Requests that go as one; how many queries each may have: longer ones gain nothing."""
HELD_S = 0.005
"""How long one that is under way holds back the next ones."""

Send = Callable[[SearchRequest], Awaitable[SearchReply]]


def goes_with_others(request: SearchRequest) -> bool:
    """Short ones whose queries are searched independently of each other. One by filter may be a scan that
    all its queries share, one by range or groups looks further where one of its queries needs it."""
    return len(request.queries) <= QUERIES_MAX and not (
        request.filter
        or request.group_by
        or request.snapshot_ts
        or request.radius is not None
        or request.range_filter is not None
    )


class _Waiting(NamedTuple):
    request: SearchRequest
    answer: "asyncio.Future[SearchReply]"


class Gathering:
    """The searches of one shape that wait for one node. on_idle: called when none does any more."""

    def __init__(self, send: Send, on_idle: Callable[[], object]) -> None:
        self._send, self._on_idle = send, on_idle
        self._waiting: deque[_Waiting] = deque()
        self._under_way: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._soon: asyncio.Handle | None = None

    async def search(self, request: SearchRequest) -> SearchReply:
        """As ``QueryNode.search``."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        if self._soon is None:
            # At the end of this turn of the event loop: others that just arrived are about to ask, too.
            self._soon = loop.call_later(HELD_S, self._go) if self._under_way else loop.call_soon(self._go)
        left_s = min(max(request.deadline - time.monotonic(), 0.0), LONGEST_S)
        timer = loop.call_later(left_s, _expire, waiting)
        try:
            return await waiting.answer
        except BaseException:
            self._drop_unwanted()
            raise
        finally:
            timer.cancel()

    def _go(self) -> None:
        if self._soon:
            self._soon.cancel()
            self._soon = None
        while self._waiting:
            together = [self._waiting.popleft() for _ in range(min(REQUESTS_MAX, len(self._waiting)))]
            if together := [w for w in together if not w.answer.done()]:
                task = asyncio.create_task(self._ask(together))
                self._under_way[task] = together
                task.add_done_callback(self._ended)
        if not self._under_way:
            self._on_idle()

    async def _ask(self, together: list[_Waiting]) -> None:
        try:
            reply = await self._send(joined([w.request for w in together]))
            own = split(reply, [len(w.request.queries) for w in together])
        except Exception as e:
            for _, answer in together:
                if not answer.done():
                    answer.set_exception(e)
            return
        for (_, answer), reply in zip(together, own, strict=True):
            if not answer.done():
                answer.set_result(reply)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._under_way[task]
        if not self._under_way:
            self._go()

    def _drop_unwanted(self) -> None:
        for task, together in self._under_way.items():
            if all(w.answer.done() for w in together):
                task.cancel()


def _expire(waiting: _Waiting) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(Timeout("waited for the answer to a search"))


def joined(requests: Sequence[SearchRequest]) -> SearchRequest:
    """One request for the queries of all, which are alike but for them and their deadlines."""
    first = requests[0]
    if len(requests) == 1:
        return first
    queries = np.concatenate([r.queries for r in requests])
    sizes = tuple(len(r.queries) for r in requests)
    return replace(first, queries=queries, sizes=sizes, deadline=max(r.deadline for r in requests))


def split(reply: SearchReply, sizes: Sequence[int]) -> list[SearchReply]:
    """The answers to so many queries each; () = to one request."""
    if len(sizes) <= 1:
        return [reply]
    replies, query, row = [], 0, 0
    for size in sizes:
        counts = reply.counts[query : query + size]
        rows = int(counts.sum())
        columns = {name: c.slice(row, rows) for name, c in reply.rows.columns.items()}
        part = Rows(reply.rows.pks.slice(row, rows), columns)
        replies.append(SearchReply(counts, reply.scores[row : row + rows], part))
        query, row = query + size, row + rows
    return replies
