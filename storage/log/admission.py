"""A bound on bytes in a queue: callers enter in order and wait while it is full."""

import asyncio
from collections import deque


class Admission:
    """At most ``bytes_max`` are inside, or one caller of any size. Event loop only."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Returns once there is room; every ``enter`` needs its ``leave``, unless it raises."""
        if not self._waiting and self._fits(size):
            self._inside += size
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.leave(size)
            raise

    def leave(self, size: int) -> None:
        self._inside -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, admitted = self._waiting.popleft()
            if not admitted.done():
                self._inside += size
                admitted.set_result(None)

    def open_wide(self) -> None:
        """Lets everybody in: nothing will leave any more."""
        self._bytes_max = 2**63
        self.leave(0)

    def _fits(self, size: int) -> bool:
        return self._inside == 0 or self._inside + size <= self._bytes_max
