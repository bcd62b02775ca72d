"""A client that makes and drops collections through one proxy, and uses them through another."""

import asyncio
import random

from core.errors import SheafError
from core.ids import CollectionId
from rpc.roles import CatalogChange, CreateCollection, DropCollection
from tests.simulation.cluster.clients import SCHEMA, Clients
from tests.simulation.cluster.invariants import check
from tests.simulation.cluster.nodes import PROXIES, Cluster

NAMES = (2, 6)
"""Least and most names it works with."""
TWICE = 2
"""A name is given to so many collections, one after the other."""
PAUSE_S = 0.3


class Definer:
    """What was acknowledged must hold at every proxy that could look. A name with which something was not acknowledged
    is left alone from then on: that may still happen."""

    def __init__(self, cluster: Cluster, clients: Clients, chance: random.Random) -> None:
        self._cluster, self._clients, self._chance = cluster, clients, chance
        self._numbers = 0

    async def work(self) -> None:
        for n in range(self._chance.randint(*NAMES)):
            try:
                for _ in range(TWICE):
                    await self._make_and_drop(f"short-lived {n}")
            except SheafError:
                self._clients.answered["refused"] += 1
                await asyncio.sleep(PAUSE_S)

    async def _make_and_drop(self, name: str) -> None:
        one, other = self._chance.sample(PROXIES, 2)
        await self._change(one, CreateCollection("", name, SCHEMA, 1))
        made = self._clients.collection(name)
        await self._use(other, name, made.id if made else None)
        await self._change(one, DropCollection("", name))
        await self._use(other, name, None)

    async def _change(self, proxy: str, change: CatalogChange) -> None:
        await self._cluster.served(proxy, lambda s: s.change(change))
        self._clients.answered["defined"] += 1

    async def _use(self, proxy: str, name: str, holds: CollectionId | None) -> None:
        """holds: the collection that has the name, None = none has."""
        for what in self._chance.sample(("has", "insert"), 2):
            self._numbers += 1
            number = self._numbers
            told = await self._cluster.served(proxy, lambda s, w=what, n=number: getattr(s, w)(name, n))
            self._clients.answered["blind" if told.blind else "used"] += 1
            right = told.blind or told.found == holds
            check(right, f"1: {proxy} answers {what} {name!r} with collection {told.found}, acknowledged is {holds}")
