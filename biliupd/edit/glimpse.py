"""The newest picture of a recording, of one that still grows, too: a small JPEG of its last keyframe.

Runs on whichever thread asks, which waits. Reads the head of a file and a few MB of its end, however long it is; writes
into a temporary directory. Nothing but keyframes is decoded, and of an FLV one alone, which we take out ourselves:
ffmpeg before 6.1 knows no HEVC in it.
"""

import os
import re
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from biliupd.config import EditConfig
from biliupd.edit import media
from biliupd.edit.feed import Feed, reading
from biliupd.edit.ffmpeg import Ffmpeg, file_url
from biliupd.edit.playlist import check_name
from biliupd.edit.playlist import read as read_playlist
from biliupd.edit.segments import TS_PACKET_BYTES, Files, Found, SegmentDamaged, SegmentMissing
from biliupd.errors import PermanentError, TemporaryError

WIDTH, HEIGHT = 480, 270  #: pixels it has at most
DEADLINE_SECONDS = 10.0  #: for all of it
TAILS_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20)  #: of an FLV, where its last keyframe is looked for
TS_TAILS_BYTES = (2 << 20, 16 << 20)
PIECES = (1, 4)  #: so many segments, or fragments, at the end
MOST_BOXES = 200_000
HEAD_TAGS = 500
SEARCH_BYTES = 256 << 10

_FILTERS = (f"scale=iw*sar:ih,scale='min({WIDTH},iw)':'min({HEIGHT},ih)':force_original_aspect_ratio=decrease:"
            "flags=area,setsar=1,format=yuvj420p,settb=1/25,setpts=N")  # fmt: skip
_TORN = ("-err_detect", "explode")  #: of a keyframe that is cut off nothing is shown, rather than grey below it
_LIKE_A_TAG = re.compile(rb"(?=[\x08\x09\x12].{7}\0\0\0)", re.DOTALL)
_VIDEO = 9
_NAL_CODECS = {b"avc1": "h264", b"hvc1": "hevc", 7: "h264", 12: "hevc"}  #: ffmpeg's names, by FourCC or number

Read = Callable[[int, int], bytes]  #: (offset, count) → the bytes there
Take = tuple[list[str], list[Feed]]  #: how ffmpeg is told of a form, and what to feed


def glimpse(edit: EditConfig, source: Path) -> bytes:
    """The newest keyframe of a recording: an FLV, an MPEG-TS, a fragmented MP4, or a media playlist.

    Raises PermanentError when no picture can be found in it (yet), TemporaryError when a file cannot be read now or it
    takes too long, and what `Ffmpeg.run` raises.
    """
    deadline_at = time.monotonic() + DEADLINE_SECONDS
    why = "it is no recording of a form that is known"
    try:
        with tempfile.TemporaryDirectory(prefix="biliupd-") as temp:
            for form, feeds in _takes(source, Path(temp, "keyframe"), deadline_at):
                left = max(deadline_at - time.monotonic(), 0.1)
                limits = edit.model_copy(update={"deadline_seconds": left, "stall_seconds": left})
                try:
                    return _shot(Ffmpeg(limits, threading.Event()), form, feeds, Path(temp, "picture.jpg"))
                except PermanentError as error:
                    why = str(error)
    except OSError as error:
        raise TemporaryError(f"no picture of {source.name!a}: {error.strerror}") from error
    raise PermanentError(f"there is no picture in {source.name!a} (yet): {why}")


def _shot(ffmpeg: Ffmpeg, form: Sequence[str], feeds: Sequence[Feed], output: Path) -> bytes:
    """The last keyframe of what is fed: each is written over the one before it."""
    ffmpeg.run(["-y", "-protocol_whitelist", "pipe", "-threads", "1", "-skip_frame", "nokey", *form, "-i", "pipe:0",
                "-map", "0:v:0", "-vf", _FILTERS, "-r", "25", "-c:v", "mjpeg", "-q:v", "4",
                "-threads", "1", "-update", "1", "-f", "image2", file_url(output)], feed=feeds)  # fmt: skip
    try:
        return output.read_bytes()
    except FileNotFoundError as error:
        raise PermanentError("no keyframe can be decoded") from error


def _takes(source: Path, temp: Path, deadline_at: float) -> Iterator[Take]:
    """What may hold the newest picture: as little as can be first, then more."""
    if source.suffix.lower() == ".m3u8":
        yield from _of_playlist(source)
        return
    status = os.stat(source, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise PermanentError(f"{source.name!a} is no regular file")
    size = status.st_size
    with reading(Feed(source, size)) as read:
        head = read(0, TS_PACKET_BYTES + 1)
        if head[:3] == b"FLV":
            form, content = _of_flv(read, size, deadline_at)
            temp.write_bytes(content)
            yield ["-f", form], [Feed(temp, len(content))]
        elif head[:1] == head[TS_PACKET_BYTES:] == b"G":
            for tail in TS_TAILS_BYTES:
                first, end = (at // TS_PACKET_BYTES * TS_PACKET_BYTES for at in (max(size - tail, 0), size))
                yield [*_TORN, "-f", "mpegts"], [Feed(source, end - first, first)]
        elif head[4:8] == b"ftyp":
            yield from _of_fragments(read, source, size)


def _of_playlist(source: Path) -> Iterator[Take]:
    """Its last segments; those that are gone or damaged are passed over."""
    listing = read_playlist(source)
    if listing.variants:
        best = listing.variants[0].playlist
        check_name(best.name, best.line)
        source = Files(os.path.realpath(source.parent)).path(best)
        listing = read_playlist(source)
    files, found = Files(os.path.realpath(source.parent)), deque[Found]()
    for entry in reversed(listing.entries[-2 * PIECES[-1]:]):
        try:
            segment = files.segment(entry, cut=True)
        except (SegmentMissing, SegmentDamaged):
            continue
        if segment.demuxer == "aac" or (found and (segment.demuxer, segment.init) != (found[0].demuxer, found[0].init)):
            break
        found.appendleft(segment)
        if len(found) == PIECES[-1]:
            break
    for count in PIECES if found else ():
        init = [found[0].init] if found[0].init is not None else []
        yield ["-f", found[0].demuxer], [*init, *(one.segment.feed for one in list(found)[-count:])]


def _of_fragments(read: Read, source: Path, size: int) -> Iterator[Take]:
    """A fragmented MP4: what stands before its media, and its last fragments."""
    head = begins = 0
    last: deque[tuple[int, int]] = deque(maxlen=PIECES[-1])
    for box in islice(media.boxes(read, 0, size), MOST_BOXES):
        if box.kind == b"moov":
            head = min(box.end, size)
        elif box.kind == b"moof":
            begins = box.start
        elif box.kind == b"mdat" and begins:
            last.append((begins, min(box.end, size)))
    for count in PIECES if head and last else ():
        first, end = last[-min(count, len(last))][0], last[-1][1]
        yield ["-f", "mov"], [Feed(source, head), Feed(source, end - first, first)]


# -- FLV (Adobe's specification 10.1, annex E, and Enhanced RTMP)


class _Tag(NamedTuple):
    kind: int
    at: int
    body: bytes  #: its beginning
    body_bytes: int

    @property
    def end(self) -> int:
        return self.at + 11 + self.body_bytes

    @property
    def is_header(self) -> bool:
        """Whether a decoder needs it before all else."""
        if self.body[0] & 0x80:
            return self.body[0] & 0x0F == 0
        return self.body[0] & 0x0F in _NAL_CODECS and self.body[1] == 0

    @property
    def is_keyframe(self) -> bool:
        first = self.body[0]
        if first & 0x80:
            return first & 0x70 == 0x10 and first & 0x0F in (1, 3)
        return first & 0xF0 == 0x10 and (first & 0x0F not in _NAL_CODECS or self.body[1] == 1)


def _of_flv(read: Read, size: int, deadline_at: float) -> tuple[str, bytes]:
    """Its last keyframe, for ffmpeg. It may end in the middle of a tag."""
    begin = int.from_bytes(read(5, 4)) + 4
    header: _Tag | None = None
    for tag in islice(_tags(read, begin, size), HEAD_TAGS):
        if tag.kind == _VIDEO and not tag.is_header:
            break
        header = tag if tag.kind == _VIDEO else header
    for tail in TAILS_BYTES:
        start = max(begin, size - tail)
        at = _boundary(read, start, size, deadline_at) if start > begin else begin
        keyframe, current, of_keyframe = None, header, header
        for number, tag in enumerate(_tags(read, at, size)):
            if number % 4096 == 4095:
                _in_time(deadline_at)
            if tag.kind == _VIDEO and tag.is_header:
                current = tag
            elif tag.kind == _VIDEO and tag.is_keyframe:
                keyframe, of_keyframe = tag, current
        if keyframe is not None:
            return _elementary(read, of_keyframe, keyframe)
        if start == begin:
            break
    raise PermanentError("there is no keyframe in it (yet)")


def _tags(read: Read, at: int, end: int) -> Iterator[_Tag]:
    """The whole tags from there on."""
    while (tag := _tag(read, at)) is not None and tag.end <= end:
        yield tag
        at = tag.end + 4


def _tag(read: Read, at: int) -> _Tag | None:
    head = read(at, 13)
    if len(head) < 13 or head[0] not in (8, _VIDEO, 18) or any(head[8:11]):
        return None
    return _Tag(head[0], at, head[11:], int.from_bytes(head[1:4]))


def _boundary(read: Read, start: int, end: int, deadline_at: float) -> int:
    """Where a tag begins, surely: its length stands behind it once more. `end` when none does."""
    for at in range(start, end, SEARCH_BYTES):
        _in_time(deadline_at)
        for like in _LIKE_A_TAG.finditer(read(at, SEARCH_BYTES + 10)):
            tag = _tag(read, at + like.start())
            if tag is not None and tag.end + 4 <= end and read(tag.end, 4) == (11 + tag.body_bytes).to_bytes(4):
                return tag.at
    return end


def _in_time(deadline_at: float) -> None:
    if time.monotonic() > deadline_at:
        raise TemporaryError("the newest keyframe was not found in time")


def _elementary(read: Read, header: _Tag | None, keyframe: _Tag) -> tuple[str, bytes]:
    """H.264 and HEVC as the stream they are (Annex B), anything else as an FLV of one picture."""
    tags = [read(tag.at + 11, tag.body_bytes) for tag in (header, keyframe) if tag is not None]
    body, enhanced = tags[-1], keyframe.body[0] & 0x80
    if not body:  # its tag is empty, or the file became shorter meanwhile
        raise PermanentError("there is no keyframe in it (yet)")
    form = _NAL_CODECS.get(body[1:5] if enhanced else body[0] & 0x0F)
    if form is None or header is None:
        flv = [b"FLV\1\1\0\0\0\x09\0\0\0\0"]
        for tag in tags:
            flv += [b"\x09", len(tag).to_bytes(3), bytes(7), tag, (11 + len(tag)).to_bytes(4)]
        return "flv", b"".join(flv)
    try:
        length_bytes, sets = (_avc if form == "h264" else _hevc)(tags[0][5:])
    except IndexError as error:
        raise PermanentError(f"its {form} header is none") from error
    at = 8 if enhanced and body[0] & 0x0F == 1 else 5  # behind the composition time, which packet type 3 leaves out
    return form, b"".join(b"\0\0\0\1" + unit for unit in (*sets, *_units(body, at, length_bytes)))


def _avc(record: bytes) -> tuple[int, list[bytes]]:
    """How long the length of a unit is, and the parameter sets (ISO/IEC 14496-15, 5.3.3.1)."""
    sequence = list(_units(record, 6, 2, record[5] & 0x1F))
    at = 6 + sum(2 + len(unit) for unit in sequence)
    return (record[4] & 3) + 1, [*sequence, *_units(record, at + 1, 2, record[at])]


def _hevc(record: bytes) -> tuple[int, list[bytes]]:
    """The same for HEVC (8.3.3.1)."""
    sets: list[bytes] = []
    at = 23
    for _ in range(record[22]):
        units = list(_units(record, at + 3, 2, int.from_bytes(record[at + 1:at + 3])))
        at += 3 + sum(2 + len(unit) for unit in units)
        sets += units
    return (record[21] & 3) + 1, sets


def _units(content: bytes, at: int, length_bytes: int, most: int = 100_000) -> Iterator[bytes]:
    """Pieces with their lengths before them."""
    for _ in range(most):
        begin = at + length_bytes
        at = begin + int.from_bytes(content[at:begin])
        if begin > len(content):
            return
        yield content[begin:at]
