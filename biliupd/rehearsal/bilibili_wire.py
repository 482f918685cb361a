"""HTTP/1.1 under the stand-in Bilibili: one request in, one answer out, connections kept alive.

Each connection has a thread of the server. Touches sockets only; what to answer is the business of bilibili.py.
"""

import contextlib
import email
import email.message
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from loguru import logger

BLOCK_BYTES = 256 * 1024
LARGEST_FORM_BYTES = 32 << 20
KEPT_BODY_BYTES = 64 << 10


@dataclass(frozen=True)
class Answer:
    """What goes back: an HTTP status, a body and its type.

    With `repeat_seconds` the body has no end: it is sent again and again, with this pause, until the client leaves.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    repeat_seconds: float | None = None

    @classmethod
    def json(cls, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        return cls(status, json.dumps(content, ensure_ascii=False).encode(), headers=headers or {})


class Refused(Exception):
    """Raised anywhere below a route: this is the answer instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Dropped(Exception):
    """Raised anywhere below a route: the connection is reset without an answer."""


@dataclass(frozen=True)
class Request:
    """One line of the log. `status` 0 means that the connection was dropped without an answer.

    `body` is kept up to 64 KiB, never for parts; `seconds` is how long the request took.
    """

    route: str
    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    status: int
    at: datetime
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Incoming:
    """A request being answered; its body can be read once, whole or in blocks.

    `endpoint` is the address it came to. The body is read no faster than `pace()` bytes per second (0: as it comes),
    and with `breaks_off` the connection is reset after half of it. `closing` is set when the server ends.
    """

    def __init__(
        self, method: str, target: str, headers: dict[str, str], stream: BinaryIO, endpoint: str,
        closing: threading.Event,
    ) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.raw_query = parts.query
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = headers
        self.host = parts.netloc or headers.get("host", "")
        length = headers.get("content-length", "")
        self.length = int(length) if length.isascii() and length.isdecimal() else 0
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.cookies = dict(
            pair.strip().split("=", 1) for pair in headers.get("cookie", "").split(";") if "=" in pair)
        self.endpoint = endpoint
        self.closing = closing
        self.route = ""
        self.pace: Callable[[], float] = lambda: 0
        self.breaks_off = False
        self.kept = b""
        self._stream = stream
        self._left = self.length

    def blocks(self, most_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
        """The body in pieces of at most that size; the buffer is used again for the next one."""
        speed = self.pace()
        if speed:
            most_bytes = max(1024, min(most_bytes, int(speed / 20)))
        buffer = memoryview(bytearray(most_bytes))
        while self._left:
            count = self._stream.readinto(buffer[:min(most_bytes, self._left)])  # type: ignore[attr-defined]
            if not count:
                raise ConnectionResetError("the client went away in the middle of a body")
            self._left -= count
            yield buffer[:count]
            if self.breaks_off and self._left <= self.length // 2:
                raise Dropped
            if speed := self.pace():
                self.closing.wait(count / speed)

    def read(self) -> bytes:
        """The whole body, for forms and JSON."""
        if self.length > LARGEST_FORM_BYTES:
            raise Refused(Answer(413, b"Request Entity Too Large", "text/plain"))
        content = b"".join(bytes(block) for block in (self._chunks() if self.chunked else self.blocks()))
        self.kept = content[:KEPT_BODY_BYTES]
        return content

    def form(self) -> dict[str, str]:
        """The fields of a form, url-encoded or multipart."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + self.read())
            fields = [part for part in message.walk() if not part.is_multipart()]
            return {str(part.get_param("name", header="content-disposition")): _text(part) for part in fields}
        return dict(parse_qsl(self.read().decode("utf-8", "replace"), keep_blank_values=True))

    def drain(self) -> None:
        """Read what is left, so that the next request on this connection is understood."""
        for _ in self._chunks() if self.chunked else self.blocks():
            pass

    def _chunks(self) -> Iterator[bytes]:
        self.chunked, total = False, 0
        while size := int(self._stream.readline(64).split(b";")[0], 16):
            total += size
            if total > LARGEST_FORM_BYTES:
                raise ConnectionResetError("a chunked body that does not end")
            yield self._stream.read(size)
            self._stream.readline(64)
        self._stream.readline(64)


def _text(part: "email.message.Message[str, str]") -> str:
    content = part.get_payload(decode=True)
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = BLOCK_BYTES
    server: "Server"

    def _turn(self) -> None:
        at, clock = datetime.now(UTC), time.monotonic()
        headers = {name.lower(): text for name, text in self.headers.items()}
        incoming = Incoming(self.command, self.path, headers, self.rfile,  # type: ignore[arg-type]
                            self.server.address, self.server.closing)
        status = 0
        try:
            answer = self.server.answer(incoming)
            incoming.drain()
            status = answer.status
        except Dropped:
            pass
        finally:
            self.server.log(Request(
                incoming.route, incoming.method, incoming.host, incoming.path, incoming.query, headers, incoming.kept,
                status, at, time.monotonic() - clock))
        if status:
            self._send(answer)
        else:
            self._reset()

    do_GET = do_POST = do_PUT = do_HEAD = _turn

    def _send(self, answer: Answer) -> None:
        length = f"Content-Length: {len(answer.body)}"
        if answer.repeat_seconds is not None:
            length = "Transfer-Encoding: chunked"
            self.close_connection = True
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}",
                 f"Content-Type: {answer.content_type}", length,
                 f"Date: {self.date_time_string()}", *(f"{name}: {text}" for name, text in answer.headers.items())]
        if self.close_connection:
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "", ""]).encode("utf-8")
        if answer.repeat_seconds is None:
            self.wfile.write(head if self.command == "HEAD" else head + answer.body)
            return
        self.wfile.write(head)
        while not self.server.closing.wait(answer.repeat_seconds):
            self.wfile.write(f"{len(answer.body):x}\r\n".encode() + answer.body + b"\r\n")

    def _reset(self) -> None:
        self.close_connection = True
        _reset_when_closed(self.connection)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing to stderr: the log of requests is a list."""


def _reset_when_closed(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server(ThreadingHTTPServer):
    """A listening socket, a thread per connection, and a `close` that leaves neither behind.

    `answer` sets `route` of what it is given, and may raise Dropped. The next `handshakes_to_cut` connections are reset
    when the first bytes have come, which with TLS is in the middle of the handshake.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self, port: int, ssl_context: ssl.SSLContext | None,
        answer: Callable[[Incoming], Answer], log: Callable[[Request], None],
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.log = log
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.closing = threading.Event()
        self.handshakes_to_cut: float = 0
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._listener = threading.Thread(target=self.serve_forever, args=(0.05,), name="stand-in", daemon=True)

    def start(self) -> None:
        self._listener.start()

    def close(self) -> None:
        """Stop listening, end every connection, wait for their threads."""
        self.closing.set()
        if self._listener.is_alive():
            self.shutdown()
            self._listener.join()
        self.server_close()
        for thread in self.hang_up_all():
            thread.join(5)

    def hang_up_all(self) -> list[threading.Thread]:
        """End every connection there is; the threads that served them."""
        with self._lock:
            left = dict(self._open)
        for connection in left.values():
            self.hang_up(connection)
        return list(left)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="stand-in connection",
                                  daemon=True)
        with self._lock:
            self._open[thread] = request
        thread.start()

    def hang_up(self, connection: socket.socket) -> None:
        """Shut the TCP connection, past any TLS, so that whoever waits on it wakes up."""
        with contextlib.suppress(OSError):  # the other side was faster
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            if self._cut_now():
                request.recv(1024)
                _reset_when_closed(request)
                return
            if self._ssl_context:
                request = self._ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._open[threading.current_thread()] = request
                request.do_handshake()
            self.finish_request(request, client_address)
        except OSError as error:
            logger.debug("stand-in: connection ended: {}", error)
        except Exception:  # noqa: BLE001  the top of this thread's turn: a bug must be seen, and not end the server
            logger.exception("stand-in: a request failed")
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)
            request.close()

    def _cut_now(self) -> bool:
        with self._lock:
            if self.handshakes_to_cut <= 0:
                return False
            self.handshakes_to_cut -= 1
            return True
