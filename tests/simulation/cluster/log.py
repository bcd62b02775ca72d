"""The log of a simulated cluster: durable when it answers, trimmed when asked. As Kafka does, it may skip
numbers that hold no record."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from core.errors import LogTruncated
from core.ids import Channel, Position
from storage.log.port import LogRecord
from tests.simulation.cluster.loop import CURRENT
from tests.simulation.cluster.network import LOG, Network

BATCH_MAX = 4
"""Records given to a reader at once."""
SKIP = 0.05
"""Chance of a number without a record."""


@dataclass
class ChannelData:
    """kept: from position ``start`` on. end: what the next record gets."""

    records: list[LogRecord] = field(default_factory=list)
    start: Position = Position(0)
    end: Position = Position(0)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class LogServer:
    """appended: told of each record that is now durable. trimming: of a trim about to happen."""

    def __init__(
        self,
        network: Network,
        chance: random.Random,
        channels: int,
        appended: Callable[[Channel, LogRecord], None],
        trimming: Callable[[Channel, Position], None],
    ) -> None:
        self.network, self._chance = network, chance
        self._appended, self._trimming = appended, trimming
        self.channels = [ChannelData() for _ in range(channels)]

    def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        positions = []
        for channel, payload in entries:
            data = self.channels[channel]
            position = Position(data.end + (self._chance.random() < SKIP))
            record = LogRecord(position, payload)
            data.records.append(record)
            data.end = Position(position + 1)
            self._appended(channel, record)
            positions.append(position)
            told, data.waiting = data.waiting, []
            for future in told:
                self.network.deliver(future)
        return positions

    def trim(self, channel: Channel, before: Position) -> None:
        data = self.channels[channel]
        before = min(before, data.end)
        if before > data.start:
            self._trimming(channel, before)
            data.start = before
            data.records = [r for r in data.records if r.position >= before]

    def after(self, channel: Channel, start: Position) -> list[LogRecord]:
        data = self.channels[channel]
        if start < data.start:
            raise LogTruncated(channel, start, data.start)
        return [r for r in data.records if r.position >= start]


class LogPort:
    """``storage.log.port.Log`` as one process has it."""

    def __init__(self, server: LogServer) -> None:
        self._server, self._network = server, server.network
        self.channels = len(server.channels)

    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        return await self._network.call(LOG, lambda: self._server.append(entries))

    async def read(self, channel: Channel, start: Position) -> AsyncGenerator[Sequence[LogRecord], None]:
        process, server, network = CURRENT.get(), self._server, self._network
        while True:
            # A distributed log reads on by itself after a lost connection.
            await network.until_reached(process, LOG)
            batch = server.after(channel, start)[:BATCH_MAX]
            if batch:
                start = Position(batch[-1].position + 1)
                yield batch
            else:
                told = network.loop.create_future()
                server.channels[channel].waiting.append(told)
                await told

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        return await self._network.call(LOG, lambda: [self._server.channels[c].end for c in channels])

    async def start(self, channel: Channel) -> Position:
        return await self._network.call(LOG, lambda: self._server.channels[channel].start)

    async def trim(self, channel: Channel, before: Position) -> None:
        await self._network.call(LOG, lambda: self._server.trim(channel, before))

    async def close(self) -> None:
        pass
