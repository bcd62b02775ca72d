"""Work that goes on beside requests: a round whenever woken or after a pause, for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import Corrupted, SheafError

RETRY_S = (0.5, 30.0)
"""Pause after a round that failed: the first one, doubled up to the second."""

log = structlog.get_logger()


class Background:
    """Runs ``round`` at ``start`` (unless ``at_once`` is off), after each ``wake``, and at the latest
    every ``interval_s``.

    A round that fails is logged and tried again; it must be safe to repeat. Wakes during a round
    cause one more, so nothing that happened before a wake is missed.
    """

    def __init__(
        self, name: str, round: Callable[[], Awaitable[None]], interval_s: float, *, at_once: bool = True
    ) -> None:
        self._name, self._round, self._interval_s = name, round, interval_s
        self._at_once = at_once
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._wanted.set()

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            if self._at_once:
                self._wanted.set()
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        """Cancels a running round and waits for its end. May be started again."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self._round()
                failures = 0
            except Exception as e:
                passing = isinstance(e, SheafError | OSError) and not isinstance(e, Corrupted)
                say = log.warning if passing else log.exception
                say("background round failed, trying again", work=self._name, error=str(e))
                first, most = RETRY_S
                await asyncio.sleep(min(first * 2**failures, most))
                failures = min(failures + 1, 10)
                self._wanted.set()
