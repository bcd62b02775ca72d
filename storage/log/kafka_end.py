"""First and next positions of Kafka channels; all who wait for the end of a broker's channels share a call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiokafka.protocol.offset import OffsetRequest

from core.ids import Channel, Position
from core.latest import Latest
from storage.log.kafka_connection import Brokers, retried

NEXT, FIRST = -1, -2
"""What Kafka calls the latest and the earliest "time"."""


class Offsets:
    """The ends and starts of the channels of a topic. Takes the ``Brokers`` for itself."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._timeout_s = brokers.access.request_timeout_s
        self._shared: dict[int, _SharedCall] = {}

    async def ends(self, channels: Sequence[Channel]) -> list[Position]:
        """Positions that the next records get, at some moment after this call. Raises ``Unavailable``.

        Not below any acknowledged append: brokers tell the end of what all replicas in sync have, and a
        new leader tells none before it knows it (KIP-207)."""
        return await asyncio.gather(*(self._retried(c, self._end) for c in channels))

    async def start(self, channel: Channel) -> Position:
        """First position that is kept. Raises ``Unavailable``."""
        return await self._retried(channel, self._start)

    async def _retried(self, channel: Channel, ask: Callable[[Channel], Awaitable[Position]]) -> Position:
        return await retried(lambda: ask(channel), self._timeout_s, f"the ends of log channel {channel}")

    async def _end(self, channel: Channel) -> Position:
        node = await self._brokers.leader(channel)
        shared = self._shared.setdefault(node, _SharedCall(self._brokers, node))
        return await shared.end(channel)

    async def _start(self, channel: Channel) -> Position:
        answers = await _list_offsets(self._brokers, await self._brokers.leader(channel), [channel], FIRST)
        return _position(self._brokers, channel, answers)


class _SharedCall:
    """One call at a time to a broker, for the ends of all channels that were asked for until it begins."""

    def __init__(self, brokers: Brokers, node: int) -> None:
        self._brokers, self._node = brokers, node
        self._asked: set[Channel] = set()
        self._ends = Latest(self._call, f"log ends of broker {node}")

    async def end(self, channel: Channel) -> Position:
        self._asked.add(channel)
        return _position(self._brokers, channel, await self._ends.ask())

    async def _call(self) -> dict[Channel, tuple[int, Position]]:
        asked, self._asked = self._asked, set()
        return await _list_offsets(self._brokers, self._node, sorted(asked), NEXT)


async def _list_offsets(
    brokers: Brokers, node: int, channels: Sequence[Channel], which: int
) -> dict[Channel, tuple[int, Position]]:
    """For each channel (error code, position). Raises ``Again``."""
    request = OffsetRequest(-1, 0, [(brokers.topic, [(c, which) for c in channels])])
    answer = await brokers.ask_broker(node, request, channels[0])
    [(_, partitions)] = answer.topics
    return {Channel(number): (code, Position(offset)) for number, code, _, offset in partitions}


def _position(brokers: Brokers, channel: Channel, answers: dict[Channel, tuple[int, Position]]) -> Position:
    code, position = answers[channel]
    brokers.verify(channel, code)
    return position
