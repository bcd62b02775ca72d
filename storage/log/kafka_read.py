"""Reading one Kafka channel from a position on, across lost connections."""

from collections.abc import Sequence

from aiokafka.errors import BrokerResponseError, OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from core.errors import Corrupted, LogTruncated, Unavailable
from core.ids import Channel, Position
from storage.log.kafka_access import Again
from storage.log.kafka_connection import Brokers, Pauses
from storage.log.kafka_end import Offsets

WAIT_MS = 500
"""How long a broker holds a request at the end of the channel; on a connection of its own nobody else waits."""
FETCH_BYTES = 4 * 1024 * 1024
"""Of one answer; a larger batch comes alone and whole."""
NO_TRANSACTIONS = 0


class Reader:
    """What follows ``position`` in a channel. Takes the ``Brokers`` for itself."""

    def __init__(self, brokers: Brokers, offsets: Offsets, channel: Channel, position: Position) -> None:
        self._brokers, self._offsets = brokers, offsets
        self._channel, self.position = channel, position

    async def next(self) -> Sequence[tuple[Position, bytes | None, bytes]]:
        """The next (position, key, value), at least one; waits for them, also while Kafka is away.

        Raises ``LogTruncated``; ``Corrupted`` when a batch is damaged or the channel ends before the
        position; ``Unavailable`` when closed, or when a broker refuses to be read."""
        pauses = Pauses()
        while True:
            try:
                records = await self._fetch()
            except Again:
                await pauses.pause()
                continue
            except OffsetOutOfRangeError:
                await self._explain()
                continue
            except BrokerResponseError as e:
                raise Unavailable(f"kafka refuses to read log channel {self._channel}: {e}") from e
            pauses = Pauses()
            if records:
                return records

    async def close(self) -> None:
        await self._brokers.close()

    async def _fetch(self) -> list[tuple[Position, bytes | None, bytes]]:
        partition: tuple[int, int, int] = (self._channel, self.position, FETCH_BYTES)
        request = FetchRequest(WAIT_MS, 1, FETCH_BYTES, NO_TRANSACTIONS, [(self._brokers.topic, [partition])])
        answer = await self._brokers.ask(self._channel, request)
        [(_, [(_, code, _, *_, data)])] = answer.topics
        self._brokers.verify(self._channel, code)
        return self._decoded(data) if data else []

    def _decoded(self, data: bytes) -> list[tuple[Position, bytes | None, bytes]]:
        records: list[tuple[Position, bytes | None, bytes]] = []
        batches = MemoryRecords(data)
        while (batch := batches.next_batch()) is not None:
            if not batch.validate_crc():
                raise Corrupted(self._what(), f"wrong checksum after position {self.position}")
            # A batch comes whole, also when the position is in the middle of it.
            records.extend((Position(r.offset), r.key, r.value or b"") for r in batch if r.offset >= self.position)
            self.position = max(self.position, Position(batch.next_offset))
        return records

    async def _explain(self) -> None:
        start = await self._offsets.start(self._channel)
        if self.position < start:
            raise LogTruncated(self._channel, self.position, start)
        [end] = await self._offsets.ends([self._channel])
        if self.position > end:
            raise Corrupted(self._what(), f"it ends at {end}, {self.position} was asked for")

    def _what(self) -> str:
        return f"channel {self._channel} of kafka topic {self._brokers.topic}"
