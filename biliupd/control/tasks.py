"""The routes of tasks: runs of recorders. Run on the server's threads; read the catalog."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from biliupd.catalog import tasks
from biliupd.control import rows
from biliupd.control.context import Here, may
from biliupd.control.models import Id, Limit, Offset, Page, Task, TaskStatus
from biliupd.control.problems import problems

router = APIRouter(tags=["tasks"], dependencies=[may("viewer")])
TaskId = Annotated[str, Path(max_length=200)]


@router.get("/tasks", response_model=Page[Task])
def list_tasks(
    here: Here, status: Annotated[Literal["", "recording", "ended"], Query()] = "", streamer_id: Id | None = None,
    limit: Limit = 50, offset: Offset = 0,
) -> Response:  # fmt: skip
    """Runs of recorders, the newest first."""
    found, total = tasks.page(here.catalog.db, status=status, streamer_id=streamer_id, limit=limit, offset=offset)
    return rows.answer(Page(items=rows.tasks_of(found, here.house), total=total, limit=limit, offset=offset))


@router.get("/tasks/{id}", response_model=Task, responses=problems(404))
def get_task(here: Here, id: TaskId) -> Response:
    """One of them."""
    return rows.answer(rows.find_task(here.catalog.db, here.house, id))


@router.get("/tasks/{id}/status", response_model=TaskStatus, responses=problems(404))
def task_status(here: Here, id: TaskId) -> Response:
    """One of them with the bitrates of its last minutes, for a graph."""
    one = rows.find_task(here.catalog.db, here.house, id)
    return rows.answer(TaskStatus(task=one, bitrates=here.hub.bitrates(id), sample_seconds=here.hub.sample_seconds))
