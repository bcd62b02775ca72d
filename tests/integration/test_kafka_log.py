"""What only a real Kafka shows: its process killed and paused, its connections half dead, its topics
changed under a running log."""

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from core.catalog import Collection, Partition, Shard
from core.errors import Corrupted, Unavailable
from core.ids import Channel, CollectionId, FieldId, PartitionId, Position
from core.schema import Field, Schema
from core.settings import KafkaSettings, LogSettings
from core.types import DataType
from querynode.channel_tail import ChannelTails
from querynode.shard import ShardState
from sheafdb.servers import Kafka, Toxiproxy, free_port
from storage.log.kafka import KafkaLog
from storage.record import UPSERT, Record, encode
from tests.on_kafka import (
    LOG,
    PATIENCE_S,
    A,
    B,
    administrator,
    collect,
    kafka_settings,
    opened,
    progress,
    under_load,
)
from tests.waiting import until


@pytest.fixture
def settings(kafka_server: Kafka) -> KafkaSettings:
    return kafka_settings(kafka_server)


@pytest.fixture
async def log(settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    async with opened(settings) as log:
        yield log


@pytest.fixture(scope="module")
def mortal_kafka(tmp_path_factory: pytest.TempPathFactory, toxiproxy_server: Toxiproxy) -> Iterator["Mortal"]:
    """Used by this module only. With a second way in, through Toxiproxy."""
    loop = asyncio.new_event_loop()
    mortal = loop.run_until_complete(Mortal.start(tmp_path_factory.mktemp("mortal"), toxiproxy_server))
    yield mortal
    mortal.server.kill()
    loop.close()


class Mortal:
    def __init__(self, server: Kafka, detour: Any) -> None:
        self.server, self.detour = server, detour

    @classmethod
    async def start(cls, folder: Path, toxiproxy: Toxiproxy) -> "Mortal":
        port = free_port()
        detour = await toxiproxy.detour("kafka", f"127.0.0.1:{port}")
        return cls(await Kafka.start(folder, detours={port: detour.address}), detour)


async def test_a_killed_broker_loses_and_doubles_no_acknowledged_append(mortal_kafka: Mortal):
    server = mortal_kafka.server
    # Short, so that some appends are given up while the broker is away.
    settings = kafka_settings(server, append_timeout_s=2.0, request_timeout_s=2.0)
    async with opened(settings) as log, under_load(log, 8, log) as writers:
        for _ in range(2):
            await progress(writers)
            server.kill()
            await server.start_again()
        await progress(writers)


async def test_a_paused_broker_costs_a_bounded_time_and_nothing_else(mortal_kafka: Mortal, caplog):
    server = mortal_kafka.server
    with structlog.testing.capture_logs() as lines:
        async with opened(kafka_settings(server, append_timeout_s=1.5, request_timeout_s=1.0)) as log:
            async with aclosing(log.read(A, Position(0))) as batches:
                await log.append([(A, b"before")])
                assert [r.payload for r in await anext(batches)] == [b"before"]
                reading = asyncio.ensure_future(anext(batches))
                server.pause()
                try:
                    began = time.monotonic()
                    with pytest.raises(Unavailable, match=r"did not acknowledge within 1\.5 s"):
                        await log.append([(A, b"unknown")])
                    with pytest.raises(Unavailable, match="waited 1 s for"):
                        await log.end([A])
                    assert time.monotonic() - began < 5
                    await until(lambda: bool(lines), "a line about it")
                finally:
                    server.resume()
                await appended(log, b"after")
                async with asyncio.timeout(PATIENCE_S):
                    rest = [r.payload for r in await reading]
                    while b"after" not in rest:
                        rest += [r.payload for r in await anext(batches)]
            assert rest in ([b"after"], [b"unknown", b"after"], [b"after", b"unknown"])
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "kafka is not available, trying again"
    ]
    assert lines[-1]["event"] == "kafka is available again"
    assert not [r for r in caplog.records if r.name.startswith("aiokafka") and r.levelno >= logging.WARNING]


async def test_a_connection_that_swallows_everything_is_left_and_reads_go_on(mortal_kafka: Mortal):
    detour = mortal_kafka.detour
    settings = kafka_settings(mortal_kafka.server, append_timeout_s=2.0, request_timeout_s=1.0)
    async with (
        opened(settings) as direct,
        opened(replace(settings, servers=detour.address)) as log,
        aclosing(log.read(A, Position(0))) as batches,
    ):
        [first] = await log.append([(A, b"0")])
        assert (await anext(batches))[-1].position == first
        for n, broken in enumerate(("half dead", "cut"), 1):
            if broken == "cut":
                await detour.cut()
            else:
                await detour.toxic("timeout", timeout=0)
                await detour.toxic("timeout", timeout=0, stream="upstream")
            with pytest.raises(Unavailable):
                await log.append([(B, b"unknown")])
            [position] = await direct.append([(A, b"%d" % n)])
            await detour.mend()
            async with asyncio.timeout(PATIENCE_S):
                assert [(r.position, r.payload) for r in await anext(batches)] == [(position, b"%d" % n)]
            await appended(log, b"again", B)


async def test_an_append_whose_answer_is_lost_is_in_the_log_once(mortal_kafka: Mortal):
    detour = mortal_kafka.detour
    settings = kafka_settings(mortal_kafka.server, request_timeout_s=1.0)
    async with opened(settings) as direct, opened(replace(settings, servers=detour.address)) as log:
        await log.append([(A, b"0")])
        await detour.toxic("timeout", timeout=0)
        appending = asyncio.create_task(log.append([(A, b"1"), (A, b"2")]))
        async with asyncio.timeout(PATIENCE_S):
            while await direct.end([A]) != [3]:
                pass
        assert not appending.done()
        await detour.mend()
        assert await asyncio.wait_for(appending, PATIENCE_S) == [1, 2]
        assert await log.append([(A, b"3")]) == [3]
        assert [r.payload for r in await collect(direct, A, 4)] == [b"0", b"1", b"2", b"3"]


async def appended(log: KafkaLog, payload: bytes, channel: Channel = A) -> None:
    """Tries until Kafka is back."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await log.append([(channel, payload)])
                return
            except Unavailable:
                await asyncio.sleep(0.05)


# --- the log and its readers -------------------------------------------------------------------
async def test_asking_the_end_does_not_wait_behind_readers(log: KafkaLog):
    async def tail(channel: Channel) -> None:
        async for _ in log.read(channel, Position(0)):
            pass

    tails = [asyncio.create_task(tail(c)) for c in (A, A, B)]
    await log.append([(A, b"x"), (B, b"x")])
    took: list[float] = []
    for _ in range(60):
        began = time.perf_counter()
        assert await log.end([A, B]) == [1, 1]
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    for task in tails:
        task.cancel()
    await asyncio.gather(*tails, return_exceptions=True)
    assert statistics.median(took) < 0.05, "a reader holds its connection for half a second"


async def test_a_record_of_the_default_limit_passes(kafka_server: Kafka):
    log_settings = LogSettings()
    async with opened(kafka_settings(kafka_server), log_settings) as log:
        payloads = [bytes([n]) * log_settings.record_bytes_max for n in range(3)]
        # Larger than a batch: cut, in order.
        positions = await log.append([(A, p) for p in payloads])
        assert positions == [0, 1, 2]
        assert [r.payload for r in await collect(log, A, 3)] == payloads


async def test_a_refused_append_does_not_stop_the_next_ones(
    log: KafkaLog, settings: KafkaSettings, kafka_server: Kafka
):
    await log.append([(A, b"first")])
    async with administrator(kafka_server) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, settings.topic, {"max.message.bytes": "2000"})
        await admin.alter_configs([resource])
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await log.append([(A, b"x" * 10_000)])
            except Unavailable as e:
                assert "MessageSizeTooLarge" in str(e)  # noqa: PT017  # it may take a moment to hold
                break
    [end] = await log.end([A])
    assert await log.append([(A, b"next")]) == [end]


async def test_a_topic_made_anew_under_a_running_log_is_noticed(
    log: KafkaLog, settings: KafkaSettings, kafka_server: Kafka
):
    await log.append([(A, b"%d" % i) for i in range(3)])
    async with administrator(kafka_server) as admin:
        await admin.delete_topics([settings.topic])
        async with asyncio.timeout(PATIENCE_S):
            while (await admin.create_topics([NewTopic(settings.topic, LOG.channels, 1)])).topic_errors[0][1]:
                pass  # not until the old one is gone
    with pytest.raises(Corrupted, match="acknowledged records are lost"):
        await appended(log, b"x")


async def test_a_query_node_that_begins_at_the_end_of_a_trimmed_channel_has_reached_it(log: KafkaLog):
    schema = Schema((Field(FieldId(100), "id", DataType.INT64, primary=True),))
    shards, partitions = (Shard(0, A),), (Partition(PartitionId(1), "p", 0),)
    collection = Collection(CollectionId(1), "default", "c", schema, shards, partitions)
    shard = ShardState(collection, 0, 60)
    payload = encode(Record(UPSERT, shard.id, PartitionId(1), 1, 7, None))
    await log.append([(A, payload)] * 3)
    [end] = await log.end([A])
    await log.trim(A, end)
    tails = ChannelTails(log, lambda _: None)
    shard.reset(end)
    tails.join(shard, end)
    assert shard.frontier == (await log.end([A]))[0], "a strong read has nothing to wait for"
    [position] = await log.append([(A, encode(Record(UPSERT, shard.id, PartitionId(1), 1, 7, None)))])
    await until(lambda: shard.frontier > position, "the record")
    await tails.close()
