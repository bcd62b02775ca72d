"""The log on a Kafka of three brokers: every record on all of them, acknowledged by two; one may be lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.ids import Position
from core.settings import KafkaSettings
from sheafdb.servers import Kafka, free_port
from tests.on_kafka import A, administrator, collect, kafka_settings, opened, progress, under_load

PAUSE_S = 5.0
"""Well past the session of a broker with its controllers, 2 s: another one leads meanwhile."""


@pytest.fixture
async def brokers(tmp_path: Path, installed_servers: None) -> AsyncIterator[list[Kafka]]:
    voters = {node: free_port() for node in (1, 2, 3)}
    three = [Kafka(tmp_path / f"kafka-{node}", 0, node=node, voters=voters) for node in voters]
    try:
        await asyncio.gather(*(broker.start_again() for broker in three))
        yield three
    finally:
        for broker in three:
            broker.kill()


def settings_of(brokers: list[Kafka]) -> KafkaSettings:
    """Short times, so that some appends are given up where a broker is missed for long."""
    return kafka_settings(
        brokers[0],
        servers=",".join(broker.address for broker in brokers),
        replication_factor=3,
        min_insync_replicas=2,
        append_timeout_s=4.0,
        request_timeout_s=2.0,
    )


async def leader_of(settings: KafkaSettings, brokers: list[Kafka]) -> Kafka:
    """Who leads channel ``A``."""
    async with administrator(brokers[0]) as admin:
        [topic] = await admin.describe_topics([settings.topic])
    [leader] = [p["leader"] for p in topic["partitions"] if p["partition"] == A]
    return brokers[leader - 1]


@pytest.mark.timeout(240)
async def test_the_log_goes_on_while_any_one_broker_is_lost(brokers: list[Kafka]) -> None:
    settings = settings_of(brokers)
    async with opened(settings) as log, opened(settings) as other, under_load(log, 6, other) as writers:
        stale: list[tuple[Position, Position]] = []

        async def ask_for_the_end() -> None:
            """As a strong read of another process does."""
            while True:
                acknowledged = max((p for w in writers for p in w.acknowledged.values()), default=Position(-1))
                try:
                    [end] = await other.end([A])
                except Unavailable:
                    continue
                if end <= acknowledged:
                    stale.append((acknowledged, end))

        asking = asyncio.create_task(ask_for_the_end())
        await progress(writers)
        for broker in brokers:  # whoever leads is among them
            broker.kill()
            await progress(writers)
            await broker.start_again()
            await progress(writers)
        assert not stale, "an end is told that is not below any acknowledged record"
        leader = await leader_of(settings, brokers)
        leader.pause()
        await asyncio.sleep(PAUSE_S)
        await progress(writers)
        leader.resume()
        await progress(writers)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.timeout(120)
async def test_nothing_is_acknowledged_by_one_broker_alone(brokers: list[Kafka]) -> None:
    async with opened(settings_of(brokers)) as log:
        await log.append([(A, b"before")])
        lost = brokers[:2]
        for broker in lost:
            broker.kill()
        with pytest.raises(Unavailable, match="did not acknowledge"):
            await log.append([(A, b"alone")])
        await asyncio.gather(*(broker.start_again() for broker in lost))
        await log.append([(A, b"after")])
        [end] = await log.end([A])
        payloads = [record.payload for record in await collect(log, A, end)]
        assert payloads in ([b"before", b"after"], [b"before", b"alone", b"after"])
