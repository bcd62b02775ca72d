"""One schedule: a seed decides the cluster's size, the clients' work, and what fails when.

Faults come first, against running work. Then all of them are healed, and within a bounded virtual time
the cluster must be whole: led, owned, loaded, every acknowledged write readable on every replica.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from core.catalog import ChannelOwner, Collection, Placement
from core.ids import Channel, NodeId, ShardId
from rpc.roles import CreateCollection, DropCollection, Load
from storage import keys
from tests.simulation.cluster.clients import SCHEMA, Clients
from tests.simulation.cluster.definer import Definer
from tests.simulation.cluster.faults import Faults
from tests.simulation.cluster.files import in_memory
from tests.simulation.cluster.invariants import Invariants, Violation
from tests.simulation.cluster.log import LogServer
from tests.simulation.cluster.loop import Process, VirtualLoop, virtual_time
from tests.simulation.cluster.meta import MetaServer
from tests.simulation.cluster.network import Network
from tests.simulation.cluster.nodes import COORDINATORS, DATA_NODES, GRACE_S, PROXIES, QUERY_NODES, Cluster, Stores
from tests.simulation.cluster.objects import ObjectServer
from tests.simulation.cluster.oracle import Oracle

CHANNELS = 2
START_S = 20.0
"""Until a cluster without faults serves."""
HEAL_S = 60.0
"""Until a cluster whose faults are over is whole again."""
FAULTY_S = (2.5, 6.5)
"""How long clients work and things fail."""
LOST, SLOW = (0.0, 0.01), (0.0, 0.03, 0.15)
"""Chances of a message to be lost, and to be late."""
BESIDE = 0.6
"""Share of schedules with proxies; those without are half as long."""
READS_MAX = 40
"""Rounds of reads until all leaders of a shard have answered, and of flushes until one is done."""
NAME, SECOND = "main", "second"


@dataclass
class Result:
    """What became of a schedule. violation: "" when everything held."""

    seed: int
    violation: str
    steps: int
    virtual_s: float
    healed_s: float
    trace: list[str]
    answered: dict[str, int] = field(default_factory=dict)


class Schedule:
    """A cluster and what happens to it."""

    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.violations: list[str] = []
        self.trace: list[str] = []

        def part(name: str) -> random.Random:
            return random.Random(f"{seed}/{name}")

        self.loop = VirtualLoop(part("threads"), self.report)
        self.network = Network(self.loop, part("network"))
        self.oracle = Oracle()
        self.invariants = Invariants(self.oracle, GRACE_S)
        holds, noted = self.invariants, self._noted
        meta = MetaServer(self.network, part("meta"), noted(holds.committing))
        log = LogServer(self.network, part("log"), CHANNELS, self.oracle.appended, noted(holds.trimming))
        objects = ObjectServer(self.network, noted(holds.putting), noted(holds.deleting))
        holds.meta, holds.objects = meta, objects
        self.stores = Stores(self.network, meta, log, objects)
        query_nodes = QUERY_NODES[: self.chance.choice((1, 2, 2, 3))]
        self.query_nodes = query_nodes
        proxies = PROXIES if self.chance.random() < BESIDE else ()
        self.names = (*COORDINATORS, *DATA_NODES, *query_nodes, *proxies)
        self.cluster = Cluster(self.stores, spread=len(query_nodes) > 1 and self.chance.random() < 0.5)
        self.clients = Clients(self.network, self.cluster, holds, part("clients"))
        self.definer = Definer(self.cluster, self.clients, part("definer")) if proxies else None
        self.client = Process("client")
        self.faults = Faults(self.cluster, holds, self.names, self.chance, self.note, self._booted)
        self.healed_s = 0.0
        self._awaited: list[str] = []
        """Nodes without which the cluster is not whole."""

    # --- what is watched -----------------------------------------------------------------------
    def _noted(self, told: Callable[..., None]) -> Callable[..., None]:
        def checked(*args: Any) -> None:
            try:
                told(*args)
            except Violation as e:
                self.report(str(e))

        return checked

    def report(self, text: str) -> None:
        self.note(f"VIOLATION {text}")
        self.violations.append(text)
        self.loop.stop()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.loop.now:9.4f}  {text}")

    def _booted(self, name: str) -> None:
        """Has each state that a query node's shards reach looked at."""
        if name not in QUERY_NODES:
            return
        node = self.cluster.nodes[name]
        held, look = node.service._placed._served, self._noted(self.invariants.shard_moved)
        last: dict[ShardId, tuple[Any, ...]] = {}

        def watch() -> None:
            for id, served in held.items():
                shard = served.shard
                seen = (shard.ready, shard.applied, shard.manifest.version)
                if last.get(id) != seen:
                    last[id] = seen
                    look(NodeId(name), shard)

        node.process.look = watch

    def run(self, until: Callable[[], bool], deadline_s: float) -> bool:
        """As the loop's; ends also at a violation. Starts again what ended."""
        while True:
            self.loop.run(until, deadline_s)
            if self.cluster.ending:
                for name in self.cluster.ending:
                    self.faults.crash(name)
                self.cluster.ending.clear()
            elif self.violations or self.loop.now >= deadline_s or until():
                return until()

    # --- the course of it --------------------------------------------------------------------
    def play(self) -> None:
        """All of it; ends early at a violation."""
        replicas = 1 if self.cluster.spread else min(self.chance.choice((1, 1, 2)), len(self.query_nodes))
        late = self.chance.choice(self.query_nodes) if len(self.query_nodes) > 1 and self.chance.random() < 0.4 else ""
        self._awaited = [n for n in self.names if n != late]
        for name in self._awaited:
            self.faults.boot(name)
        if late:
            replicas = 1
            self.faults.down.add(late)
            self.faults.later(self.chance.uniform(1.0, 8.0), lambda: self.faults.boot(late))
        ready = self._client(self._create(NAME, self.chance.choice((1, 2, 3)), replicas))
        self._expect(self.run(lambda: ready.done() and self._whole(), START_S), "the cluster serves")
        self.network.lost, self.network.slow = self.chance.choice(LOST), self.chance.choice(SLOW)
        work = self._client(self._work())
        definitions = self._client(self.definer.work()) if self.definer else work
        end_s = self.loop.now + self.chance.uniform(*FAULTY_S)
        for _ in range(self.chance.randrange(2, 7)):
            if self.violations:
                return
            self.run(lambda: False, self.loop.now + self.chance.uniform(0.0, (end_s - self.loop.now) / 2))
            self.faults.strike()
        self.run(lambda: False, end_s)
        self._heal()
        began_s = self.loop.now
        self._expect(
            self.run(lambda: work.done() and definitions.done() and self._whole(), began_s + HEAL_S),
            "the cluster is whole again",
        )
        self.healed_s = self.loop.now - began_s
        last = self._client(self._read_all())
        self._expect(self.run(last.done, self.loop.now + HEAL_S), "everything is read")
        self._noted(self.clients.look_again)()

    def _heal(self) -> None:
        if self.violations:
            return
        self.note("heal")
        self._awaited = [*self.names]
        self.network.heal_all()
        self.network.ambush = None
        self.stores.meta.late.clear()
        for name in self.names:
            process = self.cluster.process(name)
            if process is not None and process.paused:
                self.loop.resume(process)

    def _expect(self, holds: bool, what: str) -> None:
        if not holds and not self.violations:
            self.report(f"liveness: waited in vain until {what}: {self._missing()}")

    def _client(self, work: Any) -> Any:
        return self.loop.spawn(self.client, self._guard(work))

    async def _create(self, name: str, shards: int, replicas: int) -> None:
        await self.clients.change(CreateCollection("", name, SCHEMA, shards))
        await self.clients.change(Load("", name, replicas=replicas))

    async def _work(self) -> None:
        chance, clients = random.Random(f"{self.seed}/work"), self.clients
        running = []
        second = chance.random() < 0.3
        for n in range(chance.randrange(10, 26)):
            await asyncio.sleep(chance.expovariate(1 / 0.2))
            kinds = (clients.write, clients.read, clients.flush, clients.barrier, clients.partition)
            work = chance.choices(kinds, (12, 3, 2, 1, 2))[0]
            name = chance.choice((NAME, NAME, SECOND)) if second else NAME
            running.append(asyncio.create_task(self._guard(work(name))))
            if second and n == 6:
                running.append(asyncio.create_task(self._guard(self._create(SECOND, 2, 1))))
            if second and n == 16:
                running.append(asyncio.create_task(self._guard(clients.change(DropCollection("", SECOND)))))
            if n % 8 == 0:
                self._noted(clients.look_again)()
        await asyncio.gather(*running)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Violation as e:
            self.report(str(e))
        except Exception as e:
            self.report(f"a client was told {e!r}")

    async def _read_all(self) -> None:
        """Every leader of every shard answers, with all that was ever acknowledged; a flush is done."""
        for collection in self._collections():
            for shard in collection.shard_ids:
                end = self.stores.log.channels[collection.shards[shard.number].channel].end
                # Leaders may move once more: a node that was cut off looks dead until it is seen again.
                for _ in range(READS_MAX):
                    if all([await self.clients.read_on(n, shard, end) for n in self.clients.leaders(shard)]):
                        break
                    await asyncio.sleep(0.5)
                else:
                    self.report(f"liveness: not all leaders of {shard} answer with all faults healed")
        for _ in range(READS_MAX):
            if await self.clients.flush(NAME):
                return
            await asyncio.sleep(0.5)
        self.report("liveness: no flush succeeds with all faults healed")

    # --- being whole -------------------------------------------------------------------------
    def _collections(self) -> list[Collection]:
        items = self.stores.meta.items(keys.COLLECTIONS)
        found = [keys.decode(Collection, i.value) for i in items]
        return [c for c in found if not c.dropped]

    def _whole(self) -> bool:
        return next(self._missing_parts(), None) is None

    def _missing(self) -> str:
        return "; ".join(self._missing_parts())

    def _missing_parts(self) -> Iterator[str]:
        """What a healthy cluster has and this one lacks."""
        nodes, value = self.cluster.nodes, self.invariants.value
        for name in self._awaited:
            if self.cluster.process(name) is None or not nodes[name].started:
                yield f"{name} is not up"
        leader = self.cluster.leader
        if not leader or self.cluster.process(leader) is None:
            yield f"no coordinator leads ({leader!r})"
        for channel in range(CHANNELS):
            owner = value(ChannelOwner, keys.owner(Channel(channel)))
            if owner is None or self.cluster.process(owner.node) is None:
                yield f"channel {channel} has no living owner ({owner})"
        living = sum(name[0] == "q" for name in self.names)
        for collection in self._collections():
            if collection.loaded:
                yield from self._unled(collection, min(collection.replicas, living))

    def _unled(self, collection: Collection, replicas: int) -> Iterator[str]:
        placement: Placement | None = self.invariants.value(Placement, keys.placement(collection.id))
        held = placement.replicas if placement else ()
        if len(held) != replicas:
            yield f"{collection.name} has {len(held)} replicas of {replicas}"
        for replica in held:
            if replica.leaders != replica.coming:
                yield f"{collection.name} is moving from {replica.leaders} to {replica.coming}"
            for shard, node in zip(collection.shard_ids, replica.leaders, strict=True):
                if not self._ready(node, shard):
                    yield f"{node} is not ready to lead {shard}"

    def _ready(self, name: NodeId, shard: ShardId) -> bool:
        node = self.cluster.nodes.get(name)
        served = node.service._placed.get(shard) if node and node.process.alive and node.started else None
        return served is not None and served.shard.ready

    def end(self) -> None:
        """Ends all processes, so that nothing is left."""
        for node in [*self.cluster.nodes.values()]:
            if node.process.alive:
                self.loop.kill(node.process)
        self.loop.kill(self.client)


def play(seed: int) -> Result:
    """Plays one schedule, in a clean world."""
    schedule = Schedule(seed)
    collecting = gc.isenabled()
    gc.disable()  # what is let go, and when, is part of a schedule
    with virtual_time(schedule.loop), in_memory(), errors_to(schedule.report):
        try:
            schedule.play()
        finally:
            violations = list(schedule.violations)
            schedule.end()
            if collecting:
                gc.enable()
    return Result(
        seed,
        violations[0] if violations else "",
        schedule.loop.steps,
        schedule.loop.now,
        schedule.healed_s,
        schedule.trace,
        schedule.clients.answered,
    )


@contextmanager
def errors_to(report: Callable[[str], None]) -> Iterator[None]:
    """Inside, what the roles log as an error, for a person to act on, is a violation."""
    before = structlog.get_config()

    def error(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        report(f"logged as an error: {event}")
        raise structlog.DropEvent

    wrapper = structlog.make_filtering_bound_logger(40)
    structlog.configure(processors=[error], wrapper_class=wrapper, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
