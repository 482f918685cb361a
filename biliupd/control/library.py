"""The routes of the library: videos, broadcasts, and what is missing in them. Run on the server's threads.

Read the catalog, and write to it what a person wants of a video.
"""

import os
import re
from collections.abc import Hashable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator
from pydantic_core import to_json

from biliupd.catalog import ledgers, library, videos
from biliupd.catalog.changes import reading
from biliupd.catalog.paths import readable
from biliupd.catalog.states import State
from biliupd.control import rows
from biliupd.control.context import Context, Here, may
from biliupd.control.models import (
    Broadcast,
    Folder,
    Id,
    Ledger,
    Limit,
    Offset,
    Page,
    Pin,
    Preview,
    Refusal,
    StreamerSums,
    Tree,
    Video,
)
from biliupd.control.problems import problems

MOST_ANSWERS = 64  #: totals and pages that are remembered until anything changes
MOST_REMEMBERED = 100  #: videos on such a page: more take too much memory

T = TypeVar("T")

router = APIRouter(tags=["library"])
BroadcastId = Annotated[str, Path(max_length=200)]


def _written_out(given: Any) -> Any:
    if isinstance(given, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", given):
        raise ValueError("a moment is written 2026-01-31T18:00:00Z, or with +08:00 (in an address %2B08:00) for the Z")
    return given


def _of_our_time(moment: datetime) -> datetime:
    if not 1678 <= moment.year < 2262:
        raise ValueError("a moment lies in the years from 1678 to 2261")  # as nanoseconds SQLite holds no others
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_of_our_time)]


@router.get("/videos", response_model=Page[Video], responses={304: {}}, dependencies=[may("viewer")])
def list_videos(
    request: Request, here: Here,
    q: Annotated[str, Query(max_length=200, description="Part of a title or of a streamer's name")] = "",
    streamer: Annotated[str, Query(max_length=200, description="Its whole name")] = "",
    state: Annotated[list[State], Query(description="Several may be given; without: all but missing")] = [],  # noqa: B006
    root: Annotated[str, Query(max_length=4096, description="A watched directory")] = "",
    broadcast: Annotated[str, Query(max_length=200, description="A broadcast's id")] = "",
    recorded_after: Annotated[Moment | None, Query(description="From this moment on, with its time zone")] = None,
    recorded_before: Annotated[Moment | None, Query(description="Before this moment, with its time zone")] = None,
    sort: library.Sort = "recorded_at", order: Literal["asc", "desc"] = "desc",
    limit: Limit = 50, offset: Offset = 0,
) -> Response:  # fmt: skip
    """The library in pages."""
    etag = rows.mark(here)
    if rows.is_known(request, etag):
        return rows.unchanged(etag)
    db = here.catalog.db
    wanted = library.Wanted(q, streamer, tuple(dict.fromkeys(state)), root, broadcast, recorded_after, recorded_before)
    page = wanted, sort, order, limit, offset
    with reading(db) as seq:
        body = _known(here, page, seq)
        if body is None:
            found = library.page(db, wanted, sort, descending=order == "desc", limit=limit, offset=offset)
            total = _known(here, wanted, seq)
            if total is None:
                total = _keep(here, wanted, seq, library.total(db, wanted))
            shown = Page(items=[rows.video(row) for row in found], total=total, limit=limit, offset=offset)
            body = to_json(shown)
            if limit <= MOST_REMEMBERED:
                _keep(here, page, seq, body)
    return Response(body, 200, {"ETag": rows.mark(here, seq)}, "application/json")


def _known(here: Context, question: Hashable, seq: int) -> Any:
    """The answer to a question, if it was asked since anything changed; else None."""
    at, answer = here.answers.get(question, (-1, None))
    return answer if at == seq else None


def _keep(here: Context, question: Hashable, seq: int, answer: T) -> T:
    if len(here.answers) >= MOST_ANSWERS:
        here.answers.clear()
    here.answers[question] = seq, answer
    return answer


@router.get("/videos/tree", response_model=Tree, dependencies=[may("viewer")])
def tree(
    here: Here, root: Annotated[str, Query(max_length=4096)] = "", folder: Annotated[str, Query(max_length=4096)] = "",
    limit: Limit = 50, offset: Offset = 0,
) -> Response:  # fmt: skip
    """One level of the library: without a root the watched directories, else what lies in a folder of one: all the
    folders in it, and a page of the videos."""
    db = here.catalog.db
    counted = dict(library.roots(db))
    if not root:
        for one in here.house.roots():
            counted.setdefault(os.path.abspath(one), 0)
        folders = [Folder(name=readable(os.path.basename(path) or path), path=readable(path), videos=count)
                   for path, count in sorted(counted.items())]  # fmt: skip
        return rows.answer(Tree(root="", folder="", folders=folders, videos=[], total=0, limit=limit, offset=offset))
    real = next((path for path in counted if readable(path) == root), root)
    inside = folder.strip("/")
    with reading(db):
        place = library.folder_read_as(db, real, inside)
        found, page = library.folders(db, real, place), library.directly_in(db, real, place, limit=limit, offset=offset)
    above = f"{inside}/" if inside else ""
    return rows.answer(Tree(
        root=root, folder=inside,
        folders=[Folder(name=readable(name), path=f"{above}{readable(name)}", videos=count) for name, count in found],
        videos=[rows.video(row) for row in page.videos], total=page.total, limit=limit, offset=offset,
    ))  # fmt: skip


@router.get("/stats", response_model=list[StreamerSums], dependencies=[may("viewer")])
def stats(here: Here) -> Response:
    """Sums of the library for each streamer."""
    return rows.answer([StreamerSums(**one._asdict()) for one in library.sums(here.catalog.db)])


@router.get("/videos/{id}", response_model=Video, responses={304: {}, **problems(404)}, dependencies=[may("viewer")])
def get_video(request: Request, here: Here, id: Id) -> Response:
    """One video."""
    return rows.answer_or_unchanged(request, rows.find_video(here.catalog.db, id))


@router.post("/videos/{id}/upload", status_code=202, response_model=Video, responses=problems(404, 409),
             dependencies=[may("operator")])  # fmt: skip
def upload(here: Here, id: Id) -> Response:
    """Publish it, whatever auto_upload says of its streamer. 409: why that makes no sense now."""
    db = here.catalog.db
    if not videos.ask(db, id):
        one = rows.find_video(db, id)
        why, hint = _WHY_NOT.get(one.state, ("its file was removed", ""))
        raise Refusal(409, f"video {id} is not uploaded: {why}", hint=hint)
    return rows.answer(rows.find_video(db, id), status=202)


_AGAIN = "POST /api/videos/{id}/retry lets it go on"
_WHY_NOT: dict[str, tuple[str, str]] = {
    State.UPLOADING: ("it is being uploaded already", ""),
    State.UPLOADED: ("Bilibili has it already", ""),
    State.PUBLISHED: ("it is published already", ""),
    State.HELD: ("it is held for a person", _AGAIN),
    State.IGNORED: ("it is ignored", _AGAIN),
    State.MISSING: ("its file is gone", "put the file back, and sync"),
}


@router.post("/videos/{id}/retry", response_model=Video, responses=problems(404, 409), dependencies=[may("operator")])
def retry(here: Here, id: Id) -> Response:
    """Try a held or ignored one again."""
    db = here.catalog.db
    if not videos.retry(db, id):
        one = rows.find_video(db, id)
        raise Refusal(409, f"video {id} is neither held nor ignored: it is {one.state}")
    return rows.answer(rows.find_video(db, id))


@router.put("/videos/{id}/pin", response_model=Video, responses=problems(404), dependencies=[may("operator")])
def pin(here: Here, id: Id, wants: Pin) -> Response:
    """Keep its file for good, whatever the retention says; or no longer."""
    videos.pin(here.catalog.db, id, wants.pinned)
    return rows.answer(rows.find_video(here.catalog.db, id))


@router.get("/videos/{id}/preview", response_model=list[Preview], responses=problems(404, 409),
            dependencies=[may("viewer")])  # fmt: skip
def preview(here: Here, id: Id) -> Response:
    """Exactly what would be sent to Bilibili for it and what belongs to it. Sends nothing."""
    row = videos.get(here.catalog.db, id)
    if row is None:
        raise Refusal(404, f"there is no video {id}", field="path.id")
    return rows.answer(here.house.preview(row["broadcast_id"] or row["file_path"]))


@router.get("/broadcasts", response_model=Page[Broadcast], dependencies=[may("viewer")])
def list_broadcasts(
    here: Here, streamer: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 50, offset: Offset = 0,
) -> Response:  # fmt: skip
    """What was on air, the newest first."""
    found, total = ledgers.page(here.catalog.db, streamer, limit=limit, offset=offset)
    shown = [rows.broadcast(row) for row in found]
    return rows.answer(Page(items=shown, total=total, limit=limit, offset=offset))


@router.get("/broadcasts/{id}", response_model=Broadcast, responses=problems(404), dependencies=[may("viewer")])
def get_broadcast(here: Here, id: BroadcastId) -> Response:
    """One of them."""
    return rows.answer(rows.find_broadcast(here.catalog.db, id))


@router.get("/broadcasts/{id}/ledger", response_model=Ledger, responses=problems(404), dependencies=[may("viewer")])
def ledger(here: Here, id: BroadcastId) -> Response:
    """What of it is missing and why, and what else happened."""
    db = here.catalog.db
    one = rows.find_broadcast(db, id)
    return rows.answer(Ledger(broadcast=one, rows=[rows.ledger_row(row, here.house) for row in ledgers.of(db, id)]))
