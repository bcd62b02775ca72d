"""What the log says, folded in the plainest way: the state of a shard at every frontier."""

from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass, field

from core.ids import Channel, PartitionId, Position, ShardId
from storage import record
from storage.log.port import LogRecord

Rows = dict[int, int]
"""Living rows: primary key -> the number written with it."""


@dataclass
class ShardHistory:
    """positions: of its records with rows or keys, in order. states: before the first one, and after each.
    partitions: by the number written with a row."""

    positions: list[Position] = field(default_factory=list)
    states: list[Rows] = field(default_factory=lambda: [{}])
    partitions: dict[int, PartitionId] = field(default_factory=dict)

    def at(self, frontier: Position, partitions: Container[PartitionId]) -> Rows:
        """The rows of these partitions that a view at this frontier has."""
        return self.within(self.states[bisect_left(self.positions, frontier)], partitions)

    def within(self, rows: Rows, partitions: Container[PartitionId]) -> Rows:
        """Those of these partitions."""
        return {key: n for key, n in rows.items() if self.partitions[n] in partitions}

    def between(self, start: Position, end: Position) -> list[Position]:
        """Positions of its records from ``start`` on and before ``end``."""
        return self.positions[bisect_left(self.positions, start) : bisect_left(self.positions, end)]


class Oracle:
    """All that was ever appended; trimming forgets nothing here."""

    def __init__(self) -> None:
        self.shards: dict[ShardId, ShardHistory] = {}

    def appended(self, _channel: Channel, entry: LogRecord) -> None:
        """A record became durable."""
        value = record.decode(entry.payload)
        if value.batch is None:
            return
        history = self.shards.setdefault(value.shard, ShardHistory())
        rows = dict(history.states[-1])
        keys = value.batch.column("pk").to_pylist()
        if value.kind == record.DELETE:
            for key in keys:
                rows.pop(key, None)
        else:
            numbers = value.batch.column("n").to_pylist()
            rows.update(zip(keys, numbers, strict=True))
            history.partitions.update(dict.fromkeys(numbers, value.partition))
        history.positions.append(entry.position)
        history.states.append(rows)

    def of(self, shard: ShardId) -> ShardHistory:
        return self.shards.get(shard) or ShardHistory()
