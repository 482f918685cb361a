"""Connections to the catalog, and the one way to write.

Every thread has a connection of its own (sqlite3 loses rows when threads share one). A transaction begins with the
write lock, because a deferred one fails at once when the database is busy, whatever the timeout.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlite_utils import Database

from biliupd.catalog.schema import migrations
from biliupd.errors import PermanentError, TemporaryError

BUSY_SECONDS = 30.0
LONGEST_WAIT = timedelta(hours=27)  #: of all that waits for time alone: a later moment is of a clock that was ahead
DUE = "(retry_at is null or retry_at <= ? or (retry_at > ? and retry_at < '9'))"  #: with `moments()`; 9999 is never


class Catalog:
    """One catalog file; `db` is the calling thread's connection."""

    def __init__(self, path: Path) -> None:
        """Open or make the file and bring it up to date.

        Raises PermanentError for a file that is no catalog or was written by a newer biliupd, which is left as it is.
        """
        self.path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            _migrate(self.db, path)
        except sqlite3.DatabaseError as error:
            raise PermanentError(
                f"{path}: {error}", hint="restore the file from a backup, or move it away: the library is rebuilt"
            ) from error
        self._file = _identity(path)

    def is_there(self) -> bool:
        """False once the file was deleted or replaced: what is written now is lost when the process ends."""
        return _identity(self.path) == self._file

    @property
    def made_at(self) -> datetime:
        """When this catalog began; what is older was perhaps published by an earlier one."""
        (first,) = self.db.execute("select min(applied_at) from _sqlite_migrations").fetchone()
        return datetime.fromisoformat(first)

    @property
    def db(self) -> Database:
        """This thread's connection, opened at its first use."""
        found: Database | None = getattr(self._local, "db", None)
        if found is None:
            found = self._local.db = connect(self.path)
        return found


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def connect(path: Path, *, read_only: bool = False) -> Database:
    """A connection with the settings everything relies on: WAL, full sync, foreign keys."""
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)
    except sqlite3.Error as error:
        raise TemporaryError(f"{path}: {error}") from error
    db = Database(connection, execute_plugins=False)
    if not read_only:
        connection.execute("pragma journal_mode = wal")
        os.chmod(path, 0o600)
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return db


def is_current(db: Database) -> bool:
    """Whether the tables are those this version knows; changes nothing."""
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    return {name for (name,) in db.execute("select name from _sqlite_migrations").fetchall()} == known


def _migrate(db: Database, path: Path) -> None:
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    newer = [applied.name for applied in migrations.applied(db) if applied.name not in known]
    if newer:
        raise PermanentError(
            f"{path} was written by a newer biliupd (it knows {', '.join(newer)})",
            hint="install that version again; the file was not touched",
        )
    migrations.apply(db)


@contextmanager
def write(db: Database) -> Iterator[None]:
    """One transaction that holds the write lock from its beginning; inside another one it is part of that one.

    Raises TemporaryError when the database stays busy or the disk is full; nothing of the block was kept then.
    """
    if db.conn.in_transaction:
        yield
        return
    try:
        db.conn.execute("begin immediate")
        try:
            yield
        except BaseException:
            db.conn.rollback()
            raise
        db.conn.commit()
    except sqlite3.OperationalError as error:
        db.conn.rollback()
        raise TemporaryError(f"the catalog cannot be written: {error}", retry_after_seconds=5) from error


def moments() -> list[str]:
    """The two that `DUE` asks for."""
    at = datetime.now(UTC)
    return [stamp(at), stamp(at + LONGEST_WAIT)]


def now() -> str:
    """The present moment as the catalog writes it: UTC, ISO 8601, sorts as text."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """An aware moment as the catalog writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
