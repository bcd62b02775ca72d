"""Searches answered where they arrive: which of those that come together are asked, and of whom."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from proxy.search_prompt import PromptSearches
from tests.unit.test_proxy_search_known import call, known, plan


class Node:
    """Keeps what it was asked, and never has the answer. Implements what is used of ``QueryNode``, and
    ``PreparedSearch``."""

    holds = True

    def __init__(self) -> None:
        self.asked: list[list[float]] = []

    def prepare(self, _request: Any) -> "Node":
        return self

    def keep(self) -> None:
        pass

    def start(self, queries: np.ndarray, _sizes: Any) -> Callable[[], None]:
        self.asked.append(queries[:, 0].tolist())
        return lambda: None


class Shards:
    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes
        self.looked_up = 0

    def leaders(self, _collection: Any) -> tuple[Node, ...]:
        self.looked_up += 1
        return self.nodes


def of(**more: Any) -> Any:
    parts = {"newest": [], "partitions": (1,), "output": SimpleNamespace(fetch=()), "metric": "L2"}
    return plan(**parts, params={}, group_size=1, **more)


def test_in_a_cluster_those_alike_are_asked_as_one_and_others_not_one_after_the_other() -> None:
    node = Node()
    searches = known(a=of(), b=of(k=20))
    prompt = PromptSearches(searches, Shards(node), in_process=False)
    assert prompt.answer([call("a", 1), call("a", 2)]) == [None, None]
    assert node.asked == [[1.0, 2.0]]
    assert prompt.answer([call("a", 3), call("b", 4)]) == [None, None]
    assert prompt.answer([call("a", 5), call("unknown", 6)]) == [None, None]
    assert node.asked == [[1.0, 2.0]], "the event loop asks about all of them at the same time"


def test_in_one_process_all_that_are_known_are_searched() -> None:
    node = Node()
    searches = known(a=of(), b=of(k=20))
    prompt = PromptSearches(searches, Shards(node), in_process=True)
    prompt.answer([call("a", 1), call("b", 2), call("unknown", 3), call("a", 4)])
    assert node.asked == [[1.0, 4.0], [2.0]]


def test_all_shards_are_asked_before_one_is_waited_for_and_looked_up_again_without_an_answer() -> None:
    first, second = Node(), Node()
    waited: list[int] = []

    def start(queries: np.ndarray, _sizes: Any) -> Callable[[], None]:
        first.asked.append(queries[:, 0].tolist())
        return lambda: waited.append(len(second.asked))

    first.start = start
    shards = Shards(first, second)
    prompt = PromptSearches(known(a=of()), shards, in_process=False)
    for n in range(1, 4):
        prompt.answer([call("a", n)])
        assert shards.looked_up == n, "another node may lead a shard now"
    assert waited == [1, 2, 3]
    assert len(first.asked) == len(second.asked) == 3
