"""Addresses of a stream itself: there is no site to ask, only the media.

http(s) whose path ends in .flv, .m3u8 or .mpd, `dash://` before any such address as streamlink writes it, rtmp(s),
rtsp(s) and srt. `hls://`, `hlsvariant://` and `httpstream://` with their parameters are streamlink's own.

Runs on the thread of whoever looks at a room. A user and password in the address go out as an Authorization header
and nowhere else.
"""

import base64
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.attempt import look_at_manifest, look_by_playing
from biliupd.live.fetch import Answer
from biliupd.live.media import Standstill, find_media_playlist, look_at_flv, look_at_playlist, not_media
from biliupd.live.status import LiveStatus, LiveStream

_DASH = "dash://"
_PLAYED = ("rtmp", "rtmps", "rtsp", "rtsps", "srt")
_SUFFIXES: dict[str, Literal["flv", "hls", "dash"]] = {".flv": "flv", ".m3u8": "hls", ".mpd": "dash"}


class Direct:
    """Title and `live_id` stay empty: a bare stream tells neither."""

    name = "direct"

    def __init__(self) -> None:
        self._standstill = Standstill()

    def matches(self, url: str) -> bool:
        return _kind(url) is not None

    def check(self, url: str, live: LiveConfig) -> LiveStatus:
        kind = _kind(url)
        if kind == "play":
            return look_by_playing(url, live)
        bare, headers = without_user(url.removeprefix(_DASH))
        if kind == "flv":
            return look_at_flv(bare, headers, live)
        if kind == "dash":
            return look_at_manifest(bare, headers, live)
        return look_at_playlist(bare, headers, live, self._standstill)

    def stream(self, url: str, live: LiveConfig) -> LiveStream:
        """For a multivariant playlist: the address of its best variant."""
        kind = _kind(url)
        if kind == "play":
            return LiveStream(url, "ffmpeg")
        bare, headers = without_user(url.removeprefix(_DASH))
        if kind in ("flv", "dash"):
            return LiveStream(bare, "flv" if kind == "flv" else "ffmpeg", headers)
        found_url, found_headers, found = find_media_playlist(bare, headers, live)
        if isinstance(found, Answer):
            raise TemporaryError(not_media(found).reason)
        return LiveStream(found_url, "hls", found_headers)


def _kind(url: str) -> Literal["flv", "hls", "dash", "play"] | None:
    if url.startswith(_DASH) and " " in url:  # streamlink's parameters
        return None
    try:
        parts = urlsplit(url.removeprefix(_DASH))
        host = parts.hostname
    except ValueError:
        return None
    if not host:
        return None
    if parts.scheme in _PLAYED and not url.startswith(_DASH):
        return "play"
    if parts.scheme not in ("http", "https"):
        return None
    if url.startswith(_DASH):
        return "dash"
    path = parts.path.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """The address without `user:password@`, and the header that says the same (RFC 7617)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(SplitResult(*parts[:1], host, *parts[2:])), {"Authorization": f"Basic {token}"}
