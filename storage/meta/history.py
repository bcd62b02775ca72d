"""The last commits of the embedded metadata store, for its watches."""

import asyncio
from collections import deque

from core.errors import WatchCompacted
from core.ids import Revision
from storage.meta.port import Event

EVENTS_MAX = 100_000
BYTES_MAX = 16 * 1024 * 1024


class History:
    """One entry per revision, without holes; the oldest go when there are too many. Event loop only.

    ``revision``: of the last commit.
    """

    def __init__(self, revision: Revision, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.revision = revision
        self._events_max, self._bytes_max = events_max, bytes_max
        self._commits: deque[tuple[Event, ...]] = deque()
        self._events = 0
        self._bytes = 0
        self._moved = asyncio.Event()

    def add(self, revision: Revision, events: tuple[Event, ...]) -> None:
        """The next commit; one without events changed nothing and has no entry."""
        if not events:
            return
        assert revision == self.revision + 1, f"commit {revision} follows {self.revision}"
        self.revision = revision
        self._commits.append(events)
        self._count(events, 1)
        while self._events > self._events_max or self._bytes > self._bytes_max:
            self._count(self._commits.popleft(), -1)
        self.wake()

    def _count(self, events: tuple[Event, ...], sign: int) -> None:
        self._events += sign * len(events)
        self._bytes += sign * sum(len(e.key) + len(e.value or b"") for e in events)

    def next(self, after: Revision) -> tuple[Event, ...]:
        """The events of revision ``after + 1``, which has happened. Raises ``WatchCompacted``."""
        index = after - (self.revision - len(self._commits))
        if index < 0:
            raise WatchCompacted(f"metadata revision {after + 1} is no longer held, the store is at {self.revision}")
        return self._commits[index]

    def wake(self) -> None:
        """Ends every running ``moved``."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def moved(self) -> None:
        """Returns after the next commit, or ``wake``."""
        await self._moved.wait()
