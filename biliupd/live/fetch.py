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

import requests
import urllib3
from requests.adapters import HTTPAdapter

from biliupd.config import trusted_certificates
from biliupd.errors import TemporaryError


class NoAnswer(TemporaryError):
    """The site could not be reached, or said nothing (more) in time."""


@dataclass(frozen=True)
class Answer:
    """What came back. `whole` is False when the body is longer than what was read of it."""

    status: int
    body: bytes
    whole: bool


def fetch(
    url: str, *, timeout_seconds: float, largest_bytes: int, headers: Mapping[str, str] | None = None
) -> Answer:
    """GET `url` and read at most `largest_bytes` of the body (one network read may bring a little more unseen).

    Raises `NoAnswer`. A status such as 404 is an answer.
    """
    deadline = time.monotonic() + timeout_seconds
    wanted = {"User-Agent": "biliupd", "Accept": "*/*", "Accept-Encoding": "identity", **(headers or {})}
    body = b""
    try:
        with session() as site, site.get(url, headers=wanted, timeout=timeout_seconds, stream=True) as response:
            while len(body) < largest_bytes:
                piece = response.raw.read1(largest_bytes - len(body), decode_content=True)
                if not piece:
                    return Answer(response.status_code, body, True)
                body += piece
                if time.monotonic() > deadline:
                    raise NoAnswer(f"no whole answer within {timeout_seconds:g} s")
            return Answer(response.status_code, body, False)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise NoAnswer(trouble(error, timeout_seconds)) from error


def session() -> requests.Session:
    """A session for one look, which verifies TLS without parsing the certificates anew."""
    one = requests.Session()
    one.mount("https://", SharedTrust())
    return one


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
