"""A SQLite file as the embedded stores use it: pragmas, typed errors, and no silent loss on open."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from core.errors import Corrupted, DiskFull, SheafError, Unavailable
from storage.sqlite_mark import Mark
from storage.sqlite_wal import Wal, inspect

log = structlog.get_logger()

LOCK_WAIT_S = 0.1
"""Readers of our own are the only ones to wait for, and they are quick."""
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "fullfsync=ON",
    "cell_size_check=ON",
    "trusted_schema=OFF",
    # Distributions compile it in; zeroing trimmed records would double their cost.
    "secure_delete=OFF",
    "temp_store=MEMORY",
    "journal_size_limit=16777216",
)


def typed(error: sqlite3.Error, path: Path) -> SheafError:
    """What a SQLite error means for the caller of a store."""
    if isinstance(error, sqlite3.ProgrammingError):
        return Unavailable(f"{path}: {error}")
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the binding, with the content in its message
        return Corrupted(path, "content that cannot be decoded")
    # Raised before the commit record is whole, so the transaction surely did not happen. Other I/O
    # errors may come after it.
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
        return DiskFull(f"no room to write {path}: {error}")
    damage = (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_FORMAT,
        # Our statements are fixed: an error in one is a missing or altered table.
        sqlite3.SQLITE_ERROR,
    )
    if code & 0xFF in damage or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return Corrupted(path, str(error))
    return Unavailable(f"{path}: {error} ({getattr(error, 'sqlite_errorname', code)})")


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's and the system's errors into those of ``core.errors``."""
    try:
        yield
    except sqlite3.Error as e:
        raise typed(e, path) from e
    except OSError as e:
        raise Unavailable(f"{path}: {e}") from e
    except UnicodeDecodeError as e:  # a message of SQLite's that quotes a damaged file
        raise Corrupted(path, "content that cannot be decoded") from e


def connect(path: Path, pragmas: Sequence[str], layout: Sequence[str] = ()) -> sqlite3.Connection:
    """A connection in autocommit mode, usable from one thread at a time.

    layout: pragmas that shape a new file. On an existing one they would be a write, too early.
    """
    if path.exists() and path.stat().st_size:
        layout = ()
    connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (*layout, *pragmas, *PRAGMAS):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are still to be created. Raises ``Corrupted`` if they were there once."""
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        return False
    if connection.execute("PRAGMA page_count").fetchone()[0] > 1:
        raise Corrupted(path, "its tables are missing")
    return True


def open_file(
    path: Path, pragmas: Sequence[str], layout: Sequence[str], load: Callable[[sqlite3.Connection], int]
) -> tuple[sqlite3.Connection, Mark]:
    """Opens (or creates) a file without losing an acknowledged commit silently.

    pragmas, layout: as for ``connect``.
    load: reads the file's state, creating what a new file needs, and returns its commit counter.
    Raises ``Corrupted`` naming the file when its write-ahead log is damaged or when acknowledged
    commits are missing; a transaction torn by a crash is dropped, as it was never acknowledged.
    """
    wal_path = path.with_name(path.name + "-wal")
    with typed_errors(path):
        mark = Mark(path.with_name(path.name + "-acked"))
    connection = None
    try:
        with typed_errors(path):
            wal = inspect(wal_path)
            if wal is Wal.DAMAGED and not mark.exact:
                raise Corrupted(wal_path, "commits follow a damaged one")
            # SQLite removes the log when it closes: keep it until nothing is known to be lost.
            kept = _keep(wal_path) if wal is not Wal.CLEAN else None
            connection = connect(path, pragmas, layout)
            counter = load(connection)
        if counter < mark.counter:
            raise Corrupted(
                wal_path if kept or wal_path.exists() else path,
                f"acknowledged commits are missing: the file ends at {counter}, {mark.counter} were acknowledged"
                + (f"; the log as found is kept as {kept}" if kept else "")
                + f"; to go on without them, remove {mark.path}",
            )
        if kept:
            kept.unlink()
            log.info("dropped the unfinished last transaction", file=str(wal_path))
        mark.set(counter)
    except BaseException:
        if connection:
            connection.close()
        mark.close()
        raise
    return connection, mark


def _keep(wal_path: Path) -> Path:
    kept = wal_path.with_name(wal_path.name + ".found")
    kept.unlink(missing_ok=True)
    try:
        os.link(wal_path, kept)
    except OSError:
        shutil.copyfile(wal_path, kept)
    return kept
