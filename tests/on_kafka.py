"""For tests on a real Kafka: topics of their own, an administrator, all that a channel holds."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from core.errors import Unavailable
from core.ids import Channel, Position
from core.settings import KafkaSettings, LogSettings
from sheafdb.servers import Kafka
from storage.log.kafka import KafkaLog
from storage.log.port import LogRecord
from tests.waiting import until

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


async def collect(log: KafkaLog, channel: Channel, end: int) -> list[LogRecord]:
    """All records before a position, from the start on."""
    records: list[LogRecord] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(log.read(channel, await log.start(channel))) as batches:
        while not records or records[-1].position + 1 < end:
            records.extend(await anext(batches))
    return records


class Writer:
    """Appends numbered records one call after another; notes what became of each."""

    def __init__(self, log: KafkaLog, name: int) -> None:
        self.log, self.name = log, name
        self.acknowledged: dict[bytes, Position] = {}
        self.unknown: set[bytes] = set()
        self.stopping = False

    async def run(self) -> None:
        call = 0
        while not self.stopping:
            entries = [(A, b"%d:%d:%d" % (self.name, call, i)) for i in range(self.name % 3 + 1)]
            try:
                positions = await self.log.append(entries)
            except Unavailable:
                self.unknown.update(p for _, p in entries)
            else:
                self.acknowledged.update(zip((p for _, p in entries), positions, strict=True))
            call += 1


async def progress(writers: Sequence[Writer]) -> None:
    """Returns once every writer has had another 50 records acknowledged."""
    goals = [(w, len(w.acknowledged) + 50) for w in writers]
    await until(lambda: all(len(w.acknowledged) >= n for w, n in goals), "every writer to go on")


@asynccontextmanager
async def under_load(log: KafkaLog, writers: int, reading: KafkaLog) -> AsyncIterator[list[Writer]]:
    """So many writers append to channel A while ``reading`` follows it; ends with a look at all of it."""
    at_work, seen = [Writer(log, n) for n in range(writers)], []

    async def tail() -> None:
        async for batch in reading.read(A, Position(0)):
            seen.extend(batch)

    tailing = asyncio.create_task(tail())
    tasks = [asyncio.create_task(w.run()) for w in at_work]
    yield at_work
    for writer in at_work:
        writer.stopping = True
    await asyncio.gather(*tasks)
    [end] = await log.end([A])
    kept = await collect(log, A, end)
    await until(lambda: len(seen) >= len(kept), "the reader")
    tailing.cancel()
    await asyncio.gather(tailing, return_exceptions=True)
    assert end == len(kept)
    assert seen == kept, "the reader that lived through it has seen no gap and nothing twice"
    check(at_work, kept)


def check(writers: Sequence[Writer], kept: Sequence[LogRecord]) -> None:
    """Of all records of a channel, from its start on: what was acknowledged is there once, in order."""
    assert [r.position for r in kept] == list(range(len(kept))), "no hole"
    found = {r.payload: r.position for r in kept}
    assert len(found) == len(kept), "nothing is in the log twice"
    for writer in writers:
        assert writer.acknowledged.items() <= found.items()
        mine = [r.payload for r in kept if r.payload in writer.acknowledged]
        assert mine == list(writer.acknowledged), "in the order of the calls"
    assert set(found) <= {p for w in writers for p in (*w.acknowledged, *w.unknown)}
