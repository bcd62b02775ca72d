"""Where long conversions run: short ones inline, long ones beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES = 4 * 1024 * 1024
"""Bytes of rows up to which a conversion stays on the event loop: about 3 ms of it."""


class Threads:
    """A small pool; callers wait their turn, so memory in flight is bounded by what they hold."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="proxy-rows")

    async def run(self, bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work(...)``, inline or in the pool by the size of what it converts."""
        if bytes <= INLINE_BYTES:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
