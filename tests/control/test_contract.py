"""The whole API against what its OpenAPI says, and every route against those who may not use it."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import requests
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, Phase, given, settings, strategies
from support import wait_until

from biliupd.catalog import users
from biliupd.control.app import make
from biliupd.control.context import Context
from biliupd.control.models import Refusal

EXAMPLES = 3  #: of each operation
LONGEST = 16_000  #: address in what is no longer an HTTP request to the server
APP = make(Context(None, SimpleNamespace(version="1"), None, None, None))
SPEC = APP.openapi()
OPERATIONS = {f"{method.upper()} {path}": one for path, found in SPEC["paths"].items() for method, one in found.items()}


@pytest.fixture(scope="module")
def operations():
    """Each operation as schemathesis knows it, which only the one process that asks it has to load, and the checks."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_dict(SPEC)
    return {f"{op.method.upper()} {op.path}": op for op in (found.ok() for found in schema.get_all_operations())}, [
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_headers_conformance, checks.response_schema_conformance, checks.negative_data_rejection,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def busy(shared):
    """One with rows, and with media that costs nothing to play."""
    wait_until(lambda: shared.control.port and requests.get(f"{shared.url}/api/health", timeout=5).ok)
    shared.sample(40)
    shared.house.plays = lambda path, at: iter([b"media"])
    shared.house.refuses["make_streamer"] = Refusal(422, "no platform answers it", field="body.url")
    return shared


def there(stage, path):
    """What the rows that a path may name are called."""
    db = stage.catalog.db
    if path.startswith("/api/accounts"):
        return {"name": "main"}
    table = path.split("/")[2]
    if table == "qrcode":
        return {"id": stage.house.qr_code("").id}
    if table not in ("streamers", "videos", "submissions", "broadcasts", "tasks"):
        return {}
    return {"id": db.execute(f"select id from {table} order by random() limit 1").fetchone()[0]}


CASES = [
    (mode, name) for mode in ("positive", "negative") for name, one in OPERATIONS.items()
    if mode == "positive" or "requestBody" in one or name == "GET /api/videos/{id}"
    or any(parameter["in"] == "query" for parameter in one.get("parameters", ()))
]  #: a wrong id is the same everywhere


@pytest.mark.parametrize(("mode", "name"), CASES, ids=[f"{mode} {name}" for mode, name in CASES])
def test_an_answer_is_what_openapi_says(busy, operations, mode, name):
    from schemathesis.generation import GenerationMode

    users.change(busy.catalog.db, busy.user("admin"), role="admin")  # what was tried before may have changed that
    asker, (known, checks) = busy.bearer(), operations
    operation = known[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)), real=strategies.booleans())
    def check(case, real):
        if real and mode == "positive" and case.path_parameters:
            case.path_parameters |= there(busy, case.path)
        answer = case.call(base_url=busy.url, session=asker, timeout=20)
        if len(answer.request.url) > LONGEST and answer.status_code == 400:
            return
        case.validate_response(answer, checks=checks)

    check()


ROUTES = sorted({
    (method, route.path) for route in iter_route_contexts(APP.routes) for method in route.methods or ["WEBSOCKET"]
})  # fmt: skip
OPEN = {
    "GET /", "GET /static/{name:path}", "GET /api/docs", "GET /api/openapi.json", "GET /api/problems",
    "GET /api/health", "GET /api/setup", "POST /api/setup", "POST /api/login",
}  #: need no login
FOR_ADMINS = {"/api/users", "/api/users/{id}", "/api/settings", "/api/qrcode", "/api/qrcode/{id}", "/api/watcher/start",
              "/api/watcher/stop"}  # fmt: skip
FOR_ALL = {"POST /api/logout", "POST /api/me/password", "DELETE /api/sessions/{id}"}  #: what changes one's own


def is_open(method, path):
    return f"{method.replace('HEAD', 'GET')} {path}" in OPEN


def ask(stage, method, path, token=None):
    for name in ("{id}", "{name}", "{name:path}"):
        path = path.replace(name, "999999")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    return requests.request(method, f"{stage.url}{path}", headers=headers, timeout=20)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_answers_nobody_but_who_is_logged_in_and_may(shared, method, path):
    if method == "WEBSOCKET":
        assert path == "/api/ws"  # see test_socket
        return
    if is_open(method, path):
        assert ask(shared, method, path).status_code not in (401, 403) or path == "/api/setup"
        return
    revoked = shared.token()
    assert ask(shared, "POST", "/api/logout", revoked).status_code == 204
    for token in (None, "", "x" * 43, "\xff", shared.token(valid=timedelta(seconds=-1)), revoked):
        answer = ask(shared, method, path, token)
        assert answer.status_code == 401, token
        assert "www-authenticate" in answer.headers
        assert method == "HEAD" or answer.json()["type"] == "/api/problems#login"
    safe = method in ("GET", "HEAD")
    for role in ("viewer", "operator"):
        may = path not in FOR_ADMINS and (role != "viewer" or safe or f"{method} {path}" in FOR_ALL)
        answer = ask(shared, method, path, shared.token(role))
        assert (answer.status_code == 403) == (not may), (role, answer.text)


def test_what_openapi_says_of_logging_in_is_so():
    said = {f"{method.upper()} {path}" for path, found in SPEC["paths"].items() for method, one in found.items()
            if one.get("security") == []}  # fmt: skip
    served = {f"{method} {path}" for method, path in ROUTES}
    assert said <= OPEN <= served
    assert OPEN - said == {"GET /", "GET /static/{name:path}", "GET /api/docs", "GET /api/openapi.json"}
