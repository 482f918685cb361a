"""The states of videos and submissions, and the moves between them.

A move is a compare-and-set that leaves a trace in `moves`. A claim is a move into an *-ing* state, with an owner. A
failed try is no state: the row goes back to rest with `attempts`, `retry_at` and `last_error`.
"""

from enum import StrEnum
from typing import Any, cast

from sqlite_utils import Database
from sqlite_utils.db import Table

from biliupd.catalog.database import now, write


class State(StrEnum):
    """Of a video; see STATES of submissions below."""

    RECORDING = "recording"  #: still growing
    RECORDED = "recorded"  #: whole on the disk
    EDITING = "editing"  #: being merged, probed, given a cover
    READY = "ready"  #: one file that can be uploaded
    UPLOADING = "uploading"
    UPLOADED = "uploaded"  #: Bilibili has every byte
    PUBLISHED = "published"  #: part of a submission that Bilibili shows
    HELD = "held"  #: for a person
    IGNORED = "ignored"  #: with the reason
    MISSING = "missing"  #: the file is gone


class Stage(StrEnum):
    """Of a submission."""

    COLLECTING = "collecting"  #: waits for its videos
    SUBMITTING = "submitting"  #: may have been sent
    SUBMITTED = "submitted"  #: has a bvid
    APPENDING = "appending"  #: an edit that adds parts may have been sent
    PUBLISHED = "published"  #: Bilibili shows every part
    HELD = "held"  #: for a person


_V, _S = State, Stage
VIDEO_MOVES: dict[State, set[State]] = {
    _V.RECORDING: {_V.RECORDED, _V.MISSING, _V.IGNORED, _V.HELD},
    _V.RECORDED: {_V.RECORDING, _V.EDITING, _V.MISSING, _V.IGNORED, _V.HELD},
    _V.EDITING: {_V.READY, _V.RECORDED, _V.IGNORED, _V.HELD, _V.MISSING},
    _V.READY: {_V.UPLOADING, _V.RECORDED, _V.RECORDING, _V.MISSING, _V.IGNORED, _V.HELD},
    _V.UPLOADING: {_V.UPLOADED, _V.READY, _V.HELD, _V.MISSING},
    _V.UPLOADED: {_V.PUBLISHED, _V.READY, _V.HELD},
    _V.PUBLISHED: set(),
    _V.HELD: {_V.RECORDED, _V.RECORDING, _V.READY, _V.IGNORED, _V.MISSING},
    _V.IGNORED: {_V.RECORDED, _V.RECORDING, _V.MISSING},
    _V.MISSING: {_V.RECORDING, _V.RECORDED, _V.READY, _V.HELD, _V.IGNORED},
}
SUBMISSION_MOVES: dict[Stage, set[Stage]] = {
    _S.COLLECTING: {_S.SUBMITTING, _S.HELD},
    _S.SUBMITTING: {_S.SUBMITTED, _S.COLLECTING, _S.HELD},
    _S.SUBMITTED: {_S.PUBLISHED, _S.APPENDING, _S.HELD},
    _S.APPENDING: {_S.SUBMITTED, _S.HELD},
    _S.PUBLISHED: {_S.APPENDING, _S.HELD},
    _S.HELD: {_S.COLLECTING, _S.SUBMITTING, _S.SUBMITTED},
}


def move(db: Database, video: int, old: State, new: State, **facts: Any) -> bool:
    """Move one video along; False means it was no longer in `old`. `facts` are columns to write with it."""
    return _move(db, "videos", video, old, new, new in VIDEO_MOVES[old], facts)


def advance(db: Database, submission: int, old: Stage, new: Stage, **facts: Any) -> bool:
    """The same for a submission."""
    return _move(db, "submissions", submission, old, new, new in SUBMISSION_MOVES[old], facts)


def _move(db: Database, table: str, id: int, old: StrEnum, new: StrEnum, allowed: bool, facts: dict[str, Any]) -> bool:
    if not allowed:
        raise ValueError(f"{old.value} -> {new.value} is not a move of {table}")
    at = now()
    with write(db):
        found = db.execute(
            f"update {table} set state = ?, since = ?, owner = null where id = ? and state = ?", [new, at, id, old]
        ).rowcount
        if found:
            rows(db, table).update(id, facts)
            rows(db, "moves").insert({table.removesuffix("s"): id, "old": old, "new": new, "at": at})
    return bool(found)


def rows(db: Database, name: str) -> Table:
    """A table, not a view (which is what sqlite-utils' types cannot tell)."""
    return cast(Table, db[name])
