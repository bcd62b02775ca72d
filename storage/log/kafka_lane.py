"""Batches on their way into one Kafka channel, one after another: each until it is acknowledged or nobody waits.

Kafka knows a batch that is sent again by its producer id and sequence number (KIP-98), so trying again
never doubles it. When a batch is given up its numbers would be missing; the next one begins under a new
producer id. Why not aiokafka's own producer: docs/decisions/0019-kafka-by-requests.md.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiokafka.errors import BrokerResponseError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from core.errors import Corrupted, Unavailable
from core.ids import Channel, Position
from storage.log.kafka_access import Again
from storage.log.kafka_connection import CLOSED, Brokers, Pauses

MAGIC = 2
"""The version of a batch's format: https://kafka.apache.org/documentation/#recordbatch"""
OVERHEAD_BYTES = 128
"""More than a record and its batch take besides key and value."""
ALL_IN_SYNC = -1
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes a record."""

    value: bytes
    key: bytes | None = None

    @property
    def bytes(self) -> int:
        return len(self.value) + len(self.key or b"") + OVERHEAD_BYTES


@dataclass(slots=True)
class _Piece:
    """Entries that stay together."""

    entries: Sequence[Entry]
    first: asyncio.Future[Position]

    @property
    def bytes(self) -> int:
        return sum(e.bytes for e in self.entries)


@dataclass(slots=True)
class _Producer:
    """Who sends, as Kafka knows it, and the number of its next record."""

    id: int
    epoch: int
    sequence: int = 0


class Lane:
    """The way into one channel."""

    def __init__(self, brokers: Brokers, channel: Channel, batch_bytes: int) -> None:
        self._brokers, self._channel, self._batch_bytes = brokers, channel, batch_bytes
        self._queue: deque[_Piece] = deque()
        self._task: asyncio.Task[None] | None = None
        self._producer: _Producer | None = None
        self._end = Position(0)
        """Past the last position acknowledged here."""

    def put(self, entries: Sequence[Entry]) -> asyncio.Future[Position]:
        """Queues entries, together at most ``batch_bytes`` (or a single one). The position of the first,
        once all are acknowledged; whoever cancels it waits no more. Raises ``Unavailable``, ``Corrupted``."""
        piece = _Piece(entries, asyncio.get_running_loop().create_future())
        self._queue.append(piece)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"appends to log channel {self._channel}")
        return piece.first

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        _fail(self._queue, Unavailable(CLOSED))

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                try:
                    first = await self._deliver(batch)
                except asyncio.CancelledError:
                    _fail(batch, Unavailable(CLOSED))
                    raise
                except Exception as e:  # whatever it is, it is the callers': the next batch is tried
                    self._producer = None
                    _fail(batch, e)
                else:
                    _resolve(batch, first)
        finally:
            self._task = None

    def _next_batch(self) -> list[_Piece]:
        batch: list[_Piece] = []
        size = 0
        while self._queue:
            piece = self._queue[0]
            if not piece.first.done():
                size += piece.bytes
                if batch and size > self._batch_bytes:
                    break
                batch.append(piece)
            self._queue.popleft()
        return batch

    async def _deliver(self, batch: list[_Piece]) -> Position:
        """Sends the same bytes until they are acknowledged; the position of the first record."""
        pauses, data = Pauses(), None
        count = sum(len(p.entries) for p in batch)
        while True:
            try:
                if self._producer is None:
                    self._producer = await self._new_producer()
                data = data or self._encoded(batch, self._producer)
                first = await self._produce(data)
                break
            except Again:
                await pauses.pause()
                if all(p.first.done() for p in batch):
                    raise
            except BrokerResponseError as e:
                raise Unavailable(f"kafka refuses records of log channel {self._channel}: {e}") from e
        self._producer.sequence = (self._producer.sequence + count) & INT32_MAX
        if first < self._end:
            raise Corrupted(
                f"kafka topic {self._brokers.topic}",
                f"channel {self._channel} was at {self._end} and goes on at {first}: acknowledged records are lost",
            )
        self._end = Position(first + count)
        return first

    async def _new_producer(self) -> _Producer:
        without_transactions = InitProducerIdRequest(None, INT32_MAX)  # pyright: ignore[reportArgumentType]  # null
        answer = await self._brokers.ask(self._channel, without_transactions)
        self._brokers.verify(self._channel, answer.error_code)
        return _Producer(answer.producer_id, answer.producer_epoch)

    async def _produce(self, data: bytes) -> Position:
        timeout_ms = int(self._brokers.access.request_timeout_s * 1000)
        topics = [(self._brokers.topic, [(int(self._channel), data)])]
        answer = await self._brokers.ask(self._channel, ProduceRequest(None, ALL_IN_SYNC, timeout_ms, topics))
        [(_, [(_, code, first, *_)])] = answer.topics
        self._brokers.verify(self._channel, code)
        return Position(first)

    def _encoded(self, batch: list[_Piece], producer: _Producer) -> bytes:
        builder = DefaultRecordBatchBuilder(
            magic=MAGIC,
            compression_type=0,
            is_transactional=0,
            producer_id=producer.id,
            producer_epoch=producer.epoch,
            base_sequence=producer.sequence,
            batch_size=INT32_MAX,
        )
        now_ms = int(time.time() * 1000)
        for i, entry in enumerate(e for piece in batch for e in piece.entries):
            builder.append(i, now_ms, entry.key, entry.value, [])
        return bytes(builder.build())


def _resolve(batch: list[_Piece], first: Position) -> None:
    for piece in batch:
        if not piece.first.done():
            piece.first.set_result(first)
        first = Position(first + len(piece.entries))


def _fail(pieces: "Sequence[_Piece] | deque[_Piece]", error: Exception) -> None:
    for piece in pieces:
        if not piece.first.done():
            piece.first.set_exception(error)
