"""Which rows changed, in order: what triggers note whenever a row is written, whoever writes it (see schema).

Each change has a number, larger than that of every change before it, also over restarts. Who has seen all up to a
number asks for what came since.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlite_utils import Database

from biliupd.catalog.database import write

MOST = 20_000  #: more of them at once are not told one by one


class Change(NamedTuple):
    """A row as it is now is news: made, written or removed; `seq` is the number of its last change."""

    kind: str  #: streamer, task, video, submission, account, notice or broadcast
    row: int | str  #: its id or name; of an upload that of its video
    seq: int


def latest(db: Database) -> int:
    """The number of the last change there was; 0 before the first."""
    found = db.execute("select seq from sqlite_sequence where name = 'changes'").fetchone()
    return int(found[0]) if found else 0


def since(db: Database, seq: int, most: int = MOST) -> list[Change] | None:
    """The rows that changed after number `seq`, each once, in the order of their last change.

    None: that cannot be told, because the log does not reach back so far, there are more than `most`, or the number is
    of another catalog.
    """
    with reading(db) as last:
        if seq == last:
            return []
        (first,) = db.execute("select min(id) from changes").fetchone()
        if first is None or not max(first - 1, last - most) <= seq < last:
            return None
        found = db.execute(
            "select kind, row, max(id) as seq from changes where id > ? group by kind, row order by seq", [seq]
        ).fetchall()
    return [Change(*row) for row in found]


def prune(db: Database, keep: int = 10_000) -> None:
    """Forget all but the last `keep` changes."""
    bound = latest(db) - keep
    if db.execute("select 1 from changes where id <= ? limit 1", [bound]).fetchone():
        with write(db):
            db.execute("delete from changes where id <= ?", [bound])


@contextmanager
def reading(db: Database) -> Iterator[int]:
    """One state of the catalog for all that is read in the block, with the number of its last change.

    Inside another transaction it is part of that one. Nothing may be written in it.
    """
    if db.conn.in_transaction:
        yield latest(db)
        return
    db.conn.execute("begin")
    try:
        yield latest(db)
    finally:
        db.conn.rollback()
