"""A current in-memory copy of one prefix of the metadata store, kept by a watch."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from core.errors import NotReady, Timeout, Unavailable, WatchCompacted
from core.ids import Revision
from storage import keys
from storage.meta.port import Event, MetaStore

T = TypeVar("T")
Listener = Callable[[str, T | None], None]

SLICE = 256
"""Values decoded in one go of a listing, between which the event loop goes on."""

log = structlog.get_logger()


class Kept(Mapping[str, T]):
    """Values as they are stored, the last ``most`` that were asked for decoded: a million take a tenth of
    the memory, and a start reads them without decoding."""

    def __init__(self, cls: type[T], most: int) -> None:
        self._cls, self._most = cls, most
        self._stored: dict[str, bytes] = {}
        self._decoded: OrderedDict[str, T] = OrderedDict()

    def set(self, key: str, stored: bytes | None) -> None:
        """None: there is no such value any more."""
        self._decoded.pop(key, None)
        if stored is None:
            self._stored.pop(key, None)
        else:
            self._stored[key] = stored

    def __getitem__(self, key: str) -> T:
        found = self._decoded.pop(key, None)
        if found is None:
            found = keys.decode(self._cls, self._stored[key])
            while len(self._decoded) >= self._most:
                self._decoded.popitem(last=False)
        self._decoded[key] = found
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class Mirror(Generic[T]):
    """Copy of all values below ``prefix``, decoded to ``cls``.

    ``values`` and ``revisions`` are keyed by the full key and change only between awaits of the
    event loop, one commit at a time. Listeners are called with (key, new value or None) after the
    change is in ``values``; they must not raise or block.

    decoded_max: values that are kept decoded, the others are when asked for; None = all of them.
    """

    def __init__(self, meta: MetaStore, prefix: str, cls: type[T], decoded_max: int | None = None) -> None:
        self._meta, self._prefix, self._cls = meta, prefix, cls
        self._all: dict[str, T] = {}
        self._kept = None if decoded_max is None else Kept(cls, decoded_max)
        self.values: Mapping[str, T] = self._all if self._kept is None else self._kept
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
        # Before any of it shows: a listing is seen at once, as a commit is.
        decoded: dict[str, T] = {}
        for number, event in enumerate(events if self._kept is None else ()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if event.value is not None:
                decoded[event.key] = keys.decode(self._cls, event.value)
        self._apply(events, revision, decoded)

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

    def _apply(self, events: Sequence[Event], revision: Revision, decoded: Mapping[str, T] | None = None) -> None:
        for e in events:
            if e.value is None:
                self.revisions.pop(e.key, None)
            else:
                self.revisions[e.key] = e.revision
            if self._kept is not None:
                self._kept.set(e.key, e.value)
            elif e.value is None:
                self._all.pop(e.key, None)
            else:
                self._all[e.key] = decoded[e.key] if decoded else keys.decode(self._cls, e.value)
        self.revision = max(self.revision, revision)
        for e in events if self._listeners else ():
            value = None if e.value is None else self.values.get(e.key)
            for listener in self._listeners:
                listener(e.key, value)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
