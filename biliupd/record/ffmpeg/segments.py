"""What the segments are called that ffmpeg writes, and what tells them apart.

Pure. Used in the recorder process, and by the crew when it salvages.
"""

import re

from biliupd.record import container
from biliupd.record.parts import DIGESTED, digest_of

WORK_PREFIX = ".ffmpeg-"  # of the folder ffmpeg works in: the watcher ignores such names
WORK_INDEX, WORK_INIT = "index.m3u8", "init.mp4"
WORK_FIRST = 1  # number of the first segment of a run
LONG_SECONDS = 0.5  # a picture that stands longer may be one with a hole behind it
TORN_ZEROS = 512  # so many at the end of a file were never written to the disk
_BIT_RATES = re.compile(rb"(\x04\x80\x80\x80[\x0d-\x7f][\x00-\xff][\x11\x15])[\x00-\xff]{11}")


def work_name(suffix: str) -> str:
    """A pattern for the names of its segments."""
    return f"%08d{suffix}"


def mark_of(body: bytes) -> str:
    """What tells the beginning of a segment's media from others, whatever times its container gives them."""
    at = body.find(b"mdat")
    return digest_of(body[at + 4:at + 4 + DIGESTED] if at >= 0 else body)


def same_init(one: bytes, other: bytes) -> bool:
    """Whether a decoder needs to know the same for both; measured bit rates (14496-1, 7.2.6.6) are nothing to it."""
    return one == other or _BIT_RATES.sub(rb"\1", one) == _BIT_RATES.sub(rb"\1", other)


def media_seconds(body: bytes, init: bytes) -> float:
    """How long the media of an fMP4 segment are, by its first track; 0 when it does not say.

    ffmpeg's playlist counts what is missing behind a segment to it. Source: ISO/IEC 14496-12, 8.8.7 and 8.8.8.
    """
    clock = container.clock(body, init) if init else None
    ticks, moof = 0, body.find(b"moof")
    while clock and moof >= 0:
        size = int.from_bytes(body[moof - 4:moof], "big")
        ticks += _traf_ticks(body[moof:moof + size - 4], clock.rate)
        moof = body.find(b"moof", moof + size)
    return ticks / clock.rate if clock else 0.0


def _traf_ticks(moof: bytes, rate: int) -> int:
    """Sum of the durations of the samples in the first track of a fragment.

    One that lasts much longer than the others stands for what is missing, which is no media.
    """
    head, run = moof.find(b"tfhd"), moof.find(b"trun")
    if head < 0 or run < 0:
        return 0
    flags = int.from_bytes(moof[head + 5:head + 8], "big")
    place = head + 12 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
    usual = int.from_bytes(moof[place:place + 4], "big") if flags & 8 else 0
    flags, count = int.from_bytes(moof[run + 5:run + 8], "big"), int.from_bytes(moof[run + 8:run + 12], "big")
    if not flags & 0x100:
        return usual * count
    at = run + 12 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    width = 4 * sum(1 for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit)
    ticks = [int.from_bytes(moof[at + n * width:at + n * width + 4], "big") for n in range(count)]
    usual = sorted(ticks)[count // 2] if ticks else 0
    return sum(usual if length > max(LONG_SECONDS * rate, 4 * usual) else length for length in ticks)


def usable(body: bytes, suffix: str) -> bytes:
    """What of a segment can be used, after a power cut: whole packets of MPEG-TS, whole fragments of fMP4."""
    written = body.rstrip(b"\0")
    if len(body) - len(written) < TORN_ZEROS and written:
        written = body
    if suffix == ".ts":
        size = container.TS_PACKET
        count = next((n for n in range(len(written) // size) if written[n * size] != 0x47), len(written) // size)
        return written[:count * size]
    if suffix != ".m4s":
        return written
    at = end = 0
    while at + 8 <= len(written):
        length, kind = int.from_bytes(written[at:at + 4], "big"), written[at + 4:at + 8]
        if length == 1:
            length = int.from_bytes(written[at + 8:at + 16], "big")
        if length < 8 or at + length > len(written):
            break
        at += length
        end = at if kind == b"mdat" else end
    return written[:end]
