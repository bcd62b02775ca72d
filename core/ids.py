"""Typed ids. Plain integers at run time; distinct types to the reader and the type checker."""

from typing import NamedTuple, NewType

CollectionId = NewType("CollectionId", int)
PartitionId = NewType("PartitionId", int)
FieldId = NewType("FieldId", int)
IndexId = NewType("IndexId", int)
SegmentId = NewType("SegmentId", int)
Channel = NewType("Channel", int)
"""Number of one log channel, 0 .. channels-1 (a Kafka partition)."""
Position = NewType("Position", int)
"""Offset of a record in its channel, int64, from 0. It is the version of every row in that record.

A *frontier* (checkpoint, log end, position of a view) is exclusive everywhere: a frontier ``f``
covers the records with ``position < f``. So a row is visible at ``f`` iff
``row.position < f <= row.deleted_at``.
"""
NodeId = NewType("NodeId", str)
Revision = NewType("Revision", int)
"""Revision of the metadata store, from 1; 0 means "the key does not exist"."""

NEVER = Position(2**63 - 1)
"""``deleted_at`` of a row that is alive."""


class ShardId(NamedTuple):
    """One hash slice of one collection: the unit of order, ownership and recovery."""

    collection: CollectionId
    number: int

    def __str__(self) -> str:
        return f"{self.collection}/{self.number}"
