"""What the segments are called that ffmpeg writes, and what tells them apart.

Pure. Used in the recorder process, and by the crew when it salvages.
"""

import re

from biliupd.record.parts import DIGESTED, digest_of

WORK_PREFIX = ".ffmpeg-"  # of the folder ffmpeg works in: the watcher ignores such names
WORK_INDEX, WORK_INIT = "index.m3u8", "init.mp4"
WORK_FIRST = 1  # number of the first segment of a run
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
