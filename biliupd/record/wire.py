"""Whole HTTP answers at little cost: kept connections, the body straight into its place, every wait with an end.

Runs on a network thread of a recorder process, each with a `Wire` of its own. Playlists and segments come this way,
some thousand an hour and stream: that is why it is built on http.client itself. Errors of the system become ours here.
"""

import functools
import http.client
import ssl
import time
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from biliupd.errors import TemporaryError
from biliupd.record.fetch import CHUNK, MOST_REDIRECTS, NETWORK_ERRORS, Refused, explain, joined, same_host
from biliupd.record.playlist import ByteRange

MOST_CONNECTIONS = 4
_PRIVATE = ("cookie", "authorization")


class Broken(TemporaryError):
    """The answer began and did not end: too short, too slow, or cut off."""


class Wire:
    """Connections of one thread. `headers` are meant for `home`, the address of the stream: what is private in them
    goes nowhere else. `read_seconds` is the longest silence.
    """

    def __init__(self, home: str, headers: Mapping[str, str], connect_seconds: float, read_seconds: float) -> None:
        self._home = home
        self._headers = {"User-Agent": "Mozilla/5.0", **headers}
        self._public = {key: value for key, value in self._headers.items() if key.lower() not in _PRIVATE}
        self._connect_seconds, self._read_seconds = connect_seconds, read_seconds
        self._kept: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def close(self) -> None:
        """End all connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def get(self, url: str, *, seconds: float, limit_bytes: int, byterange: ByteRange | None = None
            ) -> tuple[bytearray, str]:
        """The whole body, and the address it came from after redirects.

        Raises `Refused` for a status other than 200 and 206, `Broken` for a body that is not whole within `seconds`
        or above `limit_bytes`, `TemporaryError` when there is no answer.
        """
        deadline = time.monotonic() + seconds
        for _ in range(MOST_REDIRECTS + 1):
            key, answer = self._ask(url, byterange)
            try:
                if answer.status in (200, 206):
                    body = _body(answer, deadline, limit_bytes)
                    if byterange and answer.status == 200:
                        body = body[byterange.start: byterange.start + byterange.length]
                    if byterange and len(body) != byterange.length:
                        raise Broken("the answer is shorter than the range asked for")
                    return body, url
                target = answer.headers.get("Location")
                _body(answer, deadline, CHUNK)
                if answer.status not in (301, 302, 303, 307, 308) or not target:
                    raise Refused(answer.status)
                url = joined(url, target)
            except Refused:
                raise
            except NETWORK_ERRORS as error:
                self._drop(key)
                raise Broken(explain(error)) from error
            except TemporaryError:
                self._drop(key)
                raise
            finally:
                if answer.will_close:
                    self._drop(key)
                answer.close()
        raise TemporaryError("too many redirects")

    def _ask(self, url: str, byterange: ByteRange | None) -> tuple[tuple[str, str], http.client.HTTPResponse]:
        try:
            parts = urlsplit(url)
            key = (parts.scheme, parts.netloc)
            headers = dict(self._headers if same_host(self._home, url) else self._public)
            if byterange:
                headers["Range"] = f"bytes={byterange.start}-{byterange.start + byterange.length - 1}"
            kept = key in self._kept
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                return key, self._request(key, target, headers)
            except (http.client.RemoteDisconnected, ConnectionError):
                self._drop(key)
                if not kept:
                    raise  # else it was only that the server closes what is idle
                return key, self._request(key, target, headers)
        except (*NETWORK_ERRORS, ValueError) as error:
            self._drop(key)
            raise TemporaryError(explain(error)) from error

    def _request(self, key: tuple[str, str], target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._kept.get(key)
        if connection is None:
            connection = self._connect(*key)
            self._kept[key] = connection
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        while len(self._kept) >= MOST_CONNECTIONS:
            self._drop(next(iter(self._kept)))
        parts = urlsplit(f"//{netloc}")
        if scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("no address of a web server")
        if scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self._connect_seconds, context=_trust())
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._connect_seconds)
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection

    def _drop(self, key: tuple[str, str]) -> None:
        connection = self._kept.pop(key, None)
        if connection:
            connection.close()


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all certificates of the system: once is enough


def _body(answer: http.client.HTTPResponse, deadline: float, limit_bytes: int) -> bytearray:
    """Read it to the end. Raises `Broken`, and what the system raises."""
    length = None if answer.chunked else answer.length
    if length is not None and length > limit_bytes:
        raise Broken(f"larger than {limit_bytes} bytes")
    body = bytearray(length or 0)
    if length is not None:
        view, at = memoryview(body), 0
        while at < length:
            count = answer.fp.readinto1(view[at:])
            if not count:
                raise Broken("the answer is shorter than announced")
            at += count
            _in_time(deadline)
    else:
        while piece := answer.read1(CHUNK):
            body += piece
            if len(body) > limit_bytes:
                raise Broken(f"larger than {limit_bytes} bytes")
            _in_time(deadline)
    if answer.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
        return _inflated(body, limit_bytes)
    return body


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Broken("not finished in time")


def _inflated(body: bytearray, limit_bytes: int) -> bytearray:
    """Some servers compress a playlist though nobody asked for it."""
    try:
        return bytearray(zlib.decompressobj(47).decompress(body, limit_bytes))
    except zlib.error as error:
        raise Broken("the answer cannot be unpacked") from error
