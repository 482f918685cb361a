"""Rows of the catalog as the API shows them, and how they are sent.

Called by the routes' threads and the hub's. Reads the catalog; of the house asks only what it knows at once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json
from sqlite_utils import Database

from biliupd.catalog import library, queries, records, submissions, tasks
from biliupd.catalog import streamers as wanted
from biliupd.catalog.changes import latest
from biliupd.catalog.paths import readable
from biliupd.catalog.states import Stage, State
from biliupd.config import without_password
from biliupd.control import models
from biliupd.control.context import Context
from biliupd.control.house import House, Running

Row = Mapping[str, Any]

_NAMES = ("title", "root", "path", "streamer", "waits_for", "last_error")  # of a video: where a file's may stand

# -- one row


def video(row: Row) -> models.Video:
    """One as `catalog.library` gives it."""
    facts: dict[str, Any] = {
        **row, "gaps": json.loads(row["gaps"]), "pinned": bool(row["pinned"]),
        "thumbnail": f"/api/videos/{row['id']}/thumbnail" if row["thumbnail_path"] else None,
        "playable": row["removed_at"] is None and row["state"] != State.MISSING and row["kind"] != "folder"
        and row["file_size"] > 0,
        "recorded_at": library.recorded_at(row),
    }  # fmt: skip
    if row["bytes_total"] is not None:
        facts["upload"] = facts
    for name in _NAMES:
        if (text := row[name]) and not text.isascii():
            facts[name] = readable(text)
    return models.Video.model_validate(facts)


def submission(row: Row) -> models.Submission:
    """One as `catalog.submissions.page` gives it."""
    return models.Submission.model_validate(_submission(row))


def _submission(row: Row) -> dict[str, Any]:
    facts = _readable(row)
    facts["title"] = facts["title"] or facts["show"]
    return facts


def task(row: Row, running: Mapping[str, Running]) -> models.Task:
    """One as `catalog.tasks` gives it, with its figures while it runs."""
    facts = _readable(row)
    if row["status"] == "recording" and row["id"] in running:
        facts["figures"] = running[row["id"]].figures
    return models.Task.model_validate(facts)


def broadcast(row: Row) -> models.Broadcast:
    """One as `catalog.ledgers` gives it."""
    facts = _readable(row)
    media, lost = row["media_seconds"], row["lost_seconds"]
    facts["share"] = media / (media + lost) if media + lost > 0 else 0.0
    facts["files"] = row["parts"]
    return models.Broadcast.model_validate(facts)


def ledger_row(row: Row, house: House) -> models.LedgerRow:
    """One as `catalog.ledgers.of` gives it."""
    return models.LedgerRow.model_validate({**_readable(row), "loss": row["cause"] not in house.harmless})


def account(row: Row) -> models.Account:
    """One of the catalog."""
    facts = _readable(row)
    if row["state"] not in ("ok", "waiting", "cooling"):
        facts["state"] = "unknown"
    return models.Account.model_validate(facts)


def _readable(row: Row) -> dict[str, Any]:
    """Names may hold bytes that are no UTF-8; JSON may not."""
    return {
        key: value if not isinstance(value, str) or value.isascii() else readable(value) for key, value in row.items()
    }


# -- many rows


def streamers(rows: Sequence[Row], db: Database, house: House) -> list[models.Streamer]:
    """Streamers with the recorders that run and who waits for a place: one question, however many they are."""
    running = {one.task_id: one for one in house.running()}
    recorders = {row["streamer_id"]: task(row, running) for row in reversed(tasks.running(db))}
    waiting = {one.streamer for one in house.waiting()}
    return [
        models.Streamer.model_validate({
            "submit_at": "end", "priority": 0, "template": "default", "account": None, **json.loads(row["settings"]),
            **_readable(row), "auto_upload": bool(row["auto_upload"]), "task": recorders.get(row["id"]),
            "origin": readable(house.origin(row["name"])) if row["source"] == "yaml" else "",
            "waiting": row["name"] in waiting, "url": without_password(readable(row["url"])),
        })
        for row in rows
    ]  # fmt: skip


def tasks_of(rows: Iterable[Row], house: House) -> list[models.Task]:
    """Tasks with their figures."""
    running = {one.task_id: one for one in house.running()}
    return [task(row, running) for row in rows]


def accounts(db: Database, house: House) -> list[models.Account]:
    """Those of the configuration, in its order, and others that were used."""
    known = {row["name"]: account(row) for row in queries.accounts(db)}
    names = house.accounts()
    named = [known.get(name) or unused_account(name) for name in names]
    return [*named, *(one for name, one in known.items() if name not in names)]


def unused_account(name: str) -> models.Account:
    """One of the configuration that the catalog knows nothing of."""
    return models.Account(name=name, state="unknown", reason="it was not used yet", hint="", retry_at=None, mid=None,
                          uname="", checked_at=None, expires_at=None, updated_at=None)  # fmt: skip


def status(db: Database, house: House) -> models.Status:
    """How everything stands."""
    found = house.trouble()
    states, stages = library.counts(db), submissions.counts(db)
    return models.Status(
        version=house.version, started_at=house.started_at, ok=not found, trouble=[readable(text) for text in found],
        notices=[
            models.Notice(**_readable(row), info=row["key"].partition(":")[0] in queries.WELL)
            for row in records.notices(db)
        ],
        disk=house.disk(), waiting=house.waiting(), streamers=wanted.counts(db), recording=len(house.running()),
        videos=states, submissions=stages, held=states.get(State.HELD, 0) + stages.get(Stage.HELD, 0),
    )  # fmt: skip


def find_video(db: Database, id: int) -> models.Video:
    """One by its id. Refusal 404."""
    for row in library.some(db, [id]):
        return video(row)
    raise models.Refusal(404, f"there is no video {id}", field="path.id")


def find_submission(db: Database, id: int) -> models.SubmissionDetail:
    """One by its id, with its videos. Refusal 404."""
    for row in submissions.some(db, [id]):
        parts = [video(part) for part in library.of_submission(db, id)]
        return models.SubmissionDetail.model_validate({**_submission(row), "videos": parts})
    raise models.Refusal(404, f"there is no submission {id}", field="path.id")


def find_streamer(db: Database, house: House, id: int) -> models.Streamer:
    """One by its id. Refusal 404."""
    for one in streamers(wanted.some(db, [id]), db, house):
        return one
    raise models.Refusal(404, f"there is no streamer {id}", field="path.id")


def find_task(db: Database, house: House, id: str) -> models.Task:
    """One by its id. Refusal 404."""
    for one in tasks_of(tasks.some(db, [id]), house):
        return one
    raise models.Refusal(404, f"there is no task {id}", field="path.id")


def find_broadcast(db: Database, id: str) -> models.Broadcast:
    """One by its whole id. Refusal 404."""
    row = records.get_broadcast(db, id)
    if row is None:
        raise models.Refusal(404, f"there is no broadcast {id}", field="path.id")
    return broadcast(row)


# -- how they are sent


def answer(shown: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of models: written as JSON once, and not checked again."""
    return Response(to_json(shown), status, headers, "application/json")


def answer_or_unchanged(request: Request, shown: Any) -> Response:
    """The same with an ETag of what is shown; 304 when who asks has just that."""
    body = to_json(shown)
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    if is_known(request, etag):
        return unchanged(etag)
    return Response(body, 200, {"ETag": etag}, "application/json")


def mark(here: Context, seq: int | None = None) -> str:
    """The ETag of whatever the catalog alone decides: another one as soon as any row changed."""
    return f'"{here.epoch}-{latest(here.catalog.db) if seq is None else seq}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether who asks has this very state (RFC 9110, 13.1.2)."""
    known = request.headers.get("if-none-match", "")
    return known == "*" or etag in (word.strip().removeprefix("W/") for word in known.split(","))


def unchanged(etag: str) -> Response:
    """What they have is what there is."""
    return Response(status_code=304, headers={"ETag": etag})
