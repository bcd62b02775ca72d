"""A client that writes, deletes and reads rows, each of its keys written by it alone."""

from collections.abc import Mapping, Sequence
from itertools import count
from random import Random
from typing import Any

from pymilvus import MilvusClient

from tests.chaos.client import ALL_ROWS, PAUSE_S, STRONG, Client, nearest, once, pairs, row
from tests.chaos.history import History, Key, Outcome
from tests.e2e.ledger import DIM, make_rows

WINDOW = 60
"""Keys that a client works with at a time."""
KEYS = 2_500
"""Keys that a client may use up; all clients' together fit into one answer."""
BATCH = 8
PAGE = 50
"""Rows that an iterator asks for at a time."""
NEAREST = 10


class RowsClient(Client):
    """Uses the keys ``first .. first + KEYS - 1`` of the collection, and reads its own and all.

    A key whose last write has an unknown outcome is never put again: what is left of that write may
    come at any time. exact: whether a search for all rows finds all rows."""

    def __init__(
        self,
        name: str,
        proxies: Sequence[str],
        history: History,
        random: Random,
        *,
        collection: str,
        first: int,
        exact: bool,
    ) -> None:
        super().__init__(name, proxies, history, random)
        self._collection, self._exact = collection, exact
        self._fresh = iter(range(first, first + KEYS))
        self._first = first
        self._rows: dict[int, int | None] = {next(self._fresh): None for _ in range(WINDOW)}
        self._values = count(1)
        self._wrote_at = self._read_at = 0.0

    def served_since(self, time: float) -> bool:
        """A write and a read."""
        return min(self._wrote_at, self._read_at) > time

    def _finish(self) -> None:
        if self._connected():  # the last word
            self._read_all()

    def _step(self) -> None:
        some = self._random.sample(sorted(self._rows), self._random.randint(1, BATCH))
        match self._random.randrange(24):
            case 0 | 1 | 2 | 3 | 4:
                self._put("upsert", some)
            case 5 | 6 | 7:
                if absent := [key for key in self._rows if self._rows[key] is None][:BATCH]:
                    self._put("insert", absent)
            case 8 | 9 | 10:
                self._remove("delete", dict.fromkeys(some), ids=some)
            case 11:
                low, high = min(some), min(some) + BATCH
                # A range also deletes what writes of unknown outcome left in it.
                self._remove(
                    "delete by filter",
                    dict.fromkeys(k for k in range(low, high) if k < self._first + KEYS),
                    filter=f"n > 0 and id >= {low} and id < {min(high, self._first + KEYS)}",
                )
            case 12 | 13 | 14 | 15 | 16 | 17:
                self._ask("query", some, lambda c: self._query(c, f"id in {some}"))
            case 18:
                self._read_all()
            case 19:
                self._search()
            case 20:
                self._ask("query iterator", None, self._iterate)
            case 21:
                self._ask("search iterator", None if self._exact else (), self._iterate_search)
            case _:
                self._count()

    # --- writes --------------------------------------------------------------------------------
    def _put(self, call: str, keys: Sequence[int]) -> None:
        value = next(self._values)
        values = dict.fromkeys(keys, value)
        self._change(call, values, lambda c: getattr(c, call)(self._collection, make_rows(values), **once()))

    def _remove(self, call: str, values: Mapping[int, None], **which: Any) -> None:
        self._change(call, values, lambda c: c.delete(self._collection, **which, **once()))

    def _change(self, call: str, values: Mapping[int, int | None], do: Any) -> None:
        operation = self._write(call, {**values}, do)
        match operation.outcome:
            case Outcome.OK:
                self._rows.update((k, v) for k, v in values.items() if k in self._rows)
                self._wrote_at = operation.start
            case Outcome.UNKNOWN:
                for key in values.keys() & self._rows.keys():
                    del self._rows[key]
                    self._rows[next(self._fresh)] = None

    # --- reads ---------------------------------------------------------------------------------
    def _ask(self, call: str, keys: Sequence[int] | None, do: Any) -> None:
        operation = self._read(call, keys, do)
        if keys == ():  # whatever it found is to be right, not all is to be found
            operation.keys = tuple(dict(operation.rows))
        if operation.outcome is Outcome.OK:
            self._read_at = operation.start

    def _count(self) -> None:
        operation = self._history.count(self.name)
        with self._outcome(operation):
            (row,) = self._client.query(self._collection, output_fields=["count(*)"], **STRONG, **once())
            operation.count = row["count(*)"]

    def _read_all(self) -> None:
        self._ask("query of all", None, lambda c: self._query(c, "id >= 0"))

    def _query(self, client: MilvusClient, filter: str) -> list[tuple[Key, int]]:
        return pairs(client.query(self._collection, filter=filter, **ALL_ROWS, **once()))

    def _search(self) -> None:
        """For all rows by an exact index, else for the nearest."""
        options = ALL_ROWS if self._exact else {**ALL_ROWS, "limit": NEAREST}
        self._ask("search", None if self._exact else (), lambda c: nearest(c, self._collection, options))

    def _iterate(self, client: MilvusClient) -> list[tuple[Key, int]]:
        iterator = client.query_iterator(
            self._collection,
            batch_size=PAGE,
            filter="id >= 0",
            output_fields=["n", "vector"],
            **STRONG,
            **once(),
        )
        return pairs(self._pages(iterator))

    def _iterate_search(self, client: MilvusClient) -> list[tuple[Key, int]]:
        iterator = client.search_iterator(
            self._collection,
            [[0.0] * DIM],
            batch_size=PAGE,
            output_fields=["n", "vector"],
            **STRONG,
            **once(),
        )
        return pairs([row(hit) for hit in self._pages(iterator)])

    def _pages(self, iterator: Any) -> list[Any]:
        """Of all pages. Writes go on between them."""
        found: list[Any] = []
        try:
            while page := iterator.next():
                found += page
                self.stopping.wait(PAUSE_S)
        finally:
            iterator.close()
        return found
