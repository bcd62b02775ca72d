"""What is buffered of one channel and when to seal it: events in, decisions out, no I/O.

Positions are the channel's; times are monotonic seconds given by the caller.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from core.ids import Channel, Position, ShardId
from core.settings import DataNodeSettings
from storage.record import Record

RETRY_S = (0.5, 30.0)
"""Pause after a failed seal: the first one, doubled up to the second."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with rows or keys, as it lies in the log."""

    position: Position
    record: Record

    @property
    def bytes(self) -> int:
        batch = self.record.batch
        return batch.nbytes if batch is not None else 0


@dataclass(frozen=True, slots=True)
class Cut:
    """What one seal takes: every unsealed record of the shard before ``frontier``."""

    entries: tuple[Entry, ...]
    frontier: Position


@dataclass(slots=True)
class Buffer:
    """Unsealed records of one shard, in order; never empty while it is kept."""

    since_s: float
    entries: list[Entry] = field(default_factory=list)
    bytes: int = 0
    sealing: bool = False
    failures: int = 0
    retry_at_s: float = 0.0

    @property
    def first(self) -> Position:
        return self.entries[0].position


class ChannelState:
    """The buffers of a channel. ``frontier``: every record before it was taken in or skipped."""

    def __init__(self, settings: DataNodeSettings, channel: Channel, frontier: Position) -> None:
        self._settings, self.channel, self.frontier = settings, channel, frontier
        self.buffers: dict[ShardId, Buffer] = {}

    @property
    def bytes(self) -> int:
        return sum(b.bytes for b in self.buffers.values())

    @property
    def checkpoint(self) -> Position:
        """Everything before it is sealed or belongs to nobody."""
        return min((b.first for b in self.buffers.values()), default=self.frontier)

    # --- events ------------------------------------------------------------------------------
    def add(self, entry: Entry, now_s: float) -> None:
        """The next record, to be sealed."""
        assert entry.position >= self.frontier, "records come in order, each once"
        buffer = self.buffers.get(entry.record.shard)
        if buffer is None:
            buffer = self.buffers[entry.record.shard] = Buffer(now_s)
        buffer.entries.append(entry)
        buffer.bytes += entry.bytes
        self.frontier = Position(entry.position + 1)

    def skip(self, position: Position) -> None:
        """The next record holds nothing to seal."""
        assert position >= self.frontier, "records come in order, each once"
        self.frontier = Position(position + 1)

    def cut(self, shard: ShardId) -> Cut:
        """A seal begins; the buffer goes on taking records."""
        buffer = self.buffers.get(shard)
        if buffer is None:
            return Cut((), self.frontier)
        buffer.sealing = True
        return Cut(tuple(buffer.entries), self.frontier)

    def sealed(self, shard: ShardId, frontier: Position, now_s: float) -> None:
        """A seal up to the frontier is committed, or what was before it belongs to nobody."""
        buffer = self.buffers.get(shard)
        if buffer is None:
            return
        left = [e for e in buffer.entries if e.position >= frontier]
        if left:
            self.buffers[shard] = Buffer(now_s, left, sum(e.bytes for e in left))
        else:
            del self.buffers[shard]

    def failed(self, shard: ShardId, now_s: float) -> None:
        """A seal failed; everything is still buffered."""
        buffer = self.buffers.get(shard)
        if buffer is not None:
            first, most = RETRY_S
            buffer.sealing = False
            buffer.retry_at_s = now_s + min(first * 2**buffer.failures, most)
            buffer.failures += 1

    # --- decisions ---------------------------------------------------------------------------
    def due(self, now_s: float) -> list[ShardId]:
        """The shards to seal now: large or old enough, and not being sealed or resting."""
        bytes_max, age_s = self._settings.segment_bytes, self._settings.seal_age_s
        return [
            shard
            for shard, b in self.buffers.items()
            if may_seal(b, now_s) and (b.bytes >= bytes_max or now_s - b.since_s >= age_s)
        ]


def may_seal(buffer: Buffer, now_s: float) -> bool:
    """Whether a seal may begin: none is running and the last failure is long enough ago."""
    return not buffer.sealing and now_s >= buffer.retry_at_s


def over_budget(states: Iterable[ChannelState], budget: int, now_s: float) -> list[tuple[Channel, ShardId]]:
    """The largest buffers of all channels, as many as must be sealed to come below the budget."""
    buffers = [(b, s.channel, shard) for s in states for shard, b in s.buffers.items()]
    excess = sum(b.bytes for b, _, _ in buffers) - sum(b.bytes for b, _, _ in buffers if b.sealing) - budget
    chosen: list[tuple[Channel, ShardId]] = []
    for buffer, channel, shard in sorted(buffers, key=lambda x: -x[0].bytes):
        if excess <= 0:
            break
        if may_seal(buffer, now_s):
            chosen.append((channel, shard))
            excess -= buffer.bytes
    return chosen
