"""The routes of publishing: submissions, accounts, and logging in at Bilibili. Run on the server's threads.

Read the catalog, and write to it that a person wants another try.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from biliupd.catalog import queries, submissions
from biliupd.catalog.states import Stage
from biliupd.control import rows
from biliupd.control.context import Context, Here, may
from biliupd.control.models import (
    Account,
    Id,
    Limit,
    Offset,
    Page,
    Preview,
    QrCode,
    Refusal,
    Submission,
    SubmissionDetail,
)
from biliupd.control.problems import problems

router = APIRouter(tags=["publishing"])
Name = Annotated[str, Path(max_length=200)]


@router.get("/submissions", response_model=Page[Submission], dependencies=[may("viewer")])
def list_submissions(
    here: Here, q: Annotated[str, Query(max_length=200, description="Part of a title, or a bvid")] = "",
    state: Annotated[list[Stage], Query(description="Several may be given")] = [],  # noqa: B006
    limit: Limit = 50, offset: Offset = 0,
) -> Response:  # fmt: skip
    """What was, is and will be published, the newest first."""
    found, total = submissions.page(here.catalog.db, q, list(dict.fromkeys(state)), limit=limit, offset=offset)
    shown = [rows.submission(row) for row in found]
    return rows.answer(Page(items=shown, total=total, limit=limit, offset=offset))


@router.get("/submissions/{id}", response_model=SubmissionDetail, responses=problems(404),
            dependencies=[may("viewer")])  # fmt: skip
def get_submission(here: Here, id: Id) -> Response:
    """One of them with its videos."""
    return rows.answer(rows.find_submission(here.catalog.db, id))


@router.post("/submissions/{id}/retry", response_model=SubmissionDetail, responses=problems(404, 409),
             dependencies=[may("operator")])  # fmt: skip
def retry_submission(here: Here, id: Id) -> Response:
    """Try a held one again. What may have been sent is looked for at Bilibili first."""
    db = here.catalog.db
    if not submissions.retry(db, id):
        one = rows.find_submission(db, id)
        raise Refusal(409, f"submission {id} is not held: it is {one.state}")
    return rows.answer(rows.find_submission(db, id))


@router.get("/submissions/{id}/preview", response_model=list[Preview], responses=problems(404, 409),
            dependencies=[may("viewer")])  # fmt: skip
def preview_submission(here: Here, id: Id) -> Response:
    """Exactly what would be sent to Bilibili, or was. Sends nothing."""
    row = submissions.get(here.catalog.db, id)
    if row is None:
        raise Refusal(404, f"there is no submission {id}", field="path.id")
    if what := row["broadcast_id"] or row["folder"]:
        return rows.answer(here.house.preview(what))
    parts = submissions.parts(here.catalog.db, id)
    if not parts:
        raise Refusal(409, f"submission {id} has no video any more")
    return rows.answer(here.house.preview(parts[0]["file_path"]))


@router.get("/accounts", response_model=list[Account], dependencies=[may("viewer")])
def list_accounts(here: Here) -> Response:
    """Those of the configuration, and others that were used."""
    return rows.answer(rows.accounts(here.catalog.db, here.house))


@router.post("/accounts/{name}/retry", response_model=Account, responses=problems(404, 409),
             dependencies=[may("operator")])  # fmt: skip
def retry_account(here: Here, name: Name) -> Response:
    """Use an account again that keeps quiet: a person did what Bilibili asked for."""
    _known(here, name)
    here.house.retry_account(name)
    return rows.answer(_known(here, name))


def _known(here: Context, name: str) -> Account:
    found = queries.accounts(here.catalog.db, [name])
    if found:
        return rows.account(found[0])
    if name in here.house.accounts():
        return rows.unused_account(name)
    raise Refusal(404, f"there is no account {name}", field="path.name")


@router.get("/qrcode", response_model=QrCode, responses=problems(404, 409), dependencies=[may("admin")])
def qr_code(
    here: Here, account: Annotated[str, Query(max_length=200, description="Empty: the first")] = ""
) -> Response:
    """A code to log in at Bilibili with, for its app."""
    return rows.answer(here.house.qr_code(account))


@router.get("/qrcode/{id}", response_model=QrCode, responses=problems(404, 409), dependencies=[may("admin")])
def poll_qr_code(here: Here, id: Name) -> Response:
    """How it stands. Once it is confirmed, the account is logged in."""
    return rows.answer(here.house.poll_qr_code(id))
