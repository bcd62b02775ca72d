"""A reader at the end of a channel: what was appended since it last looked, handed over in memory."""

import asyncio
from collections.abc import Sequence

from core.ids import Position
from storage.log.port import LogRecord

TAIL_BYTES_MAX = 16 * 1024 * 1024
"""Bytes waiting for a slow reader above which it reads them from the file instead."""


class Tail:
    """``position``: of the next record its reader gets. Event loop only.

    While ``following``, every append is pushed; otherwise the reader has to catch up from the file.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.following = False
        self._records: list[LogRecord] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def follow(self) -> None:
        """The reader has everything that is in the file: push from here on."""
        self.following = True

    def push(self, records: Sequence[LogRecord]) -> None:
        """Records just made durable, in order."""
        if not self.following:
            return
        self._records.extend(records)
        self._bytes += sum(len(r.payload) for r in records)
        if self._bytes > TAIL_BYTES_MAX and self._waiter is None:
            self.following, self._records, self._bytes = False, [], 0
        self.wake()

    def wake(self) -> None:
        """Ends a running ``take``."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[LogRecord]:
        """What was pushed since the last call; waits for something. Empty when woken or fallen behind."""
        if not self._records and self.following:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        records, self._records, self._bytes = self._records, [], 0
        if records:
            self.position = Position(records[-1].position + 1)
        return records
