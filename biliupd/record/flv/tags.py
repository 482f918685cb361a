"""FLV tags and bytes: a parser that survives garbage, what each tag is, and the bytes of the tags we write.

Pure. Runs in the recorder process and, to salvage a file, in the daemon. Source: Adobe FLV 10.1, Enhanced RTMP v2.
"""

import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

AUDIO, VIDEO, SCRIPT = 8, 9, 18
START = 0  # not a real tag: the parser puts it where a second file header stood, so a new stream begins

FILE_HEADER = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"
LARGEST_BODY = {AUDIO: 64 << 10, VIDEO: 8 << 20, SCRIPT: 1 << 20}
LARGEST_FILE_HEADER = 1024

_TAG_HEADER = struct.Struct(">IIHB")  # type and size (1+3), time and its extension (3+1), stream id (2+1)
_U32 = struct.Struct(">I")
_CANDIDATE = re.compile(rb"(?=[\x08\x09\x12].{7}\x00\x00\x00|FLV\x01.\x00\x00..)", re.DOTALL)
_VIDEO_CODECS = {7: b"avc1", 12: b"hvc1", 13: b"av01"}
_WITHOUT_HEADER = (b".mp3", b"ac-3", b"ec-3")


class Tag(NamedTuple):
    """One tag: `type` is AUDIO, VIDEO, SCRIPT (or START), `timestamp` unsigned 32-bit milliseconds."""

    type: int
    timestamp: int
    body: bytes

    @property
    def header(self) -> bytes:
        """The 11 bytes before the body."""
        time = self.timestamp
        return _TAG_HEADER.pack(self.type << 24 | len(self.body), (time & 0xFFFFFF) << 8 | time >> 24 & 0xFF, 0, 0)


class Role(IntEnum):
    """What a tag is for."""

    EMPTY = 0  # carries nothing that is worth keeping
    SCRIPT = 1
    HEADER = 2  # a sequence header: decoders need it first
    KEYFRAME = 3
    MEDIA = 4  # inter frame or audio
    END = 5  # end of sequence: the encoder stopped


class Look(NamedTuple):
    """`codec` is a FourCC, the same for a codec's legacy and enhanced form, empty when it needs no sequence header.

    `config` is the configuration record of a HEADER. Codec and config together are the identity of a header.
    """

    role: Role
    codec: bytes = b""
    config: bytes = b""


_EMPTY = Look(Role.EMPTY)
_USUAL = {  # by type and the first two bytes: nearly all tags there are
    (VIDEO, b"\x17\x01"): Look(Role.KEYFRAME, b"avc1"), (VIDEO, b"\x27\x01"): Look(Role.MEDIA, b"avc1"),
    (VIDEO, b"\x1c\x01"): Look(Role.KEYFRAME, b"hvc1"), (VIDEO, b"\x2c\x01"): Look(Role.MEDIA, b"hvc1"),
    (AUDIO, b"\xaf\x01"): Look(Role.MEDIA, b"mp4a"),
}


def look_at(tag: Tag) -> Look:
    """Say what `tag` is. Never raises: a body that makes no sense is EMPTY."""
    body = tag.body
    usual = _USUAL.get((tag.type, body[:2]))
    if usual is not None and len(body) > 5:
        return usual
    if not body:
        return _EMPTY
    try:
        if tag.type == VIDEO:
            return _enhanced(body, video=True) if body[0] & 0x80 else _legacy_video(body)
        if tag.type == AUDIO:
            return _enhanced(body, video=False) if body[0] >> 4 == 9 else _legacy_audio(body)
    except (IndexError, struct.error):
        return _EMPTY
    return Look(Role.SCRIPT) if tag.type == SCRIPT else _EMPTY


def is_keyframe(tag: Tag) -> bool:
    """Coded frames that can be decoded on their own; a sequence header is none, though its frame type says so."""
    return look_at(tag).role is Role.KEYFRAME


def is_header(tag: Tag) -> bool:
    """A sequence header of video or audio."""
    return look_at(tag).role is Role.HEADER


def is_end(tag: Tag) -> bool:
    """An end-of-sequence tag."""
    return look_at(tag).role is Role.END


def _legacy_video(body: bytes) -> Look:
    frame, number = body[0] >> 4, body[0] & 0x0F
    if frame == 5:
        return _EMPTY
    picture = Role.KEYFRAME if frame == 1 else Role.MEDIA
    codec = _VIDEO_CODECS.get(number)
    if codec is None:
        return Look(picture) if len(body) > 1 else _EMPTY
    packet = body[1]
    if packet == 2:
        return Look(Role.END, codec)
    if packet > 2 or len(body) <= 5:
        return _EMPTY
    return Look(picture, codec) if packet == 1 else Look(Role.HEADER, codec, body[5:])


def _legacy_audio(body: bytes) -> Look:
    if body[0] >> 4 != 10:
        return Look(Role.MEDIA) if len(body) > 1 else _EMPTY
    if len(body) <= 2:
        return _EMPTY
    return Look(Role.MEDIA, b"mp4a") if body[1] else Look(Role.HEADER, b"mp4a", body[2:])


def _enhanced(body: bytes, *, video: bool) -> Look:
    """Enhanced RTMP: packet type, any ModEx before it, maybe several tracks, then the FourCC."""
    packet, frame, at = body[0] & 0x0F, body[0] >> 4 & 0x07, 1
    while packet == 7:
        size = body[at] + 1
        at += 1
        if size == 256:
            size = struct.unpack_from(">H", body, at)[0] + 1
            at += 2
        at += size
        packet = body[at] & 0x0F
        at += 1
    if video and frame == 5 and packet != 4:
        return _EMPTY
    track = 0
    if packet == (6 if video else 5):
        kind, packet = body[at] >> 4, body[at] & 0x0F
        codec = body[at + 1: at + 5]
        at += 5
        track = body[at]
        at += 1 if kind == 0 else 0
    else:
        codec = body[at: at + 4]
        at += 4
    if len(codec) < 4:
        return _EMPTY
    return _enhanced_role(packet, video and frame == 1, codec, body[at:], track)


def _enhanced_role(packet: int, key: bool, codec: bytes, rest: bytes, track: int) -> Look:
    needed = b"" if codec in _WITHOUT_HEADER else codec
    if packet == 2:
        return Look(Role.END, needed)
    if not rest:
        return _EMPTY
    if packet == 0 and track == 0:
        return Look(Role.HEADER, codec, rest)
    return Look(Role.KEYFRAME if key and packet in (1, 3) else Role.MEDIA, needed)


class Parser:
    """Bytes of one connection in any pieces → whole tags.

    Never raises. Bytes that are no tag are skipped: `garbage_bytes` counts them, `lost` says that it is looking for
    the next tag now. A wrong back pointer alone is tolerated (`wrong_pointers` counts those).
    """

    def __init__(self) -> None:
        self.garbage_bytes = 0
        self.wrong_pointers = 0
        self.lost = False
        self._buffer = b""
        self._right_pointers = 0
        self._lost_bytes = 0
        self._begun = False

    @property
    def lost_bytes(self) -> int:
        """How many bytes in a row made no sense by now; 0 when all is well."""
        return self._lost_bytes + len(self._buffer) if self.lost else 0

    def feed(self, chunk: bytes) -> list[Tag]:
        """The tags that are whole now."""
        self._buffer = self._buffer + chunk if self._buffer else bytes(chunk)
        return self._parse(final=False)

    def flush(self) -> list[Tag]:
        """End of input: what is still whole. A last tag may lack its back pointer; a torn one is dropped."""
        garbage, lost = self.garbage_bytes, self.lost
        tags = self._parse(final=True)
        if self.lost and not lost:
            self.garbage_bytes = garbage  # it was only the torn tag
        self._buffer = b""
        return tags

    def _parse(self, *, final: bool) -> list[Tag]:
        tags: list[Tag] = []
        at, end = 0, len(self._buffer)
        while True:
            if not self.lost:
                at = self._usual(tags, at, end)
            if self.lost:
                found = self._search(at)
                self._count_garbage(found - at)
                at = found
                if self.lost:
                    break
                self._lost_bytes = 0
            stop = self._step(tags, at, end, final)
            if stop == at:
                if not self.lost and (not final or end - at < 12):
                    break
                self.lost = True  # garbage; or unfinished at the end of input, and garbage may look like a header, too
                self._count_garbage(1)
                stop = at + 1
            at = stop
        self._buffer = self._buffer[at:]
        return tags

    def _usual(self, tags: list[Tag], at: int, end: int) -> int:
        """Take tags as long as nothing about them is unusual; where the next one stands."""
        buffer, right = self._buffer, self._right_pointers
        while at + 15 <= end:
            kind_size, time, id_high, id_low = _TAG_HEADER.unpack_from(buffer, at)
            kind, size = kind_size >> 24, kind_size & 0xFFFFFF
            stop = at + 11 + size
            if stop + 4 > end or kind not in LARGEST_BODY or id_high or id_low or not 0 < size <= LARGEST_BODY[kind]:
                break
            if _U32.unpack_from(buffer, stop)[0] != size + 11:
                break
            tags.append(Tag(kind, time >> 8 | (time & 0xFF) << 24, buffer[at + 11: stop]))
            at, right = stop + 4, right + 1
        if right != self._right_pointers:
            self._right_pointers, self._begun = right, True
        return at

    def _count_garbage(self, count: int) -> None:
        self.garbage_bytes += count
        self._lost_bytes += count

    def _step(self, tags: list[Tag], at: int, end: int, final: bool) -> int:
        """Take what stands at `at` and return where it stops; the same place when it is not whole, or is garbage."""
        buffer = self._buffer
        if buffer[at: at + 4] == b"FLV\x01":
            return self._file_header(tags, at, end)
        if end - at < 11:
            return at
        size = self._body_size(at)
        if size < 0:
            self.lost = True
            return at
        stop = at + 11 + size
        if stop + 4 > end:
            if final and stop <= end:
                tags.append(self._tag(at, size))
                return end
            return at
        if _U32.unpack_from(buffer, stop)[0] == size + 11:
            self._right_pointers += 1
        elif end - stop < 15 and not final:
            return at
        elif self._plausible_next(stop + 4, end):
            self.wrong_pointers += 1
        else:
            self.lost = True
            return at
        tags.append(self._tag(at, size))
        return stop + 4

    def _file_header(self, tags: list[Tag], at: int, end: int) -> int:
        if end - at < 9:
            return at
        size = _U32.unpack_from(self._buffer, at + 5)[0]
        if not 9 <= size <= LARGEST_FILE_HEADER:
            self.lost = True
            return at
        if end - at < size + 4:
            return at
        if self._begun:
            tags.append(Tag(START, 0, b""))
        self._begun = True
        return int(at + size + 4)

    def _tag(self, at: int, size: int) -> Tag:
        kind_size, time, _, _ = _TAG_HEADER.unpack_from(self._buffer, at)
        self._begun = True
        return Tag(kind_size >> 24 & 0x1F, time >> 8 | (time & 0xFF) << 24, self._buffer[at + 11: at + 11 + size])

    def _body_size(self, at: int) -> int:
        """Size of the body of the tag whose header is at `at`; −1: that is no header."""
        kind_size, _, id_high, id_low = _TAG_HEADER.unpack_from(self._buffer, at)
        kind, size = kind_size >> 24, int(kind_size & 0xFFFFFF)
        if kind & 0x3F not in LARGEST_BODY or id_high or id_low or size > LARGEST_BODY[kind & 0x1F]:
            return -1
        return -1 if kind & 0x1F == SCRIPT and not size else size

    def _plausible_next(self, at: int, end: int) -> bool:
        if self._buffer[at: at + 4] == b"FLV\x01":
            return True
        if end - at < 11:
            return self.wrong_pointers > self._right_pointers
        return self._body_size(at) >= 0

    def _search(self, at: int) -> int:
        """Where the next tag or file header stands that has two signs of being one; clears `lost` when found.

        Else the place from which on bytes must be kept, because something there may become one.
        """
        end, waiting = len(self._buffer), -1
        for match in _CANDIDATE.finditer(self._buffer, at):
            place = match.start()
            if self._buffer[place] == 0x46:
                self.lost = False
                return place
            size = self._body_size(place)
            stop = place + 11 + size
            if size >= 0 and stop + 4 > end:
                waiting = place if waiting < 0 else waiting
            elif size >= 0 and self._confirmed(stop, size, end):
                self.lost = False
                return place
        return waiting if waiting >= 0 else max(at, end - 10)

    def _confirmed(self, stop: int, size: int, end: int) -> bool:
        if _U32.unpack_from(self._buffer, stop)[0] == size + 11:
            return True
        habit = self.wrong_pointers > self._right_pointers  # this server writes no right ones anyway
        return habit and end - stop >= 15 and self._body_size(stop + 4) >= 0


def tag_bytes(tags: Iterable[Tag]) -> bytes:
    """The tags as they stand in a file: header, body, back pointer."""
    pieces: list[bytes] = []
    for tag in tags:
        pieces += (tag.header, tag.body, _U32.pack(len(tag.body) + 11))
    return b"".join(pieces)
