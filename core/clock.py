"""Milvus hybrid time stamps: ``unix ms << 18 | counter``. For clients and humans, never for order."""

import threading
import time
from collections.abc import Callable

LOGICAL_BITS = 18


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def compose(ms: int, counter: int = 0) -> int:
    """The hybrid time stamp of a wall time in ms and a counter below 2**18."""
    return (ms << LOGICAL_BITS) | counter


def physical_ms(timestamp: int) -> int:
    """Unix milliseconds of a hybrid time stamp."""
    return timestamp >> LOGICAL_BITS


class HybridClock:
    """Strictly increasing hybrid time stamps within a process, also when the wall clock steps back.

    Thread-safe. ``wall`` gives unix milliseconds and is replaced in tests.
    """

    def __init__(self, wall: Callable[[], int] = wall_ms) -> None:
        self._wall = wall
        self._last = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, compose(self._wall()))
            return self._last
