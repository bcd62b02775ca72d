"""A client that does one thing after another through the proxies, and records what it asked and was told."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import grpc
from pymilvus import MilvusClient, MilvusException

from tests.chaos.history import History, Key, Operation, Outcome, Read, Write
from tests.e2e.ledger import DIM, vectors_of

CALL_S = 10.0
"""Deadline of one request."""
CONNECT_S = 3.0
PAUSE_S = 0.02
MOVES = 0.01
"""How likely a client leaves its proxy for a drawn one before a step."""
RETRY_S = 0.2
TOLD_MOST = 300
RATE_LIMIT = 8
"""The code of a write that was refused because there is too much to do; it surely did not happen."""
GARBLED = -1
"""Stands for the value of a row whose vector is not its value's."""
STRONG: dict[str, Any] = {"consistency_level": "Strong"}
ROWS_MOST = 16_384
ALL_ROWS: dict[str, Any] = {"limit": ROWS_MOST, "output_fields": ["n", "vector"], **STRONG}


class Client(threading.Thread):
    """Subclasses say what a step is. ``stopping`` ends it after its step; ``failure`` is what no fault explains."""

    def __init__(self, name: str, proxies: Sequence[str], history: History, random: Random) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.refusal = ""
        """What it was last told instead of an answer."""
        self._proxies, self._history, self._random = proxies, history, random
        self._milvus: MilvusClient | None = None

    def served_since(self, time: float) -> bool:
        """Whether what it asked for after ``time`` was answered, of each kind that matters."""
        raise NotImplementedError  # each kind of client has its own

    def run(self) -> None:
        try:
            while not self.stopping.wait(PAUSE_S):
                if self._random.random() < MOVES:
                    self._disconnect()
                if self._connected():
                    self._step()
            self._finish()
        except Exception as e:
            self.failure = e
        finally:
            self._disconnect()

    def _step(self) -> None:
        raise NotImplementedError  # each kind of client has its own

    def _finish(self) -> None:
        """What it does once it is told to stop."""

    # --- what it records -----------------------------------------------------------------------
    def _write(self, call: str, values: Mapping[Key, int | None], do: Callable[[Any], Any]) -> Write:
        operation = self._history.write(self.name, values, call)
        with self._outcome(operation):
            do(self._client)
        return operation

    def _read(
        self, call: str, keys: Iterable[Key] | None, do: Callable[[Any], Sequence[tuple[Key, int]]], behind: float = 0.0
    ) -> Read:
        operation = self._history.read(self.name, keys, call, behind)
        with self._outcome(operation):
            operation.rows = do(self._client)
        return operation

    @contextmanager
    def _outcome(self, operation: Operation) -> Iterator[None]:
        try:
            yield
        except (MilvusException, grpc.RpcError) as e:
            refused = isinstance(e, MilvusException) and e.code == RATE_LIMIT
            operation.told = _text(e)
            self.refusal = f"{operation.call}: {operation.told}"
            self._history.ended(operation, Outcome.FAILED if refused else Outcome.UNKNOWN)
            if not refused:
                self._disconnect()
        else:
            self._history.ended(operation, Outcome.OK)

    # --- its connection ------------------------------------------------------------------------
    @property
    def _client(self) -> Any:
        assert self._milvus is not None
        return self._milvus

    def _connected(self) -> bool:
        if self._milvus is None:
            address = self._random.choice(self._proxies)
            try:
                self._milvus = connect(address)
            except (MilvusException, grpc.RpcError) as e:
                self.refusal = f"connect to {address}: {_text(e)}"
                time.sleep(RETRY_S)
                return False
        return True

    def _disconnect(self) -> None:
        if self._milvus is not None:
            with suppress(MilvusException, grpc.RpcError):
                self._milvus.close()
            self._milvus = None


def connect(address: str) -> MilvusClient:
    """Its requests are sent once: a second attempt that the client makes by itself would be a write that nobody
    records. Raises what pymilvus raises."""
    client = MilvusClient(f"http://{address}", dedicated=True, timeout=CONNECT_S)
    connection: Any = client._get_connection()
    connection._on_rpc_error = _no_retry
    return client


def once() -> dict[str, Any]:
    """For every request: its deadline, and nothing sent again."""
    return {"timeout": CALL_S, "retry_on_rate_limit": False}


def _text(error: MilvusException | grpc.RpcError) -> str:
    text = error.message if isinstance(error, MilvusException) else str(error)
    return " ".join(text.split())[:TOLD_MOST]


def _no_retry(error: Exception) -> bool:
    """For the client's hook between an error and its retry, which a deadline would make it try."""
    raise error


def pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Key, int]]:
    """(key, value) of each row; the value is ``GARBLED`` where the vector is not that of the value."""
    keys, values = [row["id"] for row in rows], [row["n"] for row in rows]
    right = [(vector == row["vector"]).all() for row, vector in zip(rows, vectors_of(keys, values), strict=True)]
    return [(key, value if whole else GARBLED) for key, value, whole in zip(keys, values, right, strict=True)]


def nearest(client: MilvusClient, collection: str, options: Mapping[str, Any]) -> list[tuple[Key, int]]:
    """(key, value) of what a search finds. options: as of ``MilvusClient.search``."""
    (hits,) = client.search(collection, [[0.0] * DIM], **options, **once())
    return pairs([row(hit) for hit in hits])


def row(hit: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": hit["id"], **hit["entity"]}
