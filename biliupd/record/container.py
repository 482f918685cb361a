"""What the bytes of a segment are: whole and usable, of which container, of which form.

Pure. Runs in the recorder process. Sources: ISO/IEC 13818-1 (MPEG-TS), 14496-12 (fMP4), 14496-3 (ADTS); the size and
checksum in the title of a segment are Bilibili's.
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from biliupd.record.playlist import Segment

TS_PACKET = 188
FORM_PACKETS = 4000  # of a segment are looked through for its form
FORM_BYTES = 4096  # of a stream in it
HEAD_PACKETS = 24  # of a segment, in which its first picture begins
TS_RATE = 90_000
TS_WRAP = 1 << 33
_FRAGMENT_BOXES = (b"styp", b"moof", b"sidx", b"emsg", b"prft", b"ftyp", b"free", b"uuid", b"mdat")
_SIZE_AND_CRC = re.compile(r"([0-9a-fA-F]{1,8})\|([0-9a-fA-F]{1,8})(?:\|.*)?")
_AVC_SPS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67](.+?)\x00\x00[\x00\x01]", re.DOTALL)
_HEVC_SPS = re.compile(rb"\x00\x00\x01\x42.(.+?)\x00\x00[\x00\x01]", re.DOTALL)
_ANY_SPS = re.compile(rb"\x00\x00\x01(?:[\x07\x27\x47\x67]|\x42\x01).+?\x00\x00[\x00\x01]", re.DOTALL)
_SPS = {0x1B: _AVC_SPS, 0x24: _HEVC_SPS}
_ADTS = 0x0F

Body = bytes | bytearray
Form = tuple[tuple[int, bytes], ...]
Glance = tuple[bytes, bytes]


def sound(body: bytes | bytearray, segment: Segment) -> tuple[Body, str]:
    """The usable bytes of a segment's answer, and what is wrong with it; nothing usable when it is no media."""
    problem = ""
    claim = _SIZE_AND_CRC.fullmatch(segment.title) if "|" in segment.title else None
    if claim and (len(body) != int(claim[1], 16) or zlib.crc32(body) != int(claim[2], 16)):
        problem = "size or checksum is not the one announced"
    if segment.map:
        return (body, problem) if body[4:8] in _FRAGMENT_BOXES else (b"", "no fMP4")
    if body[:1] == b"\x47":
        packets = len(body) // TS_PACKET
        if packets and body[::TS_PACKET][:packets].count(0x47) == packets:
            rest = len(body) - packets * TS_PACKET
            return (body[:packets * TS_PACKET] if rest else body,
                    problem or ("cut in the middle of a packet" if rest else ""))
        return b"", "no MPEG-TS"
    stripped = _without_id3(body)
    if len(stripped) > 1 and stripped[0] == 0xFF and stripped[1] & 0xE0 == 0xE0:
        return stripped, problem
    return b"", "no media" if body else "empty"


def suffix(body: Body, segment: Segment) -> str:
    """How the name of its file ends."""
    return ".m4s" if segment.map else ".ts" if body[0] == 0x47 else ".aac"


def whole_init(body: bytes | bytearray) -> bool:
    """Whether it is an init section that has all of its boxes."""
    kinds, at = [], 0
    while at + 8 <= len(body):
        size = int.from_bytes(body[at:at + 4], "big")
        if size < 8:
            return False
        kinds.append(bytes(body[at + 4:at + 8]))
        at += size
    return at == len(body) and b"moov" in kinds


class Clock(NamedTuple):
    """When a segment begins by the clock of its media: `ticks` of 1/`rate` seconds, of the stream or track `of`."""

    of: int
    ticks: int
    rate: int

    def since(self, earlier: "Clock") -> float | None:
        """Seconds from an earlier one to this; None when they are clocks of different things."""
        if (self.of, self.rate) != (earlier.of, earlier.rate):
            return None
        ticks = self.ticks - earlier.ticks
        if self.rate == TS_RATE:  # 33 bits; in an fMP4 it is no harm
            ticks = (ticks + TS_WRAP // 2) % TS_WRAP - TS_WRAP // 2
        return ticks / self.rate


def clock(body: Body, init: Body) -> Clock | None:
    """Of the first picture of a segment (else of its first sound); `init`: its init section. None: it does not say."""
    if body[:1] != b"\x47":
        found = _track_time(body)
        rate = _timescale(init, found[0]) if found else 0
        return Clock(*found, rate) if found and rate else None
    first = None
    for at in range(0, min(len(body), HEAD_PACKETS * TS_PACKET), TS_PACKET):
        if not body[at + 1] & 0x40 or not body[at + 3] & 0x10:
            continue
        pes = at + (5 + body[at + 4] if body[at + 3] & 0x20 else 4)
        if pes + 19 > at + TS_PACKET or body[pes:pes + 3] != b"\0\0\1" or not body[pes + 7] & 0x80:
            continue
        stamp = pes + (14 if body[pes + 7] & 0x40 else 9)  # DTS, else PTS
        ticks = ((body[stamp] >> 1 & 7) << 30 | body[stamp + 1] << 22 | body[stamp + 2] >> 1 << 15
                 | body[stamp + 3] << 7 | body[stamp + 4] >> 1)
        kind = body[pes + 3]
        if kind & 0xF0 == 0xE0:
            return Clock(kind, ticks, TS_RATE)
        first = first or Clock(kind, ticks, TS_RATE)
    return first


def decode_time(body: Body) -> int | None:
    """Of an fMP4 segment: when its first fragment begins, in units of its track; None when it does not say."""
    found = _track_time(body)
    return found[1] if found else None


def _track_time(body: Body) -> tuple[int, int] | None:
    """Track and time (tfhd, tfdt) of the first fragment."""
    head = bytes(body[:4096])
    track, at = head.find(b"tfhd"), head.find(b"tfdt")
    if track < 0 or at < track or at + 16 > len(head):
        return None
    return (int.from_bytes(head[track + 8:track + 12], "big"),
            int.from_bytes(head[at + 8:at + (16 if head[at + 4] == 1 else 12)], "big"))


def _timescale(init: Body, track: int) -> int:
    """Units a second of a track (tkhd, mdhd); 0 when the init section does not say."""
    for trak in bytes(init).split(b"trak")[1:]:
        tkhd, mdhd = trak.find(b"tkhd"), trak.find(b"mdhd")
        if tkhd < 0 or mdhd < 0:
            continue
        number = tkhd + (24 if trak[tkhd + 4:tkhd + 5] == b"\1" else 16)
        scale = mdhd + (24 if trak[mdhd + 4:mdhd + 5] == b"\1" else 16)
        if int.from_bytes(trak[number:number + 4], "big") == track:
            return int.from_bytes(trak[scale:scale + 4], "big")
    return 0


def form(body: Body) -> Form:
    """What a decoder has to know of an MPEG-TS segment: of each stream its type and header (empty: did not come).

    Empty for other containers, whose init section tells.
    """
    if body[:1] != b"\x47":
        return ()
    kinds: dict[int, int] = {}
    payloads: dict[int, bytearray] = {}
    programs: int | None = None
    found: dict[int, bytes] = {}
    for pid, starts, payload in _packets(body):
        if pid == 0 and programs is None and starts and len(payload) > 12 and len(payload) > payload[0] + 12:
            at = payload[0] + 1
            programs = (payload[at + 10] & 31) << 8 | payload[at + 11]
        elif pid == programs and starts and not kinds:
            kinds = _kinds(payload)
        elif pid in kinds and pid not in found and (starts or pid in payloads):
            kind = kinds[pid]
            if kind not in _SPS and kind != _ADTS:
                found[pid] = b""
                continue
            collected = payloads.setdefault(pid, bytearray())
            collected += payload
            header = _header(kind, collected)
            if header is not None or len(collected) > FORM_BYTES:
                found[pid] = header or b""
            if len(found) == len(kinds):
                break
    return tuple((kind, found.get(pid, b"")) for pid, kind in sorted(kinds.items()))


def glance(body: Body) -> Glance:
    """What tells cheaply that a form is still the same: the program map of an MPEG-TS segment and its first SPS.

    Empty what is not there at once, or cut by packets.
    """
    if body[:1] != b"\x47":
        return b"", b""
    head = bytes(body[:HEAD_PACKETS * TS_PACKET])
    programs = b""
    for at in range(0, min(len(head), 8 * TS_PACKET), TS_PACKET):
        if head[at + 1] & 0x40 and head[at + 4:at + 6] == b"\0\2":  # a section begins, and it is a program map
            programs = head[at + 5:at + TS_PACKET]
            break
    match = _ANY_SPS.search(head)
    whole = match is not None and match.start() // TS_PACKET == (match.end() - 1) // TS_PACKET
    return programs, match[0] if match and whole else b""


def alike(one: Glance, other: Glance) -> bool:
    """Whether two glances show no difference."""
    return all(not here or not there or here == there for here, there in zip(one, other, strict=True))


def same_form(one: Form, other: Form) -> bool:
    """Whether segments of these forms may stand in one file, as far as is known."""
    if not one or not other:
        return True
    return len(one) == len(other) and all(
        kind == another and (not header or not second or header == second)
        for (kind, header), (another, second) in zip(one, other, strict=True))


def _packets(body: Body) -> Iterator[tuple[int, bool, bytes]]:
    """PID, whether a payload starts, and the payload, packet by packet."""
    view = memoryview(body)
    for at in range(0, min(len(body), FORM_PACKETS * TS_PACKET) - TS_PACKET + 1, TS_PACKET):
        second, control = view[at + 1], view[at + 3]
        if control & 0x10:
            skip = 5 + view[at + 4] if control & 0x20 else 4
            yield (second & 31) << 8 | view[at + 2], bool(second & 0x40), bytes(view[at + skip:at + TS_PACKET])


def _kinds(payload: bytes) -> dict[int, int]:
    """PID → stream type, by a program map that fits into one packet."""
    if len(payload) < payload[0] + 13:
        return {}
    section = payload[payload[0] + 1:]
    end = min(3 + ((section[1] & 15) << 8 | section[2]) - 4, len(section))
    at = 12 + ((section[10] & 15) << 8 | section[11])
    kinds: dict[int, int] = {}
    while at + 5 <= end:
        kinds[(section[at + 1] & 31) << 8 | section[at + 2]] = section[at]
        at += 5 + ((section[at + 3] & 15) << 8 | section[at + 4])
    return kinds


def _header(kind: int, collected: bytearray) -> bytes | None:
    """What is to be known of a stream, when it has come."""
    if kind == _ADTS:
        at = 9 + collected[8] if len(collected) > 8 else 0
        if at and len(collected) > at + 3:
            return bytes([collected[at + 1] | 1, collected[at + 2], collected[at + 3] & 0xC0])
        return None
    match = _SPS[kind].search(collected)
    return match[1] if match else None


def _without_id3(body: bytes | bytearray) -> bytes | bytearray:
    """Packed audio begins with a tag that says its time: no player of a file needs it, and it is no sound."""
    while body[:3] == b"ID3" and len(body) > 10:
        size = 10 + (body[6] << 21 | body[7] << 14 | body[8] << 7 | body[9])
        body = body[size:]
    return body
