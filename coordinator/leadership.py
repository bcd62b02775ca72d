"""One coordinator leads: it holds the leader key by a lease, and every commit is conditional on it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import Conflict, Fenced, NotReady, SheafError
from core.ids import NodeId
from storage import keys
from storage.manifests import Authority
from storage.meta.port import Condition, MetaStore, Put

log = structlog.get_logger()


class Leadership:
    """Campaigns until closed. ``gained`` and ``lost`` are awaited at each change of the guard.

    The lease alone proves nothing (its holder may have slept); the revision of the leader key does:
    it is the epoch in ``authority``, and a commit under an old one conflicts.
    """

    def __init__(
        self,
        meta: MetaStore,
        node: NodeId,
        ttl_s: float,
        gained: Callable[[], Awaitable[None]],
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._meta, self._node, self._ttl_s = meta, node, ttl_s
        self._gained, self._lost = gained, lost
        self._lease = 0
        self._authority: Authority | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def authority(self) -> Authority:
        """What this leader's commits are conditional on. Raises ``NotReady`` when it does not lead."""
        if self._authority is None:
            raise NotReady(f"coordinator {self._node} does not lead: ask again")
        return self._authority

    async def start(self) -> None:
        """Leads when it returns, unless another one does."""
        await self._campaign()
        self._task = asyncio.create_task(self._hold(), name="coordinator leadership")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._resign()

    async def _campaign(self) -> None:
        lease = await self._meta.grant(self._ttl_s)
        try:
            put = Put(keys.LEADER, self._node.encode(), lease)
            epoch = await self._meta.commit([Condition(keys.LEADER, 0)], [put])  # type: ignore[arg-type]
        except Conflict:
            await self._meta.revoke(lease)
            return
        except SheafError:
            # It may have happened: the lease ends by itself, and the key with it.
            return
        self._lease, self._authority = lease, Authority(keys.LEADER, epoch)
        log.info("coordinator leads", node=self._node, epoch=epoch)
        await self._gained()

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                if self._authority is None:
                    await self._campaign()
                else:
                    await self._meta.keep_alive(self._lease)
            except Fenced:
                log.warning("coordinator lost its lease", node=self._node)
                await self._resign()
                await self._try_again()
            except SheafError as e:
                log.warning("leader's heartbeat failed", node=self._node, error=str(e))

    async def _try_again(self) -> None:
        """At once: after a pause of this process, most likely nobody else wants to lead."""
        try:
            await self._campaign()
        except SheafError as e:
            log.warning("campaign failed", node=self._node, error=str(e))

    async def _resign(self) -> None:
        if self._authority is None:
            return
        self._authority = None
        await self._lost()
        try:
            await self._meta.revoke(self._lease)
        except SheafError as e:
            log.warning("leader's lease not revoked, it will run out", node=self._node, error=str(e))
