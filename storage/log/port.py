"""The contract of the log."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.ids import Channel, Position


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One durable record. ``payload`` is a serialized ``rpc.pb.record_pb2.Record`` (see ``storage.record``)."""

    position: Position
    payload: bytes


class Log(Protocol):
    """Ordered, durable, gapless channels, numbered from 0.

    Positions of a channel start at 0 and grow by one with every record of an embedded log; a
    distributed one may skip numbers that hold no record. Frontiers are exclusive.

    Errors: ``DiskFull`` (nothing was appended), ``LogTruncated``, ``Corrupted`` (names the file),
    ``Unavailable`` (for ``append``: the records may or may not be in the log).
    """

    channels: int
    """How many channels the log has; fixed for its life."""

    record_bytes_max: int
    """Largest payload ``append`` takes; larger is ``TooLarge``."""

    async def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        """Appends the payloads in order; returns their positions once all are durable.

        Within a channel the given order is kept. The embedded log makes the call atomic (all or
        none); a distributed one may keep part of it when it raises ``Unavailable``, and has then stopped
        trying. Concurrent calls share commits. The embedded log has handed the records to the readers
        of its process before this returns; a distributed one need not: who needs them waits for ``end``.
        """
        ...

    def read(self, channel: Channel, start: Position) -> AsyncIterator[Sequence[LogRecord]]:
        """Tails a channel for ever from ``start`` on (inclusive): batches, ordered, without gap.

        Yields no empty batch. Raises ``LogTruncated`` when ``start`` is before the first kept
        record, ``Corrupted`` when it is after the end. A distributed log reads on by itself after a lost
        connection. Close it with ``aclose()``.
        """
        ...

    async def end(self, channels: Sequence[Channel]) -> list[Position]:
        """For each channel the position the next record will get. Linearizable: not below any
        append that returned before this was called.

        One past the last record, or ``start`` when no record is kept: so a reader that has taken every
        record before it has reached it."""
        ...

    async def start(self, channel: Channel) -> Position:
        """First position that ``read`` accepts."""
        ...

    async def trim(self, channel: Channel, before: Position) -> None:
        """Forgets the records with ``position < before``. Idempotent; never moves back; ``before``
        is capped at the end."""
        ...

    async def close(self) -> None:
        """Ends running appends and readers and frees what is held. Idempotent."""
        ...


class FillableLog(Log, Protocol):
    """A log that nobody uses yet, while it is filled from another one."""

    async def begin_at(self, channel: Channel, position: Position) -> None:
        """Forgets the records with a smaller position, and lets the next one get no smaller one. Idempotent;
        cut off, it is completed by the next call. Only one process at a time may append."""
        ...
