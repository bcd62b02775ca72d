"""Searches that are alike and wait for the same node go as one request, each with a fate of its own."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.errors import CollectionNotLoaded, Timeout, TooLarge
from core.ids import CollectionId, FieldId, PartitionId
from rpc import gathering
from rpc.gathering import Gathering, goes_with_others, joined, split
from rpc.reads import Rows, SearchReply, SearchRequest


def request(number: float, nq: int = 1, seconds: float = 10.0) -> SearchRequest:
    """A search whose queries say which one it is."""
    return SearchRequest(
        CollectionId(1),
        0,
        (PartitionId(1),),
        field_id=FieldId(100),
        queries=np.full((nq, 2), number, np.float32),
        metric="L2",
        k=10,
        deadline=time.monotonic() + seconds,
    )


def reply(queries: np.ndarray) -> SearchReply:
    """For each query as many rows as its number says, with that number as key."""
    numbers = queries[:, 0].astype(np.int64)
    keys = pa.array(np.repeat(numbers, numbers))
    return SearchReply(numbers, np.repeat(queries[:, 0], numbers), Rows(keys, {"n": keys}))


class Node:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked: list[SearchRequest] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None
        self.cancelled = asyncio.Event()
        self._more = asyncio.Event()
        self.gathering = Gathering(self.search)

    async def search(self, asked: SearchRequest) -> SearchReply:
        self.asked.append(asked)
        self._more.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error
        return reply(asked.queries)

    async def until(self, messages: int) -> None:
        async with asyncio.timeout(5):
            while len(self.asked) < messages:
                self._more.clear()
                await self._more.wait()


def ask(node: Node, *requests: SearchRequest) -> list["asyncio.Task[SearchReply]"]:
    return [asyncio.create_task(node.gathering.search(r)) for r in requests]


async def test_searches_of_one_turn_go_as_one_and_each_gets_its_own_rows() -> None:
    node = Node()
    node.may_answer.set()
    numbers = [3, 0, 5, 1]
    sizes = [1, 2, 1, 3]
    replies = await asyncio.gather(*ask(node, *(request(n, nq) for n, nq in zip(numbers, sizes, strict=True))))
    assert [asked.sizes for asked in node.asked] == [(1, 2, 1, 3)]
    for number, nq, got in zip(numbers, sizes, replies, strict=True):
        assert got.counts.tolist() == [number] * nq
        assert got.rows.pks.to_pylist() == got.rows.columns["n"].to_pylist() == [number] * (number * nq)
        assert got.scores.tolist() == [number] * (number * nq)
    assert node.gathering.idle


async def test_one_alone_goes_as_it_is() -> None:
    node = Node()
    node.may_answer.set()
    alone = request(2)
    await node.gathering.search(alone)
    assert node.asked == [alone]


async def test_those_that_come_meanwhile_gather_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "HELD_LONG_S", 5.0)
    node = Node()
    first = ask(node, request(1))
    await node.until(1)
    later = ask(node, *(request(n) for n in range(2, 2 + gathering.REQUESTS_MAX + 3)))
    await asyncio.sleep(0.02)
    assert len(node.asked) == 1
    node.may_answer.set()
    replies = await asyncio.gather(*first, *later)
    assert [len(asked.queries) for asked in node.asked] == [1, gathering.REQUESTS_MAX, 3]
    assert [r.counts.tolist() for r in replies] == [[n] for n in range(1, 2 + gathering.REQUESTS_MAX + 3)]


async def test_those_with_many_rows_go_in_smaller_groups() -> None:
    node = Node()
    node.may_answer.set()
    wide = [replace(request(1), k=gathering.ROWS_MAX // 3) for _ in range(7)]
    await asyncio.gather(*ask(node, *wide))
    assert [len(asked.queries) for asked in node.asked] == [3, 3, 1]


async def test_short_ones_that_take_long_together_are_held_back_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "HELD_SHORT_S", 5.0)
    monkeypatch.setattr(gathering, "HELD_LONG_S", 0.0)
    monkeypatch.setattr(gathering, "SHORT_S", 0.1)

    async def held_back_after(seconds: float) -> bool:
        """Whether the next ones wait for one that is under way, once ten had taken so long."""
        node = Node()
        together = ask(node, *(request(n) for n in range(10)))
        await node.until(1)
        await asyncio.sleep(seconds)
        node.may_answer.set()
        await asyncio.gather(*together)
        node.may_answer.clear()
        first = ask(node, *(request(n) for n in range(10)))
        await node.until(2)
        second = ask(node, request(11))
        await asyncio.sleep(0.05)
        sent = len(node.asked)
        node.may_answer.set()
        await asyncio.gather(*first, *second)
        return sent == 2

    assert await held_back_after(0.1)
    assert not await held_back_after(1.1)


async def test_a_slow_one_holds_the_others_back_for_a_moment_only() -> None:
    node = Node()
    tasks = ask(node, request(1))
    await node.until(1)
    tasks += ask(node, request(2))
    await node.until(2)
    node.may_answer.set()
    await asyncio.gather(*tasks)


async def test_each_keeps_its_deadline_and_the_longest_is_sent() -> None:
    node = Node()
    short, long = request(1, seconds=0.05), request(2, seconds=20)
    hurried, patient = ask(node, short, long)
    with pytest.raises(Timeout):
        await hurried
    assert node.asked[0].deadline == long.deadline
    node.may_answer.set()
    assert (await patient).counts.tolist() == [2]


async def test_the_node_is_told_when_nobody_waits_any_more() -> None:
    node = Node()
    tasks = ask(node, request(1), request(2))
    await node.until(1)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert not node.cancelled.is_set()
    tasks[1].cancel()
    async with asyncio.timeout(5):
        await node.cancelled.wait()
    # One that nobody waits for any more before it is sent is not sent.
    node.may_answer.set()
    left = ask(node, request(3))[0]
    await asyncio.sleep(0)
    left.cancel()
    assert (await node.gathering.search(request(4))).counts.tolist() == [4]
    assert node.asked[-1].queries[:, 0].tolist() == [4]


async def test_an_error_is_everyones() -> None:
    node = Node()
    node.error = CollectionNotLoaded("c")
    node.may_answer.set()
    for outcome in await asyncio.gather(*ask(node, request(1), request(2)), return_exceptions=True):
        assert isinstance(outcome, CollectionNotLoaded)
    assert node.gathering.idle


async def test_what_is_too_large_together_is_asked_one_by_one() -> None:
    class Small(Node):
        async def search(self, asked: SearchRequest) -> SearchReply:
            if len(asked.sizes) > 1:
                self.asked.append(asked)
                raise TooLarge("the answer has too many bytes")
            return await super().search(asked)

    node = Small()
    node.may_answer.set()
    replies = await asyncio.gather(*ask(node, request(1), request(2)))
    assert [r.counts.tolist() for r in replies] == [[1], [2]]
    assert [len(asked.queries) for asked in node.asked] == [2, 1, 1]


async def test_what_was_joined_before_is_joined_further() -> None:
    node = Node()
    node.may_answer.set()
    group = replace(joined([request(1), request(2, nq=2)]), deadline=time.monotonic() + 10)
    assert goes_with_others(group)
    first, second = await asyncio.gather(*ask(node, group, request(3)))
    assert [asked.sizes for asked in node.asked] == [(1, 2, 1)]
    assert first.counts.tolist() == [1, 2, 2]
    assert second.counts.tolist() == [3]


async def test_those_just_answered_are_waited_for_and_go_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "HELD_LONG_S", 60.0)
    node = Node()
    first = ask(node, request(1), request(2), request(3))
    await node.until(1)
    await asyncio.sleep(1)  # a long answer, so that half of it is long, too
    node.may_answer.set()
    await asyncio.gather(*first)
    again = ask(node, request(1), request(2))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(node.asked) == 1
    await asyncio.gather(*again, *ask(node, request(3)))
    assert [asked.sizes for asked in node.asked] == [(1, 1, 1), (1, 1, 1)]


async def test_those_that_do_not_come_back_are_not_waited_for_long() -> None:
    node = Node()
    node.may_answer.set()
    await asyncio.gather(*ask(node, request(1), request(2)))
    async with asyncio.timeout(1):
        await node.gathering.search(request(3))


@pytest.mark.parametrize(
    "change",
    [
        {"filter": "n > 1"},
        {"group_by": "n"},
        {"radius": 1.0},
        {"range_filter": 1.0},
        {"snapshot_ts": 5},
        {"k": gathering.K_MAX + 1},
        {"queries": np.zeros((gathering.QUERIES_MAX + 1, 2), np.float32)},
    ],
)
def test_what_depends_on_its_neighbours_goes_alone(change: dict[str, Any]) -> None:
    assert goes_with_others(request(1))
    assert not goes_with_others(replace(request(1), **change))


def test_the_answer_to_all_is_split_into_those_to_each() -> None:
    asked = [request(n, nq).queries for n, nq in ((2, 1), (0, 3), (1, 2))]
    for part, again in zip(map(reply, asked), split(reply(np.concatenate(asked)), [1, 3, 2]), strict=True):
        assert again.counts.tolist() == part.counts.tolist()
        assert again.scores.tolist() == part.scores.tolist()
        assert again.rows.pks.equals(part.rows.pks)
        assert again.rows.columns["n"].equals(part.rows.columns["n"])
