"""The last bytes of a disk are kept for what gives space back.

Deleting from a file of SQLite's takes a little room first. Were new data allowed to take all of it,
a full disk could only be helped from outside.
"""

import os
from pathlib import Path

from core.errors import DiskFull

RESERVE_BYTES = 64 * 1024 * 1024
RESERVE_SHARE = 16
"""On a small disk the reserve is this part of it."""


def demand_room(path: Path, size: int) -> None:
    """For new data only: raises ``DiskFull`` unless ``size`` bytes fit on the disk of ``path`` beside
    the reserve. A system call of about a microsecond."""
    disk = os.statvfs(path)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    reserve = min(RESERVE_BYTES, total // RESERVE_SHARE)
    # Some network file systems do not say.
    if total and free < size + reserve:
        raise DiskFull(
            f"no room to write {path}: {free >> 20} MB are free on its disk,"
            f" {reserve >> 20} MB of them are kept for giving space back"
        )
