"""Asking once for all who want to know."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """What a call gives, shared by those who ask at about the same time, and never older than a question.

    A call under way may have looked before what the asker already knows of; so whoever comes while one
    runs shares the next one.
    """

    def __init__(self, call: Callable[[], Awaitable[T]], what: str) -> None:
        self._call, self._what = call, what
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    def ask(self) -> Awaitable[T]:
        """What the call gives at some moment after this one. Raises what it raises."""
        if self._next is None:
            running = self._running if self._running and not self._running.done() else None
            task = asyncio.create_task(self._ask(running), name=self._what)
            # Everyone who asked may be gone by the time it fails.
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
            self._next = task
        return asyncio.shield(self._next)

    async def _ask(self, before: asyncio.Task[T] | None) -> T:
        if before:
            await asyncio.wait({before})
        # From here on the answer may be older than a new question.
        self._running, self._next = self._next, None
        return await self._call()
