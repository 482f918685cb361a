"""Runs of recorders, for people: the newest first. Reads only; records.py writes them."""

from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database

_TASKS = (
    "select t.*, s.name as streamer, coalesce(b.title, '') as title from tasks t"
    " join streamers s on s.id = t.streamer_id left join broadcasts b on b.id = t.broadcast_id"
)


def page(
    db: Database, *, status: str = "", streamer_id: int | None = None, limit: int = 50, offset: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Tasks with the names of their streamer and show, as `streamer` and `title`; and how many there are."""
    terms = {"t.status = ?": status or None, "t.streamer_id = ?": streamer_id}
    given = {term: value for term, value in terms.items() if value is not None}
    where = f" where {' and '.join(given)}" if given else ""
    found = db.query(f"{_TASKS}{where} order by t.rowid desc limit ? offset ?", [*given.values(), limit, offset])
    (total,) = db.execute(f"select count(*) from tasks t{where}", list(given.values())).fetchone()
    return list(found), int(total)


def some(db: Database, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Those of these ids that are there."""
    marks = ",".join("?" * len(ids))
    return list(db.query(f"{_TASKS} where t.id in ({marks})", list(ids)))


def running(db: Database) -> list[dict[str, Any]]:
    """Those whose recorder runs, the newest first."""
    return list(db.query(f"{_TASKS} where t.status = 'recording' order by t.rowid desc"))


def current(db: Database, ended: int = 20) -> list[dict[str, Any]]:
    """Those that run, and the last that ended."""
    last = f"select id from tasks where status != 'recording' order by rowid desc limit {int(ended)}"
    return list(db.query(
        f"{_TASKS} where t.status = 'recording' or t.id in ({last}) order by t.rowid desc"))  # fmt: skip


def of_broadcasts(db: Database, ids: Sequence[str], most: int = 100) -> list[str]:
    """Ids of the tasks among the last `most` that recorded one of these broadcasts."""
    marks = ",".join("?" * len(ids))
    return [id for (id,) in db.execute(
        f"select id from (select id, broadcast_id from tasks order by rowid desc limit {int(most)})"
        f" where broadcast_id in ({marks})", list(ids)).fetchall()]  # fmt: skip


def streamers_of(db: Database, ids: Sequence[str]) -> list[int]:
    """Ids of the streamers these tasks record."""
    marks = ",".join("?" * len(ids))
    return [id for (id,) in db.execute(
        f"select distinct streamer_id from tasks where id in ({marks})", list(ids)).fetchall()]  # fmt: skip
