"""What is in a media file, and is it whole?

Runs on a worker thread. Reads the file, directly and through ffmpeg, and writes nothing. A file is opened as one of the
containers named here or not at all: a playlist that calls itself x.mp4 must not make ffmpeg open other files.
"""

import contextlib
import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from biliupd.edit.ffmpeg import Ffmpeg, file_url
from biliupd.errors import PermanentError, TemporaryError

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv,live_flv,mpegts,mpeg,avi,asf,ogg,mxf,aac,mp3,wav,flac"
READ_ONLY = ("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS)  #: input options for any file

_INPUT = re.compile(r"^Input #0, (.+), from ", re.MULTILINE)
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?),", re.MULTILINE)
_START = re.compile(r"^  Duration: .*start: (-?\d+\.\d+)", re.MULTILINE)
_BITRATE = re.compile(r"^  Duration: .*bitrate: (\d+) kb/s", re.MULTILINE)
_STREAM = re.compile(r"^ +Stream #0:\d+\S*: (Video|Audio): (\w+)(.*)$", re.MULTILINE)
_SIZE = re.compile(r"[ ,](\d{2,5})x(\d{2,5})\b")
_COMMENT = re.compile(r"^    comment +: (.*)$", re.MULTILINE)
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_PASSING = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)


class Media(NamedTuple):
    """A file's first video and first audio stream."""

    duration_seconds: float
    width: int  #: pixels; 0: no video
    height: int
    video_codec: str  #: ffmpeg's name, such as h264; "": no video
    audio_codec: str
    bitrate: int  #: bits per second, all streams
    comment: str  #: the container's comment, at most one line


def probe(path: Path, ffmpeg: Ffmpeg) -> Media:
    """Open a file and read what it says.

    Raises PermanentError naming the file when it is gone, empty, no media, without streams or cut short;
    TemporaryError when the disk does not answer; and what `Ffmpeg.run` raises.
    """
    _regular(path)
    chosen = ("-map", "0:v?", "-map", "0:a?", "-c", "copy")
    try:
        text = ffmpeg.run([*READ_ONLY, "-i", file_url(path), *chosen, "-t", "0.1", "-f", "null", "-"]).stderr
    except PermanentError as error:
        raise PermanentError(f"{path.name!a} is no media file that can be opened: {error}") from error
    return facts(path, text, ffmpeg)


def facts(path: Path, text: str, ffmpeg: Ffmpeg) -> Media:
    """The same from ffmpeg's words about a file that it opened as its first input."""
    head = text.partition("\nOutput #0")[0]
    container = _INPUT.search(head)
    if container is not None and "mp4" in container[1].split(","):
        _check_boxes(path)
    video, audio, width, height = streams(head)
    if not video and not audio:
        raise PermanentError(f"{path.name!a} holds neither video nor audio")
    duration, bitrate, comment = _DURATION.search(head), _BITRATE.search(head), _COMMENT.search(head)
    if duration is not None:
        seconds = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3])
    else:
        seconds = _measure(path, ffmpeg)
    rate = int(bitrate[1]) * 1000 if bitrate else round(path.stat().st_size * 8 / seconds) if seconds else 0
    return Media(seconds, width, height, video, audio, rate, comment[1].strip() if comment else "")


def streams(text: str) -> tuple[str, str, int, int]:
    """Of ffmpeg's words about its input: codec of the first video and audio stream ("": none), width and height."""
    video = audio = ""
    width = height = 0
    for kind, codec, rest in _STREAM.findall(text.partition("\nOutput #0")[0]):
        if kind == "Video" and not video and "(attached pic)" not in rest:
            video, size = codec, _SIZE.search(rest)
            width, height = (int(size[1]), int(size[2])) if size else (0, 0)
        elif kind == "Audio" and not audio:
            audio = codec
    return video, audio, width, height


def begins(text: str) -> float:
    """Of ffmpeg's words about its input: the first timestamp in seconds, 0 when it does not say."""
    found = _START.search(text.partition("\nOutput #0")[0])
    return float(found[1]) if found else 0.0


def _regular(path: Path) -> None:
    """Raise what speaks against opening a file."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise PermanentError(f"{path.name!a} is no regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        kind = TemporaryError if error.errno in _PASSING else PermanentError
        raise kind(f"{path.name!a} cannot be opened: {error.strerror}") from error
    if info.st_size == 0:
        raise PermanentError(f"{path.name!a} is empty")


def _measure(path: Path, ffmpeg: Ffmpeg) -> float:
    """Duration of a file that does not say it (a recording cut off), by reading all of it."""
    seconds = [0.0]
    ffmpeg.run([*READ_ONLY, "-i", file_url(path), "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-f", "null", "-"],
               on_progress=seconds.append)
    return max(seconds)


class Box(NamedTuple):
    """A box of an ISO media file (ISO/IEC 14496-12, 4.2). Offsets in bytes."""

    kind: bytes
    start: int
    body: int  #: where its content begins
    end: int  #: by its own account, which may be past the end of the file


def boxes(read_at: Callable[[int, int], bytes], start: int, end: int) -> Iterator[Box]:
    """The boxes between two offsets; `read_at` gives the bytes at (offset, count)."""
    while start + 8 <= end:
        header = read_at(start, 16)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header[:8])
        body = start + 8
        if length == 1 and len(header) == 16:
            length, body = struct.unpack(">Q", header[8:])[0], start + 16
        elif length == 0 and kind != bytes(4):
            length = end - start
        if length < 8:
            return
        yield Box(kind, start, body, start + length)
        start += length


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    """A function that reads at an offset, and the size in bytes. Never waits for the writer of a FIFO."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield lambda at, count: os.pread(file, count, at), os.fstat(file).st_size
    finally:
        os.close(file)


def _check_boxes(path: Path) -> None:
    """ffmpeg opens an mp4 with its index in front however little of the rest is there."""
    with _reading(path) as (read_at, size_bytes):
        for box in boxes(read_at, 0, size_bytes):
            if box.end > size_bytes:
                raise PermanentError(f"{path.name!a} is cut short: {_overlong(box, size_bytes)}", hint="copy it again")


def _overlong(box: Box, size_bytes: int) -> str:
    return f"its {box.kind.decode('ascii', 'replace')!a} box at {box.start} ends at {box.end}, the file at {size_bytes}"


def unfinished(path: Path) -> str:
    """Why a file is not whole, in a few words, as far as its structure tells; "": nothing speaks against it.

    Runs on any thread, takes well under a millisecond for most files, and raises nothing: of what is gone, cannot be
    opened or is no regular file it says "", too. Only mp4 and its kin tell; of others only that they are empty, or
    still zeros where their signature belongs.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        with _reading(path) as (read_at, size_bytes):
            head = read_at(0, 16)
            if not head:
                return "empty"
            if not any(head):
                return "its beginning is not written yet"
            if head[4:8] not in _FIRST_BOXES:
                return ""
            last, kinds = 0, set()
            for box in boxes(read_at, 0, size_bytes):
                if box.end > size_bytes:
                    return _overlong(box, size_bytes)
                kinds.add(box.kind)
                last = box.end
    except OSError:
        return ""
    if not kinds & {b"moov", b"moof"}:  # a segment has its index elsewhere
        return "its index (moov) is missing"
    if not kinds & {b"mdat", b"moof"} and last < size_bytes:  # behind whole media many a camera puts something else
        return f"its boxes end at {last}, the file at {size_bytes}"
    return ""


def holes(path: Path, limit_seconds: float) -> list[tuple[float, float]]:
    """Where an mp4 shows nothing for longer than `limit_seconds`: (seconds from the start, length in seconds).

    Taken from its index (stts, ISO/IEC 14496-12, 8.6.1.2). Where it has sound and picture, both must be silent: a
    picture that stands still, or a microphone that is off, has lost nothing. Raises OSError.
    """
    found: list[list[tuple[float, float]]] = []
    with _reading(path) as (read_at, size_bytes):
        for trak in _within(read_at, Box(b"", 0, 0, size_bytes), b"moov", b"trak"):
            handler = next(_within(read_at, trak, b"mdia", b"hdlr"))
            if read_at(handler.body + 8, 4) in (b"vide", b"soun"):
                header = read_at(next(_within(read_at, trak, b"mdia", b"mdhd")).body, 24)
                timescale = struct.unpack(">I", header[20:24] if header[0] == 1 else header[12:16])[0]
                times = next(_within(read_at, trak, b"mdia", b"minf", b"stbl", b"stts"))
                raw = read_at(times.body + 8, times.end - times.body - 8)
                found.append(list(_pauses(raw, timescale, limit_seconds)))
    common = found[0] if found else []
    for other in found[1:]:
        common = [(max(a, b), min(a + m, b + n) - max(a, b)) for a, m in common for b, n in other]
        common = [(at, length) for at, length in common if length > limit_seconds / 2]
    return common


def _within(read_at: Callable[[int, int], bytes], box: Box, *kinds: bytes) -> Iterator[Box]:
    """The boxes at a path below one."""
    for inner in boxes(read_at, box.body, box.end):
        if inner.kind == kinds[0]:
            yield from _within(read_at, inner, *kinds[1:]) if len(kinds) > 1 else (inner,)


def _pauses(raw: bytes, timescale: int, limit_seconds: float) -> Iterator[tuple[float, float]]:
    """Of pairs (number of samples, duration of each) those that last too long."""
    at = 0
    for count, duration in struct.iter_unpack(">II", raw[:len(raw) // 8 * 8]):
        if duration > limit_seconds * timescale:
            yield from (((at + n * duration) / timescale, duration / timescale) for n in range(min(count, 1000)))
        at += count * duration
