"""The metadata store of a simulated cluster: linearizable, with revisions, leases and watches."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from core.errors import Conflict, Fenced, Unavailable, WatchCompacted
from core.ids import Revision
from storage.meta.port import Condition, Delete, Event, Item, Put
from tests.simulation.cluster.loop import CURRENT, Process
from tests.simulation.cluster.network import META, Network

LEASE_LATE_S = 1.0
"""A lease may live so much longer than asked for."""


@dataclass
class MetaServer:
    """committing: told of each commit whose conditions hold, before it is made."""

    network: Network
    chance: random.Random
    committing: Callable[[Process, Sequence[Put | Delete]], None]
    values: dict[str, Item] = field(default_factory=dict)
    revision: Revision = Revision(0)
    history: list[tuple[Event, ...]] = field(default_factory=list)
    """By revision, from 1."""
    compacted: int = 0
    """Revisions that watches can't be given any more."""
    late: dict[tuple[str, str], float] = field(default_factory=dict)
    """Until when a process's watch of a prefix brings nothing: each watch is a stream of its own."""

    def __post_init__(self) -> None:
        self._leases: dict[int, tuple[float, float]] = {}
        self._bound: dict[str, int] = {}
        self._watchers: dict[str, list[asyncio.Future[None]]] = {}
        """By the first part of their prefix: more may be told than have to."""

    def get(self, key: str) -> Item | None:
        return self.values.get(key)

    def items(self, prefix: str) -> list[Item]:
        return [item for key, item in sorted(self.values.items()) if key.startswith(prefix)]

    def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        for condition in conditions:
            present = self.values.get(condition.key)
            if (present.revision if present else 0) != condition.revision:
                raise Conflict(f"{condition.key} is not at revision {condition.revision}")
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise Fenced(f"lease {write.lease} has ended")
        self.committing(CURRENT.get(), writes)
        self._write(writes)
        return self.revision

    def _write(self, writes: Sequence[Put | Delete]) -> None:
        revision = Revision(self.revision + 1)
        events: list[Event] = []
        for write in writes:
            if isinstance(write, Put):
                self.values[write.key] = Item(write.key, write.value, revision)
                self._bound[write.key] = write.lease
                events.append(Event(write.key, write.value, revision))
            elif self.values.pop(write.key, None) is not None:
                events.append(Event(write.key, None, revision))
        self.revision = revision
        self.history.append(tuple(events))
        for folder in {e.key.partition("/")[0] for e in events}:
            for told in self._watchers.pop(folder, ()):
                self.network.deliver(told)

    # --- leases ------------------------------------------------------------------------------
    def grant(self, ttl_s: float) -> int:
        lease = self.chance.getrandbits(62) + 1
        self._renew(lease, ttl_s)
        return lease

    def keep_alive(self, lease: int) -> None:
        if lease not in self._leases:
            raise Fenced(f"lease {lease} has ended")
        self._renew(lease, self._leases[lease][0])

    def revoke(self, lease: int) -> None:
        if self._leases.pop(lease, None):
            gone = [k for k, bound in self._bound.items() if bound == lease and k in self.values]
            if gone:
                self._write([Delete(k) for k in gone])

    def _renew(self, lease: int, ttl_s: float) -> None:
        loop = self.network.loop
        ends_s = loop.now + ttl_s + self.chance.random() * LEASE_LATE_S
        self._leases[lease] = (ttl_s, ends_s)
        loop.call_at(ends_s, self._expire, lease, ends_s, context=loop.outside)

    def _expire(self, lease: int, ends_s: float) -> None:
        if self._leases.get(lease, (0, 0))[1] == ends_s:
            self.revoke(lease)

    # --- watches -----------------------------------------------------------------------------
    def events(self, prefix: str, after: Revision) -> list[tuple[Event, ...]]:
        if after < self.compacted:
            raise WatchCompacted(f"revision {after + 1} is no longer held")
        batches = (tuple(e for e in c if e.key.startswith(prefix)) for c in self.history[after:])
        return [b for b in batches if b]

    def watch(self, prefix: str) -> asyncio.Future[None]:
        """Done some time after the next change below the prefix, or near it."""
        moved = self.network.loop.create_future()
        self._watchers.setdefault(prefix.partition("/")[0], []).append(moved)
        return moved


class MetaPort:
    """``storage.meta.port.MetaStore`` as one process has it."""

    def __init__(self, server: MetaServer) -> None:
        self._server, self._network = server, server.network

    async def get(self, key: str) -> Item | None:
        return await self._network.call(META, lambda: self._server.get(key))

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        return await self._network.call(META, lambda: (self._server.items(prefix), self._server.revision))

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        return await self._network.call(META, lambda: self._server.commit(conditions, writes))

    async def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        process, network, server = CURRENT.get(), self._network, self._server
        while True:
            if not server.events(prefix, after):
                await server.watch(prefix)
            await asyncio.sleep(max(0.0, server.late.get((process.name, prefix), 0.0) - network.loop.now))
            if not network.reaches(process.name, META):
                await network.until_reached(process, META)
                if server.chance.random() < 0.5:
                    raise Unavailable("the watch is lost")
            for batch in server.events(prefix, after):
                yield batch
                after = batch[-1].revision

    async def grant(self, ttl_s: float) -> int:
        return await self._network.call(META, lambda: self._server.grant(ttl_s))

    async def keep_alive(self, lease: int) -> None:
        await self._network.call(META, lambda: self._server.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._network.call(META, lambda: self._server.revoke(lease))

    async def close(self) -> None:
        pass
