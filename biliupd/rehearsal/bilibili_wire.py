"""HTTP/1.1 under the stand-in Bilibili: one request in, one answer out, connections kept alive.

Each connection has a thread of the server. Touches sockets only; what to answer is the business of bilibili.py.
"""

import contextlib
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
    """What goes back: an HTTP status, a body and its type."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

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
    """A request being answered; its body can be read once, whole or in blocks."""

    def __init__(self, method: str, target: str, headers: dict[str, str], stream: BinaryIO) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.raw_query = parts.query
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = headers
        self.host = parts.netloc or headers.get("host", "")
        self.length = int(headers.get("content-length") or 0)
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.cookies = dict(
            pair.strip().split("=", 1) for pair in headers.get("cookie", "").split(";") if "=" in pair)
        self.kept = b""
        self._stream = stream
        self._left = self.length

    def blocks(self, most_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
        """The body in pieces of at most that size; the buffer is used again for the next one."""
        buffer = memoryview(bytearray(most_bytes))
        while self._left:
            count = self._stream.readinto(buffer[:min(most_bytes, self._left)])  # type: ignore[attr-defined]
            if not count:
                raise ConnectionResetError("the client went away in the middle of a body")
            self._left -= count
            yield buffer[:count]

    def read(self) -> bytes:
        """The whole body, for forms and JSON."""
        if self.length > LARGEST_FORM_BYTES:
            raise Refused(Answer(413, b"Request Entity Too Large", "text/plain"))
        content = b"".join(bytes(block) for block in (self._chunks() if self.chunked else self.blocks()))
        self.kept = content[:KEPT_BODY_BYTES]
        return content

    def form(self) -> dict[str, str]:
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = BLOCK_BYTES
    server: "Server"

    def _turn(self) -> None:
        at, clock = datetime.now(UTC), time.monotonic()
        headers = {name.lower(): text for name, text in self.headers.items()}
        incoming = Incoming(self.command, self.path, headers, self.rfile)  # type: ignore[arg-type]
        route, status = "", 0
        try:
            route, answer = self.server.answer(incoming)
            incoming.drain()
            status = answer.status
        except Dropped as dropped:
            route = str(dropped)
        finally:
            self.server.log(Request(
                route, incoming.method, incoming.host, incoming.path, incoming.query, headers, incoming.kept, status,
                at, time.monotonic() - clock))
        if status:
            self._send(answer)
        else:
            self._reset()

    do_GET = do_POST = do_PUT = do_HEAD = _turn

    def _send(self, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}",
                 f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body)}",
                 f"Date: {self.date_time_string()}", *(f"{name}: {text}" for name, text in answer.headers.items())]
        if self.close_connection:
            lines.append("Connection: close")
        body = b"" if self.command == "HEAD" else answer.body
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("utf-8") + body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() says RST

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing to stderr: the log of requests is a list."""


class Server(ThreadingHTTPServer):
    """A listening socket, a thread per connection, and a `close` that leaves neither behind."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self, port: int, ssl_context: ssl.SSLContext | None,
        answer: Callable[[Incoming], tuple[str, Answer]], log: Callable[[Request], None],
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.log = log
        self.closing = threading.Event()
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
        with self._lock:
            left = dict(self._open)
        for thread, connection in left.items():
            self.hang_up(connection)
            thread.join(5)

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
