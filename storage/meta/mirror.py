"""A current in-memory copy of one prefix of the metadata store, kept by a watch."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from core.errors import NotReady, Timeout, Unavailable, WatchCompacted
from core.ids import Revision
from storage import keys
from storage.meta.port import Event, MetaStore

T = TypeVar("T")
Listener = Callable[[str, T | None], None]

log = structlog.get_logger()


class Mirror(Generic[T]):
    """Copy of all values below ``prefix``, decoded to ``cls``.

    ``values`` and ``revisions`` are keyed by the full key and change only between awaits of the
    event loop, one commit at a time. Listeners are called with (key, new value or None) after the
    change is in ``values``; they must not raise or block.
    """

    def __init__(self, meta: MetaStore, prefix: str, cls: type[T]) -> None:
        self._meta, self._prefix, self._cls = meta, prefix, cls
        self.values: dict[str, T] = {}
        self.revisions: dict[str, Revision] = {}
        self.revision = Revision(0)
        self._listeners: list[Listener[T]] = []
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Lists, then follows. When it returns, ``values`` is complete."""
        await self._relist()
        self._task = asyncio.create_task(self._follow(), name=f"mirror {self._prefix}")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def listen(self, listener: Listener[T], *, replay: bool = True) -> None:
        """Calls the listener for every change from now on; first for all present values."""
        if replay:
            for key, value in self.values.items():
                listener(key, value)
        self._listeners.append(listener)

    async def wait(self, revision: Revision, timeout_s: float = 10.0) -> None:
        """Returns once every change of this prefix up to ``revision`` is in ``values``.

        ``revision`` must be that of a commit which wrote below this prefix. Raises ``Timeout``.
        """
        if not self._task:
            raise NotReady(f"mirror of {self._prefix} is not started")
        try:
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    moved = self._moved
                    await moved.wait()
        except TimeoutError:
            raise Timeout(f"waited {timeout_s} s for metadata revision {revision} of {self._prefix}") from None

    async def _relist(self) -> None:
        items, revision = await self._meta.list(self._prefix)
        present = {i.key for i in items}
        events = [Event(i.key, i.value, i.revision) for i in items if self.revisions.get(i.key) != i.revision]
        events += [Event(k, None, revision) for k in list(self.values) if k not in present]
        self._apply(events, revision)

    async def _follow(self) -> None:
        gap = False
        while True:
            try:
                if gap:
                    await self._relist()
                    gap = False
                async for events in self._meta.watch(self._prefix, self.revision):
                    self._apply(events, events[-1].revision)
            except WatchCompacted:
                gap = True
            except Unavailable as e:
                log.warning("metadata watch lost, resuming", prefix=self._prefix, error=str(e))
                await asyncio.sleep(0.2)

    def _apply(self, events: Sequence[Event], revision: Revision) -> None:
        changed: list[tuple[str, T | None]] = []
        for e in events:
            if e.value is None:
                self.values.pop(e.key, None)
                self.revisions.pop(e.key, None)
                changed.append((e.key, None))
            else:
                value = keys.decode(self._cls, e.value)
                self.values[e.key] = value
                self.revisions[e.key] = e.revision
                changed.append((e.key, value))
        self.revision = max(self.revision, revision)
        for key, value in changed:
            for listener in self._listeners:
                listener(key, value)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
