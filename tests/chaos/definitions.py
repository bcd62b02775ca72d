"""A client that defines: collections, partitions, indexes and loads, made, looked at and undone.

What it is not told the outcome of it asks for again until it is told, or it gives the collection up and drops it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from random import Random
from typing import Any

from pymilvus import DataType, MilvusClient
from pymilvus.client.types import LoadState

from tests.chaos.client import ALL_ROWS, CALL_S, GARBLED, RETRY_S, Client, once, pairs
from tests.chaos.history import History, Key, Outcome
from tests.e2e.ledger import DIM, make_rows
from tests.e2e.tables import ID, create, vector_field

ROWS = 100
"""Of a partition: enough for an index, once they are sealed."""
MADE = 1
"""The value of a thing that is there."""
FIELDS = [ID, ("n", DataType.INT64, {}), vector_field(DIM)]
INDEX = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
DEFAULT = "_default"
LISTED = 30
"""Collections that are looked for after each drop, the last ones."""
GIVE_UP = 0.05
"""How likely a collection is dropped instead of its next step."""
FINISH_S = 20.0
WITHIN: dict[str, Any] = {"timeout": CALL_S}
Do = Callable[[Any], Any]


class DefinitionsClient(Client):
    """Makes collections ``<name>_0``, ``<name>_1``, ... replicas: of a load, at most.

    Keys in the history: a collection's name, and below it "/<partition>", "/index", "/loaded", "/<primary key>".
    A proxy may learn of a definition that another one acknowledged a moment later, and not while it is cut off
    from etcd; so what a proxy says is recorded once a definition was acknowledged on the same connection."""

    def __init__(self, name: str, proxies: Sequence[str], history: History, random: Random, *, replicas: int) -> None:
        super().__init__(name, proxies, history, random)
        self._replicas = replicas
        self._names = (f"{name}_{n}" for n in count())
        self._collections: list[str] = []
        """All that were ever made; the last one is worked with."""
        self._keys: dict[Key, None] = {}
        """All that was ever made in it; empty once it is surely dropped."""
        self._life: Iterator[None] = iter(())
        self._defined_at = 0.0
        self._current = False

    def served_since(self, time: float) -> bool:
        """A definition."""
        return self._defined_at > time

    def _disconnect(self) -> None:
        self._current = False
        super()._disconnect()

    def _step(self) -> None:
        if self._random.random() < GIVE_UP:
            self._life = iter(())
        if next(self._life, self) is self:
            self._life = self._drop() if self._keys else self._live(next(self._names))

    def _finish(self) -> None:
        end = time.monotonic() + FINISH_S
        self._life = self._drop()
        while self._keys and time.monotonic() < end:
            if self._connected():
                next(self._life, None)

    # --- a collection's life -------------------------------------------------------------------
    def _live(self, name: str) -> Iterator[None]:
        self._collections.append(name)
        shards, partitions = self._random.randint(1, 2), ["p1", "p2"][: self._random.randint(0, 2)]
        yield from self._make(
            "create collection", [name], lambda c: create(c, name, FIELDS, num_shards=shards, **WITHIN)
        )
        for partition in partitions:
            key, do = f"{name}/{partition}", _with(partition, lambda c, p: c.create_partition(name, p, **WITHIN))
            yield from self._make("create partition", [key], do)
        yield from self._index(name)
        yield from self._load(name)
        for n, partition in enumerate((DEFAULT, *partitions)):
            do = _with((_keys(n), partition), lambda c, p: c.upsert(name, _rows(p[0]), partition_name=p[1], **once()))
            yield from self._make("upsert", _below(name, _keys(n)), do)
        if self._random.random() < 0.5:
            yield from self._define("flush", {}, lambda c: c.flush(name, **WITHIN))
        self._look(name, shards, loaded=True)
        yield from self._release(name)
        for n, partition in enumerate(partitions, 1):
            do = _with(partition, lambda c, p: c.drop_partition(name, p, **WITHIN))
            yield from self._undo("drop partition", _below(name, [partition, *_keys(n)]), do)
        yield from self._undo("drop index", [f"{name}/index"], lambda c: c.drop_index(name, "index", **WITHIN))
        self._look(name, shards, loaded=False)
        yield from self._index(name)
        yield from self._load(name)
        self._look(name, shards, loaded=True)

    def _index(self, name: str) -> Iterator[None]:
        params = MilvusClient.prepare_index_params()
        params.add_index("vector", index_name="index", **INDEX)
        return self._make("create index", [f"{name}/index"], lambda c: c.create_index(name, params, **WITHIN))

    def _load(self, name: str) -> Iterator[None]:
        options = {"replica_number": self._random.randint(1, self._replicas), **WITHIN}
        return self._make("load", [f"{name}/loaded"], lambda c: c.load_collection(name, **options))

    def _release(self, name: str) -> Iterator[None]:
        return self._undo("release", [f"{name}/loaded"], lambda c: c.release_collection(name, **WITHIN))

    def _drop(self) -> Iterator[None]:
        name, recent = self._collections[-1], self._collections[-LISTED:]
        yield from self._undo("drop collection", list(self._keys), lambda c: c.drop_collection(name, **WITHIN))
        self._keys.clear()
        self._observe("list collections", recent, lambda c: _made(set(recent) & set(c.list_collections(**WITHIN))))

    # --- what it asks for ----------------------------------------------------------------------
    def _make(self, call: str, keys: Sequence[Key], do: Do) -> Iterator[None]:
        self._keys.update(dict.fromkeys(keys))
        return self._define(call, dict.fromkeys(keys, MADE), do)

    def _undo(self, call: str, keys: Sequence[Key], do: Do) -> Iterator[None]:
        return self._define(call, dict.fromkeys(keys), do)

    def _define(self, call: str, values: Mapping[Key, int | None], do: Do) -> Iterator[None]:
        """Until it is acknowledged; an attempt for each turn."""
        if self._milvus is None:
            yield  # what it looked at before met a fault; the next turn has a connection
        while (operation := self._write(call, values, do)).outcome is not Outcome.OK:
            time.sleep(RETRY_S)
            yield
        self._defined_at, self._current = operation.start, True
        yield

    def _look(self, name: str, shards: int, *, loaded: bool) -> None:
        """At all that was defined in it."""
        partitions = [str(k) for k in self._keys if str(k).rpartition("/")[2] in ("p1", "p2")]
        self._observe("describe", [name], lambda c: [(name, MADE if _whole(c, name, shards) else GARBLED)])
        self._observe(
            "list partitions",
            partitions,
            lambda c: _made(f"{name}/{p}" for p in c.list_partitions(name, **WITHIN) if p != DEFAULT),
        )
        self._observe(
            "list indexes", [f"{name}/index"], lambda c: _made(f"{name}/{i}" for i in c.list_indexes(name, **WITHIN))
        )
        self._observe("load state", [f"{name}/loaded"], lambda c: _made([f"{name}/loaded"] if _loaded(c, name) else []))
        if loaded:
            rows = [k for k in self._keys if str(k).rpartition("/")[2].isdigit()]
            self._observe(
                "query",
                rows,
                lambda c: [(f"{name}/{k}", n) for k, n in pairs(c.query(name, "id >= 0", **ALL_ROWS, **once()))],
            )

    def _observe(self, call: str, keys: Sequence[Key], do: Callable[[Any], Sequence[tuple[Key, int]]]) -> None:
        """Nothing while the proxy may not have heard of what was acknowledged."""
        if self._current:
            self._read(call, keys, do)


def _with(value: Any, do: Callable[[Any, Any], Any]) -> Do:
    """What a loop's ``value`` is now, whenever it is done."""
    return lambda client: do(client, value)


def _keys(partition: int) -> range:
    """Primary keys of the rows of the n-th partition."""
    return range(partition * ROWS, (partition + 1) * ROWS)


def _rows(keys: Iterable[int]) -> list[dict[str, Any]]:
    return make_rows(dict.fromkeys(keys, MADE))


def _below(collection: str, names: Iterable[str | int]) -> list[Key]:
    return [f"{collection}/{name}" for name in names]


def _made(keys: Iterable[Key]) -> list[tuple[Key, int]]:
    return [(key, MADE) for key in keys]


def _whole(client: Any, collection: str, shards: int) -> bool:
    found = client.describe_collection(collection, **WITHIN)
    fields = [field["name"] for field in found["fields"]]
    return fields == [name for name, _, _ in FIELDS] and found["num_shards"] == shards


def _loaded(client: Any, collection: str) -> bool:
    return client.get_load_state(collection, **WITHIN)["state"] in (LoadState.Loading, LoadState.Loaded)
