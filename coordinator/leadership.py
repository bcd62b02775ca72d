"""One coordinator leads: it holds the leader key by a lease, and every commit is conditional on it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import structlog

from core.errors import Conflict, Fenced, NotReady, SheafError
from core.ids import NodeId, Revision
from storage import keys
from storage.manifests import Authority
from storage.meta.port import Condition, MetaStore, Put

LOOK_S = 10.0
"""How often a standby that sees no change looks for itself whether somebody leads."""
RETRY_S = 0.2

log = structlog.get_logger()


class Leadership:
    """Campaigns until closed. ``gained`` and ``lost`` are awaited at each change of the guard.

    The lease alone proves nothing (its holder may have slept); the revision of the leader key does:
    it is the epoch in ``authority``, and a commit under an old one conflicts. A standby watches the key
    and campaigns when it vanishes: at once after a leader that left, after what was left of the lease
    of one that died.
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
        """Leads when it returns, unless another one does. Raises what the store raises."""
        await self._campaign()
        self._task = asyncio.create_task(self._run(), name="coordinator leadership")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._resign()

    # --- standing by -------------------------------------------------------------------------
    async def _run(self) -> None:
        while True:
            try:
                if self._authority is None:
                    await self._vacancy()
                    await self._campaign()
                else:
                    await self._hold(self._authority)
            except SheafError as e:
                log.warning("coordinator can't campaign", node=self._node, error=str(e))
                await asyncio.sleep(RETRY_S)

    async def _vacancy(self) -> None:
        """Returns when nobody leads."""
        while True:
            items, revision = await self._meta.list(keys.LEADER)
            if all(item.key != keys.LEADER for item in items):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._vanished(revision)

    async def _vanished(self, after: Revision) -> None:
        async with aclosing(self._meta.watch(keys.LEADER, after)) as batches:
            async for batch in batches:
                if any(event.key == keys.LEADER and event.value is None for event in batch):
                    return

    async def _campaign(self) -> None:
        lease = await self._meta.grant(self._ttl_s)
        try:
            put = Put(keys.LEADER, self._node.encode(), lease)
            epoch = await self._meta.commit([Condition(keys.LEADER, Revision(0))], [put])
        except Conflict:
            await self._meta.revoke(lease)
            return
        except SheafError:
            # It may have happened: with the lease the key goes, and somebody can win it.
            with suppress(SheafError):
                await self._meta.revoke(lease)
            raise
        self._lease, self._authority = lease, Authority(keys.LEADER, epoch)
        log.info("coordinator leads", node=self._node, epoch=epoch)
        await self._gained()

    # --- leading -----------------------------------------------------------------------------
    async def _hold(self, authority: Authority) -> None:
        """Keeps the lease alive. Resigns when it has ended, when somebody else has the key, and when the
        store was out of reach for so long that a standby may lead by now."""
        interval_s = self._ttl_s / 3
        renewed = time.monotonic()
        pause_s = interval_s
        while time.monotonic() - renewed < self._ttl_s:
            await asyncio.sleep(pause_s)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(interval_s):
                    await self._meta.keep_alive(self._lease)
                    await authority.check(self._meta)
            except Fenced as e:
                log.warning("coordinator lost its lease", node=self._node, error=str(e))
                break
            except (SheafError, TimeoutError) as e:
                log.warning("leader's heartbeat failed", node=self._node, error=str(e) or "no answer in time")
                pause_s = interval_s / 4
            else:
                renewed, pause_s = asked, interval_s
        await self._resign()

    async def _resign(self) -> None:
        if self._authority is None:
            return
        self._authority = None
        await self._lost()
        try:
            await self._meta.revoke(self._lease)
        except SheafError as e:
            log.warning("leader's lease not revoked, it will run out", node=self._node, error=str(e))
