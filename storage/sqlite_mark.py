"""How far the commits of a SQLite file have been acknowledged, kept in a small file beside it.

SQLite alone cannot tell whether the last transaction of its write-ahead log was torn by a crash
(nobody was told of it) or damaged afterwards (somebody was). The mark can: it is set after the
commit and before anybody is told. It is not synced: it survives the death of the process, and after
a power loss it may lag, which only makes it say less.
"""

import mmap
import os
import struct
from pathlib import Path

import xxhash

LAYOUT = struct.Struct("<Q16sQ")
"""Counter, boot id, xxh3-64 of both."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _boot_id() -> bytes:
    """16 bytes that change when the machine starts; zeros where the system has none."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


class Mark:
    """``counter``: a number that rises with every commit of the file, as of the last acknowledged
    one; 0 if there is no readable mark. ``exact``: set since the machine started, so it lags nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._boot = _boot_id()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(fd).st_size < LAYOUT.size:
                # Written, not truncated to size: a hole would be a SIGBUS on a full disk.
                os.pwrite(fd, bytes(LAYOUT.size), 0)
            self._map = mmap.mmap(fd, LAYOUT.size)
        finally:
            os.close(fd)
        counter, boot, digest = LAYOUT.unpack(self._map[:])
        readable = digest == xxhash.xxh3_64_intdigest(self._map[:24])
        self.counter: int = counter if readable else 0
        self.exact = readable and any(boot) and boot == self._boot

    def set(self, counter: int) -> None:
        """Remembers a counter. A memory write: no system call, no disk."""
        head = struct.pack("<Q16s", counter, self._boot)
        self._map[:] = head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head))
        self.counter = counter

    def close(self) -> None:
        self._map.close()
