"""The script tag at the head of an FLV file: what live servers say in theirs, and ours with its keyframe index.

Pure. Runs in the recorder process and, to salvage a file, in the daemon. Ours always has the same length, so that it
can be written anew in place while the file grows: duration, size and index are right whenever the recorder is killed.
Source: Adobe FLV 10.1, annex E.5 (AMF0); the index is the `keyframes` object that players and yamdi agreed on.
"""

import struct
from collections.abc import Iterable
from itertools import chain
from typing import Any

from biliupd.record.flv.tags import FILE_HEADER, SCRIPT, VIDEO, Look, Tag, tag_bytes

MOST_ENTRIES = 2048
LEAST_DISTANCE_MS = 1900  # between two keyframes of the index, doubled whenever it is full
DEEPEST = 16
_NAME = b"\x02\x00\x0aonMetaData"
_END = b"\x00\x00\x09"
_KNOWN = ("width", "height", "framerate", "videodatarate", "audiodatarate", "audiosamplerate", "audiosamplesize")
_LARGEST = {"width": 16384.0, "height": 16384.0, "framerate": 480.0}
_CODECS = {b"avc1": 7.0, b"hvc1": 12.0, b"mp4a": 10.0}
_NUMBERS = (
    "duration", "filesize", "width", "height", "framerate", "videodatarate", "audiodatarate", "videocodecid",
    "audiocodecid", "audiosamplerate", "audiosamplesize", "lasttimestamp", "lastkeyframetimestamp",
    "lastkeyframelocation",
)
_FLAGS = ("stereo", "hasVideo", "hasAudio", "hasMetadata", "hasKeyframes", "canSeekToEnd")


class FileMeta:
    """What stands at the head of one file. `entries`: (milliseconds, offset of the tag) of keyframes, rising."""

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}
        self.entries: list[tuple[int, int]] = []
        self.last_key: tuple[int, int] = (0, 0)
        self._distance = LEAST_DISTANCE_MS

    def source(self, said: dict[str, Any]) -> None:
        """Take what is credible of a server's own onMetaData."""
        for name in _KNOWN:
            value = said.get(name)
            if isinstance(value, float) and 0 < value <= _LARGEST.get(name, 1e7):
                self.facts[name] = value
        if isinstance(said.get("stereo"), bool):
            self.facts["stereo"] = float(said["stereo"])

    def header(self, tag: Tag, look: Look) -> None:
        """A sequence header of the file: its codec is known now."""
        number = _CODECS.get(look.codec) or float(int.from_bytes(look.codec, "big"))
        video = tag.type == VIDEO
        if video and tag.body[0] & 0x80:
            number = float(int.from_bytes(look.codec, "big"))  # Enhanced RTMP: the FourCC itself
        self.facts["videocodecid" if video else "audiocodecid"] = number
        self.facts["hasVideo" if video else "hasAudio"] = 1.0

    def keyframe(self, time_ms: int, position: int) -> None:
        """A keyframe at this time, whose tag begins at this offset of the file."""
        self.last_key = (time_ms, position)
        if self.entries and time_ms - self.entries[-1][0] < self._distance:
            return
        if len(self.entries) == MOST_ENTRIES:
            self._distance *= 2
            del self.entries[1::2]
            if time_ms - self.entries[-1][0] < self._distance:
                return
        self.entries.append((time_ms, position))

    def tag(self, last_ms: int, file_bytes: int) -> bytes:
        """The whole tag; its length never changes."""
        facts = {
            **self.facts, "duration": last_ms / 1000, "filesize": float(file_bytes), "lasttimestamp": last_ms / 1000,
            "lastkeyframetimestamp": self.last_key[0] / 1000, "lastkeyframelocation": float(self.last_key[1]),
            "hasMetadata": 1.0, "hasKeyframes": float(bool(self.entries)), "canSeekToEnd": 0.0,
        }
        pieces = [_NAME, b"\x08", struct.pack(">I", len(_NUMBERS) + len(_FLAGS) + 2)]
        pieces += (_key(name) + _number(facts.get(name, 0.0)) for name in _NUMBERS)
        pieces += (_key(name) + b"\x01" + bytes([facts.get(name, 0.0) > 0]) for name in _FLAGS)
        pieces += (_key("encoder"), b"\x02\x00\x07biliupd", _key("keyframes"), b"\x03")
        pieces += (_key("times"), _array([time / 1000 for time, _ in self.entries]))
        pieces += (_key("filepositions"), _array([float(position) for _, position in self.entries]))
        pieces += (_key("spacer"), struct.pack(">BI", 10, 2 * (MOST_ENTRIES - len(self.entries))))
        pieces += (b"\x00" * (18 * (MOST_ENTRIES - len(self.entries))), _END, _END)
        return tag_bytes([Tag(SCRIPT, 0, b"".join(pieces))])

    @classmethod
    def of_file(cls, head: bytes) -> "FileMeta | None":
        """Read it from the first OPENING_BYTES of a file of ours; None when they are not ours."""
        said = metadata(head[len(FILE_HEADER) + 11: OPENING_BYTES - 4])
        index = said.get("keyframes") if said.get("encoder") == "biliupd" else None
        if not isinstance(index, dict):
            return None
        meta = cls()
        meta.source(said)
        for name in ("videocodecid", "audiocodecid"):
            if isinstance(said.get(name), float):
                meta.facts[name] = said[name]
        for name in ("hasVideo", "hasAudio"):
            meta.facts[name] = float(said.get(name) is True)
        times, places = index.get("times"), index.get("filepositions")
        if isinstance(times, list) and isinstance(places, list):
            last = -1
            for time, place in zip(times, places, strict=False):
                if not isinstance(time, float) or not isinstance(place, float) or not last < place < 2**53:
                    break  # a power cut in the middle of a rewrite: the rest is found by walking
                meta.entries.append((round(time * 1000), int(place)))
                last = int(place)
        if len(meta.entries) > 1:
            meta.last_key = meta.entries[-1]
            closest = min(b[0] - a[0] for a, b in zip(meta.entries, meta.entries[1:], strict=False))
            while meta._distance * 2 <= closest:
                meta._distance *= 2
        return meta


def metadata(body: bytes) -> dict[str, Any]:
    """The values of an onMetaData script tag's body, as live servers send it; empty for anything else.

    Numbers are floats. Never raises: what follows something that cannot be read is left out.
    """
    if not body.startswith(_NAME):
        return {}
    try:
        value, _ = _value(body, len(_NAME), 0)
    except _Broken as broken:
        value = broken.so_far
    return value if isinstance(value, dict) else {}


class _Broken(Exception):
    def __init__(self, so_far: Any = None) -> None:
        super().__init__()
        self.so_far = so_far


def _value(body: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(body) or depth > DEEPEST:
        raise _Broken
    kind, at = body[at], at + 1
    try:
        if kind == 0:
            return struct.unpack_from(">d", body, at)[0], at + 8
        if kind == 1:
            return body[at] != 0, at + 1
        if kind in (2, 12, 15):
            size = struct.unpack_from(">H" if kind == 2 else ">I", body, at)[0]
            start = at + (2 if kind == 2 else 4)
            return body[start: start + size].decode(errors="replace"), start + size
        if kind in (5, 6):
            return None, at
        if kind == 10:
            return _items(body, at, depth)
        if kind == 11:
            return None, at + 10
        if kind in (3, 8):
            return _pairs(body, at + (4 if kind == 8 else 0), depth)
    except (struct.error, IndexError):
        raise _Broken from None
    raise _Broken


def _items(body: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    count, at = struct.unpack_from(">I", body, at)[0], at + 4
    if count > len(body) - at:  # no value takes less than a byte
        raise _Broken
    found = []
    for _ in range(count):
        value, at = _value(body, at, depth + 1)
        found.append(value)
    return found, at


def _pairs(body: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while body[at: at + 3] != _END:
        if at + 2 > len(body):
            raise _Broken(found)
        size = int.from_bytes(body[at: at + 2], "big")
        name = body[at + 2: at + 2 + size].decode(errors="replace")
        try:
            found[name], at = _value(body, at + 2 + size, depth + 1)
        except _Broken as broken:
            if broken.so_far is not None:
                found[name] = broken.so_far
            raise _Broken(found) from None
    return found, at + 3


def _key(name: str) -> bytes:
    return struct.pack(">H", len(name)) + name.encode()


def _number(value: float) -> bytes:
    return struct.pack(">Bd", 0, value)


def _array(values: list[float]) -> bytes:
    return struct.pack(">BI" + "Bd" * len(values), 10, len(values), *_marked(values))


def _marked(values: Iterable[float]) -> Iterable[float]:
    return chain.from_iterable((0, value) for value in values)


def opening(meta: FileMeta, last_ms: int = 0, file_bytes: int = 0) -> bytes:
    """File header and our script tag: the first OPENING_BYTES of a file."""
    return FILE_HEADER + meta.tag(last_ms, file_bytes)


OPENING_BYTES = len(opening(FileMeta()))
