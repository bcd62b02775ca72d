"""The log of a cluster: a Kafka topic, one partition per channel; positions are Kafka's offsets.

How durable: Kafka acknowledges from the page cache of the brokers, not after fsync. With
``replication_factor`` 3 and ``min_insync_replicas`` 2 an acknowledged record survives the loss of any
machine; with one copy only that of the process. How fresh: ``end`` is told by the leader; one that is
cut off from its cluster but not from us may tell an old end until we hear of its successor.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from aiokafka.protocol.admin import DeleteRecordsRequest
from aiokafka.protocol.metadata import MetadataRequest

from core.errors import InvalidArgument, Refused, StartRefused, TooLarge, Unavailable
from core.ids import Channel, Position
from core.settings import KafkaSettings, LogSettings
from storage.log import kafka_topic
from storage.log.kafka_access import Access, LoginRefused
from storage.log.kafka_append import Appender
from storage.log.kafka_connection import CLOSED, Brokers, retried
from storage.log.kafka_directory import Directory
from storage.log.kafka_end import Offsets
from storage.log.kafka_lane import OVERHEAD_BYTES, Entry
from storage.log.kafka_properties import Properties
from storage.log.kafka_read import Reader
from storage.log.port import LogRecord

FILL_RECORDS = 50_000
"""Of one append of empty records."""


class KafkaLog:
    """``Log`` in Kafka. Belongs to the event loop it was opened on.

    An append is whole or absent within a channel, if it fits a record's limit, but not over channels. No
    transactions and no compaction: positions have no holes, and the end is one past the last record.
    """

    def __init__(self, access: Access, settings: KafkaSettings, log: LogSettings) -> None:
        self.channels, self.record_bytes_max = log.channels, log.record_bytes_max
        self._access, self._topic = access, settings.topic
        self._directory = Directory(access, settings.topic)
        self._control = Brokers(self._directory)
        self._writing = Brokers(self._directory)
        self._appender = Appender(self._writing, batch_bytes(log), settings.append_timeout_s)
        self._offsets = Offsets(self._control)
        self._properties = Properties(access, settings)
        self._readers: set[Reader] = set()
        self._closed = False

    @classmethod
    async def open(cls, settings: KafkaSettings, log: LogSettings) -> "KafkaLog":
        """Opens the log, or makes its topics.

        Raises ``StartRefused`` when a setting or a topic can't be used, ``Unavailable`` when no server
        answers; both name it.
        """
        if settings.min_insync_replicas > settings.replication_factor:
            raise StartRefused(
                f"kafka.min_insync_replicas = {settings.min_insync_replicas} can't be reached with"
                f" kafka.replication_factor = {settings.replication_factor}"
            )
        access = Access(settings)
        try:
            await access.first_answer(MetadataRequest([]))
        except LoginRefused as e:
            raise StartRefused(f"kafka: {e}") from e
        except Unavailable as e:
            raise Unavailable(f"kafka does not answer: {e}") from e
        await kafka_topic.ensure(access, topics(settings, log))
        return cls(access, settings, log)

    # --- the port --------------------------------------------------------------------------
    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        self._check_open()
        for channel, payload in entries:
            self._check_channel(channel)
            if len(payload) > self.record_bytes_max:
                raise TooLarge(f"log record of {len(payload)} bytes, at most {self.record_bytes_max} fit")
        return await self._appender.append([(channel, Entry(payload)) for channel, payload in entries])

    async def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        self._check_open()
        self._check_channel(channel)
        reader = Reader(Brokers(self._directory), self._offsets, channel, start)
        self._readers.add(reader)
        try:
            while True:
                yield [LogRecord(position, value) for position, _, value in await reader.next()]
        finally:
            self._readers.discard(reader)
            await reader.close()

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        self._check_open()
        for channel in channels:
            self._check_channel(channel)
        return await self._offsets.ends(channels)

    async def start(self, channel: Channel) -> Position:
        self._check_open()
        self._check_channel(channel)
        return await self._offsets.start(channel)

    async def trim(self, channel: Channel, before: Position) -> None:
        [end] = await self.end([channel])
        before = min(before, end)
        if before > await self.start(channel):
            timeout_s = self._access.request_timeout_s
            await retried(lambda: self._trim(channel, before), timeout_s, f"the trim of log channel {channel}")

    async def close(self) -> None:
        self._closed = True
        await self._appender.close()
        brokers = [self._writing, self._control]
        await asyncio.gather(*(b.close() for b in brokers), *(r.close() for r in list(self._readers)))

    # --- for who opens a store -------------------------------------------------------------
    async def property(self, name: str) -> bytes | None:
        """A value kept in a topic of its own; None if it was never set. Raises ``Unavailable``."""
        self._check_open()
        return await self._properties.get(name)

    async def set_property(self, name: str, value: bytes) -> None:
        """Acknowledged by Kafka when it returns. Raises ``Unavailable``."""
        self._check_open()
        await self._properties.set(name, value)

    async def begin_at(self, channel: Channel, position: Position) -> None:
        """As ``FillableLog``. Kafka numbers records from 0: empty ones are appended up to ``position``, and
        forgotten (a broker that is killed soon after may remember them). Raises ``Refused`` when another
        process appends too."""
        [end] = await self.end([channel])
        while end < position:
            count = min(FILL_RECORDS, position - end)
            positions = await self._appender.append([(channel, Entry(b""))] * count)
            if positions[-1] != end + count - 1:
                raise Refused(
                    f"channel {channel} of kafka topic {self._topic} grows while it is filled, by another process"
                )
            end = Position(end + count)
        await self.trim(channel, position)

    # ---------------------------------------------------------------------------------------
    def _check_channel(self, channel: Channel) -> None:
        if not 0 <= channel < self.channels:
            raise InvalidArgument(f"log channel {channel} does not exist, there are {self.channels}")

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(CLOSED)

    async def _trim(self, channel: Channel, before: Position) -> None:
        timeout_ms = int(self._access.request_timeout_s * 1000)
        request = DeleteRecordsRequest([(self._topic, [(channel, before)])], timeout_ms)
        answer = await self._control.ask(channel, request)
        [(_, [(_, _, code, *_)], *_)] = answer.topics
        self._control.verify(channel, code)


def batch_bytes(log: LogSettings) -> int:
    """Size of the largest batch that is sent: any record fits alone."""
    return log.record_bytes_max + OVERHEAD_BYTES


def topics(settings: KafkaSettings, log: LogSettings) -> list[kafka_topic.Topic]:
    """The topics of a store."""
    replicas = settings.replication_factor, settings.min_insync_replicas
    return [
        kafka_topic.Topic(settings.topic, log.channels, *replicas, batch_bytes(log)),
        kafka_topic.Topic(Properties.topic(settings), 1, *replicas, Properties.BATCH_BYTES),
    ]
