"""Searches that differ in their vectors only and wait for the same node go to it as one request.

Those that come while one of their kind is under way gather, and go when it is answered, or after a moment if it takes
longer (``_held_s``). Whoever got an answer most often asks again soon: so the next ones wait for as many as were just
answered, up to as long as the answer took; where that was in vain, not again for a while. So the busier a node,
the more searches share one call of its index, and the messages and arrays around it: most of what a short search
costs is spent per call.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.errors import Timeout, TooLarge
from rpc.batching import LONGEST_S
from rpc.reads import Rows, SearchReply, SearchRequest

REQUESTS_MAX = 64
ROWS_MAX = 16 * 1024
"""Requests that go as one, and rows that their queries may be answered with."""
QUERIES_MAX = 4
K_MAX = 1024
"""How many queries each may have, and how many rows of each be asked for: longer ones gain nothing."""
SHORT_S = 0.002
"""What a request may take of its answer's time to count as short."""
HELD_SHORT_S, HELD_LONG_S = 0.02, 0.005
"""How long what is under way holds back the next ones, and how long those just answered are waited for at most. Many
short ones that take long together do so because the node is busy, and company is what helps."""
BACK = 0.75
"""Share of those just answered that has to come back for the wait to have been worth it."""
PAUSE_MAX = 64
"""Messages after which it is tried again at the latest, when it was in vain again and again."""

Send = Callable[[SearchRequest], Awaitable[SearchReply]]


def goes_with_others(request: SearchRequest) -> bool:
    """Short ones whose queries are searched independently of each other. One by filter may be a scan that
    all its queries share, one by range or groups looks further where one of its queries needs it."""
    return len(request.queries) <= QUERIES_MAX * requests_of(request) and not (
        request.k > K_MAX
        or request.filter
        or request.group_by
        or request.snapshot_ts
        or request.radius is not None
        or request.range_filter is not None
    )


def most_together(k: int) -> int:
    """Requests for so many rows that go as one."""
    return max(min(REQUESTS_MAX, ROWS_MAX // k), 1)


def requests_of(request: SearchRequest) -> int:
    """How many it was joined from."""
    return len(request.sizes) or 1


class _Waiting(NamedTuple):
    request: SearchRequest
    answer: "asyncio.Future[SearchReply]"


class _Return:
    """How long the next requests wait for those that were just answered to ask again."""

    def __init__(self) -> None:
        self._expected, self._until = 0, 0.0
        self._pause = self._paused = 0
        """How many times nobody waits after a wait in vain, and how many of them are left."""

    def begin(self, expected: int, longest_s: float) -> None:
        """Of so many requests all have been answered, or wait already."""
        if self._paused:
            self._paused -= 1
        else:
            self._expected, self._until = expected, time.monotonic() + longest_s

    def left_s(self, gathered: int) -> float:
        """Seconds that so many still wait for the others; 0 = they do not."""
        return max(self._until - time.monotonic(), 0.0) if gathered < self._expected else 0.0

    def over(self, gathered: int) -> None:
        """So many go."""
        if self._expected > 1:
            self._pause = min(2 * self._pause + 1, PAUSE_MAX) if gathered < BACK * self._expected else 0
            self._paused = self._pause
        self._expected = 0


class Gathering:
    """The searches of one shape that wait for one node, or have lately."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Waiting] = deque()
        self._under_way: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._soon: asyncio.Handle | None = None
        self._gathered = self._answered = 0
        """Requests that wait; and those answered since others went."""
        self._went, self._held_s = 0.0, HELD_LONG_S
        self._return = _Return()

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not (self._waiting or self._under_way)

    async def search(self, request: SearchRequest) -> SearchReply:
        """As ``QueryNode.search``."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        self._gathered += requests_of(request)
        if self._soon is None:
            self._soon = self._go_later(loop)
        elif not (self._under_way or self._return.left_s(self._gathered)):
            self._soon.cancel()
            self._soon = loop.call_soon(self._go)
        left_s = min(max(request.deadline - time.monotonic(), 0.0), LONGEST_S)
        timer = loop.call_later(left_s, _expire, waiting)
        try:
            return await waiting.answer
        except BaseException:
            self._drop_unwanted()
            raise
        finally:
            timer.cancel()

    def _go_later(self, loop: asyncio.AbstractEventLoop) -> asyncio.Handle:
        if self._under_way:
            return loop.call_later(self._held_s, self._go)
        if left_s := self._return.left_s(self._gathered):
            return loop.call_later(left_s, self._go)
        # At the end of this turn of the event loop: others that just arrived are about to ask, too.
        return loop.call_soon(self._go)

    def _go(self) -> None:
        if self._soon:
            self._soon.cancel()
            self._soon = None
        if not self._under_way:
            self._return.over(self._gathered)
        self._gathered = self._answered = 0
        self._went = time.monotonic()
        while together := self._next():
            task = asyncio.create_task(self._ask(together))
            self._under_way[task] = together
            task.add_done_callback(self._ended)

    def _next(self) -> list[_Waiting]:
        together: list[_Waiting] = []
        requests = 0
        most = most_together(self._waiting[0].request.k) if self._waiting else 0  # they are alike
        while self._waiting:
            requests += requests_of(self._waiting[0].request)
            if together and requests > most:
                break
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                requests -= requests_of(waiting.request)
            else:
                together.append(waiting)
        return together

    async def _ask(self, together: list[_Waiting]) -> None:
        try:
            reply = await self._send(joined([w.request for w in together]))
            own = split(reply, [len(w.request.queries) for w in together])
        except Exception as e:
            if isinstance(e, TooLarge) and len(together) > 1:
                await asyncio.gather(*(self._ask([waiting]) for waiting in together))
                return
            for _, answer in together:
                if not answer.done():
                    answer.set_exception(e)
            return
        for (_, answer), reply in zip(together, own, strict=True):
            if not answer.done():
                answer.set_result(reply)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._answered += sum(requests_of(w.request) for w in self._under_way.pop(task))
        if self._under_way:
            return
        took_s = time.monotonic() - self._went
        self._held_s = HELD_SHORT_S if took_s <= SHORT_S * self._answered else HELD_LONG_S
        self._return.begin(self._answered + self._gathered, min(took_s, self._held_s))
        if self._soon:
            self._soon.cancel()
            self._soon = self._go_later(asyncio.get_running_loop())

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
    sizes = tuple(size for r in requests for size in r.sizes or (len(r.queries),))
    return replace(first, queries=queries, sizes=sizes, deadline=max(r.deadline for r in requests))


def split(reply: SearchReply, sizes: Sequence[int]) -> list[SearchReply]:
    """The answers to so many queries each; () = to one request."""
    if len(sizes) <= 1:
        return [reply]
    replies, query, row = [], 0, 0
    counts = reply.counts.tolist()
    for size in sizes:
        rows = sum(counts[query : query + size])
        columns = {name: c.slice(row, rows) for name, c in reply.rows.columns.items()}
        part = Rows(reply.rows.pks.slice(row, rows), columns)
        replies.append(SearchReply(reply.counts[query : query + size], reply.scores[row : row + rows], part))
        query, row = query + size, row + rows
    return replies
