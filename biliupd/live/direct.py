"""Addresses of a stream itself: http(s) whose path ends in .flv or .m3u8. There is no site to ask, only the media.

Runs on the thread of whoever looks at a room. A user and password in the address go out as an Authorization header
and nowhere else.
"""

import base64
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.fetch import Answer
from biliupd.live.media import Standstill, find_media_playlist, look_at_flv, look_at_playlist, not_media
from biliupd.live.status import LiveStatus, LiveStream


class Direct:
    """Title and `live_id` stay empty: a bare stream tells neither."""

    name = "direct"

    def __init__(self) -> None:
        self._standstill = Standstill()

    def matches(self, url: str) -> bool:
        return _kind(url) is not None

    def check(self, url: str, live: LiveConfig) -> LiveStatus:
        bare, headers = without_user(url)
        if _kind(url) == "flv":
            return look_at_flv(bare, headers, live)
        return look_at_playlist(bare, headers, live, self._standstill)

    def stream(self, url: str, live: LiveConfig) -> LiveStream:
        """For a multivariant playlist: the address of its best variant."""
        bare, headers = without_user(url)
        if _kind(url) == "flv":
            return LiveStream(bare, "flv", headers)
        found_url, found_headers, found = find_media_playlist(bare, headers, live)
        if isinstance(found, Answer):
            raise TemporaryError(not_media(found).reason)
        return LiveStream(found_url, "hls", found_headers)


def _kind(url: str) -> Literal["flv", "hls"] | None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    path = parts.path.lower()
    return "flv" if path.endswith(".flv") else "hls" if path.endswith(".m3u8") else None


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """The address without `user:password@`, and the header that says the same (RFC 7617)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(SplitResult(*parts[:1], host, *parts[2:])), {"Authorization": f"Basic {token}"}
