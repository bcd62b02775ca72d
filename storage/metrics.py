"""Metrics of the three ports: decorators that count and time calls with ``prometheus_client``."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from core.ids import Channel, Position, Revision
from storage.log.port import Log, LogRecord
from storage.meta.port import Condition, Delete, Event, Item, MetaStore, Put
from storage.objects.port import ObjectInfo, ObjectStore

T = TypeVar("T")
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds."""


class StorageMetrics:
    """The metrics themselves, in one registry: one per process or, in tests, per store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "sheafdb_storage_seconds",
            "Time of a call to the log, the metadata store or the object store",
            ("port", "method"),
            buckets=BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "sheafdb_storage_errors", "Calls that raised", ("port", "method", "error"), registry=registry
        )
        self.bytes = Counter(
            "sheafdb_storage_bytes", "Payload bytes written and read", ("port", "direction"), registry=registry
        )
        self.log_records = Counter("sheafdb_log_records", "Records appended and durable", registry=registry)


class _Meter:
    """One port's view of the metrics."""

    def __init__(self, metrics: StorageMetrics, port: str, methods: Sequence[str]) -> None:
        self._metrics, self._port = metrics, port
        # Label look-ups cost more than the observation itself.
        self._seconds = {m: metrics.seconds.labels(port, m) for m in methods}
        self.written = metrics.bytes.labels(port, "written")
        self.read = metrics.bytes.labels(port, "read")

    async def call(self, method: str, call: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            return await call
        except Exception as e:
            self._count(method, e)
            raise
        finally:
            self._seconds[method].observe(perf_counter() - began)

    async def iterate(self, method: str, items: AsyncIterator[T], seen: Callable[[T], None]) -> AsyncGenerator[T, None]:
        """Counts errors and what is seen; the time between items is the producer's and not a latency."""
        try:
            async for item in items:
                seen(item)
                yield item
        except Exception as e:
            self._count(method, e)
            raise
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    def _count(self, method: str, error: Exception) -> None:
        self._metrics.errors.labels(self._port, method, type(error).__name__).inc()


class MeteredLog:
    """``Log`` with metrics."""

    def __init__(self, inner: Log, metrics: StorageMetrics) -> None:
        self.inner = inner
        self.channels, self.record_bytes_max = inner.channels, inner.record_bytes_max
        self._meter = _Meter(metrics, "log", ("append", "end", "trim"))
        self._records = metrics.log_records

    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        positions = await self._meter.call("append", self.inner.append(entries))
        self._records.inc(len(positions))
        self._meter.written.inc(sum(len(payload) for _, payload in entries))
        return positions

    def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        return self._meter.iterate("read", self.inner.read(channel, start), self._seen)

    def _seen(self, records: Sequence[LogRecord]) -> None:
        self._meter.read.inc(sum(len(r.payload) for r in records))

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        return await self._meter.call("end", self.inner.end(channels))

    async def start(self, channel: Channel) -> Position:
        return await self.inner.start(channel)

    async def trim(self, channel: Channel, before: Position) -> None:
        await self._meter.call("trim", self.inner.trim(channel, before))

    async def close(self) -> None:
        await self.inner.close()


class MeteredMeta:
    """``MetaStore`` with metrics."""

    def __init__(self, inner: MetaStore, metrics: StorageMetrics) -> None:
        self.inner = inner
        self._meter = _Meter(metrics, "meta", ("get", "list", "commit", "grant", "keep_alive", "revoke"))

    async def get(self, key: str) -> Item | None:
        item = await self._meter.call("get", self.inner.get(key))
        self._meter.read.inc(len(item.value) if item else 0)
        return item

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        items, revision = await self._meter.call("list", self.inner.list(prefix))
        self._meter.read.inc(sum(len(i.value) for i in items))
        return items, revision

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        revision = await self._meter.call("commit", self.inner.commit(conditions, writes))
        self._meter.written.inc(sum(len(w.value) for w in writes if isinstance(w, Put)))
        return revision

    def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        return self._meter.iterate("watch", self.inner.watch(prefix, after), lambda _: None)

    async def grant(self, ttl_s: float) -> int:
        return await self._meter.call("grant", self.inner.grant(ttl_s))

    async def keep_alive(self, lease: int) -> None:
        await self._meter.call("keep_alive", self.inner.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._meter.call("revoke", self.inner.revoke(lease))

    async def close(self) -> None:
        await self.inner.close()


class MeteredObjects:
    """``ObjectStore`` with metrics."""

    def __init__(self, inner: ObjectStore, metrics: StorageMetrics) -> None:
        self.inner = inner
        self._meter = _Meter(metrics, "objects", ("put", "get", "fetch", "delete"))

    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        await self._meter.call("put", self.inner.put(name, data))
        self._meter.written.inc(_size(data))

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        data = await self._meter.call("get", self.inner.get(name, start, length))
        self._meter.read.inc(len(data))
        return data

    async def fetch(self, name: str) -> Path:
        return await self._meter.call("fetch", self.inner.fetch(name))

    def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        return self._meter.iterate("list", self.inner.list(prefix), lambda _: None)

    async def delete(self, name: str) -> None:
        await self._meter.call("delete", self.inner.delete(name))

    async def close(self) -> None:
        await self.inner.close()


def _size(data: bytes | memoryview | Path) -> int:
    if isinstance(data, Path):
        return data.stat().st_size
    return memoryview(data).nbytes
