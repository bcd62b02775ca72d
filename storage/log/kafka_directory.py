"""Who leads which channel of a topic, and where those brokers are."""

import asyncio

from aiokafka.errors import NoError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from core.errors import Unavailable
from core.ids import Channel
from storage.log.kafka_access import Access, Again


class Directory:
    """Learned from Kafka when first needed, and again after somebody found it ``stale``. For all
    connections that are about one topic."""

    def __init__(self, access: Access, topic: str) -> None:
        self.access, self.topic = access, topic
        self.stale = True
        self._learning = asyncio.Lock()
        self._leaders: dict[Channel, int] = {}
        self._addresses: dict[int, tuple[str, int]] = {}

    async def leader(self, channel: Channel) -> int:
        """Id of the broker that leads a channel. Raises ``Again``."""
        if self.stale:
            async with self._learning:
                if self.stale:
                    await self._learn()
        node = self._leaders.get(channel)
        if node is None:
            self.stale = True
            raise self.access.failed(channel, Unavailable(f"topic {self.topic} has no leader for channel {channel}"))
        return node

    def address(self, node: int) -> tuple[str, int]:
        """Host and port of a broker that ``leader`` named. Raises ``Again`` if it has gone since."""
        if node not in self._addresses:
            self.stale = True
            raise Again(f"broker {node} has left")
        return self._addresses[node]

    async def _learn(self) -> None:
        # Without leave to make it: a missing topic would come into being with a broker's defaults.
        request = MetadataRequest([self.topic], allow_auto_topic_creation=False)
        try:
            answer = await self.access.first_answer(request)
        except Again as e:
            raise self.access.failed(None, e) from e
        self.access.answered(None)
        self._addresses = {node: (host, port) for node, host, port, *_ in answer.brokers}
        self._leaders = {
            Channel(number): leader
            for code, _, _, partitions in answer.topics
            if for_code(code) is NoError
            for _, number, leader, *_ in partitions
            if leader in self._addresses
        }
        self.stale = False
