"""Faults of connections: of all processes or of one, to one server or from role to role.

Direct calls (``rpc.direct``) have connections of their own, which stay good: a role may be silent on one way and
answer on the other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from sheafdb.cluster import RoleProcess
from sheafdb.cluster.cluster import ROLES
from sheafdb.servers import Detour
from tests.chaos.faults import PAST_LEASE_S, Fault, Say, Strike, any_of, leader
from tests.chaos.stage import OTHERS, SERVERS, Stage

LATENCY_MS = (50, 400)
DIRECTIONS: tuple[tuple[str, ...], ...] = (("upstream", "downstream"), ("upstream",), ("downstream",))
"""Of what vanishes: everything, requests, or answers."""
USERS = {
    "etcd": ROLES,
    "kafka": ("proxy", "querynode", "datanode", "coordinator"),
    "minio": ("querynode", "datanode", "indexnode", "coordinator"),
}
"""Roles that work with a server."""

Spoil = Callable[[Sequence[Detour], Random], Awaitable[str]]
"""Makes ways bad until they are mended; what it did to them."""


def connection_faults() -> list[Fault]:
    spoilers = {"slow": _slow, "cut": _cut, "silence": _silence}
    return [
        *(Fault(f"{kind} {server}", _of_all(server, spoil)) for kind, spoil in spoilers.items() for server in SERVERS),
        *(
            Fault(f"isolate {role} from {server}", _of_one(any_of(role), server))
            for server, roles in USERS.items()
            for role in roles
        ),
        Fault("isolate leader from etcd", _of_one(leader, "etcd")),
        *(Fault(f"{kind} {OTHERS}", _of_all(OTHERS, spoilers[kind])) for kind in ("slow", "cut")),
        *(Fault(f"isolate {role} from {OTHERS}", _of_one(any_of(role), OTHERS)) for role in ROLES if role != "proxy"),
    ]


def _of_all(other: str, spoil: Spoil) -> Strike:
    async def strike(stage: Stage, random: Random, say: Say) -> None:
        ways = stage.all_of(other)
        await _spoilt(ways, f"all connections with {other}", spoil, random.uniform(1, PAST_LEASE_S), random, say)

    return strike


def _of_one(choose: Callable[[Stage, Random], Awaitable[RoleProcess]], other: str) -> Strike:
    async def strike(stage: Stage, random: Random, say: Say) -> None:
        victim, spoil = await choose(stage, random), random.choice((_cut, _silence))
        way = stage.detours[victim.name, other]
        await _spoilt([way], f"{victim.name}'s connections with {other}", spoil, PAST_LEASE_S, random, say)

    return strike


async def _spoilt(ways: Sequence[Detour], whose: str, spoil: Spoil, seconds: float, random: Random, say: Say) -> None:
    try:
        say(f"{whose} {await spoil(ways, random)} for {seconds:.1f} s")
        await asyncio.sleep(seconds)
    finally:
        await asyncio.gather(*(way.mend() for way in ways))


async def _slow(ways: Sequence[Detour], random: Random) -> str:
    latency = random.randint(*LATENCY_MS)
    await asyncio.gather(*(way.toxic("latency", latency=latency, jitter=latency // 2) for way in ways))
    return f"are slower by {latency} ms"


async def _cut(ways: Sequence[Detour], random: Random) -> str:
    await asyncio.gather(*(way.cut() for way in ways))
    return "are closed and refused"


async def _silence(ways: Sequence[Detour], random: Random) -> str:
    streams = random.choice(DIRECTIONS)
    await asyncio.gather(*(way.toxic("timeout", stream=stream, timeout=0) for way in ways for stream in streams))
    return f"stay open and lose what goes {' and '.join(streams)}"
