"""Every error of the API is a problem in the sense of RFC 9457, and names what is wrong and where.

Runs on the server's event loop; touches nothing.
"""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from biliupd.control.models import FieldProblem, Problem, Refusal
from biliupd.errors import BiliupdError, ConfigError, NeedsPerson, Stopped, TemporaryError

OPEN: dict[str, Any] = {"security": []}  #: `openapi_extra` of a route that needs no login
KINDS = {
    "login": "Nobody is logged in, or no longer. Log in with POST /api/login.",
    "role": "Who asks is logged in, and their role does not allow this.",
    "credentials": "The name or the password is wrong.",
    "code": "This is not the code that the log of this start tells.",
    "too-many": "Too many tries. Come back after the seconds that Retry-After names.",
    "host": "biliupd is not known by this name; its numbers, localhost and control.names are.",
    "cross-site": "The request comes from a page elsewhere.",
    "no-json": "The body of the request is no JSON.",
    "media-type": "A body has to be application/json.",
    "too-large": "The body of the request is too long.",
    "too-slow": "The body of the request takes too long to come.",
    "invalid": "The request is not what OpenAPI says it is; `errors` names each field that is wrong.",
    "yaml": "The streamer is set in the configuration file, and changed there only.",
    "range": "Nothing of the file lies in this range.",
}  #: what `type` of a problem may say after the #, told by GET /api/problems
MEDIA_TYPE = "application/problem+json"
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_AGAIN_SECONDS = 5  #: when whoever failed does not say how long it takes


class TooMany(Refusal):
    """429: come back in `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(429, message, kind="too-many")
        self.retry_after_seconds = retry_after_seconds


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: what it may refuse with. What any route may refuse with, `app` adds to all."""
    return {status: {"description": HTTPStatus(status).phrase, "content": _CONTENT} for status in sorted(statuses)}


def answer(
    status: int, detail: str, *, hint: str = "", kind: str = "", errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    """A problem as the response to a request; `kind` is one of KINDS, or empty when the status says it all."""
    problem = Problem(
        type=f"/api/problems#{kind}" if kind else "about:blank", title=HTTPStatus(status).phrase, status=status,
        detail=detail, hint=hint, errors=errors or [],
    )  # fmt: skip
    # what the client sent may be in it, and need not be text that UTF-8 can carry
    text = json.dumps(problem.model_dump(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(text, status, headers, MEDIA_TYPE)


def tell(app: FastAPI) -> None:
    """Make problems of whatever the routes raise. What is no error of ours is a bug: whoever asks learns nothing of it,
    and it goes on to the server, which logs it."""
    app.add_exception_handler(BiliupdError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _bug)


def of(error: BiliupdError) -> Response:
    """What an error of ours means to whoever asked."""
    headers, errors, kind = dict(getattr(error, "headers", {})), [], ""
    retry_seconds = getattr(error, "retry_after_seconds", 0)
    if isinstance(error, Refusal):
        status, kind = error.status, error.kind
        errors = [FieldProblem(field=error.field, message=str(error))] if error.field else []
    elif isinstance(error, ConfigError):
        status = 422
    elif isinstance(error, (TemporaryError, Stopped)) and not isinstance(error, NeedsPerson):
        status, retry_seconds = 503, retry_seconds or _AGAIN_SECONDS
    else:
        status, retry_seconds = 409, 0
    if retry_seconds:
        headers["Retry-After"] = str(math.ceil(retry_seconds))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return answer(status, str(error), hint=error.hint, kind=kind, errors=errors, headers=headers)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, BiliupdError)
    return of(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return answer(400, "the body is no JSON", kind="no-json")
    errors = [FieldProblem(field=".".join(map(str, one["loc"])), message=one["msg"]) for one in found]
    return answer(422, "; ".join(f"{one.field}: {one.message}" for one in errors), kind="invalid", errors=errors)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        return answer(405, f"{request.method} is not for this address", headers=headers)
    detail = "there is nothing at this address" if error.status_code == 404 else str(error.detail)
    return answer(error.status_code, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """All methods of an address: several routes may share it."""
    app: FastAPI = request.app
    return [
        method for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]  # fmt: skip


async def _bug(request: Request, error: Exception) -> Response:
    return answer(500, "biliupd failed at this; its log says more")
