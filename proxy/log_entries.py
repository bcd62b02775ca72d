"""From rows to log entries: which partition and shard each row belongs to, cut to the log's limits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from core.catalog import Collection
from core.errors import TooLarge
from core.hashing import partition_of, shard_of
from core.ids import Channel, PartitionId, ShardId
from storage.record import DELETE, Record, encode

Entry = tuple[Channel, bytes]

HEADER_BYTES = 4096
"""More than a record's header and its schema message take beside the rows' own buffers."""


def newest_of_each_key(batch: pa.RecordBatch, key: str) -> pa.RecordBatch:
    """Of rows with the same primary key the last one: one request is one version of a key."""
    keys = batch.column(key)
    if len(keys.unique()) == len(keys):
        return batch
    codes = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, from_end = np.unique(codes[::-1], return_index=True)
    return batch.take(pa.array(np.sort(len(codes) - 1 - from_end)))


def partitions_by_key(collection: Collection, batch: pa.RecordBatch) -> np.ndarray:
    """int64 [n]: for each row the place of its partition in ``collection.partitions``."""
    field = collection.schema.partition_key
    assert field is not None
    return partition_of(batch.column(field.name), len(collection.partitions))


@dataclass(frozen=True, slots=True)
class Writer:
    """Makes the entries of one request.

    most: bytes of the largest payload the log takes; rows are spread over as many records as needed.
    """

    collection: Collection
    timestamp: int
    most: int

    def rows(self, batch: pa.RecordBatch, kind: int, partition: PartitionId | None) -> list[Entry]:
        """Entries that store the rows. partition: of all rows; None = by partition key."""
        collection = self.collection
        shards = shard_of(batch.column(collection.schema.primary.name), len(collection.shards))
        places = np.zeros(len(shards), np.int64) if partition is not None else partitions_by_key(collection, batch)
        entries = []
        for group, rows in _grouped(places * len(collection.shards) + shards, batch):
            place, number = divmod(group, len(collection.shards))
            id = partition if partition is not None else collection.partitions[place].id
            entries += self._records(number, id, kind, rows)
        return entries

    def deletes(self, keys: pa.Array) -> list[Entry]:
        """Entries that end every row of the keys."""
        batch = pa.record_batch([keys], names=["pk"])
        entries = []
        for number, rows in _grouped(shard_of(keys, len(self.collection.shards)), batch):
            entries += self._records(number, PartitionId(0), DELETE, rows)
        return entries

    def _records(self, number: int, partition: PartitionId, kind: int, rows: pa.RecordBatch) -> Iterator[Entry]:
        shard = self.collection.shards[number]
        id, version = ShardId(self.collection.id, shard.number), self.collection.schema.version
        pieces = max(1, -(-rows.nbytes // max(1, self.most - HEADER_BYTES)))
        step = max(1, -(-rows.num_rows // pieces))
        # Rows differ in size, so an even cut may still leave a piece too large: that one is halved.
        waiting = [rows.slice(start, step) for start in range(0, rows.num_rows, step)][::-1]
        while waiting:
            piece = waiting.pop()
            payload = encode(Record(kind, id, partition, version, self.timestamp, piece))  # type: ignore[arg-type]  # int is Kind
            if len(payload) <= self.most:
                yield shard.channel, payload
            elif piece.num_rows == 1:
                raise TooLarge(f"a row of {len(payload)} bytes is larger than the log takes ({self.most})")
            else:
                half = piece.num_rows // 2
                waiting += [piece.slice(half), piece.slice(0, half)]


def _grouped(group: np.ndarray, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each group, in their order."""
    if len(group) == 0:
        return
    if (group == group[0]).all():
        yield int(group[0]), batch
        return
    order = np.argsort(group, kind="stable")
    batch, group = batch.take(pa.array(order)), group[order]
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    for start, end in zip(starts, [*starts[1:], len(group)], strict=True):
        yield int(group[start]), batch.slice(start, end - start)
