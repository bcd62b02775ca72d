"""Clients that write, delete and read strongly through the proxies until told to stop, and record it all."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from random import Random
from typing import Any

import grpc
from pymilvus import DataType, MilvusClient, MilvusException

from tests.chaos.history import Count, History, Operation, Outcome, Read, Write
from tests.e2e.ledger import DIM, make_rows, vectors_of
from tests.e2e.tables import ID, create, vector_field

WINDOW = 60
"""Keys that a client works with at a time."""
KEYS = 2_500
"""Keys that a client may use up; all clients' together fit into one answer."""
BATCH = 8
CALL_S = 10.0
"""Deadline of one request."""
CONNECT_S = 3.0
PAUSE_S = 0.02
RETRY_S = 0.2
END_S = 30.0
RATE_LIMIT = 8
"""The code of a write that was refused because there is too much to do; it surely did not happen."""
GARBLED = -1
"""Stands for the value of a row whose vector is not its value's."""


class Workload:
    """``clients`` threads, each the only writer of its keys, reading its own and all keys.

    A key whose last write has an unknown outcome is never written again: what is left of that write may
    come at any time. proxies: host:port. ``stop`` ends it.
    """

    def __init__(self, proxies: Sequence[str], history: History, *, collection: str, clients: int, seed: int) -> None:
        self.history = history
        self._proxies, self._collection = list(proxies), collection
        self._clients = [
            _Client(f"client-{i}", self._proxies, collection, history, Random(f"{seed} {i}"), first=i * KEYS)
            for i in range(clients)
        ]

    def start(self) -> None:
        """Makes the collection; the clients run when it returns. Raises what pymilvus raises."""
        # It reports each failure of a call by itself, which is what calls do here.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        with closing(MilvusClient(f"http://{self._proxies[0]}", dedicated=True)) as client:
            create(
                client,
                self._collection,
                [ID, ("n", DataType.INT64, {}), vector_field(DIM)],
                {"vector": {"index_type": "FLAT", "metric_type": "L2"}},
                consistency_level="Strong",
            )
        for client in self._clients:
            client.start()

    def served_since(self, time: float) -> bool:
        """Whether every client had a write and a read acknowledged that it began after ``time``."""
        return all(min(client.wrote_at, client.read_at) > time for client in self._clients)

    def alive(self) -> bool:
        """False once something that no fault explains has ended a client; ``stop`` raises it."""
        return all(client.is_alive() for client in self._clients)

    def stop(self) -> None:
        """Raises what ended a client, and ``AssertionError`` for one that hangs in a call."""
        for client in self._clients:
            client.stopping.set()
        end = time.monotonic() + END_S
        for client in self._clients:
            if client.ident is not None:
                client.join(max(0.0, end - time.monotonic()))
        for client in self._clients:
            if client.failure is not None:
                raise client.failure
            assert not client.is_alive(), f"{client.name} hangs in a call"

    def drop(self) -> None:
        """Its collection. Raises what pymilvus raises."""
        with closing(MilvusClient(f"http://{self._proxies[0]}", dedicated=True)) as client:
            client.drop_collection(self._collection)


class _Client(threading.Thread):
    def __init__(
        self, name: str, proxies: Sequence[str], collection: str, history: History, random: Random, first: int
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.wrote_at = self.read_at = 0.0
        """When the last of them that was acknowledged began."""
        self._proxies, self._collection, self._history, self._random = proxies, collection, history, random
        self._fresh = iter(range(first, first + KEYS))
        self._rows: dict[int, int | None] = {next(self._fresh): None for _ in range(WINDOW)}
        self._values = count(1)
        self._milvus: MilvusClient | None = None

    def run(self) -> None:
        try:
            while not self.stopping.wait(PAUSE_S):
                if self._connected():
                    self._step()
            if self._connected():  # the last word
                self._read_all()
        except Exception as e:
            self.failure = e
        finally:
            self._disconnect()

    # --- what it does --------------------------------------------------------------------------
    def _step(self) -> None:
        some = self._random.sample(sorted(self._rows), self._random.randint(1, BATCH))
        match self._random.randrange(20):
            case 0 | 1 | 2 | 3 | 4:
                self._put(some, "upsert")
            case 5 | 6:
                if absent := [key for key in self._rows if self._rows[key] is None][:BATCH]:
                    self._put(absent, "insert")
            case 7 | 8 | 9:
                self._write(dict.fromkeys(some), lambda c: c.delete(self._collection, ids=some, **_once()))
            case 10 | 11 | 12 | 13 | 14 | 15:
                self._read(some, lambda c: self._query(c, f"id in {some}"))
            case 16:
                self._read_all()
            case 17:
                self._read(None, self._search)
            case _:
                self._count()

    def _put(self, keys: Sequence[int], call: str) -> None:
        value = next(self._values)
        values = dict.fromkeys(keys, value)
        self._write(values, lambda c: getattr(c, call)(self._collection, make_rows(values), **_once()))

    def _write(self, values: Mapping[int, int | None], call: Callable[[MilvusClient], Any]) -> None:
        operation: Write = self._history.write(self.name, values)
        with self._outcome(operation):
            call(self._client)
        match operation.outcome:
            case Outcome.OK:
                self._rows.update(values)
                self.wrote_at = operation.start
            case Outcome.UNKNOWN:
                for key in values:
                    del self._rows[key]
                    self._rows[next(self._fresh)] = None

    def _read(self, keys: Sequence[int] | None, call: Callable[[MilvusClient], list[tuple[int, int]]]) -> None:
        operation: Read = self._history.read(self.name, keys)
        with self._outcome(operation):
            operation.rows = call(self._client)
        if operation.outcome is Outcome.OK:
            self.read_at = operation.start

    def _count(self) -> None:
        operation: Count = self._history.count(self.name)
        with self._outcome(operation):
            (row,) = self._client.query(
                self._collection, output_fields=["count(*)"], consistency_level="Strong", **_once()
            )
            operation.count = row["count(*)"]

    def _read_all(self) -> None:
        self._read(None, lambda c: self._query(c, "id >= 0"))

    def _query(self, client: MilvusClient, filter: str) -> list[tuple[int, int]]:
        return _pairs(client.query(self._collection, filter=filter, **_ALL_ROWS, **_once()))

    def _search(self, client: MilvusClient) -> list[tuple[int, int]]:
        """All rows, as the nearest ones by an exact index."""
        (hits,) = client.search(self._collection, [[0.0] * DIM], **_ALL_ROWS, **_once())
        return _pairs([{"id": hit["id"], **hit["entity"]} for hit in hits])

    @contextmanager
    def _outcome(self, operation: Operation) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError) as e:
            refused = isinstance(e, MilvusException) and e.code == RATE_LIMIT
            self._history.ended(operation, Outcome.FAILED if refused else Outcome.UNKNOWN)
            if not refused:
                self._disconnect()
        else:
            self._history.ended(operation, Outcome.OK)

    # --- its connection ------------------------------------------------------------------------
    @property
    def _client(self) -> MilvusClient:
        assert self._milvus is not None
        return self._milvus

    def _connected(self) -> bool:
        if self._milvus is None:
            try:
                address = self._random.choice(self._proxies)
                self._milvus = MilvusClient(f"http://{address}", dedicated=True, timeout=CONNECT_S)
                connection: Any = self._milvus._get_connection()
                connection._on_rpc_error = _no_retry
            except (MilvusException, grpc.RpcError):
                time.sleep(RETRY_S)
                return False
        return True

    def _disconnect(self) -> None:
        if self._milvus is not None:
            with suppress(MilvusException, grpc.RpcError):
                self._milvus.close()
            self._milvus = None


_ALL_ROWS: dict[str, Any] = {"limit": 16_384, "output_fields": ["n", "vector"], "consistency_level": "Strong"}


def _once() -> dict[str, Any]:
    """One attempt: a second one that the client makes by itself would be a write that nobody records."""
    return {"timeout": CALL_S, "retry_on_rate_limit": False}


def _no_retry(error: Exception) -> bool:
    """For the client's hook between an error and its retry, which a deadline would make it try."""
    raise error


def _pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    keys, values = [row["id"] for row in rows], [row["n"] for row in rows]
    right = [(vector == row["vector"]).all() for row, vector in zip(rows, vectors_of(keys, values), strict=True)]
    return [(key, value if whole else GARBLED) for key, value, whole in zip(keys, values, right, strict=True)]
