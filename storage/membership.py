"""A node's presence in the metadata store: its address under a leased key, kept alive."""

import asyncio
from contextlib import suppress

import structlog

from core.errors import Fenced, SheafError
from core.ids import NodeId
from storage import keys
from storage.meta.port import MetaStore, Put

log = structlog.get_logger()


class Membership:
    """Registers ``address`` under ``keys.node(role, node)`` until closed, or until the process dies
    and the lease ends. A lost lease is replaced: the key vanishes for a moment and comes back."""

    def __init__(self, meta: MetaStore, role: str, node: NodeId, address: str, ttl_s: float) -> None:
        self._meta, self._ttl_s = meta, ttl_s
        self._key, self._address = keys.node(role, node), address.encode()
        self._lease = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Registers; raises what the store raises."""
        await self._register()
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

    async def _register(self) -> None:
        self._lease = await self._meta.grant(self._ttl_s)
        await self._meta.commit((), [Put(self._key, self._address, self._lease)])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._meta.keep_alive(self._lease)
            except Fenced:
                await self._replace()
            except SheafError as e:
                log.warning("heartbeat failed", key=self._key, error=str(e))

    async def _replace(self) -> None:
        log.warning("registration lost, registering again", key=self._key)
        try:
            await self._register()
        except SheafError as e:
            log.warning("registration failed", key=self._key, error=str(e))
