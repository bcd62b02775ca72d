"""Paging through a search whose rows have a slightly other score each time they are asked for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from proxy import search_pages
from proxy.search_merge import Hits
from proxy.search_pages import Page, PageEnds, read_page
from rpc.reads import Rows

ROWS = 3_000
CUT = 1 << 40


class Shaky:
    """A shard of rows with scores from 0 to 1, each off by up to ``off`` in every answer."""

    def __init__(self, keys: pa.Array, larger: bool, off: float, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._keys, self._larger, self._off = keys, larger, off
        self._scores = np.sort(self._rng.random(ROWS))
        self.asked = 0

    async def best(self, _snapshot_ts: int, k: int, near: float | None) -> Hits:
        assert near is not None
        self.asked += 1
        scores = (self._scores + self._rng.uniform(-self._off, self._off, ROWS)).astype(np.float32)
        sign = -1 if self._larger else 1
        behind = np.flatnonzero(sign * scores >= sign * near)
        chosen = behind[np.argsort(sign * scores[behind], kind="stable")][:k]
        rows = Rows(self._keys.take(pa.array(chosen)), {})
        return Hits(np.array([len(chosen)]), scores[chosen], rows, None)


async def page(shard: Shaky, ends: PageEnds, larger: bool, size: int, last: Page | None) -> Page:
    plan: Any = SimpleNamespace(
        token=last.token if last else "",
        last_bound=last.last_bound if last else None,
        page_size=size,
        near=None,
        metric=SimpleNamespace(larger_is_better=larger),
        collection=None,
    )
    return await read_page(plan, 1, CUT, None, ends, shard.best)


async def all_pages(shard: Shaky, ends: PageEnds, larger: bool, size: int, *, twice: bool = False) -> list[Any]:
    found: list[Any] = []
    last: Page | None = None
    while True:
        if twice:  # an answer that was lost, and was asked for again
            await page(shard, ends, larger, size, last)
        last = await page(shard, ends, larger, size, last)
        if not len(last.hits.scores):
            return found
        found += last.hits.rows.pks.to_pylist()


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("keys", [pa.array(range(ROWS)), pa.array([f"key {i}" for i in range(ROWS)])])
@pytest.mark.parametrize("size", [7, 300])
async def test_every_row_comes_once(larger: bool, keys: pa.Array, size: int) -> None:
    shard = Shaky(keys, larger, 2e-3, size)
    found = await all_pages(shard, PageEnds(), larger, size, twice=True)
    assert sorted(found) == sorted(keys.to_pylist())


async def test_without_the_ends_rows_come_twice_or_never() -> None:
    """What the test above would show if nothing were remembered."""
    found = await all_pages(Shaky(pa.array(range(ROWS)), True, 2e-3, 1), Forgetful(), True, 50)
    assert sorted(found) != list(range(ROWS))


class Forgetful(PageEnds):
    def remember(self, *_: Any) -> None:
        pass


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_pages, "ENDS_MAX", 3)
    ends = PageEnds()
    shard = Shaky(pa.array(range(ROWS)), True, 0.0, 1)
    found = await all_pages(shard, ends, True, 100)
    assert sorted(found) == list(range(ROWS))
    assert len(ends) <= 3
    long = Shaky(pa.array([f"{i:0500}" for i in range(ROWS)]), True, 0.0, 1)
    assert len(set(await all_pages(long, ends, True, 100))) == ROWS
    assert len(ends) <= 3
