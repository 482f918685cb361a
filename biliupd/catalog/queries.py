"""Questions about the small tables that only whoever looks at them asks. Reads only; records.py writes them."""

from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database

WELL = ("waits", "network", "place")  #: beginnings of the keys of notices that say how things are, while all is well


def accounts(db: Database, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What is known of the accounts of these names, or of all, by name."""
    where = "" if names is None else f" where name in ({','.join('?' * len(names))})"
    return list(db.query(f"select * from accounts{where} order by name", list(names or ())))


def uploading(db: Database) -> tuple[int, float]:
    """How many uploads run, and their bytes a second together."""
    count, rate = db.execute(
        "select count(*), coalesce(sum(u.bytes_per_second), 0) from videos v join uploads u on u.video_id = v.id"
        " where v.state = 'uploading'"
    ).fetchone()
    return int(count), float(rate)
