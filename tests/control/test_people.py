"""The routes of people and of files: for whom they are, and what they do to users and sessions."""

from datetime import timedelta

import pytest
import requests

from biliupd.catalog import users

PERSON = {"username": "eve", "password": "eve's password", "role": "viewer"}
CHANGE = {"old": "viewer-password", "new": "another password"}
#: method, path, body, least role
ROUTES = (
    ("GET", "/me", None, "viewer"), ("POST", "/logout", None, "viewer"), ("GET", "/sessions", None, "viewer"),
    ("GET", "/sessions?all=true", None, "admin"), ("DELETE", "/sessions/999", None, "viewer"),
    ("POST", "/me/password", CHANGE, "viewer"), ("GET", "/users", None, "admin"), ("POST", "/users", PERSON, "admin"),
    ("PATCH", "/users/999", {"role": "viewer"}, "admin"), ("DELETE", "/users/999", None, "admin"),
    ("GET", "/videos/999/thumbnail", None, "viewer"), ("GET", "/videos/999/cover", None, "viewer"),
    ("GET", "/videos/999/file", None, "viewer"), ("HEAD", "/videos/999/file", None, "viewer"),
    ("GET", "/videos/999/play", None, "viewer"),
)  # fmt: skip


def ask(stage, method, path, body=None, token=""):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.request(method, f"{stage.url}/api{path}", json=body, headers=headers, timeout=10)


@pytest.mark.parametrize(("method", "path", "body", "role"), ROUTES)
def test_a_route_is_for_those_it_is_for(shared, method, path, body, role):
    revoked = shared.token("admin")
    assert ask(shared, "POST", "/logout", token=revoked).status_code == 204
    for token in ("", "made up", revoked, shared.token("admin", valid=timedelta(seconds=-1))):
        answer = ask(shared, method, path, body, token)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
    expected = 403 if role == "admin" else None
    answer = ask(shared, method, path, body, shared.token("viewer"))
    assert answer.status_code == expected if expected else answer.status_code not in (401, 403)
    answer = ask(shared, method, path, body if body is not CHANGE else {**CHANGE, "old": "admin-password"},
                 shared.token("admin"))  # fmt: skip
    assert answer.status_code < 500
    assert answer.status_code not in (401, 403)


def test_logging_out_ends_this_session_and_takes_the_cookie_back(stage):
    one, other = stage.session("viewer"), stage.session("viewer")
    answer = one.post(f"{stage.url}/api/logout")
    assert answer.status_code == 204
    assert 'biliupd=""' in answer.headers["set-cookie"]
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert other.get(f"{stage.url}/api/me").status_code == 200
    one.cookies.set("biliupd", stage.token("viewer", "cookie"))
    assert one.get(f"{stage.url}/api/me").status_code == 200


def test_another_password_ends_the_users_other_sessions_at_once_and_only_theirs(stage):
    mine, mine_too, admin = stage.session("viewer"), stage.bearer("viewer"), stage.bearer("admin")
    for session in (mine, mine_too, admin):
        assert session.get(f"{stage.url}/api/me").status_code == 200
    wrong = mine.post(f"{stage.url}/api/me/password", json={"old": "wrong", "new": "long enough"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (403, "body.old")
    assert mine.post(f"{stage.url}/api/me/password", json=CHANGE).status_code == 204
    states = [session.get(f"{stage.url}/api/me").status_code for session in (mine, mine_too, admin)]
    assert states == [200, 401, 200]
    body = {"username": "viewer", "password": CHANGE["new"]}
    assert requests.post(f"{stage.url}/api/login", json=body, timeout=5).status_code == 200


def test_the_old_password_cannot_be_guessed_through_a_stolen_session(stage):
    viewer = stage.bearer("viewer")
    body = {"old": "wrong", "new": "long enough"}
    codes = [viewer.post(f"{stage.url}/api/me/password", json=body).status_code for _ in range(6)]
    assert codes == [403, 403, 403, 403, 429, 429]


def test_an_admin_makes_changes_and_removes_users_and_it_counts_at_once(stage):
    admin, url = stage.bearer("admin"), f"{stage.url}/api/users"
    made = admin.post(url, json=PERSON)
    assert (made.status_code, made.json()["role"]) == (201, "viewer")
    assert "password" not in made.text
    assert "password" not in admin.get(url).text
    assert admin.post(url, json=PERSON).status_code == 409
    id = made.json()["id"]
    eve = requests.Session()
    body = {"username": "eve", "password": "eve's password", "session": "bearer"}
    eve.headers["Authorization"] = f"Bearer {eve.post(f'{stage.url}/api/login', json=body).json()['token']}"
    assert eve.get(url).status_code == 403
    assert admin.patch(f"{url}/{id}", json={"role": "admin"}).json()["role"] == "admin"
    assert eve.get(url).status_code == 200
    assert admin.patch(f"{url}/{id}", json={"role": "viewer"}).status_code == 200
    assert eve.get(url).status_code == 403
    assert admin.patch(f"{url}/{id}", json={"password": "another password"}).status_code == 200
    assert eve.get(f"{stage.url}/api/me").status_code == 401
    assert admin.delete(f"{url}/{id}").status_code == 204
    assert admin.delete(f"{url}/{id}").status_code == 404
    assert admin.patch(f"{url}/{id}", json={"role": "admin"}).status_code == 404
    mine = stage.user("admin")
    for refused in (admin.delete(f"{url}/{mine}"), admin.patch(f"{url}/{mine}", json={"role": "operator"})):
        assert (refused.status_code, refused.json()["detail"]) == (409, "this is the only admin")


def test_sessions_are_listed_and_revoked_by_their_user_and_by_an_admin(stage):
    viewer, other, admin = stage.bearer("viewer"), stage.session("viewer"), stage.bearer("admin")
    url = f"{stage.url}/api/sessions"
    assert {row["username"] for row in viewer.get(url).json()} == {"viewer"}
    assert {row["username"] for row in admin.get(url, params={"all": True}).json()} == {"viewer", "admin"}
    admins = admin.get(f"{stage.url}/api/me").json()["session_id"]
    assert viewer.delete(f"{url}/{admins}").status_code == 404
    assert admin.get(url).status_code == 200
    others = other.get(f"{stage.url}/api/me").json()["session_id"]
    assert viewer.delete(f"{url}/{others}").status_code == 204
    assert other.get(url).status_code == 401
    mine = viewer.get(f"{stage.url}/api/me").json()["session_id"]
    assert admin.delete(f"{url}/{mine}").status_code == 204
    assert viewer.get(url).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/login", {}, ["body.username", "body.password"]),
        ("/login", {"username": "a" * 65, "password": "x"}, ["body.username"]),
        ("/login", {"username": "a", "password": "x" * 257}, ["body.password"]),
        ("/login", {"username": "a", "password": "x", "session": "king"}, ["body.session"]),
        ("/login", {"username": "a", "password": "x", "label": "a\r\nb"}, ["body.label"]),
        ("/login", {"username": ["a"], "password": "x"}, ["body.username"]), ("/login", [], ["body"]),
        ("/users", {**PERSON, "role": "king"}, ["body.role"]),
        ("/users", {**PERSON, "password": "short"}, ["body.password"]),
        ("/users", {**PERSON, "username": "a b"}, ["body.username"]),
        ("/users", {**PERSON, "is_admin": 1}, ["body.is_admin"]),
        ("/users", {**PERSON, "username": "\ud800"}, ["body.username"]), ("/users", {**PERSON, "\udfff": 1}, ["body"]),
        ("/users", {**PERSON, "username": "a\nb"}, ["body.username"]),
        ("/users", {**PERSON, "username": ""}, ["body.username"]),
    ],
)  # fmt: skip
def test_what_cannot_be_names_the_field(shared, path, body, fields):
    answer = ask(shared, "POST", path, body, shared.token("admin"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert [one["field"] for one in problem["errors"]] == fields
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Entity")


def test_ids_that_are_none_and_bodies_that_are_no_json_are_problems_too(shared):
    token = shared.token("admin")
    for id in ("0", "-1", "x", "1e3", str(2**63)):
        answer = ask(shared, "DELETE", f"/users/{id}", token=token)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path.id")
    for raw in ("{", "", "\xff", "{'a': 1}", "[" * 5000):
        answer = requests.post(f"{shared.url}/api/login", data=raw.encode("latin-1"), timeout=5,
                               headers={"Content-Type": "application/json"})  # fmt: skip
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_user_and_an_agent_of_strange_characters_harm_nobody(stage):
    users.add(stage.catalog.db, "<b>\"'& 名前", "x", "viewer")
    stage.control.auth._passwords.check = lambda kept, password: True
    stage.control.auth._passwords.is_outdated = lambda kept: False
    answer = requests.post(
        f"{stage.url}/api/login", json={"username": "<b>\"'& 名前", "password": "x", "session": "bearer"}, timeout=5,
        headers={"User-Agent": b"a\x1b[31m\xff<script>" + b"x" * 5000},
    )  # fmt: skip
    token = answer.json()["token"]
    (row,) = ask(stage, "GET", "/sessions", token=token).json()
    assert "\x1b" not in row["agent"]
    assert row["agent"].startswith("a[31m")
    assert len(row["agent"]) == 200
