"""Which partitions a filter leaves to be read, where rows lie by the hash of their partition key."""

import numpy as np

from core.catalog import Collection
from core.hashing import partition_of
from core.ids import PartitionId
from engine.filter import Filter


def narrowed(
    collection: Collection, partitions: tuple[PartitionId, ...], filter: Filter | None
) -> tuple[PartitionId, ...]:
    """Those of ``partitions`` that can hold a row the filter passes, in their order; at least one, as
    every read names one."""
    field = collection.schema.partition_key
    keys = filter.values(field) if filter is not None and field is not None else None
    if keys is None:
        return partitions
    places = np.unique(partition_of(keys, len(collection.partitions))).tolist()
    wanted = {collection.partitions[place].id for place in places}
    return tuple(p for p in partitions if p in wanted) or partitions[:1]
