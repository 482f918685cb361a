"""m3u8 text ↔ playlist values.

Pure. Runs in the recorder process. Source: RFC 8216 and its bis draft; low-latency parts and prefetch lines are
ignored, because only whole segments are recorded.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

from biliupd.errors import PermanentError

AD_CLASS = "twitch-stitched-ad"
AD_NAME = "preroll-"  # TwitCasting
LIVE_TITLE = "live"  # Twitch: all that is no ad
DRM_FREE = "identity"  # KEYFORMAT of a key that is just 16 bytes

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')
_VARIABLE = re.compile(r"\{\$([A-Za-z0-9_-]+)\}")


class NotAPlaylist(PermanentError):
    """The text is no m3u8: an error page, or garbage."""


class ByteRange(NamedTuple):
    """Part of a resource: `length` bytes from `start`."""

    start: int
    length: int


class Key(NamedTuple):
    """EXT-X-KEY other than NONE."""

    method: str
    uri: str
    iv: str = ""
    key_format: str = DRM_FREE

    @property
    def usable(self) -> bool:
        """Whether it is one that a recorder may fetch, and no DRM."""
        return self.method == "AES-128" and self.key_format == DRM_FREE


class Map(NamedTuple):
    """EXT-X-MAP: the init section of the segments that follow. With a key it is encrypted."""

    uri: str
    byterange: ByteRange | None = None
    key: Key | None = None


class Segment(NamedTuple):
    """A media segment; `uri` is absolute when the playlist's address was given. `duration` in seconds.

    `date`: seconds since 1970 by EXT-X-PROGRAM-DATE-TIME, None when nobody said; `dated`: of this very segment, and
    not of one before it. `ad`: an inserted one.
    """

    sequence: int
    uri: str
    duration: float
    title: str = ""
    discontinuity: bool = False
    map: Map | None = None
    byterange: ByteRange | None = None
    key: Key | None = None
    gap: bool = False
    date: float | None = None
    ad: bool = False
    dated: bool = False

    @property
    def path(self) -> str:
        """What identifies it beside its number: tokens in the query change at every reload. A byte range counts."""
        return path_of(self.uri, self.byterange)

    @property
    def name(self) -> str:
        """The end of the path: the same on another host."""
        return self.path.rsplit("/", 1)[-1]


def path_of(uri: str, byterange: ByteRange | None) -> str:
    """An address without host and query; the place of a byte range belongs to it."""
    path = urlsplit(uri).path
    return f"{path}@{byterange.start}" if byterange else path


@dataclass(frozen=True)
class MediaPlaylist:
    """`target_duration` in seconds; `length` segments are listed, from `media_sequence` on.

    `segments` are all of them, or those from the number asked for; `window_seconds` long are all together.
    """

    target_duration: float
    media_sequence: int
    segments: tuple[Segment, ...]
    ended: bool = False
    length: int = 0
    window_seconds: float = 0.0

    @property
    def next_sequence(self) -> int:
        """The number the next segment will have."""
        return self.media_sequence + self.length


class Variant(NamedTuple):
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
    """The variants, in their order. `audio` maps a group to the address of its separate audio playlist.

    `variables` (EXT-X-DEFINE) may be imported by its media playlists.
    """

    variants: tuple[Variant, ...]
    audio: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def parse(text: str, base: str = "", *, since: int = 0, variables: Mapping[str, str] | None = None
          ) -> MasterPlaylist | MediaPlaylist:
    """Read a playlist; relative addresses are resolved against `base`, the address after redirects.

    Of a media playlist the segments numbered `since` and above become values: a long list costs little then.
    `variables`: those of the master playlist. Raises `NotAPlaylist`.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    if not lines[0].startswith("#EXTM3U"):
        page = text.lstrip()[:1] == "<"
        raise NotAPlaylist("the answer is a web page, not a playlist" if page else "the answer is not a playlist")
    if "#EXT-X-I-FRAMES-ONLY" in text:
        raise NotAPlaylist("the playlist holds only keyframes (EXT-X-I-FRAMES-ONLY)")
    try:
        defined: dict[str, str] = {}
        if "#EXT-X-DEFINE" in text:
            lines, defined = _substituted(lines, base, variables or {})
        if "#EXT-X-STREAM-INF" in text:
            return _master(lines, base, defined)
        return _Reader(base, since).read(lines)
    except ValueError as error:  # what urljoin says of http://[ and the like
        raise NotAPlaylist("the playlist names an address that is none") from error


def attributes(text: str) -> dict[str, str]:
    """An attribute list; quotes are taken off, and commas inside them do not separate."""
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


def _substituted(lines: list[str], base: str, imported: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """EXT-X-DEFINE: the lines with `{$name}` replaced, and what each name means. One that nobody defined stays."""
    query = dict(parse_qsl(urlsplit(base).query))
    known: dict[str, str] = {}
    done: list[str] = []
    for line in lines:
        if line.startswith("#EXT-X-DEFINE:"):
            said = attributes(line)
            if "NAME" in said:
                known[said["NAME"]] = said.get("VALUE", "")
            for source, name in ((query, said.get("QUERYPARAM", "")), (imported, said.get("IMPORT", ""))):
                if name in source:
                    known[name] = source[name]
        elif "{$" in line:
            line = _VARIABLE.sub(lambda match: known.get(match[1], match[0]), line)
        done.append(line)
    return done, known


def _master(lines: list[str], base: str, variables: Mapping[str, str]) -> MasterPlaylist:
    variants: list[Variant] = []
    audio: dict[str, str] = {}
    pending: dict[str, str] | None = None
    for line in map(str.strip, lines):
        if line.startswith("#EXT-X-STREAM-INF:"):
            pending = attributes(line)
        elif line.startswith("#EXT-X-MEDIA:"):
            said = attributes(line)
            group = said.get("GROUP-ID", "")
            if said.get("TYPE") == "AUDIO" and said.get("URI") and (group not in audio or said.get("DEFAULT") == "YES"):
                audio[group] = urljoin(base, said["URI"])
        elif line and not line.startswith("#") and pending is not None:
            width, _, height = pending.get("RESOLUTION", "").partition("x")
            variants.append(Variant(
                urljoin(base, line), _whole(pending.get("BANDWIDTH", "")), _whole(width), _whole(height),
                _number(pending.get("FRAME-RATE")), pending.get("CODECS", ""), pending.get("AUDIO", "")))
            pending = None
    if not variants:
        raise NotAPlaylist("the master playlist lists no stream")
    return MasterPlaylist(tuple(variants), audio, variables)


def _number(text: str | None) -> float:
    """A number said by a server: never negative, 0 when it makes no sense."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e15 else 0.0


def _whole(text: str) -> int:
    """The same for whole numbers of any size: some count segments by microseconds."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _moment(text: str) -> float | None:
    """ISO 8601 in seconds since 1970; a moment without its offset is taken for UTC."""
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


class _Reader:
    """Reads one media playlist line by line. Only what a recorder needs of a line is looked at."""

    def __init__(self, base: str, since: int) -> None:
        self.base, self.since = base, since
        self.target = self.window = 0.0
        self.sequence = self.skipped = self.count = 0
        self.ended = False
        self.segments: list[Segment] = []
        self.map: Map | None = None
        self.keys: dict[str, Key] = {}
        self.date: float | None = None
        self.ads: list[tuple[float, float]] = []  # from, until
        self.range_ends: dict[str, int] = {}
        self._fresh()

    def _fresh(self) -> None:
        self.duration: float | None = None
        self.title, self.range_text = "", ""
        self.discontinuity = self.gap = self.dated = False

    def read(self, lines: list[str]) -> MediaPlaylist:
        for line in lines:
            line = line.strip()
            if line.startswith("#EXTINF:"):
                seconds, _, self.title = line[8:].partition(",")
                self.duration = _number(seconds)
            elif line.startswith("#"):
                if line.startswith("#EXT-X-"):
                    name, _, value = line[7:].partition(":")
                    self._tag(name, value)
            elif line and self.duration is not None:
                self._segment(line, self.duration)
                self._fresh()
        if self.ads:
            self.segments = [segment._replace(ad=True) if self._is_ad(segment) else segment
                             for segment in self.segments]
        target = self.target or max((s.duration for s in self.segments), default=0.0)
        return MediaPlaylist(target, self.sequence, tuple(self.segments), self.ended,
                             self.skipped + self.count, self.window)

    def _tag(self, name: str, value: str) -> None:
        if name == "TARGETDURATION":
            self.target = _number(value)
        elif name == "MEDIA-SEQUENCE" and not self.count:  # later it would number nothing
            self.sequence = _whole(value)
        elif name == "PROGRAM-DATE-TIME":
            self.date = _moment(value)
            self.dated = True
        elif name == "DISCONTINUITY":
            self.discontinuity = True
        elif name == "GAP":
            self.gap = True
        elif name == "BYTERANGE":
            self.range_text = value
        elif name == "MAP":
            said = attributes(value)
            uri = urljoin(self.base, said.get("URI", ""))
            self.map = Map(uri, self._range(said["BYTERANGE"], uri, first=0) if "BYTERANGE" in said else None,
                           self._key())
        elif name == "KEY":
            self._keys(attributes(value))
        elif name == "SKIP" and not self.count:
            self.skipped = min(_whole(attributes(value).get("SKIPPED-SEGMENTS", "")), 1 << 32)
        elif name == "DATERANGE":
            self._date_range(attributes(value))
        elif name == "ENDLIST":
            self.ended = True

    def _keys(self, said: dict[str, str]) -> None:
        """A key holds until the next one of its format; NONE ends all of them."""
        method, form = said.get("METHOD", "NONE"), said.get("KEYFORMAT", DRM_FREE)
        if method == "NONE":
            self.keys = {}
        else:
            self.keys[form] = Key(method, urljoin(self.base, said.get("URI", "")), said.get("IV", ""), form)

    def _key(self) -> Key | None:
        return self.keys.get(DRM_FREE) or next(iter(self.keys.values()), None)

    def _date_range(self, said: dict[str, str]) -> None:
        if AD_CLASS in said.get("CLASS", "") or said.get("ID", "").startswith("stitched-ad-"):
            start, end = _moment(said.get("START-DATE", "")), _moment(said.get("END-DATE", ""))
            if start is not None:
                self.ads.append((start, end if end is not None else start + _number(said.get("DURATION"))))

    def _is_ad(self, segment: Segment) -> bool:
        if segment.date is None:
            return segment.title != LIVE_TITLE
        middle = segment.date + segment.duration / 2
        return any(start <= middle < end for start, end in self.ads)

    def _segment(self, line: str, duration: float) -> None:
        number = self.sequence + self.skipped + self.count
        self.count += 1
        self.window += duration
        date = self.date
        if date is not None:
            self.date = date + duration
        if self.range_text or number >= self.since:
            uri = urljoin(self.base, line)
            byterange = self._range(self.range_text, uri) if self.range_text else None
            unknown_place = bool(self.range_text) and byterange is None
            if number >= self.since:
                ad = AD_NAME in line and path_of(uri, None).rsplit("/", 1)[-1].startswith(AD_NAME)
                self.segments.append(Segment(number, uri, duration, self.title, self.discontinuity, self.map, byterange,
                                             self._key() if self.keys else None, self.gap or unknown_place, date, ad,
                                             self.dated))

    def _range(self, text: str, uri: str, first: int | None = None) -> ByteRange | None:
        """`length[@start]`; without a start it follows the previous range of the same address. None: nobody knows."""
        length, at, start = text.partition("@")
        begin = _whole(start) if at else self.range_ends.get(uri, first)
        size = _whole(length)
        if begin is None or not size:
            return None
        self.range_ends[uri] = begin + size
        return ByteRange(begin, size)


class Entry(NamedTuple):
    """One line pair of our own playlist."""

    name: str
    duration: float
    discontinuity: bool = False


def write(entries: Iterable[Entry], *, init: str = "", ended: bool = False) -> str:
    """Our index.m3u8: names relative to its folder; `init` is the init section's name, for fMP4."""
    entries = list(entries)
    begin = head(max((entry.duration for entry in entries), default=1.0), init=init)
    return "".join([begin, *map(line, entries), "#EXT-X-ENDLIST\n" if ended else ""])


def head(longest_seconds: float, *, init: str = "") -> str:
    """What stands before the segments in our index.m3u8."""
    begin = (f"#EXTM3U\n#EXT-X-VERSION:{6 if init else 3}\n#EXT-X-TARGETDURATION:{max(1, int(longest_seconds + 0.5))}\n"
             "#EXT-X-MEDIA-SEQUENCE:0\n")
    return begin + (f'#EXT-X-MAP:URI="{init}"\n' if init else "")


def line(entry: Entry) -> str:
    """One segment in it."""
    mark = "#EXT-X-DISCONTINUITY\n" if entry.discontinuity else ""
    return f"{mark}#EXTINF:{entry.duration:.6f},\n{entry.name}\n"


def write_master(video: str, sound: str, *, ended: bool = False) -> str:
    """Our index.m3u8 over two playlists. `ended`: nothing more comes into them, which the RFC lets only those say."""
    return ("#EXTM3U\n#EXT-X-VERSION:6\n"
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="sound",DEFAULT=YES,URI="{sound}"\n'
            f'#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="sound"\n{video}\n' + ("#EXT-X-ENDLIST\n" if ended else ""))
