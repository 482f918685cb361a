"""Rows of submissions: one per broadcast, or per file that came without one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from biliupd.catalog.database import now, write
from biliupd.catalog.states import Stage, State, advance, move, rows
from biliupd.catalog.videos import Video

Submission = Mapping[str, Any]  #: a row of `submissions`, by column

_STANDS_ASIDE = (State.IGNORED, State.MISSING)


def account_of(db: Database, video: Video, wanted: str) -> str:
    """The account for a video's upload: that of the parts uploaded before it, which no other can submit."""
    found = db.execute(
        "select account from submissions s where (id = ? or (broadcast_id = ? and state = ?))"
        " and exists (select 1 from videos v where v.submission_id = s.id and v.state in (?, ?))",
        [video["submission_id"], video["broadcast_id"], Stage.COLLECTING, State.UPLOADING, State.UPLOADED],
    ).fetchone()
    return str(found[0]) if found else wanted


def of_video(db: Database, video: Video, account: str) -> int:
    """The submission a video belongs to, made when it is the first one; submitted ones take no further video."""
    if video["submission_id"] is not None:
        with write(db):
            rows(db, "submissions").update(video["submission_id"], {"account": account})
        return int(video["submission_id"])
    broadcast = video["broadcast_id"]
    key = f"broadcast:{broadcast}" if broadcast else f"file:{video['id']}"
    with write(db):
        found = db.execute(
            "select id from submissions where (key = ? or key like ? || '#%') and state = ?",
            [key, key, Stage.COLLECTING],
        ).fetchone()
        if found is None:
            (same,) = db.execute(
                "select count(*) from submissions where key = ? or key like ? || '#%'", [key, key]
            ).fetchone()
            at = now()
            found = db.execute(
                "insert into submissions (key, broadcast_id, account, state, since, created_at)"
                " values (?, ?, ?, ?, ?, ?) returning id",
                [f"{key}#{same + 1}" if same else key, broadcast, account, Stage.COLLECTING, at, at],
            ).fetchone()
        rows(db, "submissions").update(found[0], {"account": account})
        rows(db, "videos").update(video["id"], {"submission_id": found[0]})
    return int(found[0])


def due(db: Database, stage: Stage) -> list[Submission]:
    """Rows in `stage` that nobody works on and whose time has come; all of them, since some may wait for months."""
    return list(
        db.query(
            "select * from submissions where state = ? and owner is null and (retry_at is null or retry_at <= ?)"
            " order by id",
            [stage, now()],
        )
    )


def parts(db: Database, id: int) -> list[Video]:
    """Its videos with what their upload left, in the order of recording; without those that stand aside."""
    return list(
        db.query(
            "select v.*, u.filename, u.cid from videos v left join uploads u on u.video_id = v.id"
            " where v.submission_id = ? and v.state not in (?, ?) order by v.file_path",
            [id, *_STANDS_ASIDE],
        )
    )


def obstacle(db: Database, submission: Submission) -> str:
    """What a collecting submission waits for; empty when it is complete."""
    found = parts(db, submission["id"])
    if not found:
        return "no part is left: its files are missing or ignored"
    broadcast = submission["broadcast_id"]
    if broadcast is not None:
        ended, expected = db.execute("select ended_at, parts from broadcasts where id = ?", [broadcast]).fetchone()
        if ended is None:
            return "the broadcast is still going on"
        (known,) = db.execute("select count(*) from videos where broadcast_id = ?", [broadcast]).fetchone()
        if known < expected:
            return f"{expected - known} of its {expected} files, not catalogued yet"
        open_rows = db.execute(
            "select title, state from videos where broadcast_id = ? and submission_id is null and state not in (?, ?)",
            [broadcast, *_STANDS_ASIDE],
        ).fetchall()
        if open_rows:
            return f"{len(open_rows)} of its videos: {open_rows[0][0]} is {open_rows[0][1]}"
    late = [video for video in found if video["state"] != State.UPLOADED]
    if late:
        return f"{len(late)} of {len(found)} parts: {late[0]['title']} is {late[0]['state']}"
    return ""


def begin(db: Database, submission: Submission, title: str, filenames: Sequence[str], owner: str) -> bool:
    """Claim it and write the intent down: from here on it may have been sent."""
    facts = {"title": title, "filenames": json.dumps(list(filenames)), "submit_started_at": now(), "lookups": 0}
    return advance(
        db, submission["id"], Stage.COLLECTING, Stage.SUBMITTING, owner=owner, waits_for=None, retry_at=None, **facts
    )


def filenames(submission: Submission) -> list[str]:
    """What its parts are called at Bilibili, as written down before the submit."""
    return list(json.loads(submission["filenames"]))


def accepted(db: Database, id: int, aid: int, bvid: str) -> bool:
    """Bilibili answered, or was found to have it."""
    with write(db):
        done = advance(
            db, id, Stage.SUBMITTING, Stage.SUBMITTED, aid=aid, bvid=bvid, attempts=0, retry_at=None, last_error=None
        )
        if done:
            db.execute("update videos set bvid = ? where submission_id = ? and state = ?", [bvid, id, State.UPLOADED])
    return done


def shown(db: Database, id: int) -> bool:
    """Bilibili shows every part."""
    with write(db):
        done = advance(db, id, Stage.SUBMITTED, Stage.PUBLISHED, retry_at=None, waits_for=None)
        if done:
            for video in parts(db, id):
                if video["state"] == State.UPLOADED:
                    move(db, video["id"], State.UPLOADED, State.PUBLISHED)
    return done


def wait(db: Database, id: int, why: str, until: str | None) -> None:
    """It stays where it is, ownerless; `why` is shown. Written only when it changes."""
    with write(db):
        db.execute(
            "update submissions set waits_for = ?, retry_at = ?, owner = null"
            " where id = ? and (waits_for is not ? or retry_at is not ? or owner is not null)",
            [why, until, id, why, until],
        )


def failed(
    db: Database, submission: Submission, old: Stage, new: Stage, why: str, retry_at: str | None, **facts: Any
) -> bool:
    """A try that did not work: to `new` with the reason, or only noted when it stays in `old`."""
    values = {"last_error": why, "retry_at": retry_at, **facts}
    if old is not new:
        return advance(db, submission["id"], old, new, **values)
    with write(db):
        rows(db, "submissions").update(submission["id"], {**values, "owner": None})
    return True


def last_submit(db: Database, account: str) -> str | None:
    """When this account last submitted anything."""
    (at,) = db.execute("select max(submit_started_at) from submissions where account = ?", [account]).fetchone()
    return str(at) if at else None


def retry(db: Database, id: int) -> bool:
    """A person asks for another try of a held submission; one that may have been sent is looked up first."""
    row = next(iter(db.query("select * from submissions where id = ?", [id])), None)
    if row is None or row["state"] != Stage.HELD:
        return False
    stage = Stage.SUBMITTED if row["bvid"] else Stage.SUBMITTING if row["submit_started_at"] else Stage.COLLECTING
    fresh = {"attempts": 0, "retry_at": None, "last_error": None, "waits_for": None, "lookups": 0, "resubmits": 0}
    return advance(db, id, Stage.HELD, stage, **fresh)


def everything(db: Database) -> list[Submission]:
    """All of them, oldest first."""
    return list(db.query("select * from submissions order by id"))
