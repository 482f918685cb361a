"""m3u8 text ↔ playlist values, and what a live recorder takes of each reload.

Pure. Runs in the recorder process. Source: RFC 8216 and its bis draft; low-latency parts are ignored, because
only whole segments are recorded.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urljoin, urlsplit

from biliupd.errors import PermanentError

STALE_WINDOWS = 4  # behind by more than this many window lengths: the numbering began anew
STALE_IN_A_ROW = 3

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


class NotAPlaylist(PermanentError):
    """The text is no m3u8: an error page, or garbage."""


@dataclass(frozen=True)
class ByteRange:
    """Part of a resource: `length` bytes from `start`."""

    start: int
    length: int


@dataclass(frozen=True)
class Map:
    """EXT-X-MAP: the init section of the segments that follow."""

    uri: str
    byterange: ByteRange | None = None


@dataclass(frozen=True)
class Key:
    """EXT-X-KEY other than NONE."""

    method: str
    uri: str
    iv: str = ""
    key_format: str = "identity"


@dataclass(frozen=True)
class Segment:
    """A media segment; `uri` is absolute when the playlist's address was given. `duration` in seconds."""

    sequence: int
    uri: str
    duration: float
    title: str = ""
    discontinuity: bool = False
    map: Map | None = None
    byterange: ByteRange | None = None
    key: Key | None = None
    gap: bool = False

    @property
    def path(self) -> str:
        """What identifies it beside its number: tokens in the query change at every reload. A byte range counts."""
        path = urlsplit(self.uri).path
        return f"{path}@{self.byterange.start}" if self.byterange else path


@dataclass(frozen=True)
class MediaPlaylist:
    """`target_duration` in seconds."""

    target_duration: float
    media_sequence: int
    segments: tuple[Segment, ...]
    ended: bool = False

    @property
    def next_sequence(self) -> int:
        """The number the next segment will have."""
        return self.media_sequence + len(self.segments)


@dataclass(frozen=True)
class Variant:
    """One way to get the same stream. `bandwidth` in bits per second; width and height 0 when not said."""

    uri: str
    bandwidth: int
    width: int = 0
    height: int = 0
    frame_rate: float = 0
    codecs: str = ""
    audio: str = ""


@dataclass(frozen=True)
class MasterPlaylist:
    """The variants, in their order. `audio` maps a group to the address of its separate audio playlist."""

    variants: tuple[Variant, ...]
    audio: tuple[tuple[str, str], ...] = ()

    def best(self) -> Variant:
        """Highest picture, then rate, then bandwidth; the first of equals."""
        return max(self.variants, key=lambda v: (v.height, v.frame_rate, v.bandwidth))


def parse(text: str, base: str = "") -> MasterPlaylist | MediaPlaylist:
    """Read a playlist; relative addresses are resolved against `base`, the address after redirects.

    Raises `NotAPlaylist`.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        page = text.lstrip()[:1] == "<"
        raise NotAPlaylist("the answer is a web page, not a playlist" if page else "the answer is not a playlist")
    if any(line.startswith("#EXT-X-I-FRAMES-ONLY") for line in lines):
        raise NotAPlaylist("the playlist holds only keyframes (EXT-X-I-FRAMES-ONLY)")
    try:
        if any(line.startswith("#EXT-X-STREAM-INF") for line in lines):
            return _master(lines, base)
        return _Reader(base).read(lines)
    except ValueError as error:  # what urljoin says of http://[ and the like
        raise NotAPlaylist("the playlist names an address that is none") from error


def attributes(text: str) -> dict[str, str]:
    """An attribute list; quotes are taken off, and commas inside them do not separate."""
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


def _master(lines: list[str], base: str) -> MasterPlaylist:
    variants: list[Variant] = []
    audio: list[tuple[str, str]] = []
    pending: dict[str, str] | None = None
    for line in lines:
        if line.startswith("#EXT-X-STREAM-INF:"):
            pending = attributes(line)
        elif line.startswith("#EXT-X-MEDIA:"):
            said = attributes(line)
            if said.get("TYPE") == "AUDIO" and said.get("URI"):
                audio.append((said.get("GROUP-ID", ""), urljoin(base, said["URI"])))
        elif line and not line.startswith("#") and pending is not None:
            width, _, height = pending.get("RESOLUTION", "").partition("x")
            variants.append(Variant(
                urljoin(base, line), _whole(pending.get("BANDWIDTH", "")), _whole(width), _whole(height),
                _number(pending.get("FRAME-RATE")), pending.get("CODECS", ""), pending.get("AUDIO", "")))
            pending = None
    if not variants:
        raise NotAPlaylist("the master playlist lists no stream")
    return MasterPlaylist(tuple(variants), tuple(audio))


def _number(text: str | None) -> float:
    """A number said by a server: never negative, 0 when it makes no sense."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e15 else 0.0


def _whole(text: str) -> int:
    """The same for whole numbers of any size: some count segments by microseconds."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


class _Reader:
    """Reads one media playlist line by line."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.target = 0.0
        self.sequence = 0
        self.ended = False
        self.segments: list[Segment] = []
        self.map: Map | None = None
        self.key: Key | None = None
        self.range_ends: dict[str, int] = {}
        self._fresh()

    def _fresh(self) -> None:
        self.duration: float | None = None
        self.title, self.range_text = "", ""
        self.discontinuity = self.gap = False

    def read(self, lines: list[str]) -> MediaPlaylist:
        for line in lines:
            if line.startswith("#"):
                name, _, value = line.partition(":")
                self._tag(name, value)
            elif line and self.duration is not None:
                self._segment(line)
        target = self.target or max((s.duration for s in self.segments), default=0.0)
        return MediaPlaylist(target, self.sequence, tuple(self.segments), self.ended)

    def _tag(self, name: str, value: str) -> None:
        if name == "#EXTINF":
            seconds, _, self.title = value.partition(",")
            self.duration = _number(seconds)
        elif name == "#EXT-X-TARGETDURATION":
            self.target = _number(value)
        elif name == "#EXT-X-MEDIA-SEQUENCE":
            self.sequence = _whole(value)
        elif name == "#EXT-X-DISCONTINUITY":
            self.discontinuity = True
        elif name == "#EXT-X-GAP":
            self.gap = True
        elif name == "#EXT-X-BYTERANGE":
            self.range_text = value
        elif name == "#EXT-X-MAP":
            said = attributes(value)
            uri = urljoin(self.base, said.get("URI", ""))
            self.map = Map(uri, self._range(said["BYTERANGE"], uri, first=0) if "BYTERANGE" in said else None)
        elif name == "#EXT-X-KEY":
            self._key(attributes(value))
        elif name == "#EXT-X-ENDLIST":
            self.ended = True

    def _key(self, said: dict[str, str]) -> None:
        if said.get("METHOD", "NONE") == "NONE":
            self.key = None
        else:
            self.key = Key(said["METHOD"], urljoin(self.base, said.get("URI", "")), said.get("IV", ""),
                           said.get("KEYFORMAT", "identity"))

    def _segment(self, line: str) -> None:
        uri = urljoin(self.base, line)
        byterange = self._range(self.range_text, uri) if self.range_text else None
        unknown_place = bool(self.range_text) and byterange is None
        self.segments.append(Segment(
            self.sequence + len(self.segments), uri, self.duration or 0.0, self.title, self.discontinuity, self.map,
            byterange, self.key, self.gap or unknown_place))
        self._fresh()

    def _range(self, text: str, uri: str, first: int | None = None) -> ByteRange | None:
        """`length[@start]`; without a start it follows the previous range of the same address. None: nobody knows."""
        length, at, start = text.partition("@")
        begin = _whole(start) if at else self.range_ends.get(uri, first)
        if begin is None:
            return None
        self.range_ends[uri] = begin + _whole(length)
        return ByteRange(begin, _whole(length))


class Follow(NamedTuple):
    """What to make of a reload: `kind`, the segments to take, how many numbers are missing before them."""

    kind: Literal["new", "same", "stale", "reset"]
    segments: tuple[Segment, ...] = ()
    missed: int = 0


def follow(playlist: MediaPlaylist, next_sequence: int | None, stale_in_a_row: int = 0) -> Follow:
    """Compare a reload with the number awaited; None at the first fetch.

    `stale_in_a_row` counts the answers of kind stale just before. A reset means that the numbering began anew:
    everything listed is taken.
    """
    segments, end = playlist.segments, playlist.next_sequence
    if next_sequence is None:
        return Follow("new", segments)
    if not segments:
        return Follow("same")
    if playlist.media_sequence > next_sequence:
        return Follow("new", segments, playlist.media_sequence - next_sequence)
    if end > next_sequence:
        return Follow("new", segments[next_sequence - playlist.media_sequence:])
    if end == next_sequence:
        return Follow("same")
    if next_sequence - end <= STALE_WINDOWS * len(segments) and stale_in_a_row < STALE_IN_A_ROW - 1:
        return Follow("stale")
    return Follow("reset", segments)


def resume(playlist: MediaPlaylist, sequence: int, path: str, live_edge: int = 3) -> tuple[Segment, ...]:
    """The segments of a first fetch that come after the one recorded last, which had this number and path.

    Found by its path, or by its number under the same file name; else a new address counts differently, and recording
    begins `live_edge` segments before the end.
    """
    same_path = [segment.sequence for segment in playlist.segments if segment.path == path]
    if same_path:
        return playlist.segments[same_path[-1] + 1 - playlist.media_sequence:]
    name = path.rsplit("/", 1)[-1]
    for segment in playlist.segments:
        if segment.sequence == sequence and segment.path.rsplit("/", 1)[-1] == name:
            return playlist.segments[sequence + 1 - playlist.media_sequence:]
    return playlist.segments[-live_edge:]


class Entry(NamedTuple):
    """One line pair of our own playlist."""

    name: str
    duration: float
    discontinuity: bool = False


def write(entries: Iterable[Entry], *, init: str = "", ended: bool = False) -> str:
    """Our index.m3u8: names relative to its folder; `init` is the init section's name, for fMP4."""
    entries = list(entries)
    target = max((int(entry.duration + 0.5) for entry in entries), default=1)
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{6 if init else 3}", f"#EXT-X-TARGETDURATION:{max(1, target)}",
             "#EXT-X-MEDIA-SEQUENCE:0"]
    if init:
        lines.append(f'#EXT-X-MAP:URI="{init}"')
    for entry in entries:
        if entry.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        lines += [f"#EXTINF:{entry.duration:.6f},", entry.name]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"
