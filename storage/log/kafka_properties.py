"""Named values beside the log: a topic of one partition, read whole; of a name's records the last one counts."""

import asyncio
from contextlib import asynccontextmanager

from core.errors import Unavailable
from core.ids import Channel, Position
from core.settings import KafkaSettings
from storage.log.kafka_access import Access
from storage.log.kafka_append import Appender
from storage.log.kafka_connection import Brokers
from storage.log.kafka_directory import Directory
from storage.log.kafka_end import Offsets
from storage.log.kafka_lane import Entry
from storage.log.kafka_read import Reader

ONLY = Channel(0)


class Properties:
    """For few and small values that hardly ever change: it connects for every call."""

    BATCH_BYTES = 64 * 1024

    def __init__(self, access: Access, settings: KafkaSettings) -> None:
        self._topic, self._timeout_s = self.topic(settings), settings.append_timeout_s
        self._directory = Directory(access, self._topic)

    @staticmethod
    def topic(settings: KafkaSettings) -> str:
        return f"{settings.topic}-properties"

    async def get(self, name: str) -> bytes | None:
        """Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get(name)
        except TimeoutError:
            raise Unavailable(f"waited {self._timeout_s:g} s for kafka topic {self._topic} to be read") from None

    async def _get(self, name: str) -> bytes | None:
        found: bytes | None = None
        async with self._brokers() as control, self._brokers() as reading:
            offsets = Offsets(control)
            [end] = await offsets.ends([ONLY])
            reader = Reader(reading, offsets, ONLY, await offsets.start(ONLY))
            while reader.position < end:
                for _, key, value in await reader.next():
                    if key == name.encode():
                        found = value
        return found

    async def set(self, name: str, value: bytes) -> Position:
        """Raises ``Unavailable``."""
        async with self._brokers() as brokers:
            appender = Appender(brokers, self.BATCH_BYTES, self._timeout_s)
            [position] = await appender.append([(ONLY, Entry(value, name.encode()))])
            return position

    @asynccontextmanager
    async def _brokers(self):
        brokers = Brokers(self._directory)
        try:
            yield brokers
        finally:
            await brokers.close()
