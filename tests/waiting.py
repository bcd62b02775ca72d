"""Waiting for a condition with a deadline: no test sleeps and hopes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_S = 60.0
"""Far beyond what anything takes on a busy machine; a test that fails waits for it once."""

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true value of ``condition``; fails after the deadline, naming what it waited for."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {patience_s} s for {what}"
        time.sleep(0.05)
    return value


async def until(
    condition: Callable[[], Awaitable[object] | object],
    what: str = "what holds in the end",
    patience_s: float = PATIENCE_S,
) -> None:
    """Returns once ``condition``, or what it awaits, is true; fails after the deadline, naming what it waited for."""
    end = time.monotonic() + patience_s
    while True:
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return
        assert time.monotonic() < end, f"waited {patience_s} s for {what}"
        await asyncio.sleep(0.005)
