"""The embedded log's file: blocking reads and writes of records. ``sqlite.py`` makes a ``Log`` of it.

One table holds all channels; a record's id is ``channel << 48 | position``. Row ``HEAD`` holds where
each channel starts and ends, written by the same statement as the records: a small append is one SQL
statement, so its thread takes Python's lock once, not once per step, while the event loop is busy.
"""

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import xxhash

from core.errors import Corrupted
from core.failpoints import failpoint
from core.ids import Channel, Position
from storage.log.port import LogRecord
from storage.reserve import demand_room
from storage.sqlite_file import connect, is_new, open_file, typed_errors

FORMAT = 1
POSITION_BITS = 48
CHANNELS_MAX = 2**15 - 1
HEAD = -1
# Large pages halve the time of a 1.5 MB commit; an empty commit costs the same.
LAYOUT = ("page_size=32768", "auto_vacuum=INCREMENTAL")
PRAGMAS = (
    # 8 MB of write-ahead log between checkpoints: each stalls an append by some 10 ms.
    "wal_autocheckpoint=256",
    "cache_size=-8192",
)
SCHEMA = """
CREATE TABLE record (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE property (name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
"""
ROWS_PER_STATEMENT = 64
READ_BYTES = 4 * 1024 * 1024
READ_ROWS = 4096
TRIM_BYTES = 64 * 1024 * 1024
TRIM_ROWS = 4096
FREE_BYTES_KEPT = 1024 * 1024
"""Free space the file keeps for the next appends instead of giving it back. Keeping 16 times as much
made a burst of large appends no faster."""
VACUUM_PAGES = 256


def _id(channel: int, position: int) -> int:
    return channel << POSITION_BITS | position


def _checksum(id: int, payload: bytes) -> int:
    """Covers the id too, so that a record cannot turn up in another's place. Signed, as SQLite stores it."""
    return int.from_bytes(xxhash.xxh3_64_digest(payload, id & (2**64 - 1)), "big", signed=True)


def _property_id(name: str) -> int:
    """Stands for the name in the checksum."""
    return xxhash.xxh3_64_intdigest(name.encode())


def _intact(id: int, payload: object, checksum: object) -> bool:
    # A damaged column may come back as another type.
    return isinstance(payload, bytes) and checksum == _checksum(id, payload)


class RecordFile:
    """starts, ends: first position kept and next position of every channel, as committed.

    ``read`` and ``property`` are for one thread, everything else is for another one. All raise
    ``DiskFull`` (nothing changed), ``Corrupted`` (names the file) and ``Unavailable``.
    """

    def __init__(self, path: Path, channels: int) -> None:
        """Opens the file, or creates it with this many channels; an existing file keeps its number."""
        self.path = path
        self.starts: list[Position] = []
        self.ends: list[Position] = []
        self._channels = channels
        with typed_errors(path):
            self._db, self._mark = open_file(path, PRAGMAS, LAYOUT, self._load)
            try:
                self._reader = connect(path, ("query_only=ON", "cache_size=-4096"))
            except BaseException:
                self._db.close()
                self._mark.close()
                raise
        self._page_bytes: int = self._db.execute("PRAGMA page_size").fetchone()[0]
        self._leftovers = set(range(len(self.ends)))
        """Channels that may still hold trimmed records."""

    # --- opening ---------------------------------------------------------------------------
    def _load(self, db: sqlite3.Connection) -> int:
        if is_new(db, self.path):
            self._create(db)
        row = db.execute("SELECT payload, checksum FROM record WHERE id = ?", (HEAD,)).fetchone()
        if row is None or not _intact(HEAD, *row) or len(row[0]) % 16:
            raise Corrupted(self.path, "the row that says where the channels end is missing or altered")
        numbers = [Position(n) for (n,) in struct.iter_unpack("<q", row[0])]
        self.starts, self.ends = numbers[::2], numbers[1::2]
        self._check_ends(db)
        return sum(self.ends)

    def _create(self, db: sqlite3.Connection) -> None:
        if not 1 <= self._channels <= CHANNELS_MAX:
            raise ValueError(f"a log has 1 to {CHANNELS_MAX} channels, not {self._channels}")
        self.starts = [Position(0)] * self._channels
        self.ends = list(self.starts)
        db.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, SCHEMA.split(";")):
            db.execute(statement)
        db.execute("INSERT INTO record VALUES (?, ?, ?)", self._head(self.starts, self.ends))
        db.execute("COMMIT")

    def _check_ends(self, db: sqlite3.Connection) -> None:
        """The last record of every channel is there; the ones before it are checked when read."""
        for channel, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            if not 0 <= start <= end:
                raise Corrupted(self.path, f"channel {channel} goes from {start} to {end}")
            last = db.execute(
                "SELECT max(id) FROM record WHERE id BETWEEN ? AND ?", (_id(channel, start), _id(channel + 1, 0) - 1)
            ).fetchone()[0]
            expected = _id(channel, end - 1) if end > start else None
            if last != expected:
                raise Corrupted(self.path, f"channel {channel} does not end at {end}")

    # --- properties ------------------------------------------------------------------------
    def property(self, name: str) -> bytes | None:
        with typed_errors(self.path):
            row = self._reader.execute("SELECT value, checksum FROM property WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        if not _intact(_property_id(name), *row):
            raise Corrupted(self.path, f"property {name} is altered")
        return row[0]

    def set_property(self, name: str, value: bytes) -> None:
        row = (name, value, _checksum(_property_id(name), value))
        with typed_errors(self.path):
            self._db.execute("INSERT OR REPLACE INTO property VALUES (?, ?, ?)", row)

    # --- appending -------------------------------------------------------------------------
    def append(self, entries: Sequence[tuple[Channel, bytes]]) -> list[Position]:
        """Appends all or none; returns the positions once they are durable."""
        ends = list(self.ends)
        positions: list[Position] = []
        rows: list[tuple[int, bytes, int]] = []
        for channel, payload in entries:
            position = ends[channel]
            ends[channel] = Position(position + 1)
            id = _id(channel, position)
            positions.append(position)
            rows.append((id, payload, _checksum(id, payload)))
        rows.append(self._head(self.starts, ends))
        with typed_errors(self.path):
            # Once in the write-ahead log, once in the file.
            demand_room(self.path, 2 * sum(len(payload) for _, payload in entries))
            self._write(rows)
        self.ends = ends
        self._mark.set(sum(ends))
        return positions

    def _write(self, rows: list[tuple[int, bytes, int]]) -> None:
        statements = [rows[i : i + ROWS_PER_STATEMENT] for i in range(0, len(rows), ROWS_PER_STATEMENT)]
        if len(statements) == 1:
            failpoint("log.before_commit")
            self._put(statements[0])
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                self._put(statement)
            failpoint("log.before_commit")
            self._db.execute("COMMIT")
        finally:
            self._roll_back()

    def _put(self, rows: list[tuple[int, bytes, int]]) -> None:
        places = ",".join(["(?,?,?)"] * len(rows))
        sql = f"INSERT OR REPLACE INTO record VALUES {places}"  # noqa: S608, nothing but question marks
        self._db.execute(sql, [value for row in rows for value in row])

    def _roll_back(self) -> None:
        # SQLite has done it already after some errors, and there is nothing to do after a commit.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _head(self, starts: list[Position], ends: list[Position]) -> tuple[int, bytes, int]:
        numbers = [n for pair in zip(starts, ends, strict=True) for n in pair]
        payload = struct.pack(f"<{len(numbers)}q", *numbers)
        return HEAD, payload, _checksum(HEAD, payload)

    # --- reading ---------------------------------------------------------------------------
    def read(self, channel: Channel, start: Position, end: Position) -> list[LogRecord]:
        """Records from ``start`` on, below ``end``, some MB of them; at least one if ``start < end``.

        Raises ``Corrupted`` if one is missing or altered. A concurrent trim looks like a missing one.
        """
        batch: list[LogRecord] = []
        size = 0
        with typed_errors(self.path):
            rows = self._reader.execute(
                "SELECT id, payload, checksum FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (_id(channel, start), _id(channel, end), READ_ROWS),
            )
            try:
                for id, payload, checksum in rows:
                    expected = start + len(batch)
                    if id != _id(channel, expected) or not _intact(id, payload, checksum):
                        raise Corrupted(self.path, f"record {expected} of channel {channel} is missing or altered")
                    batch.append(LogRecord(Position(expected), payload))
                    size += len(payload)
                    if size >= READ_BYTES:
                        break
            finally:
                # An open read transaction keeps the write-ahead log from being reused.
                rows.close()
        if not batch and start < end:
            raise Corrupted(self.path, f"record {start} of channel {channel} is missing")
        return batch

    # --- trimming --------------------------------------------------------------------------
    def begin_at(self, channel: Channel, position: Position) -> None:
        """Moves the start of a channel, and its end where that is before, never back. ``delete_trimmed``
        removes the records."""
        starts, ends = list(self.starts), list(self.ends)
        starts[channel], ends[channel] = max(starts[channel], position), max(ends[channel], position)
        with typed_errors(self.path):
            self._put([self._head(starts, ends)])
        self.starts, self.ends = starts, ends
        self._mark.set(sum(ends))
        self._leftovers.add(channel)

    def delete_trimmed(self) -> bool:
        """Deletes some MB of trimmed records; False when there are none left."""
        if self._leftovers:
            with typed_errors(self.path):
                self._delete(next(iter(self._leftovers)))
        return bool(self._leftovers)

    def _delete(self, channel: int) -> None:
        start = self.starts[channel]
        rows = self._db.execute(
            "SELECT id, length(payload) FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (_id(channel, 0), _id(channel, start), TRIM_ROWS),
        ).fetchall()
        last, size = -1, 0
        for id, length in rows:
            last, size = id, size + length
            if size >= TRIM_BYTES:
                break
        if rows:
            self._db.execute("DELETE FROM record WHERE id BETWEEN ? AND ?", (_id(channel, 0), last))
        if not rows or last == _id(channel, start - 1):
            self._leftovers.discard(channel)

    def shrink(self) -> bool:
        """Gives some MB of free space back to the file system; False when there is little left."""
        with typed_errors(self.path):
            free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
            spare = free - FREE_BYTES_KEPT // self._page_bytes
            if spare > 0:
                # Not ``execute``: it would take one step, which frees one page.
                self._db.executescript(f"PRAGMA incremental_vacuum({min(spare, VACUUM_PAGES)})")
            if spare <= VACUUM_PAGES:
                # Only a checkpoint makes the files themselves shorter.
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                # What is cached are pages of records that are gone.
                self._db.execute("PRAGMA shrink_memory").fetchall()
        return spare > VACUUM_PAGES

    def close(self) -> None:
        with typed_errors(self.path):
            self._reader.close()
            self._db.close()
        self._mark.close()
