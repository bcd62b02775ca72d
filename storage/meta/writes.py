"""What a commit may hold, on every backend: the bounds are those of etcd as it comes."""

import re
from collections.abc import Sequence

from core.errors import InvalidArgument, TooLarge
from storage.meta.port import Condition, Delete, Put

VALUE_BYTES_MAX = 1024 * 1024
COMMIT_BYTES_MAX = 1280 * 1024
"""Keys and values of one commit; etcd refuses requests above 1.5 MiB, framing included."""
OPERATIONS_MAX = 128
"""Conditions, and writes, of one commit; etcd's ``--max-txn-ops``."""
KEY = re.compile(r"[!-.0-~][!-~]*")
"""Printable ASCII without spaces, no slash in front."""


def check_commit(conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> None:
    """Raises ``InvalidArgument``, or ``TooLarge`` for what no backend could commit at once.

    A commit is never split: it would not be atomic any more."""
    keys: set[str] = set()
    total = sum(len(c.key) for c in conditions)
    for write in writes:
        if not KEY.fullmatch(write.key):
            raise InvalidArgument(f"not a metadata key: {write.key!r}")
        if write.key in keys:
            raise InvalidArgument(f"metadata key {write.key} is written twice in one commit")
        keys.add(write.key)
        size = len(write.value) if isinstance(write, Put) else 0
        if size > VALUE_BYTES_MAX:
            raise TooLarge(f"value of {size} bytes under {write.key}, at most {VALUE_BYTES_MAX} fit")
        total += len(write.key) + size
    if total > COMMIT_BYTES_MAX:
        raise TooLarge(f"commit of {total} bytes to {min(keys, default='')} and others, {COMMIT_BYTES_MAX} fit")
    if max(len(conditions), len(writes)) > OPERATIONS_MAX:
        raise TooLarge(f"commit of {len(conditions)} conditions and {len(writes)} writes, {OPERATIONS_MAX} fit")
