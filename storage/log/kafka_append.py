"""Appends to a Kafka topic: cut to pieces that fit a batch, bounded in bytes and time."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence

from core.errors import Unavailable
from core.ids import Channel, Position
from storage.log.admission import Admission
from storage.log.kafka_connection import CLOSED, Brokers
from storage.log.kafka_lane import Entry, Lane

QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Bytes on their way above which callers wait to enter the queue."""


class Appender:
    """The way into a topic. Takes the ``Brokers`` for itself.

    batch_bytes: size of a batch in Kafka's format that the topic takes.
    """

    def __init__(self, brokers: Brokers, batch_bytes: int, timeout_s: float) -> None:
        self._brokers, self._batch_bytes, self._timeout_s = brokers, batch_bytes, timeout_s
        self._admission = Admission(QUEUE_BYTES_MAX)
        self._lanes: dict[Channel, Lane] = {}
        self._closed = False

    async def append(self, entries: Sequence[tuple[Channel, Entry]]) -> list[Position]:
        """Appends the entries of each channel in order; their positions, once all are acknowledged.

        What a call has for one channel and fits a batch is kept whole or not at all. Raises
        ``Unavailable`` when not all is acknowledged within ``timeout_s``: any of it may be in the log. It is
        not sent again after that, but what a broker has not read yet may still arrive.
        """
        size = sum(entry.bytes for _, entry in entries)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._admission.enter(size)
                try:
                    return await self._append(entries)
                finally:
                    self._admission.leave(size)
        except TimeoutError:
            raise Unavailable(
                f"kafka at {self._brokers.access.servers} did not acknowledge within {self._timeout_s:g} s; "
                "the records may be in the log"
            ) from None

    async def _append(self, entries: Sequence[tuple[Channel, Entry]]) -> list[Position]:
        if self._closed:
            raise Unavailable(CLOSED)
        pieces = list(self._pieces(entries))
        # All of them in one go: nothing of another caller comes between.
        waiting = [self._lane(channel).put([entries[i][1] for i in piece]) for channel, piece in pieces]
        # Until none is on its way any more, so that what has entered the queue has left it.
        results = await asyncio.gather(*waiting, return_exceptions=True)
        positions = [Position(-1)] * len(entries)
        for (_, piece), first in zip(pieces, results, strict=True):
            if isinstance(first, BaseException):
                raise first
            for nth, i in enumerate(piece):
                positions[i] = Position(first + nth)
        return positions

    def _pieces(self, entries: Sequence[tuple[Channel, Entry]]) -> Iterator[tuple[Channel, list[int]]]:
        """Numbers of entries that go together, each at most a batch."""
        numbers: dict[Channel, list[int]] = defaultdict(list)
        for i, (channel, _) in enumerate(entries):
            numbers[channel].append(i)
        for channel, of_channel in numbers.items():
            piece, size = [], 0
            for i in of_channel:
                if piece and size + entries[i][1].bytes > self._batch_bytes:
                    yield channel, piece
                    piece, size = [], 0
                piece.append(i)
                size += entries[i][1].bytes
            yield channel, piece

    def _lane(self, channel: Channel) -> Lane:
        lane = self._lanes.get(channel)
        if lane is None:
            lane = self._lanes[channel] = Lane(self._brokers, channel, self._batch_bytes)
        return lane

    async def close(self) -> None:
        """Fails what is on its way. Idempotent."""
        self._closed = True
        self._admission.open_wide()
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
