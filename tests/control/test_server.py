"""The server: when it listens, over TLS and behind a proxy, with patience for nobody, and how it ends."""

import os
import socket
import ssl
import time

import pytest
import requests
import trustme
from loguru import logger
from stage import Stage
from support import wait_until
from test_files import playing
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from biliupd.catalog import users
from biliupd.catalog.database import Catalog
from biliupd.control import connections, server


@pytest.fixture
def log():
    """What is logged from warnings up."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def soon(monkeypatch):
    """It tries again at once."""
    monkeypatch.setattr(server, "AGAIN_SECONDS", 0.05)


def health(stage, **how):
    return requests.get(f"{stage.url}/api/health", timeout=5, **how)


# -- when it listens


def test_health_is_200_while_all_is_well_and_503_when_not_and_says_why_to_who_is_logged_in(stage):
    answer = health(stage)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "version": "1.2.3", "trouble": []})
    stage.house.troubles.append("ffmpeg is missing")
    answer = health(stage)
    assert (answer.status_code, answer.json()["trouble"]) == (503, [])
    answer = stage.bearer("viewer").get(f"{stage.url}/api/health", timeout=5)
    assert (answer.status_code, answer.json()["trouble"]) == (503, ["ffmpeg is missing"])


def test_an_address_that_is_taken_is_said_and_taken_as_soon_as_it_is_free(tmp_path, soon):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        stage = Stage(tmp_path, port=port).start()
        assert stage.control.is_alive()
        assert stage.control.port is None
        assert f"127.0.0.1:{port} cannot be used" in stage.said[-1]
    wait_until(lambda: stage.control.port == port)
    assert health(stage).ok
    assert (len(stage.said), stage.said[-1]) == (2, "")  # told once, and once that it is over
    stage.close()
    assert not stage.control.is_alive()  # else the daemon says that it did not end in time


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_where_strangers_could_come_it_waits_for_a_user(tmp_path, soon, log, host):
    stage = Stage(tmp_path, host=host).start()
    try:
        assert stage.control.port is None
        assert "biliupd passwd NAME" in stage.said[-1]
        other = Catalog(stage.catalog.path)  # as another process
        users.add(other.db, "ann", "hash", "admin")
        other.close()
        wait_until(lambda: stage.control.port)
        assert health(stage).ok
        assert stage.said[-1] == ""
        assert sum("readable" in line for line in log) == 1  # no TLS
        assert not any("the code" in line for line in log)
    finally:
        stage.close()


def test_loopback_needs_no_user_and_no_warning(tmp_path, log):
    for number, host in enumerate(("127.0.0.1", "localhost", "::1", "127.3.2.1")):
        stage = Stage(tmp_path / str(number), host=host)
        stage.user("admin")
        stage.start()
        try:
            assert stage.control.port
        finally:
            stage.close()
    assert log == []


def test_a_name_nobody_knows_is_no_end(tmp_path):
    stage = Stage(tmp_path, host="nowhere.invalid")
    stage.user("admin")
    stage.start()
    assert "cannot be used" in stage.said[-1]
    assert stage.control.is_alive()
    stage.close()


def test_it_does_not_listen_when_it_is_switched_off(tmp_path):
    stage = Stage(tmp_path, enabled=False).start()
    assert (stage.control.port, stage.said) == (None, [""])
    assert stage.control.is_alive()
    stage.close()
    assert not stage.control.is_alive()


# -- over TLS, behind a proxy


@pytest.fixture
def ca():
    return trustme.CA()


def issue(ca, folder):
    made = ca.issue_cert("127.0.0.1", "localhost")
    paths = {"certificate": folder / "cert.pem", "key": folder / "key.pem"}
    for path, blobs in ((paths["certificate"], made.cert_chain_pems), (paths["key"], [made.private_key_pem])):
        part = path.with_suffix(".part")
        part.write_bytes(b"".join(blob.bytes() for blob in blobs))
        os.replace(part, path)
    return paths


def serial(stage, ca):
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", stage.control.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.getpeercert()["serialNumber"], secure.version()


def test_over_tls_the_cookie_is_for_this_host_alone_and_the_browser_stays_with_https(tmp_path, ca, log):
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stage = Stage(tmp_path, host="0.0.0.0", **issue(ca, tmp_path))
    stage.user("admin")
    stage.start()
    try:
        trust = {"verify": str(tmp_path / "ca.pem"), "timeout": 5}
        assert serial(stage, ca)[1] in ("TLSv1.3", "TLSv1.2")
        body = {"username": "admin", "password": "admin-password"}
        answer = requests.post(f"{stage.url}/api/login", json=body, **trust)
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name == "__Host-biliupd"
        assert {"secure", "httponly", "path=/", "samesite=strict"} <= {flag.lower() for flag in rest.split("; ")}
        assert "domain" not in rest.lower()
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        token = rest.partition(";")[0]
        for cookie, status in (("__Host-biliupd", 200), ("biliupd", 401)):  # the other could be set from elsewhere
            assert requests.get(f"{stage.url}/api/me", cookies={cookie: token}, **trust).status_code == status
        assert not any("readable" in line for line in log)
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"http://127.0.0.1:{stage.control.port}/", timeout=5)
        assert health(stage, verify=trust["verify"]).ok
    finally:
        stage.close()


def test_a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not(tmp_path, ca, monkeypatch, log):
    monkeypatch.setattr(server, "RENEW_SECONDS", 0)
    paths = issue(ca, tmp_path)
    stage = Stage(tmp_path, **paths).start()
    try:
        first = serial(stage, ca)
        paths["certificate"].write_text("half a certif")
        wait_until(lambda: any("the new certificate is not taken" in line for line in log))
        assert serial(stage, ca) == first
        issue(ca, tmp_path)
        wait_until(lambda: serial(stage, ca) != first)
    finally:
        stage.close()


def test_a_certificate_that_cannot_be_used_is_said_and_taken_once_it_can(tmp_path, ca, soon):
    paths = issue(ca, tmp_path)
    whole = paths["key"].read_bytes()
    for broken in (b"", b"no key", issue(trustme.CA(), tmp_path)["key"].read_bytes()):
        issue(ca, tmp_path)
        paths["key"].write_bytes(broken)
        stage = Stage(tmp_path, **paths).start()
        assert stage.control.port is None
        assert str(paths["certificate"]) in stage.said[-1]
        paths["key"].unlink()
        stage.close()
    stage = Stage(tmp_path, **paths).start()
    assert stage.control.port is None
    assert whole
    issue(ca, tmp_path)
    wait_until(lambda: stage.control.port)
    stage.close()


@pytest.mark.parametrize(
    ("trusted", "cases"),
    [
        ([], [({"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}, "127.0.0.1", False)]),
        (["10.0.0.0/8"], [({"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}, "127.0.0.1", False)]),
        (["127.0.0.0/8", "192.0.2.1"], [
            ({"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}, "203.0.113.9", True),
            ({"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}, "203.0.113.9", False), ({}, "127.0.0.1", False),
            ({"X-Forwarded-Proto": "gopher"}, "127.0.0.1", False),
        ]),
    ],
)  # fmt: skip
def test_a_proxy_is_believed_when_the_settings_say_so(tmp_path, trusted, cases):
    stage = Stage(tmp_path, trusted_proxies=trusted)
    stage.user("admin")
    stage.start()
    try:
        for forwarded, address, secure in cases:
            body = {"username": "admin", "password": "admin-password"}
            answer = requests.post(f"{stage.url}/api/login", json=body, headers=forwarded, timeout=5)
            assert answer.status_code == 200
            assert answer.headers["set-cookie"].startswith("__Host-") == secure
            assert ("strict-transport-security" in answer.headers) == secure
            (session,) = [row for row in users.sessions(stage.catalog.db) if row["id"] == answer.json()["session_id"]]
            assert session["address"] == address
    finally:
        stage.close()


# -- patience

WHOLE = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def until_cut(connection, drops=b""):
    """Seconds until the server closes the connection, while it is sent one byte after the other."""
    began = time.monotonic()
    connection.settimeout(0.01 if drops else 5)
    try:
        for byte in drops or b"x":
            if drops:
                connection.sendall(bytes([byte]))
            try:
                while connection.recv(65536):
                    pass
                break
            except TimeoutError:
                continue
    except ConnectionError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("said", "drops"),
    [
        (b"", b""), (b"G", b""), (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b""), (WHOLE + b"GET / HT", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 1000),
    ],
)  # fmt: skip
def test_who_says_half_a_thing_is_cut(shared, monkeypatch, said, drops):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.15)
    assert health(shared).ok  # it is up
    monkeypatch.setattr(shared.control._server.config, "timeout_keep_alive", 0.15)
    with socket.create_connection(("127.0.0.1", shared.control.port), timeout=5) as slow:
        slow.sendall(said)
        assert 0.1 < until_cut(slow, drops) < 3
    wait_until(lambda: not shared.control._server.server_state.connections)


def test_a_response_that_takes_longer_than_a_head_may_is_not_cut(stage, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    path = stage.drop / "film.flv"
    path.write_bytes(b"film")
    asked = []

    def slowly(path, at):
        for _ in range(4):
            asked.append(0)
            wait_until(lambda: asked.append(1) or asked[-12:] == [1] * 12)  # 0.2 s
            yield b"x"

    answer = stage.session("viewer").get(playing(stage, slowly), timeout=5)
    assert answer.content == b"xxxx"


@pytest.mark.parametrize("secure", [False, True])
def test_too_many_connections_are_told_or_cut_before_they_cost_and_the_rest_goes_on(tmp_path, ca, monkeypatch, secure):
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr(connections, "CONNECTIONS", 10)
    monkeypatch.setattr(connections, "SPARE", 5)
    stage = Stage(tmp_path, **(issue(ca, tmp_path) if secure else {})).start()
    keep, trust = requests.Session(), {"verify": str(tmp_path / "ca.pem"), "timeout": 5}

    def ours():
        return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd")
                   if os.path.islink(f"/proc/self/fd/{fd}"))  # fmt: skip

    try:
        assert keep.get(f"{stage.url}/api/health", **trust).ok
        before = ours()
        idle = [socket.create_connection(("127.0.0.1", stage.control.port), timeout=5) for _ in range(60)]
        wait_until(lambda: ours() <= before + len(idle) + 16)
        cut = 0
        for one in idle:
            one.settimeout(0.005)
            try:
                cut += one.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                cut += 1
        assert cut >= 60 - 16
        for one in idle:
            one.close()
        wait_until(lambda: keep.get(f"{stage.url}/api/health", **trust).ok)
    finally:
        stage.close()


# -- how it ends


def test_it_ends_in_two_seconds_whatever_is_open_and_frees_its_address(stage):
    token, port = stage.token("viewer"), stage.control.port
    headers = {"Authorization": f"Bearer {token}"}
    endless = playing(stage, lambda path, at: iter(lambda: b"x" * 100_000, b""))
    (stage.drop / "long.mp4").write_bytes(b"x" * 50_000_000)
    keep_alive = requests.Session()
    assert keep_alive.get(f"{stage.url}/api/health").ok
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"GET / HT")
    played = requests.get(endless, headers=headers, stream=True, timeout=5)
    played.raw.read(10)
    with connect(f"ws://127.0.0.1:{port}/api/ws", additional_headers=headers) as websocket:
        websocket.send('{"topics": ["status"]}')
        assert "hello" in websocket.recv(5)
        began = time.monotonic()
        stage.control.close(10)
        assert time.monotonic() - began < 2
        assert not stage.control.is_alive()
        with pytest.raises(ConnectionClosed):
            list(map(websocket.recv, [5] * 100))
    assert stage.house.still_playing == 0
    played.close()
    half.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_one_that_is_closed_before_it_listens_never_does(tmp_path):
    stage = Stage(tmp_path)
    stage.control.close(1)
    stage.control.start()
    wait_until(lambda: not stage.control.is_alive())
    stage.close()
