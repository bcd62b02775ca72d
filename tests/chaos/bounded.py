"""A client that does nothing but search at the level Bounded.

Apart from those that read strongly: they wait where this one is to be answered with what may be a little old. Its
searches are alike, so that they go from thread to thread (``rpc.direct``) wherever they can.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.chaos.client import ALL_ROWS, Client, nearest
from tests.chaos.history import History, Outcome

BEHIND_S = 1.0
"""How far behind an answer may be; to be the cluster's setting, too."""
MOST = 1_000
"""Rows that a search may ask for and be short."""
OPTIONS: dict[str, Any] = {**ALL_ROWS, "limit": MOST, "consistency_level": "Bounded"}


class BoundedClient(Client):
    """exact: whether a search for all rows finds all rows."""

    def __init__(
        self, name: str, proxies: Sequence[str], history: History, random: Random, *, collection: str, exact: bool
    ) -> None:
        super().__init__(name, proxies, history, random)
        self._collection, self._exact = collection, exact
        self._read_at = 0.0

    def served_since(self, time: float) -> bool:
        return self._read_at > time

    def _step(self) -> None:
        search = self._read("bounded search", None, lambda c: nearest(c, self._collection, OPTIONS), BEHIND_S)
        if not self._exact or len(search.rows) == MOST:
            search.keys = tuple(dict(search.rows))  # not all is to be found
        if search.outcome is Outcome.OK:
            self._read_at = search.start
