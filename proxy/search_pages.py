"""Pages of search iterators.

All pages of an iterator read at one cut. A V2 page continues strictly behind the score at which the
last one ended, so it must not end between two rows of equal score: it is extended through them.
Each V2 page, the first too, names a near bound: the shards then answer all of them by the same plan.

Still a row may have another score on the next page, by a rounding or what an index rounds its vectors
to: it was growing and is sealed, its index has come, another replica answers. So a proxy remembers the
rows that a page ended with: the next one looks again from among them on, and leaves them out.
"""

import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from core.errors import InvalidArgument, TooLarge
from core.limits import TOPK_MAX
from proxy.consistency import BOUNDED_TS
from proxy.search_merge import Hits, head, pick
from proxy.search_plan import SearchPlan
from proxy.snapshots import Snapshots

pc: Any = pyarrow.compute
"""Untyped: its stubs lack the generated functions."""

Best = Callable[[int, int, float | None], Awaitable[Hits]]
"""(snapshot_ts, k, near bound) -> the k best rows behind the bound."""

TOKEN = re.compile(r"[0-9a-f]{32}")

AHEAD = 16
"""Rows asked for beyond a page to see where its last score ends."""
REMEMBERED = 256
"""Rows of a page's end. The next page looks again from the middle of them on: neither a row before them nor
one after them has its place change by half as many, if it is by a rounding."""
ENDS_MAX = 1024
ENDS_BYTES_MAX = 16 * 1024
"""Bounds of what is remembered: pages, and bytes of each one's keys."""


@dataclass(frozen=True, slots=True)
class Page:
    """token and last_bound: what a V2 client sends with the next request; token "" for V1."""

    hits: Hits
    snapshot_ts: int
    token: str = ""
    last_bound: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """Where a page ended: the keys and scores of the last rows so far, and the score behind which the next page
    looks (None = all)."""

    keys: pa.Array
    scores: np.ndarray
    near: float | None


class PageEnds:
    """The ends of the latest pages, by token and last bound: a page may be asked for twice."""

    def __init__(self) -> None:
        self._ends: OrderedDict[tuple[str, np.float32], End] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ends)

    def find(self, token: str, bound: float | None) -> End | None:
        return None if bound is None else self._ends.get((token, np.float32(bound)))

    def remember(self, page: Page, last: End | None, last_bound: float | None) -> None:
        """last, last_bound: of the page before it; None = it is the first, or its end is not known."""
        keys, scores = page.hits.rows.pks, page.hits.scores
        if last is not None:
            keys, scores = pa.concat_arrays([last.keys, keys]), np.concatenate([last.scores, scores])
        near = last.near if last else last_bound
        if len(keys) > REMEMBERED:
            near = float(scores[-REMEMBERED // 2])
        # Copies: they are parts of the answers, which would be kept whole, vectors and all.
        kept = np.arange(max(0, len(keys) - REMEMBERED), len(keys))
        keys, scores = keys.take(pa.array(kept)), scores[kept]
        if keys.nbytes <= ENDS_BYTES_MAX:
            self._ends[page.token, np.float32(page.last_bound)] = End(keys, scores, near)
            if len(self._ends) > ENDS_MAX:
                self._ends.popitem(last=False)


async def read_page(  # noqa: PLR0917 -- a page is of a plan, at a cut, after another one
    plan: SearchPlan, nq: int, guarantee_ts: int, snapshots: Snapshots, ends: PageEnds, best: Best
) -> Page:
    """guarantee_ts: the cut of the iterator's first page; a level (see ``consistency``) = this is the first."""
    if nq != 1:
        raise InvalidArgument(f"Not support search iteration over multiple vectors at present, got nq {nq}")
    _check_token(plan.token, guarantee_ts)
    snapshot_ts = guarantee_ts if guarantee_ts > BOUNDED_TS else await snapshots.cut(plan.collection)
    if not plan.page_size:
        return Page(await best(snapshot_ts, plan.k, plan.near), snapshot_ts)
    last = ends.find(plan.token, plan.last_bound)
    near = behind(last.near if last else plan.last_bound, plan.near, plan.metric.larger_is_better)

    async def fresh(k: int) -> Hits:
        if last is None:
            return await best(snapshot_ts, k, near)
        hits = await best(snapshot_ts, k + len(last.keys), near)
        return pick(hits, ~np.asarray(pc.is_in(hits.rows.pks, value_set=last.keys)))

    hits = await _whole_scores(plan.page_size, fresh)
    last_bound = float(hits.scores[-1]) if len(hits.scores) else (plan.last_bound or 0.0)
    page = Page(hits, snapshot_ts, plan.token or secrets.token_hex(16), last_bound)
    ends.remember(page, last, plan.last_bound)
    return page


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
