"""What happens to a cluster under load: one fault at a time, drawn from a seed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from core.errors import SheafError
from core.settings import CoordinatorSettings, EtcdSettings, NodeSettings
from sheafdb.cluster import Cluster, RoleProcess
from sheafdb.cluster.cluster import ROLES
from sheafdb.servers import LocalServer
from storage import keys
from storage.meta.etcd import EtcdMeta

Say = Callable[[str], None]

PAST_LEASE_S = max(NodeSettings().lease_ttl_s, CoordinatorSettings().lease_ttl_s) + 2.0
"""A pause after which nobody counts a process any more. Its successor works when it wakes."""
DOWN_MOST_S = 3.0
SERVERS = ("kafka", "etcd", "minio")


@dataclass(frozen=True, slots=True)
class Fault:
    """name: "kill querynode". ``strike`` returns once the fault is over, but for processes that stay dead."""

    name: str
    strike: Callable[[Cluster, Random, Say], Awaitable[None]]


def all_faults() -> list[Fault]:
    return [
        *(Fault(f"kill {role}", _killing(_any_of(role))) for role in ROLES),
        Fault("kill leader", _killing(_leader)),
        *(Fault(f"pause {role}", _pausing(_any_of(role))) for role in ROLES),
        Fault("pause leader", _pausing(_leader)),
        *(Fault(f"kill {server}", _killing(_server(server))) for server in SERVERS),
        *(Fault(f"pause {server}", _pausing(_server(server))) for server in SERVERS),
        Fault("kill all roles", _kill_all_roles),
    ]


def schedule(faults: Sequence[Fault], random: Random) -> Iterator[Fault]:
    """Without end: all of them in a drawn order, then all of them in another one, and so on."""
    while True:
        yield from random.sample(faults, len(faults))


async def start_dead(cluster: Cluster, say: Say) -> None:
    """Starts whatever is dead, servers first; what does not come up is left for the next call."""
    for processes in (cluster.servers.values(), cluster.roles.values()):
        dead = [p for p in processes if not p.alive]
        for process, outcome in zip(
            dead, await asyncio.gather(*(p.start_again() for p in dead), return_exceptions=True), strict=True
        ):
            if isinstance(outcome, SheafError):
                say(f"{process.name} did not start: {outcome}")
            elif outcome is not None:
                raise outcome


# --- victims ---------------------------------------------------------------------------------------
Victim = RoleProcess | LocalServer
Choose = Callable[[Cluster, Random], Awaitable[Victim]]


def _any_of(role: str) -> Choose:
    async def choose(cluster: Cluster, random: Random) -> Victim:
        return random.choice(cluster.of(role))

    return choose


def _server(name: str) -> Choose:
    async def choose(cluster: Cluster, random: Random) -> Victim:
        return cluster.servers[name]

    return choose


async def _leader(cluster: Cluster, random: Random) -> Victim:
    """The coordinator that leads; any one while none does."""
    meta = await EtcdMeta.open(EtcdSettings(endpoints=cluster.endpoints.etcd, prefix=cluster.endpoints.name))
    try:
        item = await meta.get(keys.LEADER)
    finally:
        await meta.close()
    return cluster.roles[item.value.decode()] if item else random.choice(cluster.of("coordinator"))


# --- what is done to them --------------------------------------------------------------------------
def _killing(choose: Choose) -> Callable[[Cluster, Random, Say], Awaitable[None]]:
    async def strike(cluster: Cluster, random: Random, say: Say) -> None:
        victim = await choose(cluster, random)
        down_s = random.uniform(0, DOWN_MOST_S)
        say(f"SIGKILL {victim.name} (pid {victim.pid}), down for {down_s:.1f} s")
        victim.kill()
        await asyncio.sleep(down_s)

    return strike


def _pausing(choose: Choose) -> Callable[[Cluster, Random, Say], Awaitable[None]]:
    async def strike(cluster: Cluster, random: Random, say: Say) -> None:
        victim = await choose(cluster, random)
        say(f"SIGSTOP {victim.name} (pid {victim.pid}) for {PAST_LEASE_S:g} s")
        victim.pause()
        try:
            await asyncio.sleep(PAST_LEASE_S)
        finally:
            with suppress(ProcessLookupError):
                victim.resume()

    return strike


async def _kill_all_roles(cluster: Cluster, random: Random, say: Say) -> None:
    say(f"SIGKILL all {len(cluster.roles)} roles")
    for process in cluster.roles.values():
        process.kill()
