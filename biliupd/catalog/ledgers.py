"""What of each broadcast is recorded and what is missing: its sums in `broadcasts`, its rows in `ledger`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from biliupd.catalog.database import write
from biliupd.catalog.paths import PATH, is_text, stored
from biliupd.catalog.states import State, rows

COLUMNS = ("at", "cause", "file", "media_seconds_at", "seconds", "detail")
_BROADCASTS = "select b.*, s.name as streamer from broadcasts b join streamers s on s.id = b.streamer_id"


def keep(db: Database, broadcast_id: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Make the rows of a broadcast those of its broadcast.json, by `COLUMNS`; written only when they differ."""
    wanted = [(broadcast_id, number, *(row[name] for name in COLUMNS)) for number, row in enumerate(found)]
    with write(db):
        known = db.execute("select * from ledger where broadcast_id = ? order by number", [broadcast_id]).fetchall()
        if known == wanted:
            return
        db.execute("delete from ledger where broadcast_id = ?", [broadcast_id])
        rows(db, "ledger").insert_all(
            dict(zip(("broadcast_id", "number", *COLUMNS), row, strict=True)) for row in wanted)


def of(db: Database, broadcast_id: str) -> list[dict[str, Any]]:
    """The rows of a broadcast, by `COLUMNS`."""
    names = ", ".join(COLUMNS)
    return list(db.query(f"select {names} from ledger where broadcast_id = ? order by number", [broadcast_id]))


def latest(db: Database, most: int) -> list[dict[str, Any]]:
    """The broadcasts that began last, the newest first, with the name of their streamer."""
    return list(db.query(f"{_BROADCASTS} order by b.started_at desc, b.created_at desc limit ?", [most]))


def page(db: Database, streamer: str = "", *, limit: int = 50, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The same in pieces, of one streamer or of all; and how many there are."""
    where, values = " where s.name = ?" if streamer else "", [streamer] if streamer else []
    found = db.query(
        f"{_BROADCASTS}{where} order by b.started_at desc, b.created_at desc limit ? offset ?",
        [*values, limit, offset],
    )
    (total,) = db.execute(
        f"select count(*) from broadcasts b join streamers s on s.id = b.streamer_id{where}", values).fetchone()
    return list(found), int(total)


def find(db: Database, text: str) -> list[dict[str, Any]]:
    """Broadcasts meant by the beginning of an id or by their folder; else the latest of the streamer of that name."""
    if not is_text(text):
        return []
    start = text.lower()
    if start and set(start) <= set("0123456789abcdef"):
        found = list(db.query(f"{_BROADCASTS} where b.id >= ? and b.id < ? order by b.id", [start, start + "g"]))
        if found:
            return found
    folder = list(db.query(f"{_BROADCASTS} where b.directory = {PATH}", [stored(text)]))
    return folder or list(
        db.query(f"{_BROADCASTS} where s.name = ? order by b.started_at desc, b.created_at desc limit 1", [text]))


def unmerged_bytes(db: Database, root: str, but: Collection[str]) -> int:
    """Size of what was recorded in segments below `root` and waits to be merged, without these broadcasts."""
    marks = ",".join("?" * len(but))
    (size,) = db.execute(
        "select coalesce(sum(file_size), 0) from videos where state in (?, ?, ?) and kind != 'file'"
        f" and root = {PATH} and (broadcast_id is null or broadcast_id not in ({marks}))",
        [State.RECORDING, State.RECORDED, State.EDITING, stored(root), *but],
    ).fetchone()
    return int(size)
