"""Answers of all the forms that servers give them, and of those they should not."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import wait_until

from biliupd.errors import TemporaryError
from biliupd.record.fetch import Refused
from biliupd.record.playlist import ByteRange
from biliupd.record.wire import Wire

BODY = bytes(range(256)) * 1000
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"


class Server:
    """Answers each request on any connection with the next of `answers`, then closes it if told to."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.closes = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/a"
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            asked = b""
            while True:
                try:
                    asked += connection.recv(65536)
                except OSError:
                    return
                head, found, asked = asked.partition(b"\r\n\r\n")
                if not found:
                    return
                self.requests.append(head)
                if not self.answers:
                    return
                closes = self.closes
                try:
                    connection.sendall(self.answers.pop(0))
                except OSError:
                    return  # the client has heard enough
                if closes:
                    return


@pytest.fixture(scope="module")
def speaker() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def ask(speaker: Server) -> Iterator[Callable[..., bytes]]:
    wire = Wire(speaker.url, {"Cookie": "secret", "Referer": "r\r\nX: y"}, 2.0, 0.5)
    speaker.answers, speaker.requests, speaker.connections, speaker.closes = [], [], 0, False

    def get(*answers: bytes, limit: int = 1 << 20, byterange: ByteRange | None = None, closes: bool = False) -> bytes:
        speaker.answers, speaker.closes = list(answers), closes
        return bytes(wire.get(speaker.url, seconds=2.0, limit_bytes=limit, byterange=byterange)[0])
    yield get
    wire.close()
    wait_until(lambda: not any(thread.is_alive() for thread in speaker.threads[1:]))


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


def packed(body: bytes) -> bytes:
    body = gzip.compress(body)
    return OK + b"content-encoding: gzip\r\n" + LENGTH % len(body) + body


@pytest.mark.parametrize("answer", [
    OK + LENGTH % len(BODY) + BODY, chunked(BODY), chunked(BODY[:7], BODY[7:], trailer=b"X: y\r\n"),
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + LENGTH % len(BODY) + BODY, packed(BODY)])
def test_an_answer_of_any_form_is_read_and_the_connection_kept(
        ask: Callable[..., bytes], speaker: Server, answer: bytes) -> None:
    for _ in range(3):
        assert ask(answer) == BODY
    assert speaker.connections == 1
    assert b"Cookie: secret" in speaker.requests[0]
    assert b"Referer" not in speaker.requests[0]  # nobody slips a line of his own in


def test_an_answer_without_a_length_goes_to_the_end_of_its_connection(
        ask: Callable[..., bytes], speaker: Server) -> None:
    assert ask(OK + b"\r\n" + BODY, closes=True) == BODY
    assert ask(b"HTTP/1.0 200 OK\r\n" + LENGTH % 2 + b"ok", closes=True) == b"ok"
    assert speaker.connections == 2


def test_a_connection_that_was_closed_while_idle_is_opened_again(ask: Callable[..., bytes], speaker: Server) -> None:
    assert ask(OK + LENGTH % 2 + b"ok", closes=True) == b"ok"
    assert ask(OK + LENGTH % 2 + b"ko") == b"ko"
    assert speaker.connections == 2


def test_a_range_is_asked_for_and_cut_out_when_the_server_does_not_know_of_ranges(
        ask: Callable[..., bytes], speaker: Server) -> None:
    part = ByteRange(300, 1000)
    assert ask(b"HTTP/1.1 206 Partial\r\n" + LENGTH % 1000 + BODY[300:1300], byterange=part) == BODY[300:1300]
    assert ask(OK + LENGTH % len(BODY) + BODY, byterange=part) == BODY[300:1300]
    assert b"Range: bytes=300-1299" in speaker.requests[0]
    with pytest.raises(TemporaryError, match="shorter"):
        ask(b"HTTP/1.1 206 Partial\r\n" + LENGTH % 5 + b"short", byterange=part)


@pytest.mark.parametrize(("answer", "said"), [
    (OK + LENGTH % 9 + b"short", "shorter than announced"), (OK + LENGTH % (1 << 21), "larger"),
    (OK + b"Content-Length: -1\r\n\r\n", "larger"), (chunked(b"x" * (1 << 21)), "larger"),
    (b"garbage\r\n\r\n", "no HTTP"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "ValueError"), (OK + b"X: y", "broke off"), (b"", "broke off"),
    (OK + b"Content-Encoding: gzip\r\n" + LENGTH % 3 + b"abc", "unpacked"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", "no address"),
    (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "ValueError"),
])
def test_what_is_no_answer_is_said_to_be_none(ask: Callable[..., bytes], answer: bytes, said: str) -> None:
    with pytest.raises(TemporaryError, match=said):
        ask(answer, closes=True)


def test_a_refusal_keeps_its_number_and_the_connection(ask: Callable[..., bytes], speaker: Server) -> None:
    for status in (403, 404, 500):
        with pytest.raises(Refused) as error:
            ask(b"HTTP/1.1 %d No\r\n" % status + LENGTH % 4 + b"page")
        assert error.value.status == status
    assert speaker.connections == 1


def test_redirects_end_somewhere(ask: Callable[..., bytes], speaker: Server) -> None:
    away = b"HTTP/1.1 302 Found\r\nLocation: /b?c=%20d\r\nContent-Length: 0\r\n\r\n"
    assert ask(away, OK + LENGTH % 2 + b"ok") == b"ok"
    assert speaker.requests[1].startswith(b"GET /b?c=%20d HTTP/1.1\r\n")
    with pytest.raises(TemporaryError, match="redirects"):
        ask(*[away] * 9)


@settings(max_examples=60, deadline=None)
@given(head=st.sampled_from([b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n", OK + b"Content-Length: 9\r\n\r\n"]),
       body=st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(speaker: Server, head: bytes, body: bytes) -> None:
    wire = Wire(speaker.url, {}, 2.0, 0.5)
    speaker.answers, speaker.closes = [head + body], True
    try:
        wire.get(speaker.url, seconds=2.0, limit_bytes=1000)
    except TemporaryError:
        pass
    finally:
        wire.close()
    wait_until(lambda: not any(thread.is_alive() for thread in speaker.threads[1:]))
