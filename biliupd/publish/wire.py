"""One keep-alive HTTP connection for bytes in bulk, and which certificates are believed.

requests costs a fifth more time and processor than http.client fed with blocks of 256 KiB (one sendall of a big
buffer is one SSL_write outside the GIL), so parts go through here and everything else through requests. A Wire is
used by one thread; `cut` may come from any other and wakes it.
"""

import contextlib
import http.client
import math
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

import requests.auth
import requests.utils

from biliupd.config import trusted_certificates
from biliupd.errors import PermanentError

CONNECT_SECONDS = 15.0
LEAST_SILENCE_SECONDS = 20  #: the kernel gives a connection up whose other side acknowledges nothing for so long
LARGEST_ANSWER_BYTES = 1 << 20
Buffer = bytes | memoryview


@dataclass(frozen=True)
class Reply:
    """An answer, whatever its status; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@lru_cache(maxsize=4)
def _context(trusted: str) -> ssl.SSLContext:
    folder = os.path.isdir(trusted)
    context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Wire:
    """A connection to the host of `url`, made when first needed and again after any failure.

    `request` raises OSError or http.client.HTTPException. Connecting and each step of sending may take
    `timeout_seconds`, and the answer as well, or longer with more patience.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url: SplitResult = urlsplit(url)
        self._timeout_seconds = timeout_seconds
        self._http: http.client.HTTPConnection | None = None
        self._cut = False
        self._headers: dict[str, str] = {}
        self._late_at: float | None = None
        self._was_late = False

    def request(
        self, method: str, target: str, headers: dict[str, str], body: Buffer | Iterable[Buffer] | None = None,
        *, patience_seconds: float = math.inf,
    ) -> Reply:
        """Send and wait for the answer. `target` is path and query; a body that is not bytes needs Content-Length.

        After `patience_seconds` as a whole the request is late, and `hang_up_if_late` ends it.
        """
        self._late_at = time.monotonic() + patience_seconds
        try:
            connection = self._connected()
            return self._exchange(connection, method, self._target(target), {**self._headers, **headers}, body)
        except BaseException as error:
            self.close()
            if self._was_late and isinstance(error, OSError | http.client.HTTPException):
                raise TimeoutError("took too long as a whole") from error
            raise
        finally:
            self._late_at, self._was_late = None, False

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: str, headers: dict[str, str],
        body: Buffer | Iterable[Buffer] | None,
    ) -> Reply:
        try:
            _send(connection, method, target, headers, body)
        except (BrokenPipeError, ConnectionResetError):
            if self._cut or connection.sock is None:
                raise
            connection.sock.settimeout(1)  # a server that refuses a body answers and hangs up before it has read it
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = self._read(connection)
                self.close()  # part of the body is still unsent
                return reply
            raise
        return self._wait(connection)

    def _wait(self, connection: http.client.HTTPConnection) -> Reply:
        """The answer may take as long as there is patience: megabytes of the body are still in the kernel's buffer."""
        late_at = self._late_at
        if late_at is not None and late_at < math.inf:
            connection.sock.settimeout(max(late_at - time.monotonic(), self._timeout_seconds))
        reply = self._read(connection)
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout_seconds)
        return reply

    def _read(self, connection: http.client.HTTPConnection) -> Reply:
        with connection.getresponse() as response:
            content = response.read(LARGEST_ANSWER_BYTES)
            if not response.isclosed() and response.read(1):
                raise http.client.HTTPException("an answer that does not end")
            return Reply(response.status, {name.lower(): text for name, text in response.headers.items()}, content)

    def cut(self) -> None:
        """End the connection under whoever is using it, and let no other be made."""
        self._cut = True
        connection = self._http
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # past TLS: its own shutdown is not for another thread to call
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def hang_up_if_late(self) -> None:
        """End a request under way that is late, though bytes may trickle; the next one connects again."""
        late_at = self._late_at
        if late_at is not None and time.monotonic() > late_at and not self._cut:
            self._was_late = True
            self.cut()
            self._cut = False

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """What its own body waits for meanwhile does not make the request under way late."""
        late_at, self._late_at = self._late_at, None
        began = time.monotonic()
        try:
            yield
        finally:
            self._late_at = None if late_at is None else late_at + time.monotonic() - began

    def close(self) -> None:
        connection, self._http = self._http, None
        if connection is not None:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        if self._http is None or self._http.sock is None:
            self._http = self._open()
            self._http.connect()
            _watched(self._http.sock, self._timeout_seconds)
            self._http.sock.settimeout(self._timeout_seconds)
        if self._cut:
            raise ConnectionAbortedError("cut")
        return self._http

    def _open(self) -> http.client.HTTPConnection:
        secure, host = self._url.scheme == "https", self._url.hostname or ""
        port = self._url.port or (443 if secure else 80)
        timeout = min(CONNECT_SECONDS, self._timeout_seconds)
        proxy = _proxy(self._url.geturl())
        at, to = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        if not secure:
            if proxy:
                self._headers = {"Host": self._url.netloc, **_authorization(proxy)}
            return http.client.HTTPConnection(at, to, timeout=timeout)
        connection = http.client.HTTPSConnection(at, to, timeout=timeout, context=_context(trusted_certificates()))
        if proxy:
            connection.set_tunnel(host, port, _authorization(proxy))
        return connection

    def _target(self, target: str) -> str:
        plain_proxy = self._url.scheme == "http" and self._headers
        return f"http://{self._url.netloc}{target}" if plain_proxy else target


def _watched(connection: socket.socket, timeout_seconds: float) -> None:
    """Have the kernel notice a cut that nobody tells, though what was sent last only lies in its buffer."""
    silence = max(LEAST_SILENCE_SECONDS, math.ceil(timeout_seconds))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, number in ((socket.TCP_NODELAY, 1), (socket.TCP_USER_TIMEOUT, silence * 1000),
                           (socket.TCP_KEEPIDLE, silence), (socket.TCP_KEEPINTVL, max(1, silence // 3)),
                           (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, number)


def _send(
    connection: http.client.HTTPConnection, method: str, target: str, headers: dict[str, str],
    body: Buffer | Iterable[Buffer] | None,
) -> None:
    """What http.client's own `request` does, but for a body in blocks without its look at each of them."""
    if body is None or isinstance(body, bytes | memoryview):
        connection.request(method, target, body, headers)
        return
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, text in headers.items():
        connection.putheader(name, text)
    connection.endheaders()
    sendall = connection.sock.sendall
    for block in body:
        sendall(block)


def is_host(text: str) -> bool:
    """Whether //host[:port]… of a server's answer can be connected to at all."""
    try:
        parts = urlsplit(text)
        return text.startswith("//") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False


def _proxy(url: str) -> SplitResult | None:
    found = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url, no_proxy=None))
    if not found:
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http":
        raise PermanentError(f"cannot upload through a proxy of the kind {proxy.scheme}://",
                             hint="set HTTPS_PROXY to an http:// proxy, or NO_PROXY")
    return proxy


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    user, password = unquote(proxy.username), unquote(proxy.password or "")
    return {"Proxy-Authorization": requests.auth._basic_auth_str(user, password)}
