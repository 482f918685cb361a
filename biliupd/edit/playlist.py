"""The text of a local playlist → what it lists. Strict: it is a file that anybody may have put there.

Runs on a worker thread. Reads the playlist, and no file that it names. Names in it are plain file names below its
directory; nothing in it is ever handed to ffmpeg. Tags and their meaning: RFC 8216, section 4.3.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from biliupd.errors import PermanentError

LARGEST_PLAYLIST_BYTES = 16 << 20
LARGEST_ENTRY_COUNT = 100_000

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*|subfile,.*):")
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_RANGE = re.compile(r"(\d{1,15})(?:@(\d{1,15}))?")


class Ref(NamedTuple):
    """What a line means: a file or some bytes of it, perhaps encrypted."""

    line: int  #: from 1; 0: it is in no playlist
    name: str  #: as it is written
    size_bytes: int = 0  #: 0: to the end of the file
    offset_bytes: int = 0
    key: str = ""  #: name of the file with the key; "": not encrypted
    iv: bytes = b""

    @property
    def place(self) -> str:
        """Its name and line, for messages."""
        return f"{self.name[:200]!a}" + (f" (line {self.line})" if self.line else "")


class Entry(NamedTuple):
    """A segment."""

    segment: Ref
    init: Ref | None
    duration_seconds: float
    anew: bool  #: its timestamps do not go on from the segment before


class Variant(NamedTuple):
    """One playlist of a master playlist."""

    playlist: Ref
    bandwidth: int  #: bits per second
    audio: Ref | None  #: the playlist with its sound, if that is another one


class Listing(NamedTuple):
    """A playlist as it is written: with `variants` it is a master playlist, and without entries."""

    entries: list[Entry]
    variants: list[Variant]  #: the best one first
    target_seconds: float  #: EXT-X-TARGETDURATION; 0: not said
    ended: bool  #: it has EXT-X-ENDLIST


def read(playlist: Path) -> Listing:
    """Read it; no file it names is looked at. Raises PermanentError naming the line for what it may not contain."""
    try:
        with open(os.open(playlist, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PermanentError(f"{playlist.name!a} is no regular file")  # of a pipe, reading might never end
            raw = file.read(LARGEST_PLAYLIST_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"{playlist.name!a} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_PLAYLIST_BYTES:
        raise PermanentError(f"{playlist.name!a} is larger than {LARGEST_PLAYLIST_BYTES} bytes")
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise PermanentError(f"{playlist.name!a} is no playlist: not UTF-8") from error
    if lines[0] != "#EXTM3U":
        raise PermanentError(f"{playlist.name!a} is no playlist: line 1 is not #EXTM3U")
    try:
        reader = _Reader()
        entries = list(reader.entries(lines))
        variants = sorted(_variants(lines), key=lambda variant: -variant.bandwidth)
        if entries and variants:
            raise PermanentError(f"line {variants[0].playlist.line}: another playlist among segments")
    except PermanentError as error:
        raise PermanentError(f"{playlist.name!a}, {error}") from error
    return Listing(entries, variants, reader.target_seconds, "#EXT-X-ENDLIST" in lines)


class _Reader:
    """A media playlist, line by line: most tags hold until they come again."""

    def __init__(self) -> None:
        self.target_seconds = 0.0
        self._init: Ref | None = None
        self._key, self._iv = "", b""
        self._sequence = 0
        self._range = ""
        self._ends: dict[str, int] = {}  # of the last byte range of a file
        self._seen: set[tuple[str, int]] = set()

    def entries(self, lines: list[str]) -> Iterator[Entry]:
        """The segments in order. A line that comes again is left out: who wrote it was interrupted, and repeated it."""
        duration: float | None = None
        anew = gap = variant = False
        for number, line in enumerate(lines, 1):
            tag, _, value = line.partition(":")
            if tag == "#EXTINF":
                duration = _duration(value, number)
            elif tag == "#EXT-X-DISCONTINUITY":
                anew = True
            elif tag == "#EXT-X-GAP":
                gap = True
            elif tag == "#EXT-X-BYTERANGE":
                self._range = value
            elif tag == "#EXT-X-STREAM-INF":
                variant = True
            elif line.startswith("#"):
                before = self._init
                self._hold(tag, value, number)
                anew = anew or not _same(before, self._init)
            elif line and variant:
                variant = False  # the name of a playlist
            elif line:
                segment = self._segment(line, number)
                if duration is None:
                    raise PermanentError(f"line {number}: a segment without EXTINF")
                once = (line, segment.offset_bytes)
                if gap:
                    anew = True  # missing by intent: what follows does not join on to what was before
                elif once not in self._seen:
                    self._seen.add(once)
                    if len(self._seen) > LARGEST_ENTRY_COUNT:
                        raise PermanentError(f"line {number}: more than {LARGEST_ENTRY_COUNT} segments")
                    yield Entry(segment, self._init, duration, anew)
                    anew = False
                duration, gap = None, False

    def _hold(self, tag: str, value: str, number: int) -> None:
        if tag == "#EXT-X-TARGETDURATION" and value.isascii() and value.isdigit():
            self.target_seconds = float(min(int(value[:6]), 3600))
        elif tag == "#EXT-X-MEDIA-SEQUENCE" and value.isascii() and value.isdigit():
            self._sequence = int(value[:18])
        elif tag == "#EXT-X-KEY":
            self._key, self._iv = _key(_attributes(value), number)
        elif tag == "#EXT-X-MAP":
            self._init = self._map(_attributes(value), number)
        elif tag == "#EXT-X-I-FRAMES-ONLY":
            raise PermanentError(f"line {number}: {tag[1:]} is not supported")

    def _map(self, attributes: dict[str, str], number: int) -> Ref:
        name = attributes.get("URI", "")
        check_name(name, number)
        if self._key and not self._iv:
            raise PermanentError(f"line {number}: an encrypted EXT-X-MAP needs an IV")
        size = offset = 0
        if "BYTERANGE" in attributes:
            size, offset = _byte_range(attributes["BYTERANGE"], 0, number)
        return Ref(number, name, size, offset, self._key, self._iv)

    def _segment(self, name: str, number: int) -> Ref:
        check_name(name, number)
        size = offset = 0
        if self._range:
            size, offset = _byte_range(self._range, self._ends.get(name), number)
            self._ends[name] = offset + size
            self._range = ""
        iv = (self._iv or self._sequence.to_bytes(16, "big")) if self._key else b""
        self._sequence += 1
        return Ref(number, name, size, offset, self._key, iv)


def _same(one: Ref | None, other: Ref | None) -> bool:
    """Whether two lines mean the same bytes."""
    return one is other or (one is not None and other is not None and one[1:] == other[1:])


def _variants(lines: list[str]) -> Iterator[Variant]:
    """The playlists of a master playlist. What leads elsewhere is among them; `segments` opens only what is local."""
    sounds: dict[str, Ref] = {}
    for number, line in enumerate(lines, 1):
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-MEDIA":
            attributes = _attributes(value)
            if attributes.get("TYPE") == "AUDIO" and attributes.get("URI"):
                group = attributes.get("GROUP-ID", "")
                if group not in sounds or attributes.get("DEFAULT") == "YES":
                    sounds[group] = Ref(number, attributes["URI"])
    attributes = {}
    variant = False
    for number, line in enumerate(lines, 1):
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-STREAM-INF":
            attributes, variant = _attributes(value), True
        elif variant and line and not line.startswith("#"):
            bandwidth = attributes.get("BANDWIDTH", "")
            yield Variant(Ref(number, line), int(bandwidth[:15]) if bandwidth.isascii() and bandwidth.isdigit() else 0,
                          sounds.get(attributes.get("AUDIO", "")))
            variant = False


def _attributes(value: str) -> dict[str, str]:
    return {name: text.strip('"') for name, text in _ATTRIBUTE.findall(value)}


def _duration(value: str, number: int) -> float:
    text = value.split(",", 1)[0].strip()
    if not re.fullmatch(r"\d{1,6}(\.\d{1,12})?", text):
        raise PermanentError(f"line {number}: EXTINF without a duration")
    return float(text)


def _byte_range(text: str, default: int | None, number: int) -> tuple[int, int]:
    """Size and offset; without an offset it goes on where the one before it ended."""
    found = _RANGE.fullmatch(text)
    if found is None or int(found[1]) == 0 or (found[2] is None and default is None):
        raise PermanentError(f"line {number}: {text[:50]!a} is no byte range")
    return int(found[1]), int(found[2]) if found[2] is not None else default or 0


def _key(attributes: dict[str, str], number: int) -> tuple[str, bytes]:
    """Name of the file with the key, and the IV if it is written down."""
    method = attributes.get("METHOD", "")
    if method == "NONE":
        return "", b""
    if method != "AES-128" or attributes.get("KEYFORMAT", "identity") != "identity":
        raise PermanentError(f"line {number}: segments encrypted with {method[:30]!a} are not supported")
    name, iv = attributes.get("URI", ""), attributes.get("IV", "")
    check_name(name, number)
    if iv and not re.fullmatch(r"0[xX][0-9A-Fa-f]{1,32}", iv):
        raise PermanentError(f"line {number}: {iv[:50]!a} is no IV")
    return name, int(iv, 16).to_bytes(16, "big") if iv else b""


def check_name(name: str, number: int) -> None:
    """Raise PermanentError for what is not a plain relative name."""
    plain = unquote(name)
    for form in (name, plain):
        if not form or _SCHEME.match(form) or not name.isprintable() or "\\" in form or "\0" in form:
            raise PermanentError(f"line {number}: {name[:200]!a} is not a file beside the playlist")
        if form.startswith("/") or ".." in form.split("/"):
            raise PermanentError(f"line {number}: {name[:200]!a} leads out of the playlist's directory")


def spellings(name: str) -> list[str]:
    """The file names a line may mean, the likeliest first: as written, decoded, without its query."""
    bare = name.partition("?")[0]
    return [form for form in dict.fromkeys([name, unquote(name), bare, unquote(bare)]) if form]
