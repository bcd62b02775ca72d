"""Tails of channels over a log in memory: joining, catching up, being overtaken by a trim, failing."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pyarrow as pa
import pytest

from core.catalog import Collection, Partition, Shard
from core.errors import LogTruncated, Unavailable
from core.ids import Channel, CollectionId, FieldId, PartitionId, Position, ShardId
from core.schema import Field, Schema
from core.types import DataType
from querynode.channel_tail import ChannelTails
from querynode.shard import ShardState
from storage.log.port import LogRecord
from storage.record import BARRIER, UPSERT, Record, encode
from tests.waiting import until

SCHEMA = Schema((Field(FieldId(100), "id", DataType.INT64, primary=True),))
PARTITION = PartitionId(1)
CHANNEL = Channel(0)


class MemoryLog:
    """Channel 0 in a list; hands each reader what is there in batches of ``batch``."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.first = 0
        self.batch = 2
        self.readers: list[int] = []
        self.error: Exception | None = None
        self._grown = asyncio.Event()

    def append(self, collection: int, keys: Sequence[int]) -> None:
        batch = pa.RecordBatch.from_arrays([pa.array(keys, pa.int64())], schema=SCHEMA.arrow)
        kind = UPSERT if keys else BARRIER
        record = Record(kind, ShardId(CollectionId(collection), 0), PARTITION, 1, 7, batch if keys else None)
        self.records.append(LogRecord(Position(len(self.records)), encode(record)))
        self._grown.set()

    async def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        self.readers.append(start)
        while True:
            if self.error:
                raise self.error
            if start < self.first:
                raise LogTruncated(channel, start, self.first)
            batch = self.records[start : start + self.batch]
            if batch:
                start = Position(start + len(batch))
                yield batch
                await asyncio.sleep(0)
            else:
                self._grown.clear()
                await self._grown.wait()


def shard(collection: int) -> ShardState:
    of = Collection(
        CollectionId(collection),
        "default",
        f"c{collection}",
        SCHEMA,
        (Shard(0, CHANNEL),),
        (Partition(PARTITION, "p", 0),),
    )
    return ShardState(of, 0, 60)


def keys(state: ShardState) -> list[int]:
    parts = state.view.parts((PARTITION,))
    return sorted(k for data, _ in parts for k in data.column("id").to_pylist())


@pytest.fixture
async def log() -> MemoryLog:
    return MemoryLog()


async def test_shards_that_come_together_share_one_reader_from_the_oldest_start(log: MemoryLog) -> None:
    for n in range(6):
        log.append(1 + n % 2, [n])
    tails = ChannelTails(log, lambda _: None)  # type: ignore[arg-type]  # reads only
    one, two = shard(1), shard(2)
    one.reset(Position(4))
    tails.join(one, Position(4))
    two.reset(Position(1))
    tails.join(two, Position(1))
    await until(lambda: one.frontier == two.frontier == 6)
    assert (keys(one), keys(two)) == ([4], [1, 3, 5])
    assert log.readers == [1]
    await tails.close()


async def test_a_shard_that_comes_later_catches_up_and_joins_the_others(log: MemoryLog) -> None:
    for n in range(20):
        log.append(1 + n % 2, [n])
    tails = ChannelTails(log, lambda _: None)  # type: ignore[arg-type]  # reads only
    one, two = shard(1), shard(2)
    tails.join(one, Position(0))
    await until(lambda: one.frontier == 20)
    tails.join(two, Position(0))
    await until(lambda: two.frontier == 20 and two.consumed is one.consumed)
    log.append(2, [100])
    log.append(1, [101])
    await until(lambda: one.frontier == two.frontier == 22)
    assert keys(one) == [*range(0, 20, 2), 101]
    assert keys(two) == [*range(1, 20, 2), 100]
    assert len(log.readers) == 2
    await tails.close()


async def test_records_delivered_twice_count_once(log: MemoryLog) -> None:
    log.append(1, [1, 2])
    log.append(1, [3])
    tails = ChannelTails(log, lambda _: None)  # type: ignore[arg-type]  # reads only
    one = shard(1)
    tails.join(one, Position(0))
    await until(lambda: one.frontier == 2)
    view = one.view
    for again in (0, 1):
        tails.leave(one)
        tails.join(one, Position(again))
        await until(lambda: one.consumed.frontier == 2)
    assert keys(one) == [1, 2, 3]
    assert one.view is view
    await tails.close()


async def test_a_trim_past_the_reader_starts_its_shards_again(log: MemoryLog) -> None:
    for n in range(5):
        log.append(1, [n])
    log.first = 3
    lost: list[ShardState] = []
    tails = ChannelTails(log, lost.extend)  # type: ignore[arg-type]  # reads only
    one = shard(1)
    tails.join(one, Position(1))
    await until(lambda: lost == [one])
    one.reset(Position(3))
    tails.join(one, Position(3))
    await until(lambda: one.frontier == 5)
    assert keys(one) == [3, 4]
    await tails.close()


async def test_an_unreachable_log_is_read_on_once_it_is_back(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("querynode.channel_tail.RETRY_S", (0.01, 0.01))
    log.append(1, [1])
    log.error = Unavailable("away")
    tails = ChannelTails(log, lambda _: None)  # type: ignore[arg-type]  # reads only
    one = shard(1)
    tails.join(one, Position(0))
    await until(lambda: len(log.readers) > 2)
    log.error = None
    await until(lambda: one.frontier == 1)
    assert keys(one) == [1]
    await tails.close()


async def test_a_record_that_cannot_be_read_fails_reads_instead_of_being_skipped(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("querynode.channel_tail.RETRY_S", (0.01, 0.01))
    log.append(1, [1])
    log.append(1, [2])
    good = log.records[1]
    log.records[1] = LogRecord(good.position, b"\xff not a record")
    tails = ChannelTails(log, lambda _: None)  # type: ignore[arg-type]  # reads only
    one = shard(1)
    tails.join(one, Position(0))
    await until(lambda: one.consumed.failure is not None)
    assert (one.frontier, keys(one)) == (1, [1])
    log.records[1] = good
    await until(lambda: one.frontier == 2)
    assert one.consumed.failure is None
    assert keys(one) == [1, 2]
    await tails.close()
