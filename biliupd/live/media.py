"""A look at the media itself: is this an FLV stream that runs, is this a playlist that is live?

Runs on the thread of whoever looks at a room. Reads the first bytes of a stream, or a playlist, and hangs up.
"""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.fetch import Answer, NoAnswer, fetch, for_address
from biliupd.live.status import LiveStatus, State

FLV_START_BYTES = 13
LARGEST_PLAYLIST_BYTES = 256 * 1024  # whether it has ended stands in the last line, so it is read whole
MOST_REMEMBERED = 2000
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


@dataclass(frozen=True)
class Variant:
    """An entry of a multivariant playlist; `sound_apart`: its sound is a playlist of its own."""

    url: str
    height: int
    bandwidth: int
    sound_apart: bool


@dataclass(frozen=True)
class Playlist:
    """As much of a playlist (RFC 8216) as it takes to see whether it is live."""

    segments: int = 0
    ended: bool = False
    variants: tuple[Variant, ...] = ()
    target_seconds: int = 0
    newest: tuple[str, str] = ("", "")  #: media sequence and address of the last segment: changes when it moves


def read_playlist(text: str, url: str) -> Playlist | None:
    """`text` as a playlist whose own address is `url`; None if it is none."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        return None
    attributes = [(tag, _attributes(rest)) for tag, _, rest in (line.partition(":") for line in lines)]
    apart = {
        found.get("GROUP-ID", "")
        for tag, found in attributes
        if tag == "#EXT-X-MEDIA" and found.get("TYPE") == "AUDIO" and "URI" in found
    }
    variants = tuple(
        Variant(
            urljoin(url, lines[n + 1]), _height(found), _number(found.get("BANDWIDTH", "")), found.get("AUDIO") in apart
        )
        for n, (tag, found) in enumerate(attributes)
        if tag == "#EXT-X-STREAM-INF" and n + 1 < len(lines) and not lines[n + 1].startswith("#")
    )
    tags = [tag for tag, _ in attributes]
    ended = "#EXT-X-ENDLIST" in tags or "#EXT-X-PLAYLIST-TYPE:VOD" in lines
    values = dict(line.split(":", 1) for line in lines if line.startswith(("#EXT-X-TARGETD", "#EXT-X-MEDIA-SEQ")))
    newest = (values.get("#EXT-X-MEDIA-SEQUENCE", ""), next((line for line in lines[::-1] if line[0] != "#"), ""))
    return Playlist(
        tags.count("#EXTINF"), ended, variants, _number(values.get("#EXT-X-TARGETDURATION", "")), newest
    )


def _attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


def _height(attributes: Mapping[str, str]) -> int:
    return _number(attributes.get("RESOLUTION", "").lower().partition("x")[2])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def starts_like_flv(start: bytes) -> bool:
    """An FLV header, or (some servers leave it out) the head of a script, audio or video tag."""
    if start[:4] == b"FLV\x01":
        return True
    return len(start) >= 11 and start[0] in (8, 9, 18) and start[1:4] != b"\0\0\0" and start[8:11] == b"\0\0\0"


def look_at_flv(url: str, headers: Mapping[str, str], live: LiveConfig) -> LiveStatus:
    """Live when FLV bytes arrive, offline when the server says 404 or 410, else unknown."""
    try:
        timeout = live.request_timeout_seconds
        answer = fetch(url, timeout_seconds=timeout, largest_bytes=FLV_START_BYTES, headers=headers)
    except NoAnswer as error:
        return LiveStatus(State.UNKNOWN, str(error), answered=False)
    if answer.status != 200:
        return not_media(answer)
    if starts_like_flv(answer.body):
        return LiveStatus(State.LIVE)
    return LiveStatus(State.UNKNOWN, "the answer is not an FLV stream" if answer.body else "the answer is empty")


class Standstill:
    """Remembers since when each playlist has shown the same last segment; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[str, str], float]] = {}

    def seconds(self, url: str, newest: tuple[str, str], now: float) -> float:
        with self._lock:
            known, since = self._seen.pop(url, (newest, now))
            since = since if known == newest else now
            self._seen[url] = newest, since
            if len(self._seen) > MOST_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return now - since


def look_at_playlist(
    url: str, headers: Mapping[str, str], live: LiveConfig, standstill: Standstill | None = None
) -> LiveStatus:
    """Live when the playlist has segments and no end, offline when it has ended or is gone, else unknown.

    With a memory of earlier looks, a playlist that no longer moves is unknown too: some servers leave the last one
    lying about, without an end.
    """
    try:
        _, _, found = find_media_playlist(url, headers, live)
    except NoAnswer as error:
        return LiveStatus(State.UNKNOWN, str(error), answered=False)
    except TemporaryError as error:
        return LiveStatus(State.UNKNOWN, str(error))
    if isinstance(found, Answer):
        return not_media(found)
    if found.ended:
        return LiveStatus(State.OFFLINE, "replay: the playlist has an end")
    if not found.segments:
        return LiveStatus(State.UNKNOWN, "the playlist has no segment yet")
    stands = standstill.seconds(url, found.newest, time.monotonic()) if standstill else 0
    if stands > max(15, 3 * found.target_seconds):
        return LiveStatus(State.UNKNOWN, f"the playlist has not moved for {stands:.0f} s", answered=False)
    return LiveStatus(State.LIVE)


def not_media(answer: Answer) -> LiveStatus:
    state = State.OFFLINE if answer.status in (404, 410) else State.UNKNOWN
    return LiveStatus(state, f"the site answers {answer.status}")


def find_media_playlist(
    url: str, headers: Mapping[str, str], live: LiveConfig
) -> tuple[str, Mapping[str, str], Playlist | Answer]:
    """The media playlist at `url`, or the best variant of a multivariant playlist there; its address and headers.

    An `Answer` instead of a playlist: the HTTP status was not 200. Headers that identify us (cookies, passwords) do
    not follow to another host. Raises `TemporaryError`, and of it `NoAnswer`.
    """
    found = _fetch_playlist(url, headers, live)
    if isinstance(found, Answer) or not found.variants:
        return url, headers, found
    usable = [variant for variant in found.variants if not variant.sound_apart]
    if not usable:
        raise TemporaryError("the playlist keeps sound and picture apart, which is not supported yet")
    best = max(usable, key=lambda variant: (variant.height, variant.bandwidth))
    headers = for_address(headers, url, best.url)
    found = _fetch_playlist(best.url, headers, live)
    if isinstance(found, Playlist) and found.variants:
        raise TemporaryError("the playlist leads to variants of variants")
    return best.url, headers, found


def _fetch_playlist(url: str, headers: Mapping[str, str], live: LiveConfig) -> Playlist | Answer:
    timeout = live.request_timeout_seconds
    answer = fetch(url, timeout_seconds=timeout, largest_bytes=LARGEST_PLAYLIST_BYTES, headers=headers)
    if answer.status != 200:
        return answer
    if not answer.whole:
        raise TemporaryError(f"the playlist is longer than {LARGEST_PLAYLIST_BYTES // 1024} KiB")
    try:
        found = read_playlist(answer.body.decode(errors="replace"), answer.url)
    except ValueError as error:  # what urljoin says of [ and the like
        raise TemporaryError("the playlist names an address that is none") from error
    if found is None:
        raise TemporaryError("the answer is not a playlist")
    return found
