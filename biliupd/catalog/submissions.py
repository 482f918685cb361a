"""Rows of submissions: one per broadcast, or per file that came without one."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlite_utils import Database

from biliupd.catalog.database import DUE, moments, now, stamp, write
from biliupd.catalog.paths import PATH, PATH_COLUMNS, stored
from biliupd.catalog.states import Stage, State, advance, move, rows
from biliupd.catalog.videos import Video

Submission = Mapping[str, Any]  #: a row of `submissions`, by column

_STANDS_ASIDE = (State.IGNORED, State.MISSING)
_AT_BILIBILI = (State.UPLOADING, State.UPLOADED, State.PUBLISHED)
_DONE = (State.UPLOADED, State.PUBLISHED)


def account_of(db: Database, video: Video, wanted: str, folder: str = "") -> str:
    """The account for a video's upload: that of the parts uploaded before it, which no other can submit."""
    found = db.execute(
        f"select account from submissions s where (id = ? or broadcast_id = ? or folder = {PATH})"
        " and exists (select 1 from videos v where v.submission_id = s.id and v.state in (?, ?, ?))"
        " order by id desc limit 1",
        [video["submission_id"], video["broadcast_id"], stored(folder) or None, *_AT_BILIBILI],
    ).fetchone()
    return str(found[0]) if found else wanted


def of_video(db: Database, video: Video, account: str, folder: str = "", *, exists: Callable[[str], bool]) -> int:
    """The submission a video belongs to, made when it is the first one of its broadcast, or of the dropped `folder`.

    A video that comes after its submission was sent belongs to it all the same: it is appended. But a folder none of
    whose former files `exists` any more is another folder of the same name, and a submission of its own.
    """
    if video["submission_id"] is not None:
        with write(db):  # one that was sent stays with who sent it
            db.execute("update submissions set account = ? where id = ? and state = ?",
                       [account, video["submission_id"], Stage.COLLECTING])  # fmt: skip
        return int(video["submission_id"])
    broadcast = video["broadcast_id"]
    group = f"broadcast:{broadcast}" if broadcast else f"folder:{folder}" if folder else f"file:{video['id']}"
    with write(db):
        found = db.execute(
            f"select id, state, account from submissions where (broadcast_id = ? or folder = {PATH} or key = {PATH})"
            " order by id desc limit 1",
            [broadcast, stored(folder) or None, stored(group)],
        ).fetchone()
        if found and found[1] != Stage.COLLECTING and folder and not _any_left(db, int(found[0]), exists):
            found = None
        if found and (found[1] == Stage.COLLECTING or found[2] == account):
            id = int(found[0])
        else:
            id = _insert(db, group, account, broadcast, folder, continues=None)
        if found is None or found[1] == Stage.COLLECTING:
            rows(db, "submissions").update(id, {"account": account})
        rows(db, "videos").update(video["id"], {"submission_id": id})
    return id


def _any_left(db: Database, id: int, exists: Callable[[str], bool]) -> bool:
    left = db.execute("select file_path from videos where submission_id = ? and removed_at is null", [id])
    return any(exists(path) for (path,) in left.fetchall())


def _insert(
    db: Database, group: str, account: str, broadcast: str | None, folder: str | None, continues: int | None
) -> int:
    (same,) = db.execute(
        f"select count(*) from submissions where key = {PATH} or key like {PATH} || '#%'", [stored(group)] * 2
    ).fetchone()
    at, key = now(), f"{group}#{same + 1}" if same else group
    row = {
        "key": stored(key), "broadcast_id": broadcast, "folder": stored(folder or "") or None, "account": account,
        "continues": continues, "state": Stage.COLLECTING, "since": at, "created_at": at,
    }  # fmt: skip
    return int(cast(int, rows(db, "submissions").insert(row, conversions=PATH_COLUMNS).last_pk))


def split(db: Database, submission: Submission, most: int) -> int | None:
    """What is more than `most` parts goes on in a further submission, which is returned; None when it is not more.

    There is one further submission at most: what comes too late for the first goes into that one.
    """
    with write(db):
        found = parts(db, submission["id"])
        unsent = [video["id"] for video in found if not video["bvid"]]
        surplus = unsent[max(most - (len(found) - len(unsent)), 0) :]
        if not surplus:
            return None
        known = db.execute("select id from submissions where continues = ?", [submission["id"]]).fetchone()
        further = int(known[0]) if known else _insert(
            db, str(submission["key"]).partition("#")[0], submission["account"], submission["broadcast_id"],
            submission["folder"], continues=submission["id"],
        )  # fmt: skip
        for id in surplus:
            rows(db, "videos").update(id, {"submission_id": further})
    return further


def due(db: Database, stage: Stage) -> list[Submission]:
    """Rows in `stage` that nobody works on and whose time has come; all of them, since some may wait for months."""
    return list(
        db.query(
            f"select * from submissions where state = ? and owner is null and {DUE} order by id", [stage, *moments()]
        )
    )


def get(db: Database, id: int) -> Submission | None:
    """One row, or None."""
    return next(iter(db.query("select * from submissions where id = ?", [id])), None)


def parts(db: Database, id: int) -> list[Video]:
    """Its videos with what their upload left, in the order of recording; without those that stand aside."""
    found = db.query(
        "select v.*, u.filename, u.cid from videos v left join uploads u on u.video_id = v.id"
        " where v.submission_id = ? and v.state not in (?, ?)",
        [id, *_STANDS_ASIDE],
    )
    return in_order(found)


def in_order(found: Iterable[Video]) -> list[Video]:
    """Videos in the order of recording, or as people number their files."""
    return sorted(found, key=lambda video: _natural(video["file_path"]))


def _natural(path: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts P2 before P10, and a folder's files as people number them."""
    found = re.findall(r"([^0-9]*)([0-9]*)", path)
    return tuple((text.casefold(), int(number or 0), text) for text, number in found)


def obstacle(db: Database, submission: Submission, *, early: bool = False, quiet_seconds: float = 0.0) -> str:
    """What a collecting submission waits for; empty when it is complete.

    With `early` its first parts are enough: the others are appended. A dropped folder is complete when nothing new
    came for `quiet_seconds`.
    """
    found = parts(db, submission["id"])
    if not found:
        return "no part is left: its files are missing or ignored"
    if early:
        return "" if leading(db, found) else f"its first part: {found[0]['title']} is {found[0]['state']}"
    why = _more_to_come(db, submission, quiet_seconds)
    late = [video for video in found if video["state"] not in _DONE]
    if not why and late:
        return f"{len(late)} of {len(found)} parts: {late[0]['title']} is {late[0]['state']}"
    return why


def _more_to_come(db: Database, submission: Submission, quiet_seconds: float) -> str:
    broadcast, folder = submission["broadcast_id"], submission["folder"]
    if broadcast is not None:
        ended, expected = db.execute("select ended_at, parts from broadcasts where id = ?", [broadcast]).fetchone()
        if ended is None:
            return "the broadcast is still going on"
        (known,) = db.execute("select count(*) from videos where broadcast_id = ?", [broadcast]).fetchone()
        if known < expected:
            return f"{expected - known} of its {expected} files, not catalogued yet"
        where, values = "broadcast_id = ?", [broadcast]
    elif folder is not None:
        where = f"file_path > {PATH} and file_path < {PATH}"
        values = [stored(f"{folder}/"), stored(f"{folder}0")]  # 0 comes after /
        (newest,) = db.execute(f"select max(created_at) from videos where {where}", values).fetchone()
        if newest and stamp(datetime.now(UTC) - timedelta(seconds=quiet_seconds)) < newest <= now():
            return "something new may come into its folder"
    else:
        return ""
    open_rows = db.execute(
        f"select title, state from videos where {where} and submission_id is null and state not in (?, ?)"
        " and version_of is null",
        [*values, *_STANDS_ASIDE],
    ).fetchall()
    return f"{len(open_rows)} of its videos: {open_rows[0][0]} is {open_rows[0][1]}" if open_rows else ""


def leading(db: Database, found: Sequence[Video]) -> list[Video]:
    """The parts that may go now so that the order stays that of recording: up to the first that is still on its way.

    A held part is not waited for; it finds its place in the order when a person lets it go on.
    """
    first = next((video for video in found if video["state"] not in _DONE and video["state"] != State.HELD), None)
    before = found[: found.index(first)] if first is not None else found
    if found and found[0]["broadcast_id"]:
        waiting = db.execute(
            "select file_path from videos where broadcast_id = ? and submission_id is null and state not in (?, ?, ?)"
            " and version_of is null",
            [found[0]["broadcast_id"], *_STANDS_ASIDE, State.HELD],
        ).fetchall()
        bound = min((_natural(path) for (path,) in waiting), default=None)
        before = [video for video in before if bound is None or _natural(video["file_path"]) < bound]
    return [video for video in before if video["state"] in _DONE]


def with_more(db: Database) -> list[Submission]:
    """Sent submissions with uploaded videos that Bilibili does not have in them yet, and whose time has come."""
    return list(
        db.query(
            # found by the few videos that wait, not by every submission there ever was: hence the plus
            "select * from submissions where id in (select submission_id from videos where state = ? and bvid is null)"
            f" and +state in (?, ?) and owner is null and {DUE} order by id",
            [State.UPLOADED, Stage.SUBMITTED, Stage.PUBLISHED, *moments()],
        )
    )


def begin(db: Database, submission: Submission, body: Mapping[str, Any], owner: str, at: str | None = None) -> bool:
    """Claim it and write the intent down: from here on it may have been sent.

    `at` is the moment by Bilibili's clock, after which it is looked for; without it, by ours. That of the first try
    stays: an answer that was lost then is still to be found.
    """
    names = [video["filename"] for video in body["videos"]]
    facts = {
        "title": body["title"], "filenames": json.dumps(names), "body": json.dumps(body, ensure_ascii=False),
        "submit_started_at": submission["submit_started_at"] or at or now(), "lookups": 0, "refused": "",
    }  # fmt: skip
    return advance(
        db, submission["id"], Stage.COLLECTING, Stage.SUBMITTING, owner=owner, waits_for=None, retry_at=None, **facts
    )


def begin_append(db: Database, submission: Submission, names: Sequence[str], owner: str) -> bool:
    """Claim a sent one and write down what it shall hold: an edit may have been sent from here on."""
    return advance(
        db, submission["id"], Stage(submission["state"]), Stage.APPENDING, owner=owner, waits_for=None, retry_at=None,
        filenames=json.dumps(list(names)),
    )  # fmt: skip


def appended(db: Database, submission: Submission) -> bool:
    """Bilibili has every part that was written down; its review begins anew."""
    names = filenames(submission)
    with write(db):
        done = advance(
            db, submission["id"], Stage.APPENDING, Stage.SUBMITTED, attempts=0, retry_at=None, last_error=None
        )
        if done:
            for video in parts(db, submission["id"]):
                if video["filename"] in names:
                    rows(db, "videos").update(video["id"], {"bvid": submission["bvid"]})
    return done


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
            row = get(db, id)
            names = filenames(row) if row else []
            for video in parts(db, id):
                if video["filename"] in names:
                    rows(db, "videos").update(video["id"], {"bvid": bvid})
    return done


def shown(db: Database, id: int) -> bool:
    """Bilibili shows every part that it was sent."""
    with write(db):
        done = advance(db, id, Stage.SUBMITTED, Stage.PUBLISHED, retry_at=None, waits_for=None)
        if done:
            for video in parts(db, id):
                if video["state"] == State.UPLOADED and video["bvid"]:
                    move(db, video["id"], State.UPLOADED, State.PUBLISHED)
    return done


def reviewed(db: Database, id: int, state: int, text: str) -> None:
    """How Bilibili's review stands, with its reason; written only when it changed."""
    with write(db):
        db.execute(
            "update submissions set review_state = ?, review = ?"
            " where id = ? and (review_state is not ? or review != ?)",
            [state, text, id, state, text],
        )


def sent_parts(db: Database, submission: Submission) -> list[Video]:
    """Its videos that were written down as sent, in the order in which they were."""
    place = {name: number for number, name in enumerate(filenames(submission))}
    found = [video for video in parts(db, submission["id"]) if video["filename"] in place]
    return sorted(found, key=lambda video: place[video["filename"]])


def upload_again(db: Database, submission: Submission, ids: Sequence[int], why: str) -> bool:
    """Bilibili cannot use these of its videos: they are uploaded anew, and it is sent when they are there."""
    with write(db):
        count = submission["reuploads"] + 1
        done = advance(db, submission["id"], Stage.SUBMITTING, Stage.COLLECTING, reuploads=count, last_error=why)
        for id in ids if done else ():
            db.execute("update uploads set session = null, filename = null where video_id = ?", [id])
            move(db, id, State.UPLOADED, State.READY, last_error=why)
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
    values = {"last_error": why, "retry_at": retry_at, "waits_for": None, **facts}
    if old is not new:
        return advance(db, submission["id"], old, new, **values)
    with write(db):
        rows(db, "submissions").update(submission["id"], {**values, "owner": None})
    return True


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


_FOR_PEOPLE = (
    "select s.id, s.title, s.key, s.state, s.since, s.account, s.broadcast_id, s.aid, s.bvid, s.review, s.review_state,"
    " s.waits_for, s.last_error, s.attempts, s.retry_at, s.created_at, n.name as streamer, count(v.id) as parts,"
    " count(u.finished_at) as parts_uploaded, coalesce(sum(max(v.file_size, coalesce(u.bytes_total, 0))), 0)"
    " as bytes_total, coalesce(sum(u.bytes_sent), 0) as bytes_sent, coalesce(b.title, min(v.title), '') as show"
    " from submissions s left join broadcasts b on b.id = s.broadcast_id left join streamers n on n.id = b.streamer_id"
    " left join videos v on v.submission_id = s.id and v.state not in ('ignored', 'missing')"
    " left join uploads u on u.video_id = v.id where s.id in ({ids}) group by s.id order by s.id desc"
)


def page(
    db: Database, text: str = "", states: Sequence[Stage] = (), *, limit: int = 50, offset: int = 0
) -> tuple[list[Submission], int]:
    """Submissions for people, the newest first: with the streamer's name, the `show` they are of, the number of their
    parts and how much of those has arrived; and how many there are. `text` is part of a title, in any case of a to z.
    """
    where: list[str] = ["1"]
    values: list[str] = []
    if text:
        like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        where.append("(title like ? escape '\\' or bvid = ? or broadcast_id in"
                     " (select id from broadcasts where title like ? escape '\\'))")  # fmt: skip
        values += [like, text, like]
    if states:
        where.append(f"state in ({','.join('?' * len(states))})")
        values += list(states)
    condition = " and ".join(where)
    chosen = f"select id from submissions where {condition} order by id desc limit ? offset ?"
    found = db.query(_FOR_PEOPLE.format(ids=chosen), [*values, limit, offset])
    (total,) = db.execute(f"select count(*) from submissions where {condition}", values).fetchone()
    return list(found), int(total)


def some(db: Database, ids: Sequence[int]) -> list[Submission]:
    """Those of these ids that are there, as `page` gives them."""
    return list(db.query(_FOR_PEOPLE.format(ids=",".join("?" * len(ids))), list(ids)))


def current(db: Database, newest: int = 50, most: int = 200) -> list[Submission]:
    """The newest and those that are not finished (at most `most`), as `page` gives them."""
    ids = {id for (id,) in db.execute(
        "select id from (select id from submissions order by id desc limit ?) union"
        " select id from (select id from submissions where state != ? order by id desc limit ?)",
        [newest, Stage.PUBLISHED, most]).fetchall()}  # fmt: skip
    return some(db, sorted(ids))


def showing(db: Database, videos: Sequence[int], broadcasts: Sequence[str]) -> list[int]:
    """Ids of the submissions that these videos belong to, and of those of these broadcasts."""
    marks = [",".join("?" * len(ids)) for ids in (videos, broadcasts)]
    return [id for (id,) in db.execute(
        f"select submission_id from videos where id in ({marks[0]}) and submission_id is not null union"
        f" select id from submissions where broadcast_id in ({marks[1]})", [*videos, *broadcasts]).fetchall()
    ]  # fmt: skip


def counts(db: Database) -> dict[str, int]:
    """Number of submissions by state."""
    return dict(db.execute("select state, count(*) from submissions group by state order by state").fetchall())
