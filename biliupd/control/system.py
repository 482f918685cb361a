"""The routes of the daemon itself: its health, its watcher, its settings, its log, its metrics. Run on the server's
threads; what they show and start, the house does.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from loguru import logger

from biliupd.catalog.paths import readable
from biliupd.control import metrics, rows
from biliupd.control.context import Here, may
from biliupd.control.models import Health, LogLine, Settings, Status, Sync, Watcher
from biliupd.control.problems import KINDS, problems

router = APIRouter(tags=["system"])


@router.get("/health", response_model=Health, openapi_extra={"security": []},
            responses={503: {"model": Health, "description": "Something does not work"}})  # fmt: skip
def health(request: Request, here: Here) -> Response:
    """Whether biliupd does its work, for a supervisor or a monitor."""
    trouble = here.house.trouble()
    told = trouble if trouble and here.auth.who(request) else []
    shown = Health(ok=not trouble, version=here.house.version, trouble=[readable(text) for text in told])
    return rows.answer(shown, status=503 if trouble else 200)


@router.get("/status", response_model=Status, dependencies=[may("viewer")])
def status(here: Here) -> Response:
    """How everything stands, on one page."""
    return rows.answer(rows.status(here.catalog.db, here.house))


@router.get("/watcher/status", response_model=Watcher, dependencies=[may("viewer")])
def watcher_status(here: Here) -> Response:
    """What the watcher of the directories is doing."""
    return rows.answer(here.house.watcher())


@router.post("/watcher/start", response_model=Watcher, responses=problems(409), dependencies=[may("admin")])
def start_watcher(here: Here) -> Response:
    """Look at the directories again."""
    here.house.resume_watcher()
    return rows.answer(here.house.watcher())


@router.post("/watcher/stop", response_model=Watcher, responses=problems(409), dependencies=[may("admin")])
def stop_watcher(here: Here) -> Response:
    """Take nothing new from the directories until it is started again."""
    here.house.suspend_watcher()
    return rows.answer(here.house.watcher())


@router.post("/sync", status_code=202, response_model=Watcher, responses=problems(409), dependencies=[may("operator")])
def sync(here: Here, wants: Sync) -> Response:
    """Look through all watched directories soon."""
    here.house.sync(wants)
    return rows.answer(here.house.watcher(), status=202)


@router.get("/settings", response_model=Settings, dependencies=[may("admin")])
def settings(here: Here) -> Response:
    """The configuration in force, each value with where it came from."""
    return rows.answer(here.house.settings())


@router.get("/log", response_model=list[LogLine], dependencies=[may("viewer")])
def log(
    here: Here, after: Annotated[int, Query(ge=0, le=2**53, description="Only lines with a larger number")] = 0,
    level: Annotated[Literal["", "DEBUG", "INFO", "WARNING", "ERROR"], Query(description="This or worse")] = "",
    streamer: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=2000)] = 500,
) -> Response:  # fmt: skip
    """The last lines of the log, oldest first."""
    least = logger.level(level).no if level else 0
    found = [
        line for line in here.house.log_lines(after)
        if logger.level(line.level).no >= least and (not streamer or line.streamer == streamer)
    ]  # fmt: skip
    return rows.answer(found[-limit:])


@router.get("/metrics", response_class=Response, dependencies=[may("viewer")],
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
def show_metrics(here: Here) -> Response:
    """For Prometheus: a bearer token as `authorization: credentials` of its scrape configuration."""
    return Response(metrics.text(here), media_type=metrics.MEDIA_TYPE)


@router.get("/problems", response_class=Response, openapi_extra={"security": []},
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
def kinds() -> Response:
    """What `type` of a problem may say, after the #."""
    return Response("".join(f"{name}\n    {text}\n" for name, text in KINDS.items()), media_type="text/plain")
