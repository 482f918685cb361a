"""Whole HTTP/1.1 answers at little cost: kept connections, the body straight into its place, every wait with an end.

Runs on a network thread of a recorder process, each with a `Wire` of its own. Playlists and segments come this way,
some thousand an hour and stream, and http.client would take as much time for their headers as all the rest of a
recorder: so this speaks the little of RFC 9112 that a GET needs. Errors of the system become ours here.
"""

import functools
import socket
import ssl
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from biliupd.errors import TemporaryError
from biliupd.record.fetch import CHUNK, MOST_REDIRECTS, Refused, explain, joined, same_host
from biliupd.record.playlist import ByteRange

MOST_CONNECTIONS = 4
LARGEST_HEAD = 64 << 10
LEAST_REUSED = 64 << 10  # a buffer of fewer bytes is made anew
GATHERED = 128 << 10  # bytes that a wake-up should bring, where the kernel can be told so
_PRIVATE = ("cookie", "authorization")
_AS_IT_IS = "%/:=&?~#+!$,;'@()*[]|"  # what a request line may hold without being encoded


class Broken(TemporaryError):
    """The answer began and did not end: too short, too slow, cut off, or no HTTP."""


class Begun(NamedTuple):
    """A body that is coming: `piece` is here already; `length` is None when only the connection's end ends it."""

    link: socket.socket
    piece: bytes
    chunked: bool
    length: int | None


class Wire:
    """Connections of one thread. `headers` are meant for `home`, the address of the stream: what is private in them
    goes nowhere else. `read_seconds` is the longest silence. `spare` may hold buffers that nobody needs any more, for
    large bodies: a new one costs as much time as filling it.
    """

    def __init__(self, home: str, headers: Mapping[str, str], connect_seconds: float, read_seconds: float,
                 spare: list[bytearray] | None = None) -> None:
        self._spare = [] if spare is None else spare
        self._home = home
        self._headers = _lines({"User-Agent": "Mozilla/5.0", "Accept": "*/*", **headers})
        self._public = _lines({"User-Agent": "Mozilla/5.0", "Accept": "*/*", **{
            key: value for key, value in headers.items() if key.lower() not in _PRIVATE}})
        self._connect_seconds, self._read_seconds = connect_seconds, read_seconds
        self._kept: dict[tuple[str, str], _Connection] = {}

    def close(self) -> None:
        """End all connections."""
        for key in list(self._kept):
            self._drop(key)

    def get(self, url: str, *, seconds: float, limit_bytes: int, byterange: ByteRange | None = None
            ) -> tuple[bytearray, str]:
        """The whole body, and the address it came from after redirects.

        Raises `Refused` for a status other than 200 and 206, `Broken` for a body that is not whole within `seconds`
        or above `limit_bytes`, `TemporaryError` when there is no answer.
        """
        deadline = time.monotonic() + seconds
        for _ in range(MOST_REDIRECTS + 1):
            status, target, body = self._once(url, byterange, deadline, limit_bytes)
            if status in (200, 206):
                if byterange and status == 200:
                    body = body[byterange.start: byterange.start + byterange.length]
                if byterange and len(body) != byterange.length:
                    raise Broken("the answer is shorter than the range asked for")
                return body, url
            if status not in (301, 302, 303, 307, 308) or not target:
                raise Refused(status)
            url = joined(url, target)
        raise TemporaryError("too many redirects")

    def begin(self, url: str) -> "Begun":
        """An answer whose body is still to come, on a connection of its own that the caller closes. Raises like `get`.
        """
        for _ in range(MOST_REDIRECTS + 1):
            connection = None
            try:
                parts = urlsplit(url)
                connection = _Connection(parts.scheme, parts.netloc, self._connect_seconds, self._read_seconds, [])
                request = self._request(parts, None, same_host(self._home, url))
                head = connection.ask(request, time.monotonic() + self._connect_seconds + self._read_seconds)
            except (OSError, ValueError, TemporaryError) as error:
                if connection:
                    connection.close()
                raise error if isinstance(error, TemporaryError) else TemporaryError(explain(error)) from error
            if head.status in (200, 206):
                return connection.begun(head)
            connection.close()
            target = head.headers.get("location", "")
            if head.status not in (301, 302, 303, 307, 308) or not target:
                raise Refused(head.status)
            url = joined(url, target)
        raise TemporaryError("too many redirects")

    def _once(self, url: str, byterange: ByteRange | None, deadline: float, limit_bytes: int
              ) -> tuple[int, str, bytearray]:
        """Status, where it says to go instead, and body."""
        try:
            parts = urlsplit(url)
            key = (parts.scheme, parts.netloc)
            request = self._request(parts, byterange, same_host(self._home, url))
            try:
                kept = key in self._kept
                head = self._connection(key).ask(request, deadline)
            except (ConnectionError, _Silent):
                self._drop(key)
                if not kept:
                    raise
                head = self._connection(key).ask(request, deadline)  # the server closes what is idle for long
            body = self._kept[key].body(head, deadline, limit_bytes)
            if head.closes:
                self._drop(key)
        except (OSError, ValueError) as error:
            self._drop(key)
            raise TemporaryError(explain(error)) from error
        except TemporaryError:
            self._drop(key)
            raise
        return head.status, head.headers.get("location", ""), body

    def _request(self, parts: SplitResult, byterange: ByteRange | None, at_home: bool) -> bytes:
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), _AS_IT_IS)
        span = f"Range: bytes={byterange.start}-{byterange.start + byterange.length - 1}\r\n" if byterange else ""
        host = parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii").decode()
        lines = self._headers if at_home else self._public
        return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}{span}\r\n".encode("latin-1", "replace")

    def _connection(self, key: tuple[str, str]) -> "_Connection":
        if key not in self._kept:
            while len(self._kept) >= MOST_CONNECTIONS:
                self._drop(next(iter(self._kept)))
            self._kept[key] = _Connection(*key, self._connect_seconds, self._read_seconds, self._spare)
        return self._kept[key]

    def _drop(self, key: tuple[str, str]) -> None:
        connection = self._kept.pop(key, None)
        if connection:
            connection.close()


def _lines(headers: Mapping[str, str]) -> str:
    clean = {key: value for key, value in headers.items() if not any(sign in f"{key}{value}" for sign in "\r\n\0")}
    return "".join(f"{key}: {value}\r\n" for key, value in clean.items())


class _Silent(Broken):
    """The server closed the connection without a word."""


class _Head(NamedTuple):
    status: int
    headers: dict[str, str]  # names in small letters
    closes: bool  # the connection is of no use afterwards


class _Connection:
    """One connection; `_rest` has come already and is not taken yet."""

    def __init__(self, scheme: str, netloc: str, connect_seconds: float, read_seconds: float,
                 spare: list[bytearray]) -> None:
        self._spare = spare
        parts = urlsplit(f"//{netloc}")
        if scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("no address of a web server")
        port = parts.port or (443 if scheme == "https" else 80)
        self._socket = socket.create_connection((parts.hostname, port), timeout=connect_seconds)
        self._plain = scheme == "http"
        self._rest = b""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._plain:
                self._socket = _trust().wrap_socket(self._socket, server_hostname=parts.hostname)
            self._socket.settimeout(read_seconds)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def begun(self, head: _Head) -> Begun:
        """Hand it over to whoever reads the body."""
        chunked = "chunked" in head.headers.get("transfer-encoding", "").lower()
        length = head.headers.get("content-length", "")
        return Begun(self._socket, self._rest, chunked, int(length) if length.isdigit() and not chunked else None)

    def ask(self, request: bytes, deadline: float) -> _Head:
        """Send a request; status and headers of its answer."""
        self._socket.sendall(request)
        status, headers, modern = 100, dict[str, str](), True
        while 100 <= status < 200:  # "wait", or hints before the answer
            status, modern, headers = self._head(deadline)
        says = headers.get("connection", "").lower()
        endless = "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "").lower()
        return _Head(status, headers, "close" in says or (not modern and "keep-alive" not in says)
                     or (endless and status not in (204, 304)))

    def _head(self, deadline: float) -> tuple[int, bool, dict[str, str]]:
        text = self._until(b"\r\n\r\n", deadline).decode("latin-1")
        first, *lines = text.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Broken("the answer is no HTTP")
        pairs = (line.partition(":") for line in lines)
        return int(rest[:3]), version != "HTTP/1.0", {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _until(self, mark: bytes, deadline: float) -> bytes:
        """What comes before a mark."""
        while mark not in self._rest:
            if len(self._rest) > LARGEST_HEAD:
                raise Broken("the answer is no HTTP")
            self._rest += self._more(deadline)
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _more(self, deadline: float) -> bytes:
        piece = self._socket.recv(LARGEST_HEAD)
        if not piece:
            raise Broken("the connection broke off") if self._rest else _Silent("the connection broke off")
        _in_time(deadline)
        return piece

    def body(self, head: _Head, deadline: float, limit_bytes: int) -> bytearray:
        """The body that belongs to a head."""
        if head.status in (204, 304):
            return bytearray()
        if head.status not in (200, 206):
            limit_bytes = CHUNK
        length = head.headers.get("content-length", "")
        if "chunked" in head.headers.get("transfer-encoding", "").lower():
            body = self._chunked(deadline, limit_bytes)
        elif length:
            if not length.isdigit() or int(length[:18]) > limit_bytes:
                raise Broken(f"larger than {limit_bytes} bytes")
            body = self._exactly(int(length), deadline)
        else:
            body = bytearray(self._rest)
            while piece := self._socket.recv(CHUNK):
                body += piece
                _in_bounds(len(body), limit_bytes)
                _in_time(deadline)
        if head.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
            return _inflated(body, limit_bytes)
        return body

    def _exactly(self, length: int, deadline: float) -> bytearray:
        body = self._room(length)
        view, at = memoryview(body), min(length, len(self._rest))
        view[:at] = self._rest[:at]
        self._rest = self._rest[at:]
        gathers = self._plain and length - at > GATHERED
        try:
            while at < length:
                if gathers:
                    self._gather(min(GATHERED, length - at))
                count = self._socket.recv_into(view[at:])
                if not count:
                    raise Broken("the answer is shorter than announced")
                at += count
                _in_time(deadline)
        finally:
            if gathers:
                self._gather(1)
        return body

    def _room(self, length: int) -> bytearray:
        """A buffer of that length, with anything in it."""
        if length < LEAST_REUSED:
            return bytearray(length)
        try:
            body = self._spare.pop()
        except IndexError:
            return bytearray(length)
        if not length // 2 < len(body) < 2 * length:
            return bytearray(length)
        if len(body) < length:
            body += bytes(length - len(body))
        else:
            del body[length:]
        return body

    def _gather(self, size: int) -> None:
        """Be woken up for so many bytes only, not for each packet."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _chunked(self, deadline: float, limit_bytes: int) -> bytearray:
        body = bytearray()
        while True:
            size = int(self._until(b"\r\n", deadline).partition(b";")[0].strip(), 16)
            if size < 0:
                raise Broken("the answer is no HTTP")
            if not size:
                break
            _in_bounds(len(body) + size, limit_bytes)
            body += self._exactly(size, deadline)
            if self._until(b"\r\n", deadline):
                raise Broken("the answer is no HTTP")
        while self._until(b"\r\n", deadline):  # trailers
            pass
        return body


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all certificates of the system: once is enough


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Broken("not finished in time")


def _in_bounds(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise Broken(f"larger than {limit_bytes} bytes")


def _inflated(body: bytearray, limit_bytes: int) -> bytearray:
    """Some servers compress a playlist though nobody asked for it."""
    try:
        return bytearray(zlib.decompressobj(47).decompress(body, limit_bytes))
    except zlib.error as error:
        raise Broken("the answer cannot be unpacked") from error
