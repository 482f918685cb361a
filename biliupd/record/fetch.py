"""HTTP as a recorder needs it: redirects followed, addresses kept out of every message, all waits with an end.

Headers that identify us (cookies, passwords) go to the host of the stream's own address and nowhere else, whatever a
playlist or a redirect names.

Runs on the network thread of a recorder process. Errors of urllib3 and the system become ours here.
"""

import http.client
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from biliupd.errors import TemporaryError
from biliupd.record.playlist import ByteRange

MOST_REDIRECTS = 5
CHUNK = 256 << 10
GONE = (401, 403, 404, 410)
_PRIVATE = ("cookie", "authorization")
NETWORK_ERRORS = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)


class Refused(TemporaryError):
    """The server answered, but not with what was asked for."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Client:
    """Connections of one recorder, whose `headers` are meant for `home`, the address of the stream.

    `read_seconds` is the longest silence between two pieces of an answer.
    """

    def __init__(self, home: str, headers: Mapping[str, str], connect_seconds: float, read_seconds: float) -> None:
        self._home = home
        self._headers = {"User-Agent": "Mozilla/5.0", **headers}
        self._public = {key: value for key, value in self._headers.items() if key.lower() not in _PRIVATE}
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds))

    def open(self, url: str, byterange: ByteRange | None = None) -> tuple[BaseHTTPResponse, str]:
        """An answer whose body is still to be read, and the address it came from in the end.

        Raises `Refused` for a status other than 200 and 206, `TemporaryError` when there is no answer.
        """
        for _ in range(MOST_REDIRECTS + 1):
            try:
                headers = dict(self._headers if same_host(self._home, url) else self._public)
                if byterange:
                    headers["Range"] = f"bytes={byterange.start}-{byterange.start + byterange.length - 1}"
                answer = self._pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
            except NETWORK_ERRORS as error:
                raise TemporaryError(explain(error)) from error
            target = answer.headers.get("Location")
            if answer.status in (200, 206):
                return answer, url
            answer.close()
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                raise Refused(answer.status)
            url = joined(url, target)
        raise TemporaryError("too many redirects")

    def whole(self, url: str, *, seconds: float, limit_bytes: int, byterange: ByteRange | None = None
              ) -> tuple[bytes, str]:
        """The whole body, and the address it came from. Raises like `open`, also when it takes over `seconds`."""
        deadline = time.monotonic() + seconds
        answer, final = self.open(url, byterange)
        pieces, size = [], 0
        try:
            while piece := answer.read(CHUNK):
                pieces.append(piece)
                size += len(piece)
                if time.monotonic() > deadline:
                    raise TemporaryError(f"not finished within {seconds:g} s")
                if size > limit_bytes:
                    raise TemporaryError(f"larger than {limit_bytes} bytes")
            answer.release_conn()
        except NETWORK_ERRORS as error:
            answer.close()
            raise TemporaryError(explain(error)) from error
        except TemporaryError:
            answer.close()
            raise
        body = b"".join(pieces)
        if byterange and answer.status == 200:
            body = body[byterange.start: byterange.start + byterange.length]
        return body, final


def same_host(home: str, url: str) -> bool:
    """Whether `url` is at home, and not in clear text when home is not."""
    try:
        here, there = urlsplit(home), urlsplit(url)
    except ValueError:
        return False
    return here.netloc == there.netloc and (here.scheme == there.scheme or there.scheme == "https")


def joined(url: str, target: str) -> str:
    """Where a redirect leads; raises `TemporaryError` when that is no address."""
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise TemporaryError("a redirect to something that is no address") from error


def explain(error: BaseException) -> str:
    """What went wrong, without the address: the texts of urllib3 hold it, and it may hold a token."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    names = {
        "ReadTimeoutError": "no byte for too long",
        "ConnectTimeoutError": "no connection in time",
        "NewConnectionError": "cannot connect",
        "NameResolutionError": "the host name is not known",
        "ProtocolError": "the connection broke off",
        "IncompleteRead": "the answer is shorter than announced",
        "SSLError": "the certificate or TLS is not accepted",
    }
    name = type(error).__name__
    return names.get(name, name)
