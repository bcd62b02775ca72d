"""Definitions, by whichever proxy they were changed.

A change goes to the coordinator, and its effect is awaited in this proxy's catalog. The others hear of it from the
metadata store a moment later, or much later where they are cut off from it; so they look before they say what is
defined and before they refuse what is not, and beside writes and reads that must see what was acknowledged before.
One that is cut off from the store asks a coordinator whether anything was defined since, and refuses if so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from core.catalog import Collection, Consistency
from core.errors import PartitionNotFound, SheafError, Timeout, Unavailable
from core.ids import PartitionId, Revision
from core.latest import Latest
from proxy.call import Call, Handler
from rpc.roles import CatalogChange, Coordinator
from storage.catalog import Catalog

LOOKS = frozenset(
    {
        "HasCollection",
        "DescribeCollection",
        "ShowCollections",
        "GetCollectionStatistics",
        "HasPartition",
        "ShowPartitions",
        "GetPartitionStatistics",
        "DescribeIndex",
        "GetLoadState",
        "GetLoadingProgress",
        "Flush",
        "ManualCompaction",
    }
)
"""RPCs that say what is defined, or act on it once and for all."""
CERTAIN = frozenset({Consistency.STRONG, Consistency.SESSION})
"""Levels of reads that see what was acknowledged before them."""
PATIENCE_S = 1.0
"""How long a look at the metadata store is waited for, and then a coordinator. That is asked instead until the look is
answered, or, where it failed, for as long again."""
UNTOLD_S = 5.0
"""How long what is known has to do after no coordinator answered."""

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]

log = structlog.get_logger()


class Outdated(SheafError):
    """A collection is not what it was when the work on it began. The work has changed nothing, or nothing that is still
    there: it may be done again."""


class Definitions:
    """What every handler works with that uses definitions or changes them."""

    def __init__(self, catalog: Catalog, coordinator: Coordinator, *, alone: bool) -> None:
        """alone: there is no other proxy, so what this one knows is always current."""
        self.catalog = catalog
        self.coordinator = coordinator
        self._alone = alone
        self._unanswered: asyncio.Future[None] | None = None
        self._blind_until = self._untold_until = 0.0
        self._told: Latest[Revision | None] = Latest(self._ask_coordinator, "asking a coordinator what is defined")
        self.guesses = 0
        """How often what is known had to do."""

    @property
    def _blind(self) -> bool:
        """Whether the metadata store does not answer."""
        silent = self._unanswered is not None and not self._unanswered.done()
        return silent or time.monotonic() < self._blind_until

    async def change(self, change: CatalogChange) -> None:
        """Returns once a read through this proxy sees the change."""
        await self.catalog.wait(await self.coordinator.change(change))

    async def unchanged(self, collection: Collection, work: Work[T]) -> T:
        """What ``work`` on the collection gives, if at some moment after this call began the collection is still what
        it was. Raises ``Outdated`` otherwise; ``work`` must have changed nothing then."""
        result = await self._beside(work)
        # A collection value is replaced when anything about it changes, so identity is enough.
        if not self._alone and self.catalog.get(collection.id) is not collection:
            raise Outdated(f"the collection {collection.name} was changed or dropped meanwhile")
        return result

    async def not_dropped(self, collection: Collection, work: Work[T]) -> T:
        """The same for work whose effect goes with the collection: ``Outdated`` is raised only if that was dropped."""
        result = await self._beside(work)
        if not self._alone and self.catalog.get(collection.id) is None:
            raise Outdated(f"the collection {collection.name} was dropped meanwhile")
        return result

    async def as_read(self, collection: Collection, level: Consistency, work: Work[T]) -> T:
        """``unchanged`` for a read at a level that sees what was acknowledged before; others need not be certain."""
        return await (self.unchanged(collection, work) if level in CERTAIN else work())

    def current(self, rpc: str, handler: Handler) -> Handler:
        """The handler, of what is defined as of each call."""

        async def look(request: Any, call: Call) -> Any:
            await self._catch_up()
            return await handler(request, call)

        async def use(request: Any, call: Call) -> Any:
            looked = False
            while True:
                known = self.catalog.collections.revision
                try:
                    return await handler(request, call)
                except Outdated:
                    pass
                except SheafError as e:
                    if looked or not e.caller_mistake:
                        raise
                    await self._catch_up()
                    if self.catalog.collections.revision == known:
                        raise
                looked = True
                request = type(request).FromString(call.message)  # the handler may have taken it apart

        if self._alone:
            return handler
        return look if rpc in LOOKS else use

    async def _beside(self, work: Work[T]) -> T:
        """What ``work`` gives, once what others defined before this call is known, too, or can't be had."""
        if self._alone:
            return await work()
        if self._blind:
            await self._be_told()  # what is refused must have changed nothing
            return await work()
        look = self._look()
        result = await work()
        await self._seen(look)
        return result

    async def _catch_up(self) -> None:
        """Returns once what others defined before this call is known here, or can't be had."""
        if self._blind:
            await self._be_told()
        else:
            await self._seen(self._look())

    def _look(self) -> asyncio.Future[None]:
        """Done once what others defined before this call is known here."""
        look = asyncio.ensure_future(self.catalog.catch_up())
        look.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody may wait any more
        return look

    async def _seen(self, look: asyncio.Future[None]) -> None:
        answered, _ = await asyncio.wait({look}, timeout=PATIENCE_S)
        error = look.exception() if answered else None
        if not answered:
            self._unanswered = look
        elif isinstance(error, Unavailable | Timeout):
            self._blind_until = time.monotonic() + PATIENCE_S
        elif error:
            raise error
        else:
            return
        log.warning("definitions may be outdated: the metadata store does not answer", error=str(error or "silent"))
        await self._be_told()

    async def _be_told(self) -> None:
        """Returns if a coordinator says that nothing is defined that is not known here, or none says anything. Raises
        ``Unavailable`` if there is something."""
        last = await self._told.ask()
        if last is None:
            self.guesses += 1
        elif self.catalog.collections.revision < last:
            raise Unavailable(
                "this proxy is cut off from the metadata store, and something was defined, changed or dropped since: "
                "ask another proxy, or again"
            )

    async def _ask_coordinator(self) -> Revision | None:
        """None = no coordinator says anything."""
        if time.monotonic() < self._untold_until:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.coordinator.defined()
        except (SheafError, TimeoutError) as e:
            self._untold_until = time.monotonic() + UNTOLD_S
            log.warning("no coordinator says what is defined, what is known has to do", error=str(e) or "silent")
            return None


def partition_ids(collection: Collection, names: list[str] | tuple[str, ...]) -> tuple[PartitionId, ...]:
    """Ids of the named partitions, each once. Raises ``PartitionNotFound``."""
    ids = []
    for name in names:
        partition = collection.partition_by_name.get(name)
        if partition is None:
            raise PartitionNotFound(name)
        ids.append(partition.id)
    return tuple(dict.fromkeys(ids))
