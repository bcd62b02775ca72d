"""Ids for segments and files, from ranges leased from the coordinator."""

import asyncio

from rpc.roles import Coordinator

LEASE = 256


class Ids:
    """Hands out ids that nobody else ever gets."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._left = range(0)
        self._turn = asyncio.Lock()

    async def next(self) -> int:
        async with self._turn:
            if not self._left:
                self._left = await self._coordinator.lease_ids(LEASE)
            id, self._left = self._left[0], self._left[1:]
            return id
