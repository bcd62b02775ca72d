"""Faults at a place of the program: a process that dies at a failpoint, in the middle of what it does for the load."""

import asyncio
from contextlib import suppress
from random import Random

from core.errors import StartRefused, Timeout
from core.failpoints import NAMES
from sheafdb.cluster import RoleProcess
from tests.chaos.faults import Fault, Say, Strike, leader
from tests.chaos.stage import Stage

PASSES_WITHIN_S = 15.0
"""Longest wait for the place to be reached; then the process is killed wherever it is."""
LEADS_WITHIN_S = 10
PASSAGES = 3
ROLE_OF = {
    "write.before_append": "proxy",
    "write.appended": "proxy",
    "seal": "datanode",
    "compact": "datanode",
    "trim": "datanode",
    "index.before_put": "indexnode",
    "index": "coordinator",
    "gc": "coordinator",
    "ddl": "coordinator",
}
"""Who passes a failpoint, by its name or the part before the dot; the others are of the embedded log."""


def death_faults() -> list[Fault]:
    roles = {name: ROLE_OF.get(name) or ROLE_OF.get(name.partition(".")[0]) for name in NAMES}
    return [Fault(f"die at {name}", _dying(role, name)) for name, role in roles.items() if role]


def _dying(role: str, name: str) -> Strike:
    async def strike(stage: Stage, random: Random, say: Say) -> None:
        passage, drawn = random.randint(1, PASSAGES), random.choice(stage.cluster.of(role))
        victim = await _doomed(stage, random, drawn, f"{name}=kill@{passage}")
        try:
            await victim.child.ended(PASSES_WITHIN_S)
            say(f"{victim.name} died at {name}, passage {passage}")
        except Timeout:  # and is killed
            say(f"{victim.name} did not come to {name} and was killed")

    return strike


async def _doomed(stage: Stage, random: Random, drawn: RoleProcess, failpoints: str) -> RoleProcess:
    """Started again with a failpoint in it. A coordinator leads then: another one does what is waited for."""
    if drawn.role != "coordinator":
        await _again(drawn, failpoints)
        return drawn
    old = await leader(stage, random)
    new = next((p for p in stage.cluster.of("coordinator") if p is not old), old)
    await _again(new, failpoints)
    if new is not old:
        old.kill()
        # Were it back at once, it might lead again.
        for _ in range(LEADS_WITHIN_S):
            if not new.alive or await stage.cluster.leader() is new:
                break
            await asyncio.sleep(1)
        await old.start_again()
    return new


async def _again(process: RoleProcess, failpoints: str) -> None:
    process.kill()
    process.spawn(failpoints=failpoints)
    with suppress(StartRefused):  # it came to the place at once
        await process.ready()
