"""The small tables: streamers, their broadcasts, runs of recorders, accounts, and notices to the operator."""

from collections.abc import Sequence
from typing import Any, cast

from sqlite_utils import Database

from biliupd.catalog.database import now, write
from biliupd.catalog.paths import PATH_COLUMNS, is_text, stored
from biliupd.catalog.states import rows


def keep_streamers(db: Database, wanted: Sequence[dict[str, Any]]) -> None:
    """Make the rows agree with the configuration: name, platform, url, check_interval, auto_upload, settings of each.

    Streamers that are no longer there stay, inactive, because their videos do.
    """
    at = now()
    names = {streamer["name"] for streamer in wanted}
    with write(db):
        known = {row["name"]: row for row in db.query("select * from streamers")}
        for row in known.values():
            if row["source"] == "yaml" and row["active"] and row["name"] not in names:
                rows(db, "streamers").update(row["id"], {"active": 0, "updated_at": at})
        for streamer in wanted:
            before, facts = known.get(streamer["name"]), {**streamer, "source": "yaml", "active": 1}
            if before is None:
                rows(db, "streamers").insert({**facts, "created_at": at, "updated_at": at})
            elif facts.items() - before.items():
                rows(db, "streamers").update(before["id"], {**facts, "updated_at": at})


def active_streamers(db: Database) -> list[dict[str, Any]]:
    """The rows of the streamers that are wanted, by the YAML or by the API."""
    return list(db.query("select * from streamers where active = 1 order by id"))


def make_streamer(db: Database, facts: dict[str, Any]) -> int | None:
    """Add one of the API → its id; None when an active one has this name already, in whatever case.

    `facts`: name, platform, url, check_interval, auto_upload, settings. A former one of that name gets its row back.
    """
    at, name = now(), facts["name"]
    with write(db):
        for (taken,) in db.execute("select name from streamers where active = 1").fetchall():
            if taken.casefold() == name.casefold():
                return None
        known = db.execute("select id from streamers where name = ?", [name]).fetchone()
        row = {**facts, "source": "api", "active": 1, "mode": "on", "status": "unknown", "status_reason": "",
               "updated_at": at}  # fmt: skip
        if known is None:
            return int(cast(int, rows(db, "streamers").insert({**row, "created_at": at}).last_pk))
        rows(db, "streamers").update(known[0], row)
        return int(known[0])


def change_streamer(db: Database, id: int, facts: dict[str, Any]) -> None:
    """Other facts of a streamer, by column."""
    with write(db):
        rows(db, "streamers").update(id, {**facts, "updated_at": now()})


def streamer_id(db: Database, name: str, *, platform: str = "", url: str = "") -> int:
    """The row of that name; one is made for a recording whose streamer the configuration no longer names."""
    with write(db):
        known = db.execute("select id from streamers where name = ?", [name]).fetchone()
        if known is None:
            at = now()
            facts = {"name": name, "platform": platform, "url": url, "check_interval": 0, "auto_upload": 0}
            rows(db, "streamers").insert({**facts, "source": "disk", "active": 0, "created_at": at, "updated_at": at})
            known = db.execute("select id from streamers where name = ?", [name]).fetchone()
    return int(known[0])


def live_status(db: Database, name: str, status: str, reason: str) -> None:
    """What the site says of a streamer, written when it changes."""
    reason = _as_text(reason)
    with write(db):
        db.execute(
            "update streamers set status = ?, status_reason = ?, updated_at = ?"
            " where name = ? and (status is not ? or status_reason is not ?)",
            [status, reason, now(), name, status, reason],
        )


def broadcast(db: Database, facts: dict[str, Any]) -> bool:
    """Make or renew the row of a broadcast, written only when something changed; whether something did.

    `facts`: id, streamer_id, title, cover_url, live_id, directory, started_at, ended_at, parts, the sums of its ledger,
    and by what its `broadcast.json` is known again: file.
    """
    row = {**facts, "directory": stored(facts["directory"])}
    with write(db):
        known = next(iter(db.query("select * from broadcasts where id = ?", [facts["id"]])), None)
        if known is None:
            rows(db, "broadcasts").insert({**row, "created_at": now()}, conversions=PATH_COLUMNS)
        elif {**known, **facts} != known:
            rows(db, "broadcasts").update(facts["id"], row, conversions=PATH_COLUMNS)
        else:
            return False
    return True


def broadcast_files(db: Database) -> dict[str, str]:
    """By folder, which `broadcast.json` was read there."""
    return dict(db.execute("select directory, file from broadcasts").fetchall())


def forget_what_was_read(db: Database) -> None:
    """Which broadcast.json and which sidecars were read: they are read again."""
    with write(db):
        db.execute("update broadcasts set file = '' where file != ''")
        db.execute("update videos set sidecar = '?' where sidecar not in ('', '?')")


def get_broadcast(db: Database, id: str) -> dict[str, Any] | None:
    """One broadcast with the name of its streamer, or None."""
    return next(
        iter(
            db.query(
                "select b.*, s.name as streamer from broadcasts b join streamers s on s.id = b.streamer_id"
                " where b.id = ?",
                [id],
            )
        ),
        None,
    )


def open_broadcasts(db: Database) -> list[str]:
    """Folders of the broadcasts that nobody has ended yet."""
    return [directory for (directory,) in db.execute("select directory from broadcasts where ended_at is null")]


def forget_broadcast(db: Database, id: str) -> None:
    """Remove the row of a broadcast that has no video."""
    with write(db):
        db.execute(
            "delete from broadcasts where id = ?"
            " and not exists (select 1 from videos where videos.broadcast_id = broadcasts.id)",
            [id],
        )


def task_started(db: Database, id: str, streamer: int, broadcast_id: str, pid: int, at: str) -> None:
    """A recorder process runs; said again for an adopted one."""
    with write(db):
        rows(db, "tasks").upsert(
            {"id": id, "streamer_id": streamer, "broadcast_id": broadcast_id, "pid": pid, "status": "recording",
             "reason": "", "started_at": at, "stopped_at": None},
            pk="id",
        )  # fmt: skip


def task_stopped(db: Database, id: str, reason: str, at: str) -> None:
    """It ended, and why; the first word on that counts."""
    with write(db):
        db.execute(
            "update tasks set status = 'ended', reason = ?, stopped_at = ? where id = ? and status = 'recording'",
            [reason, at, id],
        )


def end_tasks_but(db: Database, running: Sequence[str]) -> None:
    """At start: tasks whose recorder is not among the running ones ended while nobody looked."""
    marks = ",".join("?" * len(running))
    with write(db):
        db.execute(
            "update tasks set status = 'ended', reason = 'ended unseen', stopped_at = ?"
            f" where status = 'recording' and id not in ({marks})",
            [now(), *running],
        )


def has_task(db: Database, id: str) -> bool:
    """Whether a run of a recorder is known."""
    return db.execute("select 1 from tasks where id = ?", [id]).fetchone() is not None


def account(db: Database, name: str, state: str, reason: str = "", retry_at: str | None = None, **facts: Any) -> bool:
    """How an account stands: ok, waiting (for a person) or cooling (a site said stop); True when that is news.

    `facts` are further columns: hint, mid, uname, checked_at, expires_at.
    """
    with write(db):
        known = db.execute("select state, reason from accounts where name = ?", [name]).fetchone()
        row = {"name": name, "state": state, "reason": reason, "retry_at": retry_at, "updated_at": now(), **facts}
        rows(db, "accounts").upsert(row, pk="name")
    return bool(known != (state, reason))


def account_row(db: Database, name: str) -> dict[str, Any] | None:
    """What is known of an account, by column; None when it was never used."""
    return next(iter(db.query("select * from accounts where name = ?", [name])), None)


def live_cover(db: Database, broadcast: str | None) -> str:
    """Address of the picture a room showed during a broadcast; empty when there is none."""
    found = db.execute("select cover_url from broadcasts where id = ?", [broadcast]).fetchone()
    return str(found[0] or "") if found else ""


def notice(db: Database, key: str, text: str) -> None:
    """Say something to the operator until it is taken back with an empty text."""
    key, text = _as_text(key), _as_text(text)
    with write(db):
        known = db.execute("select text from notices where key = ?", [key]).fetchone()
        if not text:
            if known:
                db.execute("delete from notices where key = ?", [key])
        elif known is None or known[0] != text:
            rows(db, "notices").insert({"key": key, "text": text, "since": now()}, replace=True)


def take_back(db: Database, start: str) -> None:
    """Take back every notice whose key begins so."""
    with write(db):
        db.execute("delete from notices where substr(key, 1, ?) = ?", [len(start), start])


def notices(db: Database) -> list[dict[str, Any]]:
    """What the operator should know, oldest first."""
    return list(db.query("select * from notices order by since"))


def _as_text(word: str) -> str:
    """What SQLite takes: halves of characters are spelt out."""
    return word if is_text(word) else word.encode(errors="backslashreplace").decode()
