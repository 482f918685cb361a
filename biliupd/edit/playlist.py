"""A local media playlist → the segments to join. Strict: it is a file that anybody may have put there.

Runs on a worker thread. Reads the playlist and looks at the files it lists, writes nothing. Names in it are plain file
names below its directory; nothing in it is ever handed to ffmpeg.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from biliupd.errors import PermanentError, TemporaryError

LARGEST_PLAYLIST_BYTES = 16 << 20
LARGEST_ENTRY_COUNT = 100_000

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z+.-]*|subfile,.*):")
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')


class Group(NamedTuple):
    """Segments whose timestamps go on from one to the next."""

    init: Path | None
    segments: list[Path]


class Plan(NamedTuple):
    """What a playlist lists."""

    segments: list[Path]  #: in order, without symbolic links
    init: Path | None  #: the first init section (fMP4); None: MPEG-TS
    duration_seconds: float  #: sum of EXTINF
    ended: bool  #: it has EXT-X-ENDLIST
    groups: list[Group]  #: the segments, parted where a discontinuity, a gap or another init section stands


class Line(NamedTuple):
    """A segment as it is written."""

    number: int  #: of its line, from 1
    name: str
    init: str | None
    duration_seconds: float
    new_group: bool


def plan(playlist: Path) -> Plan:
    """Read a playlist and find its files.

    Raises PermanentError naming the line for what it may not contain, TemporaryError naming a segment that is missing.
    """
    directory = os.path.realpath(playlist.parent)
    lines, ended = read(playlist)
    found = Plan([], None, sum(line.duration_seconds for line in lines), ended, [])
    inits: dict[str, Path] = {}
    for line in lines:
        init = None
        if line.init is not None:
            init = inits.get(line.init) or inits.setdefault(line.init, _file(directory, line.init, line.number))
        segment = _file(directory, line.name, line.number)
        found.segments.append(segment)
        if line.new_group or not found.groups:
            found.groups.append(Group(init, []))
        found.groups[-1].segments.append(segment)
    if not found.segments:
        raise PermanentError(f"{playlist.name!a} lists no segment")
    return found._replace(init=found.groups[0].init)


def read(playlist: Path) -> tuple[list[Line], bool]:
    """The segments of a playlist as written, and whether it has ended; their files are not looked at."""
    try:
        with open(playlist, "rb") as file:
            raw = file.read(LARGEST_PLAYLIST_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"{playlist.name!a} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_PLAYLIST_BYTES:
        raise PermanentError(f"{playlist.name!a} is larger than {LARGEST_PLAYLIST_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PermanentError(f"{playlist.name!a} is no playlist: not UTF-8") from error
    lines = text.split("\n")
    if lines[0].strip() != "#EXTM3U":
        raise PermanentError(f"{playlist.name!a} is no playlist: line 1 is not #EXTM3U")
    try:
        found = list(_read(lines))
    except PermanentError as error:
        raise PermanentError(f"{playlist.name!a}, {error}") from error
    return found, any(line.strip() == "#EXT-X-ENDLIST" for line in lines)


def _read(lines: list[str]) -> Iterator[Line]:
    init: str | None = None
    duration: float | None = None
    new_group = gap = False
    seen: set[str] = set()
    for number, line in enumerate((line.strip() for line in lines), 1):
        tag, _, value = line.partition(":")
        if tag == "#EXTINF":
            duration = _duration(value, number)
        elif tag == "#EXT-X-MAP":
            name = _map(value, number)
            new_group, init = new_group or name != init, name
        elif tag == "#EXT-X-DISCONTINUITY":
            new_group = True
        elif tag == "#EXT-X-GAP":
            gap = True
        elif tag == "#EXT-X-KEY" and dict(_ATTRIBUTE.findall(value)).get("METHOD") != "NONE":
            raise PermanentError(f"line {number}: encrypted segments are not supported")
        elif tag in ("#EXT-X-STREAM-INF", "#EXT-X-I-FRAMES-ONLY", "#EXT-X-BYTERANGE", "#EXT-X-I-FRAME-STREAM-INF"):
            raise PermanentError(f"line {number}: {tag[1:]} is not supported")
        elif line and not line.startswith("#"):
            check_name(line, number)
            if duration is None:
                raise PermanentError(f"line {number}: a segment without EXTINF")
            if gap:
                new_group = True  # missing by intent: what follows does not join on to what was before
            elif line not in seen:
                seen.add(line)
                if len(seen) > LARGEST_ENTRY_COUNT:
                    raise PermanentError(f"line {number}: more than {LARGEST_ENTRY_COUNT} segments")
                yield Line(number, line, init, duration, new_group)
                new_group = False
            duration, gap = None, False


def _duration(value: str, number: int) -> float:
    text = value.split(",", 1)[0].strip()
    if not re.fullmatch(r"\d{1,6}(\.\d{1,12})?", text):
        raise PermanentError(f"line {number}: EXTINF without a duration")
    return float(text)


def _map(value: str, number: int) -> str:
    attributes: dict[str, str] = dict(_ATTRIBUTE.findall(value))
    if "BYTERANGE" in attributes:
        raise PermanentError(f"line {number}: EXT-X-MAP with BYTERANGE is not supported")
    name = attributes.get("URI", "").strip('"')
    check_name(name, number)
    return name


def check_name(name: str, number: int) -> None:
    """Raise PermanentError for what is not a plain relative name."""
    plain = unquote(name)
    if not name or _SCHEME.match(name) or not name.isprintable() or "\\" in plain:
        raise PermanentError(f"line {number}: {name[:200]!a} is not a file beside the playlist")
    for form in (name, plain):
        if form.startswith("/") or ".." in form.split("/") or "\0" in form:
            raise PermanentError(f"line {number}: {name[:200]!a} leads out of the playlist's directory")


def _file(directory: str, name: str, number: int) -> Path:
    path = os.path.realpath(os.path.join(directory, name))
    if not path.startswith(directory.rstrip("/") + "/"):
        raise PermanentError(f"line {number}: {name[:200]!a} leads out of the playlist's directory")
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TemporaryError(f"waits for segment {name[:200]!a} (line {number})", retry_after_seconds=60) from error
    except OSError as error:
        raise TemporaryError(f"segment {name[:200]!a} (line {number}): {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        raise PermanentError(f"line {number}: {name[:200]!a} is no regular file")
    if info.st_size == 0:
        raise PermanentError(f"line {number}: {name[:200]!a} is empty")
    return Path(path)
