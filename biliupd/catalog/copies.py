"""Videos of the same content: a copy is known for one, and a file that came by way of another disk keeps its row.

Decides nothing about content: who compares files says which are the same.
"""

import os

from sqlite_utils import Database

from biliupd.catalog.database import write
from biliupd.catalog.paths import PATH_COLUMNS, stored
from biliupd.catalog.states import State, move, rows
from biliupd.catalog.videos import Video

_PLACE = ("file_path", "root", "path", "parent_path")
_CONTENT = ("kind", "file_size", "mtime_ns", "inode", "device", "fingerprint")


def note(db: Database, id: int, fingerprint: str) -> list[Video]:
    """Write down what a video holds → the others of the same fingerprint that are no copies themselves, oldest first.

    In one transaction: of two copies that are looked at in the same moment, the later one sees the earlier.
    """
    with write(db):
        rows(db, "videos").update(id, {"fingerprint": fingerprint})
        return list(
            db.query(
                "select * from videos where fingerprint = ? and id != ? and state != ? order by id",
                [fingerprint, id, State.IGNORED],
            )
        )


def look_around(db: Database, id: int) -> None:
    """A video lies elsewhere now: its sidecar may have stayed behind, and what it waited for may not matter here."""
    db.execute(
        "update videos set sidecar = case when sidecar = '' then '' else '?' end,"
        " retry_at = case when waits_for is null then retry_at end, waits_for = null where id = ?",
        [id],
    )


def stands(db: Database, original: Video) -> bool:
    """Whether what a file was compared with is still what it was, and no copy or missing since. Of two that are held
    against each other in the same moment, only one may be left alone."""
    found = db.execute("select state, fingerprint from videos where id = ?", [original["id"]]).fetchone()
    if found is None or found[1] != original["fingerprint"]:
        return False
    return found[0] == original["state"] or found[0] not in (State.IGNORED, State.MISSING)


def free(db: Database, id: int) -> None:
    """A video is not what it was, or gone before it was uploaded: its copies may be the only ones left."""
    for (copy,) in db.execute(
        "select id from videos where same_as = ? and state = ?", [id, State.IGNORED]
    ).fetchall():
        move(db, copy, State.IGNORED, State.RECORDED, same_as=None, last_error=None)


def come_back(db: Database, id: int, was: State | None) -> None:
    """A missing file is there again: its video goes on where it was. What it was a copy of may be gone by now."""
    (copy,) = db.execute("select same_as is not null from videos where id = ?", [id]).fetchone()
    if was is None or (was is State.IGNORED and copy):
        was = State.RECORDED
    reason = {} if was in (State.HELD, State.IGNORED) else {"last_error": None, "same_as": None}
    move(db, id, State.MISSING, was, was=None, **reason)


def ignore(db: Database, id: int, state: State, original: Video) -> bool:
    """A video is a copy of `original` and is left alone."""
    known = f"video:{original['id']}" + (f", {original['bvid']}" if original["bvid"] else "")
    why = f"same as {os.path.basename(original['file_path'])!a} ({known}); biliupd retry video:{id} publishes it, too"
    return move(db, id, state, State.IGNORED, same_as=original["id"], last_error=why)


def take_over(db: Database, old: Video, new: Video) -> bool:
    """The file of `old` was moved to where `new`, which is being edited, was found: one row, with the past of `old`.

    False: `old` went on meanwhile.
    """
    with write(db):
        place = {name: stored(new[name]) for name in _PLACE}
        state = db.execute("select state from videos where id = ?", [old["id"]]).fetchone()
        if state is None or state[0] != old["state"]:
            return False
        rows(db, "videos").delete(new["id"])
        facts = {**place, **{name: new[name] for name in _CONTENT}, "removed_at": None, "sidecar": "?"}
        rows(db, "videos").update(old["id"], facts, conversions=PATH_COLUMNS)
        look_around(db, old["id"])
        if old["state"] == State.MISSING:
            come_back(db, old["id"], State(old["was"]) if old["was"] else None)
    return True
