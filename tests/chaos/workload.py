"""What a round's clients do to one collection of rows and to collections that come and go, until told to stop."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException

from tests.chaos.bounded import BoundedClient
from tests.chaos.client import CALL_S, RETRY_S, Client, connect
from tests.chaos.definitions import DefinitionsClient
from tests.chaos.history import History
from tests.chaos.rows import KEYS, RowsClient
from tests.e2e.ledger import DIM
from tests.e2e.tables import ID, create, vector_field

END_S = 30.0
SETTLE_S = 60.0
"""For making the collection, and for dropping all that is left."""
BOUNDED = 2
DEFINERS = 2
INDEXES: dict[str, dict[str, Any]] = {
    "FLAT": {"index_type": "FLAT", "metric_type": "L2"},
    "HNSW": {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the collection of rows."""

    shards: int
    replicas: int
    index: str

    @classmethod
    def draw(cls, random: Random, replicas_most: int) -> "Shape":
        return cls(random.randint(1, 3), random.randint(1, replicas_most), random.choice(sorted(INDEXES)))

    def __str__(self) -> str:
        return f"shards={self.shards} replicas={self.replicas} index={self.index}"


class Workload:
    """``clients`` threads with rows, two that only search, and two with definitions. proxies: host:port. ``stop``
    ends it.

    ``rows`` and ``definitions``: what they asked and were told."""

    def __init__(
        self, proxies: Sequence[str], *, name: str, shape: Shape, clients: int, replicas_most: int, seed: str
    ) -> None:
        self.rows, self.definitions = History(), History()
        self._proxies, self._name, self._shape = list(proxies), name, shape
        self._clients: list[Client] = [
            RowsClient(
                f"client-{i}",
                self._proxies,
                self.rows,
                Random(f"{seed} client {i}"),
                collection=name,
                first=i * KEYS,
                exact=shape.index == "FLAT",
            )
            for i in range(clients)
        ]
        self._clients += [
            BoundedClient(
                f"bounded-{i}",
                self._proxies,
                self.rows,
                Random(f"{seed} bounded {i}"),
                collection=name,
                exact=shape.index == "FLAT",
            )
            for i in range(BOUNDED)
        ]
        self._clients += [
            DefinitionsClient(
                f"{name}_definer_{i}",
                self._proxies,
                self.definitions,
                Random(f"{seed} definer {i}"),
                replicas=replicas_most,
            )
            for i in range(DEFINERS)
        ]

    def start(self) -> None:
        """Makes the collection; the clients run when it returns. Raises what pymilvus raises."""
        # It reports each failure of a call by itself, which is what calls do here.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        _until_done(self._proxies[0], self._create)
        for thread in self._clients:
            thread.start()

    def served_since(self, time: float) -> bool:
        """Whether each client was served with what it asked for after ``time``."""
        return not self.waiting_since(time)

    def waiting_since(self, time: float) -> str:
        """Who was not, and what it was told last."""
        return "; ".join(f"{c.name} ({c.refusal})" for c in self._clients if not c.served_since(time))

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
        """Every collection, also those that an unanswered request made. Raises what pymilvus raises."""
        _until_done(self._proxies[0], _drop_all)

    def _create(self, client: MilvusClient) -> None:
        fields = [ID, ("n", DataType.INT64, {}), vector_field(DIM)]
        params = MilvusClient.prepare_index_params()
        params.add_index("vector", **INDEXES[self._shape.index])
        create(client, self._name, fields, num_shards=self._shape.shards, consistency_level="Strong", timeout=CALL_S)
        client.create_index(self._name, params, timeout=CALL_S)
        client.load_collection(self._name, replica_number=self._shape.replicas, timeout=CALL_S)


def _drop_all(client: Any) -> None:
    while names := client.list_collections(timeout=CALL_S):
        for name in names:
            client.drop_collection(name, timeout=CALL_S)


def _until_done(proxy: str, do: Callable[[Any], None]) -> None:
    """All it does can be repeated. The last fault may still be felt."""
    end = time.monotonic() + SETTLE_S
    while True:
        try:
            with closing(connect(proxy)) as client:
                do(client)
            return
        except MilvusException:
            if time.monotonic() > end:
                raise
            time.sleep(RETRY_S)
