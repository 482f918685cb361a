"""Routes: the first user, logging in and out, sessions, users. Run on threads of their own; touch only the catalog."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from loguru import logger

from biliupd.catalog import users
from biliupd.catalog.users import User as Row
from biliupd.control.auth import VALID, Auth, Login, cookie_name, is_secure
from biliupd.control.context import Asker, Here, may
from biliupd.control.identities import (
    Credentials,
    FirstUser,
    LoggedIn,
    NewUser,
    PasswordChange,
    Session,
    Setup,
    User,
    UserChange,
)
from biliupd.control.models import Id, Refusal
from biliupd.control.problems import OPEN, problems

router = APIRouter(tags=["people"])


async def _auth(here: Here) -> Auth:
    assert isinstance(here.auth, Auth)
    return here.auth


Logins = Annotated[Auth, Depends(_auth)]
Anybody = Annotated[Asker, may("viewer")]
Admin = Annotated[Asker, may("admin")]


@router.get("/setup", openapi_extra=OPEN, summary="Whether the first user is still to be made")
def is_set_up(auth: Logins) -> Setup:
    return Setup(needed=not auth.is_set_up())


@router.post("/setup", status_code=201, openapi_extra=OPEN, responses=problems(403, 409, 429),
             summary="Make the first user, an admin, by the code of the log")  # fmt: skip
def set_up(request: Request, response: Response, given: FirstUser, auth: Logins) -> LoggedIn:
    return _greet(request, response, auth.set_up(request, given))


@router.post("/login", openapi_extra=OPEN, responses=problems(401, 429), summary="Begin a session")
def log_in(request: Request, response: Response, given: Credentials, auth: Logins) -> LoggedIn:
    return _greet(request, response, auth.log_in(request, given))


def _greet(request: Request, response: Response, login: Login) -> LoggedIn:
    if login.asker.kind == "cookie":
        _set_cookie(request, response, login.token, int(VALID.total_seconds()))
    return login.model()


def _set_cookie(request: Request, response: Response, token: str, seconds: int) -> None:
    response.set_cookie(cookie_name(request), token, max_age=seconds, path="/", secure=is_secure(request),
                        httponly=True, samesite="strict")  # fmt: skip


@router.post("/logout", status_code=204, summary="End the session that asks")
def log_out(request: Request, response: Response, asker: Anybody, auth: Logins) -> None:
    auth.revoke(asker.session_id)
    _set_cookie(request, response, "", 0)


@router.get("/me", summary="Who one is")
def me(request: Request, response: Response, here: Here, asker: Anybody) -> LoggedIn:
    row = next((row for row in users.sessions(here.catalog.db, [asker.user_id]) if row["id"] == asker.session_id), None)
    if row is None:
        raise Refusal(401, "nobody is logged in", kind="login")
    if asker.kind == "cookie":  # it lives on in the browser as it does here
        _set_cookie(request, response, request.cookies[cookie_name(request)], int(VALID.total_seconds()))
    return LoggedIn(username=asker.username, role=asker.role, session_id=asker.session_id, expires_at=row["expires_at"])


@router.post("/me/password", status_code=204, responses=problems(403, 429), summary="Change one's own password")
def change_password(asker: Anybody, given: PasswordChange, auth: Logins) -> None:
    """All other sessions of the user end."""
    auth.change_password(asker, given.old, given.new)


@router.get("/sessions", responses=problems(403), summary="Sessions that are valid")
def sessions(here: Here, asker: Anybody, all: bool = False) -> list[Session]:
    """One's own, or those of all users (for an admin)."""
    if all and asker.role != "admin":
        raise Refusal(403, "only an admin sees the sessions of others", field="query.all", kind="role")
    found = users.sessions(here.catalog.db, None if all else [asker.user_id])
    return [Session.model_validate({**row, "current": row["id"] == asker.session_id}) for row in found]


@router.delete("/sessions/{id}", status_code=204, responses=problems(404), summary="Revoke a session")
def revoke(asker: Anybody, id: Id, auth: Logins) -> None:
    """One's own, or any (for an admin)."""
    if not auth.revoke(id, None if asker.role == "admin" else asker.user_id):
        raise Refusal(404, "there is no such session")


@router.get("/users", summary="All users")
def everybody(here: Here, asker: Admin) -> list[User]:
    return [_user(row) for row in users.everybody(here.catalog.db)]


@router.post("/users", status_code=201, responses=problems(409, 429), summary="Make a user")
def add(here: Here, asker: Admin, given: NewUser, auth: Logins) -> User:
    made = _get(here, users.add(here.catalog.db, given.username, auth.hash(given.password), given.role))
    logger.info("{!a} made the user {!a}, {}", asker.username, made.username, made.role)
    return made


@router.patch("/users/{id}", responses=problems(404, 409, 429), summary="Change a user's role or password")
def change(here: Here, asker: Admin, id: Id, given: UserChange, auth: Logins) -> User:
    """Another password ends every session of the user. The last admin stays one (409)."""
    hashed = auth.hash(given.password) if given.password else ""
    if not users.change(here.catalog.db, id, password_hash=hashed, role=given.role or ""):
        raise Refusal(404, "there is no such user")
    auth.forget()
    changed = _get(here, id)
    logger.info("{!a} changed {} of the user {!a}", asker.username, ", ".join(given.model_fields_set), changed.username)
    return changed


@router.delete("/users/{id}", status_code=204, responses=problems(404, 409), summary="Remove a user")
def remove(here: Here, asker: Admin, id: Id, auth: Logins) -> None:
    """Their sessions end. The last admin stays (409)."""
    user = _get(here, id)
    users.remove(here.catalog.db, id)
    auth.forget()
    logger.info("{!a} removed the user {!a}", asker.username, user.username)


def _get(here: Here, id: int) -> User:
    row = users.get(here.catalog.db, id)
    if row is None:
        raise Refusal(404, "there is no such user")
    return _user(row)


def _user(row: Row) -> User:
    return User(id=row["id"], username=row["username"], role=row["role"], created_at=row["created_at"])
