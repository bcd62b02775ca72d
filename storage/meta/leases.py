"""Leases of the embedded metadata store: they live in memory, for the process is their only holder."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import Fenced, InvalidArgument

LATE_S = 0.1
"""A timer that fires so much too late says nothing about the holder."""


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    timer: asyncio.TimerHandle


class Leases:
    """``expired`` is called with a lease that ended because nobody kept it alive. Event loop only."""

    def __init__(self, expired: Callable[[int], None]) -> None:
        self._expired = expired
        self._leases: dict[int, _Lease] = {}

    def grant(self, ttl_s: float) -> int:
        if not ttl_s > 0:
            raise InvalidArgument(f"a lease needs a positive time to live, not {ttl_s}")
        # Random, so that an id from before a restart is not mistaken for a new one.
        lease = secrets.randbits(62) + 1
        self._leases[lease] = _Lease(ttl_s, self._arm(lease, ttl_s))
        return lease

    def alive(self, lease: int) -> bool:
        return lease in self._leases

    def keep_alive(self, lease: int) -> None:
        """Raises ``Fenced`` when the lease has ended."""
        held = self._leases.get(lease)
        if held is None:
            raise Fenced(f"lease {lease} has ended")
        held.timer.cancel()
        held.timer = self._arm(lease, held.ttl_s)

    def end(self, lease: int) -> None:
        """Idempotent; ``expired`` is not called."""
        if held := self._leases.pop(lease, None):
            held.timer.cancel()

    def close(self) -> None:
        for lease in list(self._leases):
            self.end(lease)

    def _arm(self, lease: int, ttl_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ttl_s, self._expire, lease)

    def _expire(self, lease: int) -> None:
        held = self._leases[lease]
        if asyncio.get_running_loop().time() - held.timer.when() > LATE_S:
            # The process slept or was busy, and its heartbeats waited as the timer did: they go first.
            held.timer = self._arm(lease, held.ttl_s / 2)
            return
        self.end(lease)
        self._expired(lease)
