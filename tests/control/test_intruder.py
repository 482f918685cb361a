"""What somebody tries who wants in, or wants to harm, and what comes of it: nothing."""

import socket
import threading

import pytest
from loguru import logger
from support import wait_until

from biliupd.control import connections

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


def open_connections(stage) -> set:
    return stage.control._server.server_state.connections


@pytest.mark.parametrize("then", [PING * 50, GARBAGE, b"\x81\x85\0\0\0\0hello", b"\x88\x80\0\0\0\0", b""])
def test_a_stranger_on_a_websocket_who_does_not_wait_for_the_answer_writes_nothing_into_the_log(shared, said, then):
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
        with pytest.raises(OSError):  # noqa: PT011 - cut: any way a socket says so
            for _ in range(4000):  # 50 MB
                deaf.sendall(PING * 100)
        wait_until(lambda: not open_connections(shared), 5)


def test_who_asks_on_and_on_and_never_reads_is_cut(shared, monkeypatch):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    asked = b"GET /static/js/main.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    with connected(shared, asked, receive_bytes=2048) as deaf, pytest.raises(OSError):  # noqa: PT011
        for _ in range(500):
            deaf.sendall(asked)
    wait_until(lambda: not open_connections(shared), 5)
