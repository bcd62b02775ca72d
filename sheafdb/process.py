"""What is set once for the whole process, before NumPy and Arrow are imported.

**Allocators**, so that memory which is free goes back to the system. What is large here (records
waiting to be sealed, columns being merged, graphs being built) lives for seconds and comes in
megabytes. Left alone, glibc raises the size from which a block gets pages of its own to that of the
largest block freed, and keeps an arena per thread: 62,666 x 384 embeddings, inserted and indexed,
then hold 4.4 kB a vector, with these settings 2.4 kB (measured). Free pages between used ones go back
only when asked for (``give_back``), another 0.4 kB.

**Threads**: NumPy's OpenBLAS keeps its workers spinning after every product: a 1.5 ms product of an
exact search burned 53 ms of CPU on two cores, which other requests want. Searches use the cores side
by side instead. And the interpreter hands its lock over after 0.5 ms instead of 5: with the event
loop busy, the log's thread acknowledged a small append after 0.7 ms instead of 5.3 (measured).

**Imports**: some libraries import others only to ask whether what they are given comes from there.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

OWN_PAGES_BYTES = 1 << 20
"""Blocks from this size on are pages of their own, returned when freed."""
KEPT_BYTES = 1 << 20
"""Free memory at the end of the heap that is kept for the next requests."""
ARENAS = 2
LOCK_HELD_S = 0.0005

LEFT_OUT = frozenset({"pandas", "rich"})
"""Packages the server works without, installed or not. Arrow asks for pandas at the first conversion,
so in the middle of a request: half a second, 35 MB. structlog asks for rich to colour tracebacks: 30 ms."""

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def prepare() -> None:
    """Sets all of it. Once, before anything else is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(LOCK_HELD_S)
    sys.meta_path.insert(0, _LeftOut())
    _return_what_is_free()


class _LeftOut(MetaPathFinder):
    """Makes these packages look as if they were not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in LEFT_OUT:
            raise ModuleNotFoundError(f"{fullname} is left out of this process", name=fullname)


def give_back() -> None:
    """Gives free pages back to the system. Takes 0.02 ms when there are none, 1.2 ms for 25 MB."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _return_what_is_free() -> None:
    # Arrow's own pools keep what they had; the system's does what is said below. Read at its import.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    libc = _glibc()
    if libc is None:
        return
    for parameter, value in (
        (_M_MMAP_THRESHOLD, OWN_PAGES_BYTES),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_ARENA_MAX, ARENAS),
    ):
        libc.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
