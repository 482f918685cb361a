"""Every site that streamlink knows. It finds the stream; the recording is ours.

Runs on the thread of whoever looks at a room. streamlink is imported when the first address gets as far as here, as
a daemon that needs it not should not pay for it. Its plugins' matchers are loaded once; each look has a session of
its own. FLV over HTTP, HLS with sound and picture together, and DASH (by ffmpeg) can be recorded; other kinds are
`UNKNOWN`, and say so.

What streamlink logs is kept: a plugin that finds nothing often says only there whether the room is locked.
"""

import contextlib
import functools
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import requests

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.attempt import look_at_manifest
from biliupd.live.fetch import SharedTrust, trouble
from biliupd.live.media import look_at_flv, look_at_playlist
from biliupd.live.status import LiveStatus, LiveStream, State, one_line

_LOOKS: dict[str, Callable[[str, Mapping[str, str], LiveConfig], LiveStatus]] = {
    "flv": look_at_flv, "hls": look_at_playlist, "ffmpeg": look_at_manifest,
}  # fmt: skip
_GENERIC = ("hls", "http", "dash")  # plugins without a site behind them: the media server says all there is to know
_NOT_OURS = ("accept", "accept-encoding", "connection")  # headers of streamlink's own connection
_SYNONYMS = ("best", "worst", "best-unfiltered", "worst-unfiltered")
_MIRROR = re.compile(r"(?:_(?:hls|http|dash))?(?:_alt\d?)?$")
_RESTRICTED = re.compile(
    r"geo|region|restrict|log.?in|password|private|premium|adult|subscri|authori[tz]|purchas|member", re.IGNORECASE
)
_OFFLINE = re.compile(r"offline|not (currently )?(live|on air)|has ended|no live|currently unavailable", re.IGNORECASE)


class ViaStreamlink:
    """Redirects are not followed to find out which plugin takes an address: matching makes no request."""

    name = "streamlink"

    def matches(self, url: str) -> bool:
        return _plugin(url) is not None

    def check(self, url: str, live: LiveConfig) -> LiveStatus:
        with _look(url, live) as look:
            if look.status is not None:
                return look.status
            try:
                stream = _choose(look.streams, live.quality)
            except TemporaryError as error:
                return LiveStatus(State.UNKNOWN, str(error))
            seen = _LOOKS[stream.protocol](stream.url, stream.headers, live)
            title = one_line(look.plugin.get_title())
        if seen.state is State.OFFLINE and look.name not in _GENERIC and not seen.reason.startswith("replay"):
            return LiveStatus(State.UNKNOWN, f"the site names a stream, but {seen.reason}")
        return LiveStatus(seen.state, seen.reason, title=title, answered=seen.answered)

    def stream(self, url: str, live: LiveConfig) -> LiveStream:
        with _look(url, live) as look:
            if look.status is not None:
                raise TemporaryError(look.status.reason or "the site names no stream")
            return _choose(look.streams, live.quality)


@dataclass(frozen=True)
class _Look:
    """What a plugin found: streams, or, when it found none, what that means."""

    name: str
    plugin: Any
    streams: Mapping[str, Any]
    status: LiveStatus | None = None


@contextlib.contextmanager
def _look(url: str, live: LiveConfig) -> Iterator[_Look]:
    """Ask the plugin; its session stays open for the block."""
    found = _plugin(url)
    if found is None:
        yield _Look("", None, {}, LiveStatus(State.UNKNOWN, "streamlink has no plugin for this address"))
        return
    name, plugin_class, resolved = found
    session = _session(live)
    try:
        with _complaints.kept() as complaints:
            status, streams, plugin = None, {}, None
            try:
                plugin = plugin_class(session, resolved)
                streams = plugin.streams()
            except Exception as error:  # noqa: BLE001 - a hundred plugins, each with surprises of its own
                status = _failed(name, error, live)
        if status is None and not streams:
            status = nothing_found(complaints)
        yield _Look(name, plugin, streams, status)
    finally:
        session.http.close()


def nothing_found(complaints: list[str]) -> LiveStatus:
    """A plugin without streams means offline, unless it complained of something else."""
    for complaint in complaints:
        text = harmless(complaint)
        if _OFFLINE.search(complaint):
            return LiveStatus(State.OFFLINE, text)
        if _RESTRICTED.search(complaint):
            return LiveStatus(State.RESTRICTED, text)
    if complaints:
        return LiveStatus(State.UNKNOWN, harmless(complaints[0]))
    return LiveStatus(State.OFFLINE)


def harmless(text: str) -> str:
    """The first line of a message, without anything that looks like an address or a parameter."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return one_line(re.sub(r"\S*[/?=&@{]\S*", "…", first))[:200]


def _failed(name: str, error: Exception, live: LiveConfig) -> LiveStatus:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, requests.RequestException):
        cause = cause.__cause__
    if cause is None:
        return LiveStatus(State.UNKNOWN, f"streamlink ({name}): {harmless(str(error)) or type(error).__name__}")
    response = cause.response
    if name in _GENERIC and response is not None and response.status_code in (404, 410):
        return LiveStatus(State.OFFLINE, trouble(cause, live.request_timeout_seconds))
    reason = trouble(cause, live.request_timeout_seconds)
    return LiveStatus(State.UNKNOWN, f"streamlink ({name}): {reason}", answered=response is not None)


def _choose(streams: Mapping[str, Any], quality: str) -> LiveStream:
    """The first of the wanted qualities (comma-separated) there is, else the best; of a kind we can record.

    Its alternates are the mirrors of that quality, which streamlink calls NAME_alt, or NAME_hls for another protocol.
    Raises `TemporaryError` when there is none of such a kind.
    """
    names = [name.strip().lower() for name in quality.split(",")]
    ranked = [name for name in streams if name.split("-")[0] not in ("best", "worst")]  # streamlink sorts them so
    if names[-1] != "worst":
        ranked.reverse()
    for name in [*(name for name in names if name in streams), *ranked]:
        if (stream := _recordable(streams[name])) is not None:
            mirrors = [_recordable(streams[other]) for other in _mirrors(streams, name)]
            return replace(stream, alternates=tuple(one for one in mirrors if one is not None and one != stream))
    kinds = sorted({type(stream).shortname() for stream in streams.values()})
    raise TemporaryError(f"only streams of a kind that is not supported yet: {', '.join(kinds)}")


def _mirrors(streams: Mapping[str, Any], name: str) -> list[str]:
    """Names of further streams of the same quality; "best" and the like are second names of one stream."""
    own = next((other for other in streams if streams[other] is streams[name] and other not in _SYNONYMS), name)
    quality = re.escape(_MIRROR.sub("", own))
    return [other for other in streams if other != own and re.fullmatch(quality + _MIRROR.pattern, other)]


def _recordable(stream: Any) -> LiveStream | None:
    from streamlink.stream.dash.dash import DASHStream
    from streamlink.stream.hls.hls import HLSStream
    from streamlink.stream.http import HTTPStream

    if isinstance(stream, DASHStream) and stream.mpd.url:
        asked = stream.session.http.prepare_new_request(**{**stream.args, "url": stream.mpd.url})
        return LiveStream(stream.mpd.url, "ffmpeg", _headers(asked.headers))
    if not isinstance(stream, HTTPStream) or stream.args.get("method", "GET").upper() != "GET":
        return None
    request = stream.session.http.prepare_new_request(**stream.args)
    headers = _headers(request.headers)
    parts = urlsplit(str(request.url))
    if parts.scheme not in ("http", "https"):
        return None
    if isinstance(stream, HLSStream):
        return LiveStream(str(request.url), "hls", headers)
    return LiveStream(str(request.url), "flv", headers) if parts.path.lower().endswith(".flv") else None


def _headers(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in headers.items() if name.lower() not in _NOT_OURS}


_matching = threading.Lock()


def _plugin(url: str) -> tuple[str, Any, str] | None:
    """Name, class and full address of the plugin that takes `url`."""
    from streamlink.utils.url import update_scheme

    if not url.strip() or url != url.strip():
        return None
    try:
        full = update_scheme("https://", url, force=False)
    except ValueError:
        return None
    with _matching:  # looking a plugin up also loads it into the shared session
        found = _shared().plugins.match_url(full)
    return (*found, full) if found else None


@functools.cache
def _shared() -> Any:
    """The session that only knows the plugins; nothing is ever asked through it."""
    from streamlink.session.session import Streamlink

    logger = logging.getLogger("streamlink")
    logger.propagate = False  # its messages hold whole addresses
    logger.addHandler(_complaints)
    return Streamlink()


def _session(live: LiveConfig) -> Any:
    """A fresh session: no browser, no cache in the home directory, no local files, nobody to ask, nothing started."""
    from streamlink.session.session import Streamlink

    session = Streamlink(plugins_builtin=False)
    session.plugins = _shared().plugins  # for plugins that hand over to another plugin
    session.set_option("http-timeout", live.request_timeout_seconds)
    session.set_option("dash-manifest-reload-attempts", 1)  # whoever looks comes again
    session.set_option("webbrowser", False)
    session.set_option("no-plugin-cache", True)
    # With a program named, sound and picture apart are reported as such, not cut down to the picture; it is never run.
    session.set_option("ffmpeg-ffmpeg", sys.executable)
    session.set_option("ffmpeg-no-validation", True)
    session.http.adapters.pop("file://", None)
    session.http.mount("https://", SharedTrust())
    return session


class _Complaints(logging.Handler):
    """Keeps what streamlink logs as an error on a thread that asks for it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._here = threading.local()

    @contextlib.contextmanager
    def kept(self) -> Iterator[list[str]]:
        self._here.messages = []
        try:
            yield self._here.messages
        finally:
            self._here.messages = None

    def emit(self, record: logging.LogRecord) -> None:
        messages = getattr(self._here, "messages", None)
        if messages is not None and len(messages) < 20:
            messages.append(record.getMessage())


_complaints = _Complaints()
