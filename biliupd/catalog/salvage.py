"""What can still be read of a damaged catalog → rows of a new one.

Used by `backup`, on a new catalog that nobody else has open. Reads the old file and never writes to it.
"""

import sqlite3
from pathlib import Path

from sqlite_utils import Database

from biliupd.catalog.database import write
from biliupd.catalog.states import Stage, State
from biliupd.errors import BiliupdError

_ITS_OWN = ("_sqlite_migrations", "sqlite_sequence", "notices", "changes")  #: of each catalog
BATCH = 512
BEYOND_ALL_ROWS = 1 << 40
_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR})


def carry_over(db: Database, source: Path) -> int:
    """Every row of `source` that can be read and that `db` does not have; the number of gaps where rows cannot.

    Raises Damaged when not even its list of tables can be read.

    Columns that one of the two does not know are left out. References are checked later, by `tie_up`.
    """
    db.execute("pragma foreign_keys = off")
    db.execute("pragma writable_schema = on")  # else a file that was cut off is refused as a whole
    db.execute("attach ? as old", [f"{source.absolute().as_uri()}?mode=ro"])
    try:
        db.execute("select count(*) from old.sqlite_master").fetchone()
        return sum(_carry(db, table) for table in db.table_names() if table not in _ITS_OWN)
    finally:
        db.execute("detach old")
        db.execute("pragma writable_schema = off")


def _carry(db: Database, table: str) -> int:
    here, there = ([row[1] for row in db.execute(f"pragma {side}.table_info({table})")] for side in ("main", "old"))
    columns = ", ".join(f'"{name}"' for name in here if name in there)
    if not columns:
        return 0
    source = f"from old.{table} where rowid > ? order by rowid limit ?"
    gaps, position, count = 0, -1, BATCH
    while True:
        try:
            db.execute(f"insert or ignore into main.{table} ({columns}) select {columns} {source}", [position, count])
            (last,) = db.execute(f"select max(rowid) from (select rowid {source})", [position, count]).fetchone()
        except BiliupdError as error:
            _must_be_damage(error)
            if count > 1:
                count //= 2
                continue
            gaps += 1
            last = _behind_the_gap(db, source, position)
        else:
            count = min(2 * count, BATCH)
        if last is None or last <= position:
            return gaps
        position = last


def _behind_the_gap(db: Database, source: str, position: int) -> int | None:
    """From where on rows can be read again; None: from nowhere."""

    def after(rowid: int) -> int | None:
        """The first row behind; 0: there is none; None: one cannot tell."""
        try:
            found = db.execute(f"select rowid {source}", [rowid, 1]).fetchone()
        except BiliupdError as error:
            _must_be_damage(error)
            return None
        return int(found[0]) if found else 0

    if found := after(position):
        return found  # it is there, but its content is not
    low, step = position, 1
    while after(low + step) is None:
        low, step = low + step, 2 * step
        if step > BEYOND_ALL_ROWS:
            return None
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if after(middle) is None else (low, middle)
    return high


def _must_be_damage(error: BiliupdError) -> None:
    if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF not in _UNREADABLE:
        raise error  # no room for the new one, or a bug


def forget_what_a_scan_finds(db: Database) -> None:
    """Leave only videos that were sent to Bilibili or pinned, and what they refer to."""
    sent = f"bvid is not null or submit_started_at is not null or state != '{Stage.COLLECTING}'"
    with write(db):
        db.execute(
            f"delete from videos where bvid is null and pinned = 0 and state not in ('{State.UPLOADED}',"
            f" '{State.PUBLISHED}') and coalesce(submission_id, 0) not in (select id from submissions where {sent})"
        )
        for table, key in (("submissions", "submission_id"), ("broadcasts", "broadcast_id")):
            db.execute(f"delete from {table} where id not in (select {key} from videos where {key} is not null)")


def tie_up(db: Database) -> None:
    """A reference to a row that was lost becomes empty; a row that cannot do without it goes, too."""
    with write(db):
        while found := db.execute("pragma foreign_key_check").fetchall():
            for table, rowid, _, number in found:
                name, on_delete = next(
                    (row[3], row[6]) for row in db.execute(f"pragma foreign_key_list({table})") if row[0] == number)
                needed = any(row[3] for row in db.execute(f"pragma table_info({table})") if row[1] == name)
                goes = needed or on_delete == "CASCADE"
                change = f"delete from {table}" if goes else f"update {table} set {name} = null"
                db.execute(f"{change} where rowid = ?", [rowid])
    db.execute("pragma foreign_keys = on")
