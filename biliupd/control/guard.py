"""Stands before the application: refuses what no page of ours would send, and puts the security headers on all answers.

Runs on the server's event loop, for every request; touches nothing. It is plain ASGI, so that streams pass through it
as they are.
"""

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from loguru import logger
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from biliupd.config import ControlConfig
from biliupd.control.models import Refusal
from biliupd.control.problems import of

MOST_BODY_BYTES = 64 * 1024  #: of what anyone may send; the longest thing the API takes is a few KiB
BODY_SECONDS = 20.0  #: in which all of it has to be there
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::\d*)?")  # RFC 9112, 3.2: host and port
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self';"
        " manifest-src 'self'; img-src 'self' data:; media-src 'self' blob:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=15552000"  #: half a year, over https


class Guard:
    """The application behind its guard."""

    def __init__(self, app: ASGIApp, config: ControlConfig) -> None:
        """`config` says which names the page may be asked for by."""
        self._app = app
        self._names = frozenset(name.lower() for name in ("", "localhost", config.host, *config.names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, api = Headers(scope=scope), scope["path"].startswith("/api")
        secure = scope["scheme"] in ("https", "wss")
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                begun = True
                _harden(MutableHeaders(scope=message), api, secure)
            await send(message)

        try:
            try:
                self._check(scope, headers, api)
                if scope["type"] == "http" and scope["method"] not in SAFE:
                    receive = await _with_body(headers, receive)
            except Refusal as refusal:
                answer = of(refusal)
                answer.headers["Connection"] = "close"  # what is left of its body is nobody's request
                await answer(scope, receive, send_guarded)
                return
            await self._app(scope, receive, send_guarded)
        except Exception as error:  # noqa: BLE001 - the top of a request's turn
            logger.opt(exception=error).error("{} {} failed", scope.get("method", "websocket"), scope["path"])
            if scope["type"] == "http" and not begun:
                await of(Refusal(500, "biliupd failed at this; its log says more"))(scope, receive, send_guarded)

    def _check(self, scope: Scope, headers: Headers, api: bool) -> None:
        if not self._is_ours(headers.get("host", "")):
            # a page elsewhere must not reach us by a name of its own that it points here (DNS rebinding)
            raise Refusal(421, "this is not a name of biliupd's control address", kind="host",
                          hint="use its number, or add the name to control.names")  # fmt: skip
        if scope["type"] == "websocket":
            return
        if scope["method"] not in SAFE:
            if not same_site(headers, scope["scheme"]):
                raise Refusal(403, "this comes from another page", kind="cross-site")
        elif api and "cookie" in headers and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refusal(403, "this comes from another page", kind="cross-site")

    def _is_ours(self, named: str) -> bool:
        """Whether a Host header holds an address, localhost, or a name of the settings."""
        matched = _HOST.fullmatch(named)
        if matched is None:
            return False
        name = matched[1] or matched[2]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().removesuffix(".") in self._names
        return True


def same_site(headers: Mapping[str, str], scheme: str = "") -> bool:
    """Whether a request comes from our own page, or from no page at all: browsers name where it comes from.

    By Sec-Fetch-Site (w3.org/TR/fetch-metadata), which they send over https and to localhost; else by Origin, which
    has to be the Host that was asked for, and of its `scheme` if one is given. A page on another port is another page.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{headers.get('host', '')}")
        default = _PORTS[theirs.scheme]
        return (
            theirs.hostname is not None
            and theirs.hostname == ours.hostname
            and (theirs.port or default) == (ours.port or _PORTS.get(scheme, default))
            and (not scheme or _PORTS[scheme] == default)
        )
    except (ValueError, KeyError):
        return False


async def _with_body(headers: Headers, receive: Receive) -> Receive:
    """Read all of the body, so that a long, slow or strange one reaches nobody. Refusal 408, 413 or 415."""
    if headers.get("content-length", "0").lstrip("0").isdigit() and (
        int(headers["content-length"]) > MOST_BODY_BYTES
    ):
        raise Refusal(413, f"a body may have {MOST_BODY_BYTES} bytes", kind="too-large")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MOST_BODY_BYTES:
                    raise Refusal(413, f"a body may have {MOST_BODY_BYTES} bytes", kind="too-large")
    except TimeoutError as error:
        raise Refusal(408, "the body takes too long", kind="too-slow") from error
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != "application/json":
        raise Refusal(415, "a body has to be application/json", kind="media-type")
    pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _harden(headers: MutableHeaders, api: bool, secure: bool) -> None:
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if api:
        headers.setdefault("Cache-Control", "private, no-cache" if "etag" in headers else "no-store")
    if secure:
        headers.setdefault("Strict-Transport-Security", HSTS)
