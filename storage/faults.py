"""Faults on purpose: decorators of the three ports that fail, delay or kill at a chosen call."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from core.errors import Unavailable
from core.ids import Channel, Position, Revision
from storage.log.port import Log, LogRecord
from storage.meta.port import Condition, Delete, Event, Item, MetaStore, Put
from storage.objects.port import ObjectInfo, ObjectStore

T = TypeVar("T")


class Action(Enum):
    """FAIL: raises, nothing is done. FAIL_AFTER: it is done, and the answer is lost. DELAY: done
    later. CRASH_BEFORE, CRASH_AFTER: SIGKILL to this process."""

    FAIL = 1
    FAIL_AFTER = 2
    DELAY = 3
    CRASH_BEFORE = 4
    CRASH_AFTER = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """At passages ``nth`` .. ``nth + times - 1`` (from 1) of ``method``. A passage is a call; of an
    iterating method (``read``, ``watch``, ``list`` of objects), each batch or object it yields."""

    method: str
    action: Action
    nth: int = 1
    times: int = 1
    error: Exception | None = None
    """What FAIL raises; None = ``Unavailable``."""
    delay_s: float = 0.0


class FaultPlan:
    """The faults of one port, and how often each method was passed."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)
        self.passages: Counter[str] = Counter()

    def add(self, fault: Fault) -> None:
        """From now on too; ``nth`` counts from the beginning."""
        self._faults.append(fault)

    async def call(self, method: str, run: Callable[[], Awaitable[T]]) -> T:
        """Runs one passage with its faults."""
        self.passages[method] += 1
        n = self.passages[method]
        due = [f for f in self._faults if f.method == method and f.nth <= n < f.nth + f.times]
        for fault in due:
            await _before(fault)
        result = await run()
        for fault in due:
            _after(fault)
        return result

    async def iterate(self, method: str, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        try:
            while True:
                try:
                    yield await self.call(method, items.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()


async def _before(fault: Fault) -> None:
    if fault.action is Action.DELAY:
        await asyncio.sleep(fault.delay_s)
    elif fault.action is Action.FAIL:
        raise fault.error or Unavailable(f"injected failure of {fault.method}")
    elif fault.action is Action.CRASH_BEFORE:
        os.kill(os.getpid(), signal.SIGKILL)


def _after(fault: Fault) -> None:
    if fault.action is Action.FAIL_AFTER:
        raise fault.error or Unavailable(f"injected loss of the answer of {fault.method}")
    if fault.action is Action.CRASH_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)


class FaultyLog:
    """``Log`` with faults."""

    def __init__(self, inner: Log, plan: FaultPlan) -> None:
        self.inner, self._plan = inner, plan
        self.channels, self.record_bytes_max = inner.channels, inner.record_bytes_max

    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        return await self._plan.call("append", lambda: self.inner.append(entries))

    def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        return self._plan.iterate("read", self.inner.read(channel, start))

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        return await self._plan.call("end", lambda: self.inner.end(channels))

    async def start(self, channel: Channel) -> Position:
        return await self._plan.call("start", lambda: self.inner.start(channel))

    async def trim(self, channel: Channel, before: Position) -> None:
        await self._plan.call("trim", lambda: self.inner.trim(channel, before))

    async def close(self) -> None:
        await self._plan.call("close", self.inner.close)


class FaultyMeta:
    """``MetaStore`` with faults."""

    def __init__(self, inner: MetaStore, plan: FaultPlan) -> None:
        self.inner, self._plan = inner, plan

    async def get(self, key: str) -> Item | None:
        return await self._plan.call("get", lambda: self.inner.get(key))

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        return await self._plan.call("list", lambda: self.inner.list(prefix))

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        return await self._plan.call("commit", lambda: self.inner.commit(conditions, writes))

    def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        return self._plan.iterate("watch", self.inner.watch(prefix, after))

    async def grant(self, ttl_s: float) -> int:
        return await self._plan.call("grant", lambda: self.inner.grant(ttl_s))

    async def keep_alive(self, lease: int) -> None:
        await self._plan.call("keep_alive", lambda: self.inner.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._plan.call("revoke", lambda: self.inner.revoke(lease))

    async def close(self) -> None:
        await self._plan.call("close", self.inner.close)


class FaultyObjects:
    """``ObjectStore`` with faults."""

    def __init__(self, inner: ObjectStore, plan: FaultPlan) -> None:
        self.inner, self._plan = inner, plan

    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        await self._plan.call("put", lambda: self.inner.put(name, data))

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return await self._plan.call("get", lambda: self.inner.get(name, start, length))

    async def fetch(self, name: str) -> Path:
        return await self._plan.call("fetch", lambda: self.inner.fetch(name))

    def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        return self._plan.iterate("list", self.inner.list(prefix))

    async def delete(self, name: str) -> None:
        await self._plan.call("delete", lambda: self.inner.delete(name))

    async def close(self) -> None:
        await self._plan.call("close", self.inner.close)
