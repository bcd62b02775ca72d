"""Waiting with a bound: every wait ends with its request's deadline and says what it was for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import Timeout
from core.ids import Channel, Position
from core.latest import Latest
from storage.log.port import Log

T = TypeVar("T")


async def within(deadline: float, awaitable: Awaitable[T], what: str) -> T:
    """The result, or ``Timeout`` at the deadline (``time.monotonic()``)."""
    # Not wait_for(): before Python 3.12 it forgets that it is cancelled when the result is there at that moment.
    limit = asyncio.timeout(None if deadline == float("inf") else deadline - time.monotonic())
    try:
        async with limit:
            return await awaitable
    except TimeoutError:
        if not limit.expired():
            raise
        raise Timeout(f"deadline passed while waiting for {what}") from None


class Signal:
    """Wakes everyone who waits, each time something may have changed."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def next(self) -> "asyncio.Future[None]":
        """Done at the next ``notify``. Taken at once, not when awaited: no change is missed between."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future


async def until(holds: Callable[[], bool], signal: Callable[[], Signal], deadline: float, what: str) -> None:
    """Returns once ``holds()``, asked now and whenever the present signal fires. Raises ``Timeout``
    at the deadline, and what ``holds`` raises."""
    while not holds():
        await within(deadline, signal().next(), what)


class LogEnd(Latest[Position]):
    """The end of one channel, asked once for all who wait: it is behind every append whose acknowledgement the asker
    already saw."""

    def __init__(self, log: Log, channel: Channel) -> None:
        async def end() -> Position:
            return (await log.end([channel]))[0]

        super().__init__(end, f"end of channel {channel}")
