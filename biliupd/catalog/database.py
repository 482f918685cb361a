"""Connections to the catalog, the one way to write, and whole copies of it.

Every thread has a connection of its own (sqlite3 loses rows when threads share one). A transaction begins with the
write lock, because a deferred one fails at once when the database is busy, whatever the timeout. What SQLite says of
the file itself (damaged, locked, no space) becomes ours in the cursor, so that it does whoever asked for what.
"""

import os
import re
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from copy import copy as copy_of
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from loguru import logger
from sqlite_utils import Database

from biliupd.catalog.paths import text_factory
from biliupd.catalog.schema import migrations
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

BUSY_SECONDS = 30.0
BACKUPS = "backups"  #: beside the catalog
COPY = 1  #: the user_version of a copy, by which it is known when somebody puts it in the catalog's place
LONGEST_WAIT = timedelta(hours=27)  #: of all that waits for time alone: a later moment is of a clock that was ahead
DUE = "(retry_at is null or retry_at <= ? or (retry_at > ? and retry_at < '9'))"  #: with `moments()`; 9999 is never


NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "afs", "ceph", "glusterfs",
    "lustre", "ocfs2", "gfs2",
})  # fmt: skip
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TROUBLE = {
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end the program that has it open"),
    sqlite3.SQLITE_LOCKED: ("another process keeps it locked", "end the program that has it open"),
    sqlite3.SQLITE_PROTOCOL: ("another process keeps it locked", "end the program that has it open"),
    sqlite3.SQLITE_FULL: ("the disk is full", "make room there"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "let the user that biliupd runs as write to the file and its folder"),
    sqlite3.SQLITE_PERM: ("it is read-only", "let the user that biliupd runs as write to the file and its folder"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "let the user that biliupd runs as use the file and its folder"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", "look at the disk: the kernel's log says more"),
}  #: what passes when somebody does something about it


class Newer(PermanentError):
    """A newer biliupd wrote this catalog."""


class Damaged(PermanentError):
    """The file is no whole database (any more). The next start of the daemon mends it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}",
                         hint="start the daemon anew: it takes the newest good copy in backups/; or biliupd rebuild")


class Catalog:
    """One catalog file; `db` is the calling thread's connection."""

    def __init__(self, path: Path) -> None:
        """Open or make the file and bring it up to date; of an older one a copy is made first, in backups/.

        Raises Damaged, TemporaryError, and PermanentError for a file of a newer biliupd, which is left as it is.
        """
        self.path = path
        self._local = threading.local()
        self._busy_seconds = BUSY_SECONDS
        self._damage = ""
        self._on_damage = self.is_damaged  # that of the first one, also in a copy
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_newer(path)
        db = self.db
        if migrations.applied(db) and (pending := migrations.pending(db)):
            _copy_before(path, pending[0].name)
        migrate(db)
        self._files = _identities(path)

    def trouble(self) -> str:
        """Why nobody may go on with this file: it was deleted or replaced, or a connection met damage. Empty: none.

        What is written to a deleted file is lost when the process ends.
        """
        if _identities(self.path) != self._files:
            return f"{self.path} was deleted or replaced"
        return self._damage

    def is_damaged(self, why: str) -> None:
        """Somebody found out."""
        self._damage = self._damage or f"{self.path} is damaged: {why}"

    @property
    def made_at(self) -> datetime:
        """When this catalog began, or was restored from a copy; what is older was perhaps published by another one."""
        (first,) = self.db.execute("select min(applied_at) from _sqlite_migrations").fetchone()
        return datetime.fromisoformat(first)

    @property
    def db(self) -> Database:
        """This thread's connection, opened at its first use."""
        found: Database | None = getattr(self._local, "db", None)
        if found is None:
            found = connect(self.path, on_damage=self._on_damage)
            found.execute(f"pragma busy_timeout = {int(self._busy_seconds * 1000)}")
            self._local.db = found
        return found

    def with_patience(self, busy_seconds: float) -> "Catalog":
        """The same catalog by other connections, which wait only so long while another process writes."""
        other = copy_of(self)
        other._local, other._busy_seconds = threading.local(), busy_seconds
        return other

    def close(self) -> None:
        """End this thread's connection."""
        if found := getattr(self._local, "db", None):
            found.conn.close()
            del self._local.db

    def settle(self) -> None:
        """Bring what was committed into the file itself, so that it survives the loss of the write-ahead log, too."""
        with suppress(TemporaryError):
            self.db.execute("pragma wal_checkpoint(passive)")


def _identities(path: Path) -> list[tuple[int, int] | None]:
    """Of the file, its log and the index of that: SQLite makes and removes the latter with the last connection."""
    return [_identity(f"{path}{ending}") for ending in ("", "-wal", "-shm")]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are ours when they are about the file."""

    connection: "_Connection"

    def execute(self, sql: str, parameters: Any = ()) -> Self:
        try:
            return super().execute(sql, parameters)
        except sqlite3.DatabaseError as error:
            if sql.startswith("RELEASE") and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise  # sqlite-utils waits for this one itself
            raise self.connection.ours(error) from error

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Self:
        try:
            return super().executemany(sql, parameters)
        except sqlite3.DatabaseError as error:
            raise self.connection.ours(error) from error

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.DatabaseError as error:
            raise self.connection.ours(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            raise self.connection.ours(error) from error

    def __iter__(self) -> Any:
        try:
            while batch := super().fetchmany(500):
                yield from batch
        except sqlite3.DatabaseError as error:
            raise self.connection.ours(error) from error


class _Connection(sqlite3.Connection):
    path: Path
    on_damage: Callable[[str], None] | None = None

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        return self.cursor().executemany(sql, parameters)

    def ours(self, error: sqlite3.DatabaseError) -> Exception:
        """What it means; an error that is not about the file stays what it is: a bug."""
        mine = _ours(self.path, error)
        if isinstance(mine, Damaged) and self.on_damage:
            self.on_damage(str(error))
        return mine


def _ours(path: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return Damaged(path, str(error))
    if code not in _TROUBLE:
        return error
    why, hint = _TROUBLE[code]
    verb = "used" if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) else "written"
    return TemporaryError(f"the catalog cannot be {verb}: {path}: {why} ({error})", hint=hint, retry_after_seconds=5)


def connect(path: Path, *, read_only: bool = False, on_damage: Callable[[str], None] | None = None) -> Database:
    """A connection with the settings everything relies on: WAL, full sync, foreign keys.

    Raises Damaged and TemporaryError, as does everything that is asked of it later. On a network file system, where
    the index of the write-ahead log cannot be shared, it is a rollback journal instead. `on_damage` is told why.
    """
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, factory=_Connection
        )
    except sqlite3.Error as error:
        raise TemporaryError(f"{path}: {error}") from error
    connection.path, connection.on_damage = path, on_damage
    connection.text_factory = text_factory
    try:
        db = Database(connection, execute_plugins=False)
        if not read_only:
            connection.execute(f"pragma journal_mode = {'delete' if on_network(path.parent) else 'wal'}")
            _writable_for_its_owner_alone(path)
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
    except BaseException:
        connection.close()
        raise
    return db


def _writable_for_its_owner_alone(path: Path) -> None:
    """SQLite opens what it may not write read-only, and stays so when that has passed: no such connection is kept."""
    try:
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            os.chmod(path, 0o600)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        why, hint = _TROUBLE[sqlite3.SQLITE_READONLY]
        raise TemporaryError(f"the catalog cannot be written: {path}: {why}", hint=hint, retry_after_seconds=5)


@lru_cache(maxsize=16)
def on_network(directory: Path) -> str:
    """The type of the network file system a directory lies on; empty for a local one.

    SQLite's write-ahead log needs memory that is shared, which such file systems promise not even on one machine
    (sqlite.org/wal.html). A rollback journal works there, if slower: nobody has to move anything.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            kind = file_system(os.path.realpath(directory), table)
    except OSError:
        return ""
    return kind if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse.") else ""


def file_system(path: str, mountinfo: Iterable[str]) -> str:
    """The type of the file system that holds a path, by the lines of a mountinfo table (proc(5)); the last one counts
    where several are mounted on one another."""
    best, found = -1, ""
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]).rstrip("/")
        if (path == point or path.startswith(point + "/")) and len(point) >= best:
            best, found = len(point), kind[0]
    return found


def is_current(db: Database) -> bool:
    """Whether the tables are those this version knows; changes nothing."""
    return {name for (name,) in db.execute("select name from _sqlite_migrations").fetchall()} == _known()


def _known() -> set[str]:
    return {migration.name for migration in migrations.pending(Database(memory=True))}


def refuse_newer(path: Path) -> None:
    """Raises Newer for a catalog of a newer biliupd, and touches nothing."""
    if not os.path.exists(path):
        return
    with closing(connect(path, read_only=True)) as db:
        newer = [applied.name for applied in migrations.applied(db) if applied.name not in _known()]
    if newer:
        raise Newer(
            f"{path} was written by a newer biliupd (it knows {', '.join(newer)})",
            hint="install that version again; the file was not touched",
        )


def migrate(db: Database) -> None:
    """Every table as this version knows it, in one transaction."""
    if migrations.pending(db):
        with write(db):
            migrations.apply(db)


def _copy_before(path: Path, change: str) -> None:
    """An older catalog stays as it was, beside the daily copies; where there is no room for that, it goes on."""
    target = path.parent / BACKUPS / f"before-{change}-{now():.10}.db"
    try:
        if not os.path.lexists(target):
            copy(path, target)
            logger.info("{} is brought up to date; as it was: {}", path, target)
    except BiliupdError as error:
        logger.error("{} is brought up to date without a copy: {}", path, error)


def ailment(path: Path, *, thorough: bool = False) -> str:
    """Why a file is no whole database; empty when it is one. `thorough` compares the indexes, too: slower by half.

    Raises TemporaryError when it cannot be read now.
    """
    try:
        with closing(connect(path, read_only=True)) as db:
            (said,) = db.execute(f"pragma {'integrity_check' if thorough else 'quick_check'}(1)").fetchone()
    except Damaged as error:
        return str(error.__cause__)
    return "" if said == "ok" else str(said)


def copy(source: Path, target: Path) -> None:
    """A whole, checked copy of a catalog, while others write to it. It appears at once, or not at all.

    Raises PermanentError when `target` exists already, there is nothing to copy or no way to write there; Damaged when
    the source is; TemporaryError when there is no room.
    """
    if os.path.lexists(target):
        raise PermanentError(f"{target} exists already", hint="name another file, or remove it")
    if not os.path.exists(source):
        raise PermanentError(f"there is no catalog {source} yet", hint="biliupd run makes it")
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _fill(part, source)
        if why := ailment(part):
            raise Damaged(source, why)
        put_in_place(part, target)
    except OSError as error:
        raise PermanentError(f"no copy {target}: {error.strerror}", hint="name a file in a folder you may write to"
                             ) from error  # fmt: skip
    finally:
        for ending in ("", "-journal"):
            with suppress(OSError):
                os.unlink(f"{part}{ending}")


def _fill(part: Path, source: Path) -> None:
    with closing(connect(source, read_only=True)) as read, closing(sqlite3.connect(part)) as made:
        try:
            read.conn.backup(made)  # in one step: others go on writing to the log, and it need not begin anew
            made.execute(f"pragma user_version = {COPY}")
            made.execute("pragma journal_mode = delete")  # a file that stands for itself
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise (Damaged(source, str(error)) if code in _DAMAGED else TemporaryError(
                f"no copy of {source}: {part}: {_TROUBLE.get(code, (str(error), ''))[0]}", hint="make room there"
            )) from error  # fmt: skip


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished file to its name, on the disk. Raises OSError."""
    _sync(part)
    os.replace(part, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def write(db: Database) -> Iterator[None]:
    """One transaction that holds the write lock from its beginning; inside another one it is part of that one.

    Raises TemporaryError when the database stays busy or the disk is full; nothing of the block was kept then.
    """
    if db.conn.in_transaction:
        yield
        return
    db.conn.execute("begin immediate")
    try:
        yield
        db.conn.execute("commit")
    except BaseException:
        db.conn.rollback()
        raise


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
