"""The parts of a process: started one after another, closed the other way round."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from sheafdb.supervision import Supervisor

CLOSE_DEADLINE_S = 10.0
"""Longest wait for one part to close. The log is durable: whoever is late loses nothing."""

Close = Callable[[], Awaitable[object]]

log = structlog.get_logger()


class Part(Protocol):
    """What has a life of its own in a process."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Lifetime:
    """``failed`` is done once a background task of this event loop has died (and was logged)."""

    def __init__(self) -> None:
        self._supervisor = Supervisor()
        self.failed = self._supervisor.failed
        self._closers: list[tuple[str, Close, float]] = []

    async def start(self, name: str, part: Part) -> None:
        """The part is closed also when its start fails half way."""
        self.on_close(name, part.close)
        await part.start()

    def on_close(self, name: str, close: Close, deadline_s: float = CLOSE_DEADLINE_S) -> None:
        """Has ``close`` called when all that is added later is closed. name: for the log."""
        self._closers.append((name, close, deadline_s))

    def fail(self, name: str) -> None:
        """Says that a part has died. name: for whoever waits for ``failed``."""
        if not self.failed.done():
            self.failed.set_result(name)

    async def close(self) -> None:
        """Closes everything, each within its deadline; a failure is logged and keeps nothing else."""
        self._supervisor.close()
        while self._closers:
            name, close, deadline_s = self._closers.pop()
            try:
                async with asyncio.timeout(deadline_s):
                    await close()
            except Exception:
                log.exception("closing failed", part=name)
