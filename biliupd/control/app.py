"""The application: every route, and what OpenAPI says of them. Built once, when the server starts; touches nothing."""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from biliupd.control import files, library, people, problems, publishing, socket, streamers, system, tasks, web
from biliupd.control.context import Context
from biliupd.control.models import Problem
from biliupd.control.pictures import Pictures

_API: tuple[APIRouter, ...] = (
    people.router, streamers.router, tasks.router, library.router, files.router, publishing.router, system.router,
)  # fmt: skip
_TEXT = """Everything that the page shows and does. Moments are ISO 8601 in UTC, durations seconds, sizes bytes.

Log in with `POST /api/login`: a page gets a cookie, a script asks for `"session": "bearer"` and sends the token it gets
as `Authorization: Bearer …`. A viewer looks; an operator also starts, stops and retries; an admin also manages users.
Every error is `application/problem+json` (RFC 9457). Unsafe methods take `application/json` only."""
_TAGS = {
    "people": "Logging in, sessions, users.",
    "streamers": "Who is recorded, and starting and stopping it.",
    "tasks": "Runs of recorders.",
    "library": "Videos, broadcasts, and what is missing in them.",
    "files": "Pictures and media.",
    "publishing": "Submissions and accounts at Bilibili.",
    "system": "The daemon itself.",
}
_SECURITY: dict[str, Any] = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": "biliupd", "description": "Over https: __Host-biliupd"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


_EXAMPLES: dict[str, Any] = {
    "Credentials": {"username": "ann", "password": "correct horse battery", "session": "bearer", "label": "backup"},
    "FirstUser": {"code": "the one of the log", "username": "ann", "password": "correct horse battery"},
    "NewUser": {"username": "bob", "password": "correct horse battery", "role": "operator"},
    "UserChange": {"role": "viewer"},
    "PasswordChange": {"old": "correct horse battery", "new": "another horse battery"},
    "NewStreamer": {"url": "https://www.twitch.tv/example", "priority": 10},
    "StreamerChange": {"auto_upload": False},
    "Pin": {"pinned": True},
    "Sync": {"mode": "full"},
    "Problem": {
        "type": "/api/problems#invalid", "title": "Unprocessable Entity", "status": 422,
        "detail": "body.url: Field required", "hint": "",
        "errors": [{"field": "body.url", "message": "Field required"}],
    },
}  # fmt: skip


def make(context: Context) -> FastAPI:
    """The application around what its routes need."""
    app = FastAPI(
        title="biliupd", version=context.house.version, description=_TEXT, openapi_url=None,
        docs_url=None, redoc_url=None, redirect_slashes=False,
        generate_unique_id_function=lambda route: f"{'_'.join(map(str, route.tags))}.{route.name}",
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )  # fmt: skip
    app.state.context, app.state.readers, app.state.pictures = context, files.limiter(), Pictures()
    problems.tell(app)
    for router in (*_API, socket.router):
        app.include_router(router, prefix="/api")
    app.include_router(web.router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes,
                tags=app.openapi_tags,
            ))  # fmt: skip
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation does it
    return app


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Add what holds for every route: how one logs in, and what anyone may be refused with."""
    components = schema.setdefault("components", {})
    components["securitySchemes"] = _SECURITY
    shapes = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which never come
        shapes.pop(name, None)
    whole = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes.update(whole.pop("$defs"))
    shapes["Problem"] = whole
    for name, example in _EXAMPLES.items():
        shapes.get(name, {})["examples"] = [example]
    schema["security"] = [{name: []} for name in _SECURITY]
    for operations in schema["paths"].values():
        for method, operation in operations.items():
            _sum_up(operation)
            statuses = {421, 500, 503}
            if operation.get("security") != []:
                statuses |= {401, 403}
            if method != "get":
                statuses |= {403, 408, 413, 415}
            if operation.get("requestBody"):
                statuses |= {400, 422}
            if operation.get("parameters"):
                statuses |= {422}
            known = operation.setdefault("responses", {})
            known.pop("422", None)
            for status, text in problems.problems(*statuses).items():
                known.setdefault(str(status), text)
    return schema


def _sum_up(operation: dict[str, Any]) -> None:
    """The first sentence of the description, where FastAPI made a summary of a function's name."""
    name, text = operation["operationId"].rpartition(".")[2], operation.get("description", "").strip()
    first = text.partition("\n")[0].partition(". ")[0].removesuffix(".")
    if first and operation["summary"] == name.replace("_", " ").title():
        operation["summary"] = first
        if first == text.removesuffix("."):
            del operation["description"]
