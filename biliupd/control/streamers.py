"""The routes of streamers: who is recorded, and starting and stopping it.

Those that wait do so on the server's event loop, the others run on its threads. Read the catalog; what is changed, the
house changes.
"""

import time
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from biliupd.catalog import streamers as wanted
from biliupd.catalog import tasks
from biliupd.control import rows
from biliupd.control.context import Context, Here, may
from biliupd.control.models import Acted, Id, Mode, NewStreamer, Offset, Page, Streamer, StreamerChange, Task
from biliupd.control.problems import problems

START_SECONDS = 10.0  #: until a recorder runs, or the site said that there is nothing to record
STOP_SECONDS = 35.0  #: until a recorder has ended its file
LOOK_SECONDS = 0.5  #: a look at a room that says the same as before changes no row

router = APIRouter(tags=["streamers"])


@router.get("/streamers", response_model=Page[Streamer], responses={304: {}}, dependencies=[may("viewer")])
def list_streamers(
    request: Request, here: Here,
    q: Annotated[str, Query(max_length=200, description="Part of a name or an address")] = "",
    status: Annotated[Literal["", "live", "offline", "restricted", "unknown"], Query()] = "",
    source: Annotated[Literal["", "yaml", "api"], Query()] = "",
    mode: Annotated[Literal["", "on", "skipped", "paused"], Query()] = "",
    sort: wanted.Sort = "name", order: Literal["asc", "desc"] = "asc",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Offset = 0,
) -> Response:  # fmt: skip
    """Who is recorded, with the recorders that run."""
    db = here.catalog.db
    found, total = wanted.page(db, q, status=status, source=source, mode=mode, sort=sort, descending=order == "desc",
                               limit=limit, offset=offset)  # fmt: skip
    items = rows.streamers(found, db, here.house)
    return rows.answer_or_unchanged(request, Page(items=items, total=total, limit=limit, offset=offset))


@router.post("/streamers", status_code=201, response_model=Streamer, responses=problems(409),
             dependencies=[may("operator")])  # fmt: skip
def add_streamer(here: Here, wants: NewStreamer) -> Response:
    """Record one more, from now on."""
    made = here.house.make_streamer(wants)
    shown = rows.find_streamer(here.catalog.db, here.house, made)
    return rows.answer(shown, status=201, headers={"Location": f"/api/streamers/{made}"})


@router.get("/streamers/{id}", response_model=Streamer, responses=problems(404), dependencies=[may("viewer")])
def get_streamer(here: Here, id: Id) -> Response:
    """One of them."""
    return rows.answer(rows.find_streamer(here.catalog.db, here.house, id))


@router.patch("/streamers/{id}", response_model=Streamer, responses=problems(404, 409), dependencies=[may("operator")])
def change_streamer(here: Here, id: Id, change: StreamerChange) -> Response:
    """Change what is given. One from the YAML is changed there: 409 names file and line."""
    here.house.change_streamer(id, change)
    return rows.answer(rows.find_streamer(here.catalog.db, here.house, id))


@router.delete("/streamers/{id}", status_code=204, responses=problems(404, 409), dependencies=[may("operator")])
def remove_streamer(here: Here, id: Id) -> None:
    """Record it no longer; what was recorded stays."""
    here.house.remove_streamer(id)


_ACTED = {202: {"model": Acted, "description": "It is on its way"}, **problems(404, 409)}


@router.post("/streamers/{id}/start", response_model=Acted, responses=_ACTED, dependencies=[may("operator")])
async def start(here: Here, id: Id) -> Response:
    """Record it when it is live: it is looked at now. Waits some seconds for the recorder, or for what the site says.

    202: the site has not answered yet, or it is live and its recorder does not run yet.
    """

    def begin() -> int:
        name = rows.find_streamer(here.catalog.db, here.house, id).name
        number = here.house.look(name).number
        here.house.set_mode(id, "on")
        return number

    before = await run_in_threadpool(begin)

    def outcome() -> Acted | None:
        one = rows.find_streamer(here.catalog.db, here.house, id)
        if one.task:
            return Acted(streamer=one, task=one.task, detail="it is being recorded")
        look = here.house.look(one.name)
        if one.waiting:
            return Acted(streamer=one, task=None, detail="live: it waits for a place or for space")
        if look.number > before and look.status != "live":
            why = f" ({look.reason})" if look.reason else ""
            return Acted(streamer=one, task=None, detail=f"{look.status}{why}: it is recorded when it goes live")
        return None

    return await _waited(here, id, outcome, START_SECONDS, "it is being looked at")


@router.post("/streamers/{id}/stop", response_model=Acted, responses=_ACTED, dependencies=[may("operator")])
async def stop(here: Here, id: Id) -> Response:
    """End its recording properly; it is recorded again when it goes live anew. Waits until its file is whole."""
    return await _end(here, id, "skipped", "it is recorded again when it goes live anew")


@router.post("/streamers/{id}/pause", response_model=Acted, responses=_ACTED, dependencies=[may("operator")])
async def pause(here: Here, id: Id) -> Response:
    """End its recording properly, and neither look at it nor record it until it is started again."""
    return await _end(here, id, "paused", "it is neither looked at nor recorded until it is started")


async def _end(here: Context, id: int, mode: Mode, detail: str) -> Response:
    def begin() -> Task | None:
        one = rows.find_streamer(here.catalog.db, here.house, id)
        here.house.set_mode(id, mode)
        return one.task

    ending = await run_in_threadpool(begin)

    def outcome() -> Acted | None:
        db = here.catalog.db
        one = rows.find_streamer(db, here.house, id)
        ended = rows.tasks_of(tasks.some(db, [ending.id]), here.house) if ending else []
        return None if one.task else Acted(streamer=one, task=ended[0] if ended else None, detail=detail)

    return await _waited(here, id, outcome, STOP_SECONDS, "its recording is being ended", ending)


async def _waited(
    here: Context, id: int, outcome: Callable[[], Acted | None], seconds: float, on_its_way: str,
    task: Task | None = None,
) -> Response:  # fmt: skip
    """What came of it in this time, looked at whenever something changed."""
    deadline = time.monotonic() + seconds
    while (found := await run_in_threadpool(outcome)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            one = await run_in_threadpool(lambda: rows.find_streamer(here.catalog.db, here.house, id))
            return rows.answer(Acted(streamer=one, task=one.task or task, detail=on_its_way), status=202)
        await here.hub.changed(min(left, LOOK_SECONDS))
    return rows.answer(found)
