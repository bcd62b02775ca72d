"""Pages of search iterators.

All pages of an iterator read at one cut. A V2 page continues strictly behind the score at which the
last one ended, so it must not end between two rows of equal score: it is extended through them.
Each V2 page, the first too, names a near bound: the shards then answer all of them by the same plan,
and a row has the same score on every page.
"""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from core.errors import InvalidArgument, TooLarge
from core.limits import TOPK_MAX
from proxy.consistency import BOUNDED_TS
from proxy.search_merge import Hits, head
from proxy.search_plan import SearchPlan
from proxy.snapshots import Snapshots

Best = Callable[[int, int, float | None], Awaitable[Hits]]
"""(snapshot_ts, k, near bound) -> the k best rows behind the bound."""

TOKEN = re.compile(r"[0-9a-f]{32}")

AHEAD = 16
"""Rows asked for beyond a page to see where its last score ends."""


@dataclass(frozen=True, slots=True)
class Page:
    """token and last_bound: what a V2 client sends with the next request; token "" for V1."""

    hits: Hits
    snapshot_ts: int
    token: str = ""
    last_bound: float = 0.0


async def read_page(plan: SearchPlan, nq: int, guarantee_ts: int, snapshots: Snapshots, best: Best) -> Page:
    """guarantee_ts: the cut of the iterator's first page; a level (see ``consistency``) = this is the first."""
    if nq != 1:
        raise InvalidArgument(f"Not support search iteration over multiple vectors at present, got nq {nq}")
    _check_token(plan.token, guarantee_ts)
    snapshot_ts = guarantee_ts if guarantee_ts > BOUNDED_TS else await snapshots.cut(plan.collection)
    if not plan.page_size:
        return Page(await best(snapshot_ts, plan.k, plan.near), snapshot_ts)
    near = behind(plan.last_bound, plan.near, plan.metric.larger_is_better)
    hits = await _whole_scores(plan.page_size, lambda k: best(snapshot_ts, k, near))
    last_bound = float(hits.scores[-1]) if len(hits.scores) else (plan.last_bound or 0.0)
    return Page(hits, snapshot_ts, plan.token or secrets.token_hex(16), last_bound)


def _check_token(token: str, guarantee_ts: int) -> None:
    """A token says "one of my later pages", so the cut of the first must come with it."""
    if token and not (TOKEN.fullmatch(token) and guarantee_ts > BOUNDED_TS):
        raise InvalidArgument(f"search iterator v2: the token {token:.64} with time stamp {guarantee_ts} is not valid")


def behind(bound: float | None, near: float | None, larger_is_better: bool) -> float:
    """The near bound of a page: included, so the float32 just worse than where the last page ended."""
    worst, best = (-np.inf, np.inf) if larger_is_better else (np.inf, -np.inf)
    if bound is None:
        return float(best) if near is None else near
    with np.errstate(over="ignore"):
        strict = float(np.nextafter(np.float32(bound), np.float32(worst)))
    if near is None:
        return strict
    return min(near, strict) if larger_is_better else max(near, strict)


async def _whole_scores(size: int, best: Callable[[int], Awaitable[Hits]]) -> Hits:
    """At least ``size`` rows if there are as many, and no row left behind with the last one's score."""
    ahead = AHEAD
    while True:
        k = min(size + ahead, TOPK_MAX)
        hits = await best(k)
        scores = hits.scores
        others = np.flatnonzero(scores[size:] != scores[size - 1]) if len(scores) > size else np.empty(0, np.int64)
        if len(others):
            return head(hits, size + int(others[0]))
        if len(scores) < k:
            return hits
        if k == TOPK_MAX:
            raise TooLarge(
                f"more than {TOPK_MAX} rows have the score {scores[-1]}: an iterator can't page through them"
            )
        ahead *= 8
