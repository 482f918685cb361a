"""Streamers that are wanted, for people: searched, sorted, paged. Reads only; records.py writes them."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlite_utils import Database

Sort = Literal["name", "priority", "created_at"]
_ORDER: dict[Sort, str] = {
    "name": "name collate nocase {way}, id {way}", "created_at": "id {way}",
    "priority": "coalesce(json_extract(settings, '$.priority'), 0) {way}, name collate nocase, id",
}  # fmt: skip
_BY_NAME = "order by name collate nocase, id"


def page(
    db: Database, text: str = "", *, status: str = "", source: str = "", mode: str = "", sort: Sort = "name",
    descending: bool = False, limit: int = 50, offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Streamers whose name or address contains `text`, in any case of the letters a to z; and how many there are.

    An address with a password is not searched: the answers would spell it.
    """
    like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    terms: dict[str, list[str]] = {
        "(name like ? escape '\\' or (url like ? escape '\\' and url not like '%@%'))": [like, like] if text else [],
        "status = ?": [status] if status else [], "source = ?": [source] if source else [],
        "mode = ?": [mode] if mode else [],
    }  # fmt: skip
    where = " and ".join(["active = 1", *(term for term, values in terms.items() if values)])
    values = [value for found in terms.values() for value in found]
    order = _ORDER[sort].format(way="desc" if descending else "asc")
    found = db.query(f"select * from streamers where {where} order by {order} limit ? offset ?",
                     [*values, limit, offset])  # fmt: skip
    (total,) = db.execute(f"select count(*) from streamers where {where}", values).fetchone()
    return list(found), int(total)


def some(db: Database, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Those of these ids that are there and wanted."""
    marks = ",".join("?" * len(ids))
    return list(db.query(f"select * from streamers where active = 1 and id in ({marks}) {_BY_NAME}", list(ids)))


def named(db: Database, names: Sequence[str]) -> list[int]:
    """Ids of those of these names that are wanted."""
    marks = ",".join("?" * len(names))
    return [id for (id,) in db.execute(
        f"select id from streamers where active = 1 and name in ({marks})", list(names)).fetchall()]  # fmt: skip


def counts(db: Database) -> dict[str, int]:
    """Number of those that are wanted, by live status."""
    return dict(db.execute("select status, count(*) from streamers where active = 1 group by status").fetchall())
