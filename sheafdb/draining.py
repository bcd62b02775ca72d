"""Leaving without loss: what a node has goes to others while it still serves."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core.errors import Conflict, SheafError
from core.ids import NodeId, Revision
from sheafdb.remote_nodes import RemoteNodes
from storage import keys
from storage.meta.port import Condition, MetaStore, Put

LOOK_S = 0.1
MARGIN_S = 60.0
"""The wish ends by itself this long after the wait for it, should the process be killed meanwhile."""

log = structlog.get_logger()


class Drain:
    """The wish of one node to lose what it has. The coordinator carries it out."""

    def __init__(self, meta: MetaStore, nodes: RemoteNodes, role: str, node: NodeId) -> None:
        self._meta, self._nodes, self._role, self._node = meta, nodes, role, node
        self._lease = 0

    async def run(self, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Returns when the node has nothing any more, when there is nobody to take it, or after the
        time. Raises what the store raises."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ask(timeout_s)
                while True:
                    if not await holds() or not await self._others():
                        return
                    await asyncio.sleep(LOOK_S)
        log.warning("left before everything was handed over", role=self._role, node=self._node, waited_s=timeout_s)

    async def close(self) -> None:
        """Takes the wish back, once the node is gone: another process may come under its id. Idempotent."""
        lease, self._lease = self._lease, 0
        if lease:
            with suppress(SheafError):  # it ends by itself
                await self._meta.revoke(lease)

    async def _ask(self, timeout_s: float) -> None:
        self._lease = await self._meta.grant(timeout_s + MARGIN_S)
        key = keys.drain(self._role, self._node)
        with suppress(Conflict):  # an operator wishes the same, and for longer
            await self._meta.commit([Condition(key, Revision(0))], [Put(key, b"", self._lease)])

    async def _others(self) -> set[NodeId]:
        """Who could take over."""
        prefix = keys.drain(self._role, NodeId(""))
        draining = {NodeId(item.key.removeprefix(prefix)) for item in (await self._meta.list(prefix))[0]}
        return set(self._nodes.ids(self._role)) - draining - {self._node}
