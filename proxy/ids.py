"""Auto ids, from ranges leased from the coordinator."""

import asyncio

import numpy as np
import pyarrow as pa

from core.schema import Field
from core.types import DataType
from rpc.roles import Coordinator


class AutoIds:
    """Hands out ids that nobody else ever gets, most of them without asking the coordinator."""

    def __init__(self, coordinator: Coordinator, lease: int) -> None:
        self._coordinator = coordinator
        self._lease = lease
        self._left = range(0)
        self._leasing = asyncio.Lock()

    async def take(self, count: int) -> np.ndarray:
        """int64 [count], rising. What is left of a range that is too short for ``count`` is not used."""
        if len(self._left) < count:
            async with self._leasing:
                if len(self._left) < count:
                    self._left = await self._coordinator.lease_ids(max(self._lease, count))
                return self._cut(count)
        return self._cut(count)

    def _cut(self, count: int) -> np.ndarray:
        taken, self._left = self._left[:count], self._left[count:]
        return np.arange(taken.start, taken.stop, dtype=np.int64)

    async def keys(self, field: Field, count: int) -> pa.Array:
        """Generated primary keys for ``count`` rows, as decimal text where the key is a string."""
        ids = pa.array(await self.take(count))
        return ids.cast(pa.string()) if field.type is DataType.VARCHAR else ids
