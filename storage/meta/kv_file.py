"""The embedded metadata store's file: blocking reads and commits. ``sqlite.py`` makes a ``MetaStore`` of it.

Every row carries a digest of itself; row ``head`` carries the revision and the sum of all rows'
digests, changed in the same transaction. So a row that was altered, or vanished, is noticed.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from core.errors import Conflict, Corrupted
from core.ids import Revision
from storage.meta.port import Condition, Delete, Event, Item, Put
from storage.sqlite_file import is_new, open_file, typed_errors

LAYOUT = ("page_size=8192",)
PRAGMAS = ("wal_autocheckpoint=512", "cache_size=-4096")
SCHEMA = """
CREATE TABLE item (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX leased ON item (lease) WHERE lease != 0;
CREATE TABLE head (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, sum BLOB NOT NULL, digest BLOB NOT NULL);
"""
Row = tuple[str, bytes, int, int, bytes]
"""Key, value, revision, lease, digest."""


def _digest(key: str, value: bytes, revision: int, lease: int) -> bytes:
    h = xxhash.xxh3_128(f"{key}\0{revision}\0{lease}\0".encode())
    h.update(value)
    return h.digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")


def _head(revision: int, total: bytes) -> tuple[int, int, bytes, bytes]:
    return 0, revision, total, _digest("", total, revision, 0)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit did: the revision after it, and its events in the order of its writes."""

    revision: Revision
    events: tuple[Event, ...]


class KvFile:
    """For one thread at a time. All methods raise ``DiskFull`` (nothing changed), ``Corrupted``
    (names the file) and ``Unavailable``."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file and checks all of it. Leases ended with their process: their keys go."""
        self.path = path
        self.revision = Revision(0)
        self._sum = 0
        with typed_errors(path):
            self._db, self._mark = open_file(path, PRAGMAS, LAYOUT, self._load)
        try:
            self.end_leases()
        except BaseException:
            self.close()
            raise

    # --- opening ---------------------------------------------------------------------------
    def _load(self, db: sqlite3.Connection) -> int:
        if is_new(db, self.path):
            self._create(db)
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise Corrupted(self.path, problem)
        heads = db.execute("SELECT id, revision, sum, digest FROM head").fetchall()
        # A damaged column may come back as another type.
        if len(heads) != 1 or not isinstance(heads[0][2], bytes) or heads[0] != _head(heads[0][1], heads[0][2]):
            raise Corrupted(self.path, "the row with the revision is missing or altered")
        self.revision, self._sum = Revision(heads[0][1]), _number(heads[0][2])
        total, last = 0, ""
        for row in db.execute("SELECT key, value, revision, lease, digest FROM item ORDER BY key"):
            self._check(row)
            if row[0] <= last:
                raise Corrupted(self.path, f"key {row[0]!r} is out of order")
            total, last = total + _number(row[4]), row[0]
        if total % 2**128 != self._sum:
            raise Corrupted(self.path, "keys are missing")
        return self.revision

    def _create(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, SCHEMA.split(";")):
            db.execute(statement)
        db.execute("INSERT INTO head VALUES (?, ?, ?, ?)", _head(0, bytes(16)))
        db.execute("COMMIT")

    def _check(self, row: Row) -> None:
        key, value, revision, lease, digest = row
        if not isinstance(value, bytes) or _digest(key, value, revision, lease) != digest:
            raise Corrupted(self.path, f"the value of key {key!r} is altered")

    # --- reading ---------------------------------------------------------------------------
    def get(self, key: str) -> Item | None:
        with typed_errors(self.path):
            row = self._row(key)
        return Item(key, row[1], Revision(row[2])) if row else None

    def list(self, prefix: str) -> tuple[list[Item], Revision]:
        with typed_errors(self.path):
            rows = self._db.execute(
                # Keys are ASCII, so DEL closes the range of a prefix.
                "SELECT key, value, revision, lease, digest FROM item WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, prefix + "\x7f"),
            ).fetchall()
        for row in rows:
            self._check(row)
        return [Item(key, value, Revision(revision)) for key, value, revision, _, _ in rows], self.revision

    def _row(self, key: str) -> Row | None:
        row = self._db.execute("SELECT key, value, revision, lease, digest FROM item WHERE key = ?", (key,)).fetchone()
        if row:
            self._check(row)
        return row

    # --- writing ---------------------------------------------------------------------------
    def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Commit:
        """All writes at the next revision if all conditions hold, else ``Conflict``. Durable when it
        returns. Writes that change nothing (no writes, deletes of absent keys) take no revision."""
        with typed_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._demand(conditions)
                return self._write(writes)
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _demand(self, conditions: Iterable[Condition]) -> None:
        for condition in conditions:
            row = self._row(condition.key)
            revision = row[2] if row else 0
            if revision != condition.revision:
                raise Conflict(f"key {condition.key} is at revision {revision}, expected {condition.revision}")

    def _write(self, writes: Iterable[Put | Delete]) -> Commit:
        revision = Revision(self.revision + 1)
        total = self._sum
        events: list[Event] = []
        for write in writes:
            old = self._row(write.key)
            if old:
                total -= _number(old[4])
            if isinstance(write, Put):
                digest = _digest(write.key, write.value, revision, write.lease)
                total += _number(digest)
                row = (write.key, write.value, revision, write.lease, digest)
                self._db.execute("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?)", row)
                events.append(Event(write.key, write.value, revision))
            elif old:
                self._db.execute("DELETE FROM item WHERE key = ?", (write.key,))
                events.append(Event(write.key, None, revision))
        if not events:
            return Commit(self.revision, ())
        total %= 2**128
        self._db.execute("REPLACE INTO head VALUES (?, ?, ?, ?)", _head(revision, total.to_bytes(16, "big")))
        self._db.execute("COMMIT")
        self.revision, self._sum = revision, total
        self._mark.set(revision)
        return Commit(revision, tuple(events))

    def end_leases(self, lease: int = 0) -> Commit:
        """Deletes the keys of a lease, or of all leases."""
        with typed_errors(self.path):
            rows = self._db.execute(
                "SELECT key FROM item WHERE lease != 0 AND ?1 IN (0, lease) ORDER BY key", (lease,)
            ).fetchall()
        return self.commit((), [Delete(key) for (key,) in rows])

    def close(self) -> None:
        with typed_errors(self.path):
            self._db.close()
        self._mark.close()
