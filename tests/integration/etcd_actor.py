"""A process that works on etcd and says on stdout what it did: ``ENDPOINTS PREFIX work ...``."""

import asyncio
import sys

import structlog

from coordinator.leadership import Leadership
from core.errors import Conflict, SheafError
from core.ids import NodeId, Revision
from core.settings import EtcdSettings
from storage.membership import Membership
from storage.meta.etcd import EtcdMeta
from storage.meta.port import Condition, Put


def say(line: str) -> None:
    print(line, flush=True)


async def count(meta: EtcdMeta, times: str) -> None:
    """Adds one to a counter so many times."""
    for _ in range(int(times)):
        while True:
            item = await meta.get("counter")
            value, revision = (int(item.value), item.revision) if item else (0, Revision(0))
            try:
                await meta.commit([Condition("counter", revision)], [Put("counter", b"%d" % (value + 1))])
            except Conflict:
                continue
            break
    say("counted")


async def member(meta: EtcdMeta, ttl_s: str) -> None:
    """Is registered."""
    registration = Membership(meta, "querynode", NodeId("q"), "here", float(ttl_s))
    await registration.start()
    say("registered")
    task = registration._task
    assert task
    await task


async def lead(meta: EtcdMeta, node: str, ttl_s: str) -> None:
    """Campaigns; writes under its authority as often as it can, and never asks whether it still leads."""

    async def gained() -> None:
        say("leads")

    async def lost() -> None:
        say("lost")

    leadership = Leadership(meta, NodeId(node), float(ttl_s), gained, lost)
    await leadership.start()
    authority = None
    number = 0
    while True:
        await asyncio.sleep(0.005)
        try:
            authority = authority or leadership.authority
        except SheafError:
            continue
        number += 1
        try:
            await meta.commit([authority.condition], [Put("work", f"{node} {number}".encode())])
        except Conflict:
            try:
                await authority.check(meta)
            except SheafError as e:
                say(type(e).__name__)
                authority = None
        except SheafError:
            continue


async def main(endpoints: str, prefix: str, work: str, *args: str) -> None:
    meta = await EtcdMeta.open(EtcdSettings(endpoints=endpoints, prefix=prefix))
    await {"count": count, "member": member, "lead": lead}[work](meta, *args)
    await meta.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
