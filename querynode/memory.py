"""How much memory sealed segments take, and how much there is for them."""

import os
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

from core.catalog import Collection
from core.errors import MemoryFull
from core.manifest import Segment
from core.schema import Field
from core.types import TYPES, DataType
from rpc.workers import Room

CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands: version 2, version 1."""
ROW_BYTES = 24
"""Of a row beside its vectors: key, version, end."""
TEXT_KEY_BYTES = 40
"""What a key of text takes on top: its length is not in the manifest."""


class HeldMemory:
    """What the segments take that are open in this process, whoever needs them. Event loop only."""

    def __init__(self, limit: int) -> None:
        """limit: bytes; 0 = all that this process may use."""
        self.limit = limit or available_bytes()
        self._held: WeakKeyDictionary[object, list[int]] = WeakKeyDictionary()
        # Any thread may be the last to refer to a segment: it only leaves a note.
        self._gone: deque[list[int]] = deque()
        self._used = 0

    @property
    def room(self) -> Room:
        return Room(max(0, self.limit - self.used), self.limit)

    @property
    def used(self) -> int:
        while self._gone:
            self._used -= self._gone.popleft()[0]
        return self._used

    @contextmanager
    def opening(self, bytes: int, what: object, replaced: int = 0) -> Iterator[None]:
        """Segments of that size are being opened. Raises ``MemoryFull``.

        replaced: size of those that go once these are there; until then the limit may be passed by it."""
        if bytes and self.used + bytes - replaced > self.limit:
            raise MemoryFull(
                f"{what} takes {bytes} bytes of memory here, {self.room.free} of {self.limit} bytes are free"
                " (query_node.memory_bytes)"
            )
        self._used += bytes
        try:
            yield
        finally:
            self._used -= bytes

    def hold(self, segment: object, bytes: int) -> None:
        """An open segment takes this much until nobody refers to it."""
        entry = self._held.get(segment)
        if entry is None:
            entry = self._held[segment] = [0]
            weakref.finalize(segment, self._gone.append, entry).atexit = False
        self._used += bytes - entry[0]
        entry[0] = bytes

    def held(self, segment: object) -> int:
        """What an open segment takes."""
        return self._held.get(segment, [0])[0]


def available_bytes() -> int:
    """What this process may use at most: its container's limit, or the machine's memory."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # not in a container, or "max"
            continue
    return min(found)


def needed_bytes(segment: Segment, collection: Collection) -> int:
    """Memory a segment takes where it is held: keys, versions, and of each vector field the index, or
    the vectors while there is none."""
    schema = collection.schema
    declared = {i.field_id: i.id for i in collection.indexes}
    needed = segment.rows * (ROW_BYTES + TEXT_KEY_BYTES * (schema.primary.type is DataType.VARCHAR))
    for field in schema.vectors:
        file = segment.index_by_field.get(field.id)
        usable = file is not None and declared.get(field.id) == file.index_id
        needed += file.object.bytes if file and usable else segment.rows * _vector_bytes(field)
    return needed


def _vector_bytes(field: Field) -> int:
    dtype = TYPES[field.type].numpy
    assert dtype is not None, "vectors are numbers"
    return dtype.itemsize * (field.dim // 8 if field.type is DataType.BINARY_VECTOR else field.dim)
