"""Requests to the brokers that lead the channels of a topic."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import BrokerResponseError, KafkaError, NoError, for_code

from core.errors import Unavailable
from core.ids import Channel
from storage.log.kafka_access import Access, Again
from storage.log.kafka_directory import Directory

T = TypeVar("T")
PAUSE_S = (0.05, 1.0)
"""Pause before a request is sent again: the first one, doubled up to the second."""
CLOSED = "the log is closed"


class Brokers:
    """One connection to each broker.

    A broker answers the requests of a connection one after another: what may wait there (reading the
    end of a channel) needs a ``Brokers`` of its own.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._connections: dict[int, asyncio.Task[AIOKafkaConnection]] = {}
        self._closed = False

    @property
    def access(self) -> Access:
        return self._directory.access

    @property
    def topic(self) -> str:
        return self._directory.topic

    async def leader(self, channel: Channel) -> int:
        """Id of the broker that leads a channel. Raises ``Again``; ``Unavailable`` when closed."""
        self._check_open()
        return await self._directory.leader(channel)

    async def ask(self, channel: Channel, request: Any) -> Any:
        """The answer of the broker that leads the channel. Raises as ``leader``."""
        return await self.ask_broker(await self.leader(channel), request, channel)

    async def ask_broker(self, node: int, request: Any, channel: Channel) -> Any:
        """The answer of one broker about a channel. Raises as ``leader``."""
        connecting = self._connection(node)
        try:
            # Whoever asks may be cancelled; the connection is for the others too.
            await asyncio.wait({connecting})
            self._check_open()
            return await connecting.result().send(request)
        except (KafkaError, OSError) as e:  # TimeoutError is an OSError
            self._check_open()
            self._hang_up(node, connecting)
            self._directory.stale = True
            raise self.access.failed(channel, e) from e

    def verify(self, channel: Channel, code: int) -> None:
        """Returns if the code of an answer is that of success. Raises ``Again`` when a retry helps, else
        the broker's own error."""
        error = for_code(code)
        if error is NoError:
            self.access.answered(channel)
        elif error.retriable:
            self._directory.stale |= error.invalid_metadata
            raise self.access.failed(channel, error())
        else:
            raise error()

    async def close(self) -> None:
        """Running requests fail. Idempotent."""
        self._closed = True
        connecting = list(self._connections.values())
        for node, task in list(self._connections.items()):
            self._hang_up(node, task)
        await asyncio.gather(*connecting, return_exceptions=True)

    def _connection(self, node: int) -> asyncio.Task[AIOKafkaConnection]:
        self._check_open()
        known = self._connections.get(node)
        if known is not None and _established(known) and not known.result().connected():
            self._hang_up(node, known)  # the other end has; ours is open still
            known = None
        if known is None:
            address = self._directory.address(node)
            known = asyncio.create_task(self.access.connect(*address), name=f"connecting to kafka broker {node}")
            # Everyone who asked may be gone by the time it fails.
            known.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._connections[node] = known
        return known

    def _hang_up(self, node: int, task: asyncio.Task[AIOKafkaConnection]) -> None:
        if self._connections.get(node) is task:
            del self._connections[node]
        if _established(task):
            task.result().close()
        else:
            task.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(CLOSED)


def _established(task: asyncio.Task[AIOKafkaConnection]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


class Pauses:
    """Waits between attempts, longer each time."""

    def __init__(self) -> None:
        self._next_s = PAUSE_S[0]

    async def pause(self) -> None:
        now_s, self._next_s = self._next_s, min(self._next_s * 2, PAUSE_S[1])
        await asyncio.sleep(now_s)


async def retried(run: Callable[[], Awaitable[T]], timeout_s: float, what: str) -> T:
    """What ``run`` returns, tried again while it raises ``Again``. Raises ``Unavailable`` after the time,
    and for what a broker refuses for good."""
    pauses, why = Pauses(), "no answer"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await run()
                except Again as e:
                    why = str(e)
                await pauses.pause()
    except TimeoutError:
        raise Unavailable(f"waited {timeout_s:g} s for {what}: {why}") from None
    except BrokerResponseError as e:
        raise Unavailable(f"kafka refuses {what}: {e}") from e
