"""For tests on a real Kafka: topics of their own, an administrator, all that a channel holds."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from core.ids import Channel
from core.settings import KafkaSettings, LogSettings
from sheafdb.servers import Kafka
from storage.log.kafka import KafkaLog
from storage.log.port import LogRecord

A, B = Channel(0), Channel(1)
LOG = LogSettings(2, 1024 * 1024)
PATIENCE_S = 40


def kafka_settings(server: Kafka, **others: Any) -> KafkaSettings:
    """Topics of the test's own on the one broker."""
    own = {"topic": f"log-{uuid.uuid4()}", "replication_factor": 1, "min_insync_replicas": 1}
    return KafkaSettings(**{"servers": server.address, **own, **others})


@asynccontextmanager
async def opened(settings: KafkaSettings, log: LogSettings = LOG) -> AsyncIterator[KafkaLog]:
    log_ = await KafkaLog.open(settings, log)
    try:
        yield log_
    finally:
        await log_.close()


@asynccontextmanager
async def administrator(server: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.address)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def collect(log: KafkaLog, channel: Channel, until: int) -> list[LogRecord]:
    """All records before a position, from the start on."""
    records: list[LogRecord] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(log.read(channel, await log.start(channel))) as batches:
        while not records or records[-1].position + 1 < until:
            records.extend(await anext(batches))
    return records
