"""What is in a media file, and is it whole?

Runs on a worker thread. Reads the file, directly and through ffmpeg, and writes nothing. A file is opened as one of the
containers named here or not at all: a playlist that calls itself x.mp4 must not make ffmpeg open other files.
"""

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from biliupd.edit.ffmpeg import Ffmpeg, file_url
from biliupd.errors import PermanentError, TemporaryError

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv,live_flv,mpegts,mpeg,avi,asf,ogg,mxf,aac,mp3,wav,flac"
READ_ONLY = ("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS)  #: input options for any file

_INPUT = re.compile(r"^Input #0, (.+), from ", re.MULTILINE)
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?),", re.MULTILINE)
_BITRATE = re.compile(r"^  Duration: .*bitrate: (\d+) kb/s", re.MULTILINE)
_STREAM = re.compile(r"^ +Stream #0:\d+\S*: (Video|Audio): (\w+)(.*)$", re.MULTILINE)
_SIZE = re.compile(r"[ ,](\d{2,5})x(\d{2,5})\b")
_COMMENT = re.compile(r"^    comment +: (.*)$", re.MULTILINE)
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
    size_bytes = _regular(path)
    streams = ("-map", "0:v?", "-map", "0:a?", "-c", "copy")
    try:
        text = ffmpeg.run([*READ_ONLY, "-i", file_url(path), *streams, "-t", "0.1", "-f", "null", "-"]).stderr
    except PermanentError as error:
        raise PermanentError(f"{path.name!a} is no media file that can be opened: {error}") from error
    head = text[:text.find("\nOutput #0")] if "\nOutput #0" in text else text
    container = _INPUT.search(head)
    if container is not None and "mp4" in container[1].split(","):
        _check_boxes(path, size_bytes)
    video = audio = ""
    width = height = 0
    for kind, codec, rest in _STREAM.findall(head):
        if kind == "Video" and not video and "(attached pic)" not in rest:
            video, size = codec, _SIZE.search(rest)
            width, height = (int(size[1]), int(size[2])) if size else (0, 0)
        elif kind == "Audio" and not audio:
            audio = codec
    if not video and not audio:
        raise PermanentError(f"{path.name!a} holds neither video nor audio")
    duration, bitrate, comment = _DURATION.search(head), _BITRATE.search(head), _COMMENT.search(head)
    if duration is not None:
        seconds = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3])
    else:
        seconds = _measure(path, ffmpeg)
    rate = int(bitrate[1]) * 1000 if bitrate else round(size_bytes * 8 / seconds) if seconds else 0
    return Media(seconds, width, height, video, audio, rate, comment[1].strip() if comment else "")


def _regular(path: Path) -> int:
    """Size in bytes of a file that can be opened."""
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
    return info.st_size


def _measure(path: Path, ffmpeg: Ffmpeg) -> float:
    """Duration of a file that does not say it (a recording cut off), by reading all of it."""
    seconds = [0.0]
    ffmpeg.run([*READ_ONLY, "-i", file_url(path), "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-f", "null", "-"],
               on_progress=seconds.append)
    return max(seconds)


def boxes(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Top-level boxes of an ISO media file (ISO/IEC 14496-12, 4.2): type, offset, end by its own account in bytes."""
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        offset = 0
        while offset + 8 <= size_bytes:
            file.seek(offset)
            header = file.read(16)
            length, kind = struct.unpack(">I4s", header[:8])
            if length == 1 and len(header) == 16:
                length = struct.unpack(">Q", header[8:])[0]
            elif length == 0:
                length = size_bytes - offset
            if length < 8:
                return
            yield kind, offset, offset + length
            offset += length


def _check_boxes(path: Path, size_bytes: int) -> None:
    """ffmpeg opens an mp4 with its index in front however little of the rest is there."""
    for kind, offset, end in boxes(path):
        if end > size_bytes:
            raise PermanentError(
                f"{path.name!a} is cut short: its {kind.decode('ascii', 'replace')!a} box at {offset} ends at {end}, "
                f"the file at {size_bytes}", hint="copy it again")
