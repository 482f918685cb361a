"""What a platform answers about a room. Plain values, no I/O; any thread."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from biliupd.config import LiveConfig

_USER = re.compile(r"//[^/]*@")


class State(StrEnum):
    """`UNKNOWN` never ends a broadcast: it says something about the site or the way to it, not about the streamer."""

    LIVE = "live"
    OFFLINE = "offline"
    RESTRICTED = "restricted"  # on air, but not for us: paid, locked, needs a login
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LiveStatus:
    """One look at a room. `reason` is for people and safe to log; what the site does not tell stays empty."""

    state: State
    reason: str = ""
    title: str = ""
    cover_url: str = ""
    live_id: str = ""  #: the site's own name for this broadcast
    started_at: datetime | None = None  #: aware, UTC
    answered: bool = True  #: False: nothing was heard from the site, so asking less often would not spare it


@dataclass(frozen=True, repr=False)
class LiveStream:
    """Where the media is, and the request headers it takes. Both may hold secrets; `repr` shows none.

    `protocol` ffmpeg: whatever that program reads (DASH, RTMP, RTSP, SRT). `expires_at`: from then on the address is
    refused, or its connection cut; None when the site does not tell. `alternates`: other ways to the same media, the
    better ones first; what they name as their alternates does not count.
    """

    url: str
    protocol: Literal["flv", "hls", "ffmpeg"]
    headers: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    alternates: tuple["LiveStream", ...] = ()

    def __repr__(self) -> str:
        return f"LiveStream({shown(self.url)!r}, {self.protocol!r}, headers={sorted(self.headers)})"


class Platform(Protocol):
    """One kind of site. Holds no connection; every method may run on several threads at once."""

    name: str

    def matches(self, url: str) -> bool:
        """Whether this platform takes the address. Decided by its text, without any request."""

    def check(self, url: str, live: LiveConfig) -> LiveStatus:
        """Ask the site. Trouble with the site is an answer too: `UNKNOWN` with the reason."""

    def stream(self, url: str, live: LiveConfig) -> LiveStream:
        """A fresh address of the media. Raises `TemporaryError` when there is none right now."""


def shown(url: str) -> str:
    """An address as it may be logged: without user, password, query and fragment."""
    return _USER.sub("//", re.split(r"[?#\s]", url, maxsplit=1)[0])


def one_line(text: object) -> str:
    """Text of a site (a title) as valid Unicode on one line; anything but text or a number becomes empty."""
    if not isinstance(text, str | int):
        return ""
    kept = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(kept.split())
