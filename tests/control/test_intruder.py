"""What somebody tries who wants in, or wants to harm, and what comes of it: nothing."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import requests
from loguru import logger
from stage import Stage
from support import wait_until
from test_files import add
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from biliupd.catalog import users
from biliupd.catalog.database import write
from biliupd.control import connections, files, hub, server, web
from biliupd.control.models import Refusal
from biliupd.errors import TemporaryError

UPGRADE = (
    "GET /api/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PING = b"\x89\xfd\0\0\0\0" + b"x" * 125
GARBAGE = b"\xff" * 200


@pytest.fixture
def said(caplog):
    """What gets into the log meanwhile, ours and that of libraries."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", diagnose=False, backtrace=False)
    yield lambda: [*lines, *caplog.messages]
    logger.remove(sink)


def connected(stage, first: bytes, *, receive_bytes: int = 0) -> socket.socket:
    """A socket to the server that has said this."""
    made = socket.socket()
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.connect(("127.0.0.1", stage.control.port))
    made.settimeout(5)
    made.sendall(first)
    return made


def is_cut_while_it_sends(deaf: socket.socket, text: bytes) -> bool:
    """Whether the server ends the connection before it has taken 50 MB, or takes nothing for five seconds."""
    try:
        for _ in range(50_000_000 // len(text)):
            deaf.sendall(text)
    except ConnectionError:
        return True
    return False


def open_connections(stage) -> set:
    return stage.control._server.server_state.connections


@pytest.mark.parametrize("then", [PING * 50, GARBAGE, b"\x81\x85\0\0\0\0hello", b"\x88\x80\0\0\0\0", b""])
def test_a_stranger_on_a_websocket_who_does_not_wait_for_the_answer_writes_nothing_into_the_log(shared, said, then):
    wait_until(lambda: shared.control._server is not None and shared.control._server.started)
    slow = threading.Event()
    real = shared.control.auth.who

    def who(connection):
        slow.wait(5)
        return real(connection)

    shared.control.auth.who = who
    try:
        for together in (True, False):
            with connected(shared, f"{UPGRADE}\r\n".encode() + (then if together else b"")) as stranger:
                wait_until(lambda: shared.control._server.server_state.tasks)
                if not together:
                    stranger.sendall(then)
        slow.set()
        wait_until(lambda: not open_connections(shared))
    finally:
        shared.control.auth.who = real
    assert said() == []


@pytest.mark.parametrize("logged_in", [False, True])
def test_who_pings_and_never_reads_costs_no_memory_and_is_cut(shared, monkeypatch, logged_in):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    head = f"{UPGRADE}Authorization: Bearer {shared.token('viewer') if logged_in else 'none'}\r\n\r\n"
    with connected(shared, head.encode(), receive_bytes=2048) as deaf:
        assert b" 101 " in deaf.recv(100)
        assert is_cut_while_it_sends(deaf, PING * 100)
        wait_until(lambda: not open_connections(shared), 5)


def test_who_asks_on_and_on_and_never_reads_is_cut(shared, monkeypatch):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    asked = b"GET /static/js/main.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    with connected(shared, asked, receive_bytes=2048) as deaf:
        assert is_cut_while_it_sends(deaf, asked)
    wait_until(lambda: not open_connections(shared), 5)


def test_one_address_alone_cannot_take_every_place(shared, monkeypatch):
    monkeypatch.setattr(connections, "MOST_OF_ONE", 5)
    with ExitStack() as held:
        for _ in range(5):
            held.enter_context(connected(shared, b"G"))
        wait_until(lambda: len(open_connections(shared)) == 5)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{shared.url}/api/health", timeout=5)
        other = requests.Session()
        other.mount("http://", From("127.0.0.2"))
        assert other.get(f"{shared.url}/api/health", timeout=5).status_code == 200
        other.close()
    wait_until(lambda: not open_connections(shared), 5)


class From(requests.adapters.HTTPAdapter):
    """From another address of this machine."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *given, **more):
        super().init_poolmanager(*given, source_address=(self.address, 0), **more)


@pytest.fixture
def film(stage):
    """A film that takes long to send, and who may see it."""
    (stage.drop / "long.mp4").write_bytes(bytes(60_000_000))
    return f"{stage.url}/api/videos/{add(stage, str(stage.drop / 'long.mp4'))}/file", stage.session("viewer").cookies


def test_so_many_files_are_sent_at_once_that_the_house_can_still_open_its_own(film, monkeypatch):
    monkeypatch.setattr(files, "MOST", 2)
    url, cookies = film
    with ExitStack() as open_ones:
        for _ in range(2):
            answer = open_ones.enter_context(requests.get(url, cookies=cookies, stream=True, timeout=5))
            answer.raw.read(10)
        refused = requests.get(url, cookies=cookies, timeout=5)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    wait_until(lambda: requests.get(url, cookies=cookies, headers={"Range": "bytes=0-999999"}, timeout=5).ok)


def test_a_directory_that_hangs_holds_up_nothing_but_its_files(stage, film, monkeypatch):
    hangs, asked = threading.Event(), []

    def hang(path, roots):
        asked.append(path)
        hangs.wait(10)
        raise Refusal(404, "its file cannot be read")

    monkeypatch.setattr(files, "open_within", hang)
    url, cookies = film
    with ThreadPoolExecutor(server.THREADS + 2) as clients:
        try:
            asking = range(server.THREADS + 2)
            answers = [clients.submit(requests.get, url, cookies=cookies, timeout=20) for _ in asking]
            wait_until(lambda: len(asked) == len(answers))
            assert requests.get(f"{stage.url}/api/users", cookies=cookies, timeout=5).status_code == 403
        finally:
            hangs.set()
    assert {answer.result().status_code for answer in answers} == {404}


def test_the_code_of_the_log_is_no_key_once_it_was_used_even_when_the_users_are_gone(tmp_path):
    stage = Stage(tmp_path).start()
    try:
        first = {"code": stage.control.auth.setup_code, "username": "ann", "password": "correct horse battery"}
        assert requests.post(f"{stage.url}/api/setup", json=first, timeout=5).status_code == 201
        with write(stage.catalog.db):
            stage.catalog.db.execute("delete from users")
        again = requests.post(f"{stage.url}/api/setup", json={**first, "username": "eve"}, timeout=5)
        assert (again.status_code, again.json()["type"]) == (403, "/api/problems#code")
    finally:
        stage.close()


def test_a_catalog_that_cannot_be_read_sends_a_websocket_away_to_come_back(shared, said, monkeypatch):
    def busy(*_):
        raise TemporaryError("the catalog is busy")

    headers = {"Authorization": f"Bearer {shared.token('viewer')}"}
    monkeypatch.setattr(users, "session", busy)
    with connect(f"{shared.url.replace('http', 'ws')}/api/ws", additional_headers=headers) as client:
        with pytest.raises(ConnectionClosed):
            client.recv(5)
        assert client.close_code == 1013
    assert said() == []


def test_a_session_that_was_not_used_for_long_waits_for_no_write_lock(stage):
    session = stage.session("viewer")
    with write(stage.catalog.db):
        stage.catalog.db.execute("update sessions set seen_at = '2020-01-01T00:00:00.000+00:00'")
    stage.catalog.db.execute("begin immediate")
    try:
        began = time.monotonic()
        assert session.get(f"{stage.url}/api/status", timeout=20).status_code == 200
        assert time.monotonic() - began < 5
    finally:
        stage.catalog.db.conn.rollback()
    stage.control.auth.forget()
    assert session.get(f"{stage.url}/api/me", timeout=5).status_code == 200
    assert all(one["seen_at"] > "2021" for one in users.sessions(stage.catalog.db)), "it is written down the next time"


def test_who_wishes_for_something_else_all_the_time_is_looked_up_a_few_times_a_second(shared, monkeypatch):
    asked = []
    real = hub.Hub._snapshots
    monkeypatch.setattr(hub.Hub, "_snapshots", lambda *given: asked.append(1) or real(*given))
    headers = {"Authorization": f"Bearer {shared.token('viewer')}"}
    with connect(f"{shared.url.replace('http', 'ws')}/api/ws", additional_headers=headers) as client:
        for _ in range(200):
            client.send('{"topics": []}')
            client.send('{"topics": ["videos"]}')
        until = time.monotonic() + 0.6
        with suppress(TimeoutError):
            while (left := until - time.monotonic()) > 0:
                client.recv(left)
        assert 1 < len(asked) < 20
        client.socket.shutdown(socket.SHUT_RDWR)  # what is still to be read is not waited for


@pytest.mark.parametrize("url", ["http://a\r\nb.com/x.flv", "rtsp://127.0.0.1:6379/\r\nSET a b\r\n", "https://x/\0.flv"])
def test_no_line_gets_into_what_is_said_to_other_hosts_by_an_address(shared, url):
    session = shared.bearer("operator")
    for method, path, body in (("POST", "streamers", {"url": url}), ("PATCH", "streamers/1", {"url": url})):
        answer = session.request(method, f"{shared.url}/api/{path}", json=body, timeout=5)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.url")
    assert shared.house.asked == []


@pytest.mark.parametrize("stage", [{"trusted_proxies": ["127.0.0.1"]}], indirect=True)
def test_what_a_careless_proxy_passes_on_fills_no_row_and_no_line(stage):
    stage.user("viewer")
    body = {"username": "viewer", "password": "viewer-password"}
    forged = {"X-Forwarded-For": "\x1b[31mred" + "9" * 20_000}
    assert requests.post(f"{stage.url}/api/login", json=body, headers=forged, timeout=5).status_code == 200
    (session,) = users.sessions(stage.catalog.db)
    assert session["address"] == "[31mred" + "9" * 57


def test_what_anybody_may_ask_for_is_made_once(shared, monkeypatch):
    url = f"{shared.url}/api/openapi.json"
    first = requests.get(url, timeout=5)
    assert first.json()["info"]["title"] == "biliupd"
    monkeypatch.setattr(web.json, "dumps", None)
    assert requests.get(url, timeout=5).content == first.content
    known = {"If-None-Match": first.headers["etag"], "Accept-Encoding": "gzip"}
    assert requests.get(url, headers=known, timeout=5).status_code == 304
    assert requests.head(url, timeout=5).headers["content-type"] == "application/json"
