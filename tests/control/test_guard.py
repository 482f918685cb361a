"""What no page of ours would send is refused, and every answer bears the headers that keep a browser safe."""

import re
import socket
from pathlib import Path

import pytest
import requests
from starlette.datastructures import Headers
from support import wait_until

from biliupd.control import guard
from biliupd.control.guard import HEADERS, MOST_BODY_BYTES, same_site
from biliupd.control.problems import KINDS

LOGIN = {"username": "admin", "password": "wrong password"}


@pytest.fixture
def admin(shared):
    """Logged in by cookie, as a page is."""
    return shared.session("admin")


def raw(stage, text, *, seconds=10.0):
    """What the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", stage.control.port), timeout=seconds) as connection:
        connection.sendall(text)
        said = b""
        while piece := connection.recv(65536):
            said += piece
        return said


@pytest.mark.parametrize("stage", [{"names": ["NAS.example", "nas"]}], indirect=True)
def test_it_answers_to_its_numbers_and_names_and_to_no_other(stage):
    port = stage.control.port
    ours = (f"127.0.0.1:{port}", "127.0.0.1", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "192.168.1.2:80",
            "nas.example", f"nas:{port}", "Nas.Example.:443")  # fmt: skip
    others = ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "a:b:c", "[",
              "[::1].evil.example", "nas.example.evil.example", "xnas", "nas@evil.example", "nas evil", "127.0.0.1:x",
              "2130706433", "nas.example#")  # fmt: skip
    for path in ("/", "/api/health", "/api/login", "/static/nothing"):
        for name, status in [*((name, None) for name in ours), *((name, 421) for name in others)]:
            answer = requests.get(stage.url + path, headers={"Host": name}, timeout=5)
            assert (answer.status_code == 421) == (status == 421), (path, name)
    answer = requests.get(f"{stage.url}/api/health", headers={"Host": "evil.example"}, timeout=5)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "control.names" in answer.json()["hint"]


CROSS_SITE = (
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "strange"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:{port}"}, {"Origin": "https://evil.example"},
    {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://127.0.0.1"}, {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}"}, {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "http://127.0.0.1:{port}@evil.example"}, {"Origin": "file://"}, {"Origin": "http://[::1"},
    {"Origin": "chrome-extension://abcdef"}, {"Origin": "http://127.0.0.1:99999999"},
)  # fmt: skip


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_page_changes_nothing_and_cannot_log_in(shared, admin, headers):
    headers = {name: value.format(port=shared.control.port) for name, value in headers.items()}
    for method, path, body in (("POST", "/logout", None), ("POST", "/login", LOGIN), ("POST", "/setup", {}),
                               ("DELETE", "/users/1", None), ("PATCH", "/users/1", {"role": "viewer"})):  # fmt: skip
        answer = admin.request(method, f"{shared.url}/api{path}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "/api/problems#cross-site")
    assert admin.get(f"{shared.url}/api/me").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://127.0.0.1:{port}"},  # behind a proxy that is not trusted
    ],
)  # fmt: skip
def test_our_own_page_and_a_script_may(shared, headers):
    headers = {name: value.format(port=shared.control.port) for name, value in headers.items()}
    assert shared.session("viewer").post(f"{shared.url}/api/logout", headers=headers).status_code == 204


def test_what_another_page_embeds_or_fetches_gets_no_answer_when_the_cookie_comes_along(shared, admin):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert admin.get(f"{shared.url}/api/me", headers=headers).status_code == status
        assert requests.get(f"{shared.url}/api/me", headers=headers, timeout=5).status_code == 401
        assert admin.get(f"{shared.url}/", headers=headers).status_code == 200  # a link from elsewhere opens the page


@pytest.mark.parametrize(
    ("headers", "scheme", "ours"),
    [
        ({}, "", True), ({"origin": "https://nas", "host": "nas"}, "", True),
        ({"origin": "https://nas", "host": "nas"}, "http", False),
        ({"origin": "http://nas", "host": "nas"}, "ws", True),
        ({"origin": "https://nas", "host": "nas"}, "wss", True),
        ({"origin": "http://nas", "host": "nas"}, "https", False),
        ({"origin": "http://nas", "host": "nas:80"}, "http", True),
        ({"origin": "http://NAS:80", "host": "nas"}, "ws", True),
        ({"origin": "http://nas:81", "host": "nas"}, "", False),
        ({"origin": "http://[::1]:5", "host": "[::1]:5"}, "", True),
        ({"origin": "http://nas", "host": ""}, "", False), ({"origin": "http://nas"}, "", False),
        ({"origin": "ws://nas", "host": "nas:x"}, "", False),
    ],
)  # fmt: skip
def test_where_a_request_comes_from(headers, scheme, ours):
    assert same_site(Headers(headers), scheme) is ours


@pytest.mark.parametrize(
    ("type", "body", "status"),
    [
        ("application/json", b"{}", 422), ("application/json; charset=utf-8", b"{}", 422),
        ("Application/JSON", b"{}", 422),
        ("text/plain", b"{}", 415), ("application/x-www-form-urlencoded", b"{}", 415), ("", b"{}", 415),
        ("multipart/form-data; boundary=x", b"{}", 415), ("application/jsonx", b"{}", 415),
        ("text/plain, application/json", b"{}", 415), ("text/plain", b"", 422), ("", b"", 422),
    ],
)  # fmt: skip
def test_a_body_is_json_or_there_is_none(shared, type, body, status):
    headers = {"Content-Type": type} if type else {}
    answer = requests.post(f"{shared.url}/api/login", data=body, headers=headers, timeout=5)
    assert answer.status_code == status


def test_a_body_that_is_too_long_is_refused_by_its_length_and_as_it_comes(shared):
    url, json = f"{shared.url}/api/login", {"Content-Type": "application/json"}
    fits = requests.post(url, data=b" " * (MOST_BODY_BYTES - 2) + b"{}", headers=json, timeout=5)
    assert fits.status_code == 422
    for body in (b" " * (MOST_BODY_BYTES + 1), (b" " * 8192 for _ in range(MOST_BODY_BYTES // 8192 + 1))):
        answer = requests.post(url, data=body, headers=json, timeout=5)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert answer.headers["connection"] == "close"
    head = f"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**15}\r\n\r\n"
    assert b" 413 " in raw(shared, head.encode())
    for length in ("-1", "1e3", "0x10", "1" * 5000, "5, 5000000"):
        head = f"POST /api/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        assert raw(shared, head.encode()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_a_body_that_takes_its_time_is_not_waited_for(shared, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    head = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    said = raw(shared, head + b"Content-Length: 20\r\n\r\n{")
    assert b" 408 " in said
    assert b"application/problem+json" in said


def test_every_answer_bears_the_headers(shared, admin):
    answers = [
        admin.get(f"{shared.url}/"), admin.get(f"{shared.url}/static/css/base.css"), admin.get(f"{shared.url}/nothing"),
        admin.get(f"{shared.url}/api/me"), admin.get(f"{shared.url}/api/videos"),
        admin.get(f"{shared.url}/api/nothing"),
        admin.put(f"{shared.url}/api/me"), admin.get(f"{shared.url}/api/users/x"), admin.get(f"{shared.url}/api/docs"),
        admin.get(f"{shared.url}/api/openapi.json"), requests.get(f"{shared.url}/api/me", timeout=5),
        requests.post(f"{shared.url}/api/login", data="x", timeout=5),
        requests.get(shared.url, headers={"Host": "evil.example"}, timeout=5),
    ]  # fmt: skip
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, answer.url
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers
        if "/api/" in answer.url and "etag" not in answer.headers and answer.status_code != 200:
            assert answer.headers["cache-control"] == "no-store", answer.url
    assert answers[3].headers["cache-control"] == "no-store"
    assert answers[4].headers["cache-control"] == "private, no-cache"
    for word in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert word in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_websocket_of_another_name_is_refused_before_it_is_one(shared):
    head = ("GET /api/ws HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    said = raw(shared, head.encode()).lower()
    assert said.startswith(b"http/1.1 421")
    assert b"x-content-type-options: nosniff" in said


def test_every_kind_of_problem_is_told():
    control = Path(guard.__file__).parent
    sources = [path.read_text() for path in (*control.glob("*.py"), control.parent / "reception.py")]
    assert {kind for source in sources for kind in re.findall(r'kind="([^"]+)"', source)} == set(KINDS)


def test_openapi_says_in_a_line_what_each_route_does_and_how_one_logs_in(shared):
    told = requests.get(f"{shared.url}/api/openapi.json", timeout=5).json()
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert operation["tags"], (path, method)
            assert 5 < len(operation["summary"]) < 120
            assert not re.fullmatch(r"([A-Z][a-z]* ?)+", operation["summary"]) or " " not in operation["summary"][1:]
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and (path, status) != ("/api/health", "503"):
                    assert list(answer["content"]) == ["application/problem+json"], (path, method, status)
            if method == "get":
                status = requests.get(shared.url + path.replace("{", "").replace("}", ""), timeout=5).status_code
                assert (status in (401, 422)) == (operation.get("security", told["security"]) != []), path
    assert set(told["components"]["securitySchemes"]) == {"cookie", "bearer"}


def test_a_bug_tells_a_stranger_nothing_and_the_log_everything(shared, admin):
    from loguru import logger

    lines = []
    sink = logger.add(lines.append, level="ERROR", diagnose=False)
    real = shared.house.settings
    shared.house.settings = lambda: {}["the secret key"]
    try:
        answer = admin.get(f"{shared.url}/api/settings")
    finally:
        shared.house.settings = real
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text
    wait_until(lambda: lines)
    logger.remove(sink)
    (line,) = lines
    assert "GET /api/settings failed" in line
    assert "KeyError: 'the secret key'" in line


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/api/users", "GET, POST"), ("/api/users/1", "PATCH, DELETE"), ("/api/login", "POST"),
     ("/api/videos/1/file", "GET, HEAD"), ("/api/health", "GET")],
)  # fmt: skip
def test_a_method_that_is_none_is_told_which_there_are(shared, admin, path, allowed):
    for method in {"PUT", "TRACE", "OPTIONS", "XYZZY"}:
        answer = admin.request(method, shared.url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/api/../api/users", "/api/%2e%2e/%2e%2e/etc/passwd", "/static/../app.py", "/static/%2e%2e/app.py",
        "//api/users", "/static/..%2f..%2fapp.py", "/api/users/", "/API/users", "/api/users;x", "/api/users%00",
        "/%ff%fe", "/api//users",
    ],
)  # fmt: skip
def test_an_odd_path_leads_nowhere(shared, path):
    said = raw(shared, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert said.startswith((b"HTTP/1.1 404", b"HTTP/1.1 401")), said[:200]


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n", b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n",
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request_gets_none_of_ours(shared, text):
    said = raw(shared, text)
    assert said == b"" or said.startswith(b"HTTP/1.1 400"), said[:100]
    assert requests.get(f"{shared.url}/api/health", timeout=5).status_code == 200
