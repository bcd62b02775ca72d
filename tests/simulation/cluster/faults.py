"""What fails in a simulated cluster, and comes back."""

import random
from collections.abc import Callable

from core.catalog import ChannelOwner
from core.ids import Channel, NodeId
from storage import keys
from storage.meta.port import Delete, Put
from tests.simulation.cluster.invariants import Invariants
from tests.simulation.cluster.loop import Process
from tests.simulation.cluster.network import LOG, META, OBJECTS, STORES
from tests.simulation.cluster.nodes import DATA_NODES, QUERY_NODES, Cluster

RESTART_S = (0.3, 4.0)
"""Until a process that ended is started again: least and most."""
KINDS = {
    "crash": 4,
    "crash role": 1,
    "pause": 3,
    "ambush": 8,
    "cut store": 4,
    "cut tail": 4,
    "cut node": 2,
    "cut all": 1,
    "drain": 2,
    "late watch": 4,
    "compact": 1,
}
"""Faults and how often each is chosen."""


class Faults:
    """names: of the nodes. note: told what happens. booted: told of each process that was started."""

    def __init__(
        self,
        cluster: Cluster,
        invariants: Invariants,
        names: tuple[str, ...],
        chance: random.Random,
        note: Callable[[str], None],
        booted: Callable[[str], None],
    ) -> None:
        self._cluster, self._invariants, self._names, self._chance = cluster, invariants, names, chance
        self._stores, self._network, self._loop = cluster.stores, cluster.network, cluster.network.loop
        self._note, self._booted = note, booted
        self.down: set[str] = set()
        """Names whose process ended, and is to be started again."""

    def crash(self, name: str) -> None:
        """Its process ends now; one of its name starts some time later."""
        process = self._cluster.process(name)
        if process is None or name in self.down:
            return
        self._note(f"crash {name}")
        self.down.add(name)
        self._loop.kill(process)
        self._invariants.forget(NodeId(name))
        self.later(self._chance.uniform(*RESTART_S), lambda: self.boot(name))

    def boot(self, name: str) -> None:
        self._note(f"boot {name}")
        self.down.discard(name)
        self._cluster.boot(name)
        self._booted(name)

    def pause(self, name: str, for_s: float) -> None:
        process = self._cluster.process(name)
        if process is None or process.paused:
            return
        self._note(f"pause {name} for {for_s:.2f} s")
        process.paused = True

        def wake() -> None:
            if process.alive and process.paused:
                self._note(f"wake {name}")
                self._loop.resume(process)

        self.later(for_s, wake)

    def ambush(self, name: str, service: str, nth: int, for_s: float) -> None:
        """Stops a process at its n-th message to a store from now on: before it leaves, or while it is on its way.
        for_s: how long it is paused; 0 = it ends."""
        left, before = nth, self._chance.random() < 0.5
        self._note(f"ambush {name} at message {nth} to {service}")

        def reached(process: Process, to: str) -> bool:
            nonlocal left
            if process.name != name or to != service:
                return False
            left -= 1
            if left:
                return False
            self._network.ambush = None
            self.pause(name, for_s or 1.0)
            if not for_s:
                self._cluster.ending.append(name)
                self._loop.stop()
            return before

        self._network.ambush = reached

    def cut(self, a: str, b: str, for_s: float) -> None:
        self._note(f"cut {a} from {b} for {for_s:.2f} s")
        self._network.cut(a, b)
        self.later(for_s, lambda: self._network.reaches(a, b) or self._network.heal(a, b))

    def late_watch(self, name: str, prefix: str, for_s: float) -> None:
        """It hears of changes below the prefix later than of all others."""
        self._note(f"{name} hears nothing of {prefix} for {for_s:.2f} s")
        self._stores.meta.late[name, prefix] = self._loop.now + for_s
        self._network.cut_s[name] = self._loop.now + for_s

    def drain(self, name: str, for_s: float) -> None:
        role = "querynode" if name in QUERY_NODES else "datanode"
        key = keys.drain(role, NodeId(name))
        self._note(f"drain {name} for {for_s:.2f} s")
        self._stores.meta.commit((), [Put(key, b"")])
        self.later(for_s, lambda: self._stores.meta.commit((), [Delete(key)]))

    def compact_history(self) -> None:
        self._note("metadata history is compacted")
        self._stores.meta.compacted = self._stores.meta.revision

    def later(self, delay_s: float, work: Callable[[], object]) -> None:
        self._loop.call_later(delay_s, work, context=self._loop.outside)

    def strike(self) -> None:
        """Something fails; more often than not where it matters."""
        chance = self._chance
        owners = [
            self._invariants.value(ChannelOwner, keys.owner(Channel(c))) for c in range(len(self._stores.log.channels))
        ]
        matter = [n for n in (self._cluster.leader, *(o.node for o in owners if o)) if n]
        name = chance.choice(matter if matter and chance.random() < 0.4 else self._names)
        for_s = chance.choice((0.3, 1.0, 4.0, 6.0, 8.0)) * chance.uniform(0.6, 1.0)
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "crash":
            self.crash(name)
        elif kind == "pause":
            self.pause(name, for_s)
        elif kind == "ambush":
            service = chance.choice((META, META, OBJECTS, LOG))
            self.ambush(name, service, chance.randrange(1, 9), for_s if chance.random() < 0.7 else 0.0)
        elif kind == "cut store":
            self.cut(name, chance.choice((META, META, LOG, OBJECTS)), for_s)
        elif kind == "cut tail":
            self.cut(chance.choice([n for n in self._names if n in QUERY_NODES]), LOG, chance.uniform(1.0, 4.0))
        elif kind == "late watch":
            self.late_watch(name, chance.choice((keys.COLLECTIONS, keys.MANIFESTS, keys.PLACEMENTS)), for_s)
        elif kind == "cut node":
            self.cut(name, chance.choice([n for n in self._names if n != name]), for_s)
        elif kind == "cut all":
            store = chance.choice(STORES)
            for each in self._names:
                self.cut(each, store, for_s)
        elif kind == "drain" and name in (*DATA_NODES, *QUERY_NODES):
            self.drain(name, for_s)
        elif kind == "compact":
            self.compact_history()
        elif kind == "crash role":
            for each in [n for n in self._names if n[0] == name[0]]:
                self.crash(each)
