"""What happens to a cluster under load: one fault at a time, drawn from a seed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from core.errors import SheafError
from core.settings import CoordinatorSettings, NodeSettings
from sheafdb.cluster import RoleProcess
from sheafdb.cluster.cluster import ROLES
from sheafdb.servers import LocalServer
from tests.chaos.stage import SERVERS, Stage

Say = Callable[[str], None]
Strike = Callable[[Stage, Random, Say], Awaitable[None]]

PAST_LEASE_S = max(NodeSettings().lease_ttl_s, CoordinatorSettings().lease_ttl_s) + 2.0
"""A pause after which nobody counts a process any more. Its successor works when it wakes."""
DOWN_MOST_S = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """name: "kill querynode". ``strike`` returns once the fault is over, but for processes that stay dead."""

    name: str
    strike: Strike


def process_faults() -> list[Fault]:
    """Killed and paused ones."""
    return [
        *(Fault(f"kill {role}", _killing(any_of(role))) for role in ROLES),
        Fault("kill leader", _killing(leader)),
        *(Fault(f"pause {role}", _pausing(any_of(role))) for role in ROLES),
        Fault("pause leader", _pausing(leader)),
        *(Fault(f"kill {server}", _killing(_server(server))) for server in SERVERS),
        *(Fault(f"pause {server}", _pausing(_server(server))) for server in SERVERS),
        Fault("kill all roles", _kill_all_roles),
    ]


def schedule(faults: Sequence[Fault], random: Random) -> Iterator[Fault]:
    """Without end: all of them in a drawn order, then all of them in another one, and so on."""
    while True:
        yield from random.sample(faults, len(faults))


async def start_dead(stage: Stage, say: Say) -> None:
    """Starts whatever is dead, servers first; what does not come up is left for the next call."""
    for processes in (stage.cluster.servers.values(), stage.cluster.roles.values()):
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
Choose = Callable[[Stage, Random], Awaitable[Victim]]


def any_of(role: str) -> Callable[[Stage, Random], Awaitable[RoleProcess]]:
    async def choose(stage: Stage, random: Random) -> RoleProcess:
        return random.choice(stage.cluster.of(role))

    return choose


def _server(name: str) -> Choose:
    async def choose(stage: Stage, random: Random) -> Victim:
        return stage.cluster.servers[name]

    return choose


async def leader(stage: Stage, random: Random) -> RoleProcess:
    """The coordinator that leads; any one while none does."""
    drawn = random.choice(stage.cluster.of("coordinator"))
    return await stage.cluster.leader() or drawn


# --- what is done to them --------------------------------------------------------------------------
def _killing(choose: Choose) -> Strike:
    async def strike(stage: Stage, random: Random, say: Say) -> None:
        victim = await choose(stage, random)
        down_s = random.uniform(0, DOWN_MOST_S)
        say(f"SIGKILL {victim.name} (pid {victim.pid}), down for {down_s:.1f} s")
        victim.kill()
        await asyncio.sleep(down_s)

    return strike


def _pausing(choose: Choose) -> Strike:
    async def strike(stage: Stage, random: Random, say: Say) -> None:
        victim = await choose(stage, random)
        say(f"SIGSTOP {victim.name} (pid {victim.pid}) for {PAST_LEASE_S:g} s")
        victim.pause()
        try:
            await asyncio.sleep(PAST_LEASE_S)
        finally:
            with suppress(ProcessLookupError):
                victim.resume()

    return strike


async def _kill_all_roles(stage: Stage, random: Random, say: Say) -> None:
    say(f"SIGKILL all {len(stage.cluster.roles)} roles")
    for process in stage.cluster.roles.values():
        process.kill()
