"""Rows of videos: what is due, what waits, and the library as a tree."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from biliupd.catalog.database import DUE, moments, now, write
from biliupd.catalog.paths import PATH, PATH_COLUMNS, below, parent, stored
from biliupd.catalog.states import Stage, State, move, rows

Video = Mapping[str, Any]  #: a row of `videos`, by column


def get(db: Database, id: int) -> Video | None:
    """One row, or None."""
    return next(iter(db.query("select * from videos where id = ?", [id])), None)


_WITH_UPLOAD = "select v.*, u.filename, u.cid from videos v left join uploads u on u.video_id = v.id"


def of_broadcast(db: Database, id: str) -> list[Video]:
    """The videos of a broadcast, in no order, with what their upload left."""
    return list(db.query(f"{_WITH_UPLOAD} where v.broadcast_id = {PATH}", [stored(id)]))  # it may be a path as well


def of_broadcast_at(db: Database, directory: str) -> list[Video]:
    """The same for the broadcast whose folder this is."""
    return list(
        db.query(
            f"{_WITH_UPLOAD} where v.broadcast_id in (select id from broadcasts where directory = {PATH})",
            [stored(directory)],
        )
    )


def at_or_below(db: Database, path: str) -> list[Video]:
    """The video that is, or was merged from, this file; or those below this folder."""
    return list(
        db.query(
            f"{_WITH_UPLOAD} where v.file_path = {PATH} or v.merged_from = {PATH}"
            f" or (v.file_path > {PATH} and v.file_path < {PATH})",
            [stored(text) for text in (path, path, f"{path}/", f"{path}0")],  # 0 comes after /
        )
    )


def due(db: Database, state: State, limit: int = 50) -> list[Video]:
    """Rows at rest in `state` whose time has come, in the order of recording."""
    return list(
        db.query(
            f"select * from videos where state = ? and {DUE} order by created_at, file_path limit ?",
            [state, *moments(), limit],
        )
    )


def with_sources(db: Database) -> list[Video]:
    """Merged videos whose segments may still be there, but for those of which the merge left something out: a person
    may want to mend that."""
    return list(
        db.query(
            "select * from videos where merged_from is not null and source_gone = 0 and gaps = '[]'"
            " and state not in (?, ?)",
            [State.EDITING, State.MISSING],
        )
    )


def will_be(db: Database, id: int, output_path: str) -> None:
    """Write down where a merge will lie before it is made, so that its file is known for ours after a crash."""
    with write(db):
        rows(db, "videos").update(id, {"output_path": stored(output_path)}, conversions=PATH_COLUMNS)


def edited(db: Database, video: Video, path: Path, status: os.stat_result, **facts: Any) -> bool:
    """It is one whole file at `path`; when that is a merge, its playlist becomes `merged_from`.

    `facts` are what was found out about it: cover_path, thumbnail_path, duration, width, height, codecs, bitrate, gaps.
    """
    with write(db):
        if str(path) != video["file_path"]:
            short = below(video["root"], str(path))
            rows(db, "videos").update(
                video["id"],
                {"file_path": stored(str(path)), "root": stored(video["root"]), "path": stored(short),
                 "parent_path": stored(parent(short)), "merged_from": stored(video["file_path"])},
                conversions=PATH_COLUMNS,
            )  # fmt: skip
            facts |= {"kind": "file", "source_gone": 0}
        facts |= {"file_size": status.st_size, "mtime_ns": status.st_mtime_ns}
        facts |= {"inode": status.st_ino, "device": status.st_dev, "output_path": None}
        fresh = {"attempts": 0, "retry_at": None, "last_error": None}
        return move(db, video["id"], State.EDITING, State.READY, **facts, **fresh)


def changed(db: Database, video: Video, status: os.stat_result, until: str) -> bool:
    """The file of a ready video is not what was edited: it is edited anew, not before `until`."""
    facts = {"file_size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
    return move(
        db, video["id"], State.READY, State.RECORDED, **facts, device=status.st_dev, retry_at=until, attempts=0,
        fingerprint=None,
    )


def incomplete(db: Database) -> Video | None:
    """A whole file of which an older version wrote no small picture and not all facts down, or None."""
    return next(
        iter(
            db.query(
                "select * from videos indexed by videos_incomplete where thumbnail_path is null and removed_at is null"
                " and state in ('ready', 'uploaded', 'published') order by id desc limit 1"
            )
        ),
        None,
    )


def complete(db: Database, id: int, **facts: Any) -> None:
    """What is known of it now."""
    with write(db):
        rows(db, "videos").update(id, facts)


def with_other_sidecar(db: Database) -> list[Video]:
    """Videos whose sidecar came, changed or went."""
    return list(db.query("select * from videos where sidecar = '?' and state not in (?, ?)",
                         [State.EDITING, State.MISSING]))  # fmt: skip


def sidecar_changed(db: Database, ids: Sequence[int]) -> None:
    """Their sidecars are to be read again, and what waited because of them is looked at again."""
    with write(db):
        for id in ids:
            db.execute("update videos set sidecar = '?', waits_for = null,"
                       " retry_at = case when waits_for is null then retry_at end where id = ?", [id])  # fmt: skip
            db.execute(
                "update submissions set waits_for = null, retry_at = null where waits_for is not null"
                " and id = (select submission_id from videos where id = ?)",
                [id],
            )


def described_below(db: Database, base: str) -> list[tuple[int, str, str]]:
    """Id, file and sidecar of the videos that a sidecar BASE.yaml may speak of: those called so, and those in a folder
    of that name."""
    return db.execute(
        "select id, file_path, sidecar from videos"
        f" where file_path = {PATH} or (file_path > {PATH} and file_path < {PATH})",
        [stored(text) for text in (base, f"{base}.", f"{base}0")],  # . and / come right before 0
    ).fetchall()


def described(db: Database, root: str) -> list[tuple[int, str, str]]:
    """The same for all in a watched directory that have a sidecar."""
    return db.execute(
        "select id, file_path, sidecar from videos indexed by videos_described"
        f" where root = {PATH} and sidecar != '' and sidecar != '?'",
        [stored(root)],
    ).fetchall()


def describe(db: Database, id: int, title: str, sidecar: str) -> None:
    """A sidecar was read."""
    with write(db):
        rows(db, "videos").update(id, {"title": title, "sidecar": sidecar})


def source_is_gone(db: Database, id: int) -> None:
    """The segments a video was made of were removed."""
    with write(db):
        rows(db, "videos").update(id, {"source_gone": 1})


def wait(db: Database, id: int, why: str, until: str) -> None:
    """The row stays where it is; `why` is shown, and it is not due before `until`."""
    with write(db):
        db.execute("update videos set waits_for = ?, retry_at = ? where id = ?", [why, until, id])


def wake(db: Database) -> None:
    """What waits for something other than time is looked at again: the settings or an account changed."""
    with write(db):
        for table in ("videos", "submissions"):
            db.execute(f"update {table} set waits_for = null, retry_at = null where waits_for is not null")


def put_back(
    db: Database, video: Video, old: State, rest: State, why: str, retry_at: str | None, attempts: int, *,
    waits_for: str | None = None,
) -> bool:  # fmt: skip
    """A failed try: back to `rest` (or to `held`), with the reason and when it is due again.

    `waits_for` is given when it is no fault of the video's and `wake` may make it due earlier.
    """
    facts = {"last_error": why, "retry_at": retry_at, "attempts": attempts, "waits_for": waits_for}
    return move(db, video["id"], old, rest, **facts)


def release(db: Database) -> int:
    """At start: what a dead daemon was working on goes back to rest; a submission in `submitting` stays, ownerless."""
    count = 0
    for old, rest in ((State.EDITING, State.RECORDED), (State.UPLOADING, State.READY)):
        for (id,) in db.execute("select id from videos where state = ?", [old]).fetchall():
            count += move(db, id, old, rest, retry_at=None)
    with write(db):
        db.execute("update submissions set owner = null where state in (?, ?)", [Stage.SUBMITTING, Stage.APPENDING])
    return count


def set_aside(db: Database, broadcast_id: str, why: Mapping[str, str]) -> None:
    """Videos of a broadcast, by file, that are not published for the reason given, unless a person asked for it."""
    with write(db):
        for video in db.query(
            "select id, file_path, merged_from, state from videos where broadcast_id = ? and again = 0"
            " and state in (?, ?)",
            [broadcast_id, State.RECORDED, State.READY],
        ):
            reason = why.get(video["merged_from"] or video["file_path"])
            if reason:
                move(db, video["id"], State(video["state"]), State.IGNORED, last_error=reason)


def retry(db: Database, id: int) -> bool:
    """A person asks for another try of a held video, or for one that was ignored as a copy or a fragment."""
    row = get(db, id)
    if row is None or row["state"] not in (State.HELD, State.IGNORED):
        return False
    fresh = {"attempts": 0, "retry_at": None, "last_error": None, "waits_for": None, "same_as": None}
    return move(db, id, State(row["state"]), State.RECORDED, **fresh, again=1)


_TOGETHER = (  # with what a video would be submitted
    f"(id = ? or broadcast_id = ? or (broadcast_id is null and root = {PATH} and parent_path = {PATH}"
    " and parent_path != ''))"
)  # fmt: skip


def is_asked(db: Database, video: Video) -> bool:
    """Whether a person asked for it to be published, or for one that it would be submitted with."""
    if video.get("asked"):
        return True
    found = f"select 1 from videos indexed by videos_asked where asked = 1 and {_TOGETHER}"  # few are
    return db.execute(found, _together(video)).fetchone() is not None


def _together(video: Video) -> list[Any]:
    alone = video["broadcast_id"] is not None
    return [video["id"], video["broadcast_id"], *(None if alone else stored(video[n]) for n in ("root", "parent_path"))]


_CAN_BE_ASKED_FOR = (State.RECORDING, State.RECORDED, State.EDITING, State.READY)


def ask(db: Database, id: int) -> bool:
    """A person wants it published, whatever the settings say, with all that it would be submitted with; False when it
    is not on its way to be."""
    with write(db):
        found = db.execute(
            "update videos set asked = 1 where id = ? and state in (?, ?, ?, ?) and removed_at is null",
            [id, *_CAN_BE_ASKED_FOR]).rowcount  # fmt: skip
        video = get(db, id)
        if not found or video is None:
            return False
        db.execute(f"update videos set waits_for = null, retry_at = null where waits_for is not null and {_TOGETHER}",
                   _together(video))  # fmt: skip
    return True


def progress(db: Database, video: int, sent: int, total: int, rate: float, eta: float | None) -> None:
    """How much of a running upload has arrived, in bytes, how fast (bytes a second), and the seconds it still takes."""
    with write(db):
        db.execute(
            "update uploads set bytes_sent = ?, bytes_total = ?, bytes_per_second = ?, eta_seconds = ?"
            " where video_id = ?",
            [sent, total, rate, eta, video],
        )


def keep_session(db: Database, video: int, session: str, line: str) -> None:
    """What an upload needs to go on after a restart, as text."""
    with write(db):
        db.execute("update uploads set session = ?, line = ? where video_id = ?", [session, line, video])


def session(db: Database, video: int) -> str:
    """The text of `keep_session`; empty when there is none."""
    found = db.execute("select session from uploads where video_id = ?", [video]).fetchone()
    return str(found[0] or "") if found else ""


def begin_upload(db: Database, video: Video, owner: str) -> bool:
    """Claim a ready video for upload; False when somebody else was faster. What an earlier try left is kept."""
    with write(db):
        if not move(db, video["id"], State.READY, State.UPLOADING, owner=owner, waits_for=None):
            return False
        fresh: dict[str, Any] = {"filename": None, "cid": None, "bytes_sent": 0}
        fresh |= {"bytes_total": video["file_size"], "bytes_per_second": 0, "eta_seconds": None}
        fresh |= {"started_at": now(), "finished_at": None}
        rows(db, "uploads").upsert({"video_id": video["id"], **fresh}, pk="video_id")
    return True


def end_upload(
    db: Database, video: int, *, filename: str, cid: int, line: str, size_bytes: int, mtime_ns: int
) -> bool:
    """Bilibili has the file, as it was at `mtime_ns`, under `filename`."""
    at = now()
    with write(db):
        rows(db, "uploads").update(
            video,
            {"filename": filename, "cid": cid, "line": line, "bytes_sent": size_bytes, "finished_at": at,
             "session": None, "source_size": size_bytes, "source_mtime_ns": mtime_ns, "eta_seconds": None},
        )  # fmt: skip
        facts = {"uploaded_at": at, "attempts": 0, "retry_at": None, "last_error": None}
        return move(db, video, State.UPLOADING, State.UPLOADED, **facts)


def published(db: Database) -> list[Video]:
    """Published videos whose files are still there as far as is known, the oldest upload first, pinned ones too."""
    return list(
        db.query(
            "select v.*, u.source_size, u.source_mtime_ns from videos v join uploads u on u.video_id = v.id"
            " where v.state = ? and v.removed_at is null order by v.uploaded_at, v.id",
            [State.PUBLISHED],
        )
    )


def removed(db: Database, id: int, path: str | None) -> None:
    """Its file was deleted, or moved to `path`."""
    with write(db):
        rows(db, "videos").update(
            id, {"removed_at": now(), **({"file_path": stored(path)} if path else {})}, conversions=PATH_COLUMNS
        )


def pin(db: Database, id: int, pinned: bool) -> bool:
    """Keep a video's file for good, or no longer; False when there is no such video."""
    with write(db):
        return bool(db.execute("update videos set pinned = ? where id = ?", [int(pinned), id]).rowcount)


def in_states(db: Database, states: Sequence[State], *, with_a_reason: bool = False, most: int = 50) -> list[Video]:
    """The latest in these states, the newest last; with a reason: those that wait for something, or failed once."""
    marks = ",".join("?" * len(states))
    why = " and (waits_for is not null or last_error is not null)" if with_a_reason else ""
    found: list[Video] = list(
        db.query(
            f"select * from videos where state in ({marks}){why} order by since desc, id desc limit ?", [*states, most]
        )
    )
    return found[::-1]
