"""A node's presence in the metadata store: its address under a leased key, kept alive."""

import asyncio
from contextlib import suppress

import structlog

from core.errors import Conflict, Fenced, SheafError
from core.ids import NodeId, Revision
from storage import keys
from storage.meta.port import Condition, MetaStore, Put

log = structlog.get_logger()


class Membership:
    """Registers ``address`` under ``keys.node(role, node)`` until closed, or until the process dies
    and the lease ends. A lost lease is replaced: the key vanishes for a moment and comes back.

    A node's id belongs to one process at a time. ``start`` takes it over from a former process; one that
    slept past its lease and finds another address under its key fails: the task ends with ``Fenced``.
    """

    def __init__(self, meta: MetaStore, role: str, node: NodeId, address: str, ttl_s: float) -> None:
        self._meta, self._ttl_s = meta, ttl_s
        self._key, self._address = keys.node(role, node), address.encode()
        self._lease = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Registers; raises what the store raises."""
        lease = await self._meta.grant(self._ttl_s)
        await self._meta.commit((), [Put(self._key, self._address, lease)])
        self._lease = lease
        self._task = asyncio.create_task(self._keep(), name=f"membership {self._key}")

    async def close(self) -> None:
        """Takes the key away. Idempotent."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Unreachable, the store ends the lease by itself.
        with suppress(SheafError):
            await self._meta.revoke(self._lease)

    async def _keep(self) -> None:
        interval_s = self._ttl_s / 3
        pause_s = interval_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = interval_s / 4
            try:
                async with asyncio.timeout(interval_s):
                    await self._meta.keep_alive(self._lease)
            except Fenced:
                await self._replace()
            except (SheafError, TimeoutError) as e:
                log.warning("heartbeat failed", key=self._key, error=str(e) or "no answer in time")
            else:
                pause_s = interval_s

    async def _replace(self) -> None:
        """Raises ``Fenced`` when another process has taken the key."""
        log.warning("registration lost, registering again", key=self._key)
        try:
            present = await self._meta.get(self._key)
            revision = present.revision if present else Revision(0)
            lease = await self._meta.grant(self._ttl_s)
        except SheafError as e:
            log.warning("registration failed", key=self._key, error=str(e))
            return
        if present and present.value != self._address:
            raise Fenced(f"{self._key} now belongs to another process at {present.value.decode()}")
        try:
            await self._meta.commit([Condition(self._key, revision)], [Put(self._key, self._address, lease)])
        except Conflict:
            return  # looked too early: the next heartbeat looks again
        except SheafError as e:
            log.warning("registration failed", key=self._key, error=str(e))
            return
        self._lease = lease
