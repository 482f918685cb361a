"""One bounded GET: so many bytes, so much time, and trouble told without secrets.

Runs on the thread of whoever looks at a room. Each call has a connection of its own: looks are a minute apart, and
many a router forgets an idle connection sooner, without telling. Error texts name neither the query nor the user of an
address, because they end in the log.
"""

import functools
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import requests
import urllib3
from requests.adapters import HTTPAdapter

from biliupd.config import trusted_certificates
from biliupd.errors import TemporaryError

MOST_REDIRECTS = 10


class NoAnswer(TemporaryError):
    """The site could not be reached, or said nothing (more) in time."""


@dataclass(frozen=True)
class Answer:
    """What came back, and from where in the end. `whole` is False when the body is longer than what was read of it."""

    status: int
    body: bytes
    whole: bool
    url: str


def fetch(
    url: str, *, timeout_seconds: float, largest_bytes: int, headers: Mapping[str, str] | None = None
) -> Answer:
    """GET `url` and read at most `largest_bytes` of the body (one network read may bring a little more unseen).

    Raises `NoAnswer`. A status such as 404 is an answer. Redirects are followed here, because requests first reads the
    whole body of each, however long it is.
    """
    deadline = time.monotonic() + timeout_seconds
    wanted = {"User-Agent": "biliupd", "Accept": "*/*", "Accept-Encoding": "identity", **(headers or {})}
    try:
        with session() as site:
            for _ in range(MOST_REDIRECTS + 1):
                with site.get(url, headers=wanted, timeout=timeout_seconds, stream=True) as response:
                    target = response.headers.get("Location", "") if response.is_redirect else ""
                    if not target:
                        return _read(response, url, largest_bytes, deadline, timeout_seconds)
                if time.monotonic() > deadline:
                    raise NoAnswer(f"no whole answer within {timeout_seconds:g} s")
                before, url = url, urljoin(url, target.encode("latin-1").decode(errors="replace"))
                wanted = for_address(wanted, before, url)
            raise requests.TooManyRedirects
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise NoAnswer(trouble(error, timeout_seconds)) from error


def _read(
    response: requests.Response, url: str, largest_bytes: int, deadline: float, timeout_seconds: float
) -> Answer:  # fmt: skip
    body = b""
    while len(body) < largest_bytes:
        piece = response.raw.read1(largest_bytes - len(body), decode_content=True)
        if not piece:
            return Answer(response.status_code, body, True, url)
        body += piece
        if time.monotonic() > deadline:
            raise NoAnswer(f"no whole answer within {timeout_seconds:g} s")
    return Answer(response.status_code, body, False, url)


def for_address(headers: Mapping[str, str], before: str, after: str) -> dict[str, str]:
    """Headers for the address that another one led to: what identifies us does not go elsewhere, nor in clear text."""
    old, new = urlsplit(before), urlsplit(after)
    if old.netloc == new.netloc and (old.scheme == new.scheme or new.scheme == "https"):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in ("authorization", "cookie")}


def session() -> requests.Session:
    """A session for one look, which verifies TLS without parsing the certificates anew, and follows no redirect."""
    one = _Unled()
    one.trust_env = _behind_a_proxy()
    one.mount("https://", SharedTrust())
    return one


@functools.cache
def _behind_a_proxy() -> bool:
    """Whether the environment names one; if not, requests need not look through it (and for a .netrc) at each look."""
    return bool(getproxies())


class _Unled(requests.Session):
    """Told not to follow a redirect, requests still reads its body to the end; told that there is none, it does not."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class SharedTrust(HTTPAdapter):
    """Verifies with certificates that were parsed once.

    requests reads the whole bundle for each new connection: 25 ms of work, ten times what a look costs otherwise.
    """

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, ssl_context=_trust(trusted_certificates()))

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        return super().proxy_manager_for(proxy, **more, ssl_context=_trust(trusted_certificates()))

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        return super().build_connection_pool_key_attributes(request, True, cert)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to add: the context says what is believed, and it is always asked."""


@functools.lru_cache(maxsize=4)
def _trust(certificates: str) -> ssl.SSLContext:
    folder = os.path.isdir(certificates)
    return ssl.create_default_context(
        cafile=None if folder else certificates, capath=certificates if folder else None)


def trouble(error: BaseException, timeout_seconds: float) -> str:
    """A failed request in words, without the address (requests puts the whole of it into its messages)."""
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if isinstance(error, timeouts):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "no trustworthy TLS connection"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the site answers {error.response.status_code}"
    if isinstance(error, requests.TooManyRedirects):
        return "the site redirects in circles"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError | OSError) and not isinstance(
        error, requests.exceptions.InvalidURL
    ):
        return "no connection, or it was cut"
    return f"not a usable address or answer ({type(error).__name__})"
