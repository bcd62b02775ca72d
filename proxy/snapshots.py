"""Cuts for iterators: a barrier in every shard names a moment that all pages read at."""

from core.catalog import Collection
from core.clock import HybridClock
from core.ids import PartitionId, ShardId
from storage.log.port import Log
from storage.record import BARRIER, Record, encode


class Snapshots:
    def __init__(self, log: Log, clock: HybridClock) -> None:
        self._log = log
        self._clock = clock

    async def cut(self, collection: Collection) -> int:
        """Fixes a consistent cut over all shards; its time stamp, by which pages name it."""
        timestamp = self._clock.now()
        entries = []
        for shard in collection.shards:
            id = ShardId(collection.id, shard.number)
            record = Record(BARRIER, id, PartitionId(0), collection.schema.version, timestamp, None)
            entries.append((shard.channel, encode(record)))
        await self._log.append(entries)
        return timestamp
