"""The contract of the metadata store."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.ids import Revision


@dataclass(frozen=True, slots=True)
class Item:
    """A key, its value, and the store's revision at which the key last changed."""

    key: str
    value: bytes
    revision: Revision


@dataclass(frozen=True, slots=True)
class Event:
    """A change seen by a watch. ``value`` is None when the key was deleted (or its lease ended)."""

    key: str
    value: bytes | None
    revision: Revision


@dataclass(frozen=True, slots=True)
class Condition:
    """The key's revision is exactly this; 0 = the key does not exist."""

    key: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Put:
    """Sets a key; bound to a lease, the key goes when the lease does (0 = no lease)."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a key; no error when it is not there."""

    key: str


class MetaStore(Protocol):
    """Linearizable key-value store with one revision counter for all keys.

    Keys are ``/``-separated ASCII paths without a leading slash; values up to 1 MB. A commit has at most
    128 conditions, 128 writes and 1.25 MB (``storage.meta.writes``).
    Errors: ``Conflict``, ``WatchCompacted``, ``DiskFull``, ``Corrupted``, ``Unavailable``
    (for ``commit``: may or may not have happened).
    """

    async def get(self, key: str) -> Item | None: ...

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        """All items below a prefix in key order, and the store's revision they are true at."""
        ...

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        """All writes at once, if all conditions hold; durable when it returns the new revision.

        Raises ``Conflict`` (naming the key) and changes nothing otherwise. A key may be written
        once per commit. Raises ``Fenced`` when a lease that is written with has ended, ``TooLarge``.
        """
        ...

    def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        """Every change below a prefix with ``revision > after``, in order, one batch per commit,
        for ever. Raises ``WatchCompacted`` when the history is gone: list again."""
        ...

    async def grant(self, ttl_s: float) -> int:
        """A new lease (> 0). It ends ``ttl_s`` after the last ``keep_alive``, and its keys with it.

        Never sooner; a backend may count in whole seconds and need a little longer."""
        ...

    async def keep_alive(self, lease: int) -> None:
        """Renews. Raises ``Fenced`` when the lease has ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """Ends a lease now. Idempotent."""
        ...

    async def close(self) -> None: ...
