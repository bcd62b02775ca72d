"""The contract of the object store."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import InvalidArgument

PART_BYTES_MAX = 255
"""A part of a name is a file's name where the store is a folder."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    name: str
    bytes: int
    modified_ms: int


class ObjectStore(Protocol):
    """Immutable objects. Names are relative ``/``-separated paths.

    Errors: ``ObjectNotFound``, ``DiskFull`` (nothing stored), ``Unavailable``.
    """

    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        """Stores a new object (the bytes, or the content of a local file, which stays);
        durable and whole when it returns; never visible in part. Putting a name again is a bug of
        the caller; correctness never rests on its being refused."""
        ...

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, ``length`` of them or to the end."""
        ...

    async def fetch(self, name: str) -> Path:
        """A local read-only file with the object's bytes, fit for mmap: the object itself when
        local, else a copy from the node's cache. Who opened it may go on reading after a
        ``delete`` or an eviction, as POSIX has it."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects whose name starts with the prefix, in name order. For rare audits only."""
        ...

    async def delete(self, name: str) -> None:
        """Removes an object. Idempotent."""
        ...

    async def close(self) -> None: ...


def check_name(name: str) -> None:
    """Raises ``InvalidArgument`` unless the name is a relative path; parts that begin with a dot are
    the store's own."""
    parts = name.split("/")
    if any(not p or p[0] == "." or "\0" in p or len(p.encode()) > PART_BYTES_MAX for p in parts):
        raise InvalidArgument(f"not an object name: {name!r}")
