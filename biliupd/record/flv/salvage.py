"""Make an FLV file whole that its recorder could not end: cut after the last whole tag, duration and index as they are.

Run by the crew when no recorder is at work in the folder. Reads from the last indexed keyframe on, not the whole file.
"""

import os
from pathlib import Path

from biliupd.record.flv.meta import OPENING_BYTES, FileMeta
from biliupd.record.flv.part import stamp
from biliupd.record.flv.tags import AUDIO, FILE_HEADER, LARGEST_BODY, SCRIPT, VIDEO, Role, Tag, look_at

_BLOCK = 1 << 20


def salvage_flv(path: Path) -> tuple[str, float, int]:
    """What was done, seconds of media and bytes (0: there was no media, and the file is removed). Raises `OSError`.

    `NAME.flv.part` becomes `NAME.flv`. A file whose head is not ours is cut, but gets no index.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        total = os.fstat(handle).st_size
        meta = FileMeta.of_file(os.pread(handle, OPENING_BYTES, 0))
        size, last_ms, has_media = _walk(handle, total, meta)
        if has_media:
            os.ftruncate(handle, size)
            if meta:
                stamp(handle, meta, last_ms, size)
            os.fsync(handle)
    finally:
        os.close(handle)
    if not has_media:
        path.unlink()
        return "held no media, removed", 0.0, 0
    target = path.with_suffix("")
    if target.exists():
        target = path.with_name(f"{path.name.split('.')[0]} salvaged.flv")
    path.rename(target)
    return f"ended after {last_ms / 1000:.1f} s, {total - size} torn bytes cut off", last_ms / 1000, size


def _walk(handle: int, total: int, meta: FileMeta | None) -> tuple[int, int, bool]:
    """Where the last whole tag stops, the highest time (ms), and whether there is any media; completes the index."""
    at, has_media = len(FILE_HEADER), False
    if meta:
        meta.entries = [entry for entry in meta.entries if entry[1] < total]
        while meta.entries:
            time_ms, at = meta.entries[-1]
            if _tag(os.pread(handle, 11, at))[:2] == (VIDEO, time_ms):
                has_media = True
                break
            meta.entries.pop()  # a power cut left only a part of the index as it was
            at = len(FILE_HEADER)
    last_ms, block, block_at = 0, b"", 0

    def at_place(place: int, count: int) -> bytes:
        nonlocal block, block_at
        if not block_at <= place <= place + count <= block_at + len(block):
            block, block_at = os.pread(handle, max(_BLOCK, count), place), place
        return block[place - block_at: place - block_at + count]

    while at + 15 <= total:
        kind, time_ms, size = _tag(at_place(at, 11))
        stop = at + 11 + size
        if size < 0 or stop + 4 > total or int.from_bytes(at_place(stop, 4), "big") != size + 11:
            break
        if kind != SCRIPT:
            look = look_at(Tag(kind, time_ms, at_place(at + 11, min(size, 64))))
            if look.role is Role.HEADER and meta:
                meta.header(Tag(kind, time_ms, at_place(at + 11, 1)), look)
            elif look.role in (Role.KEYFRAME, Role.MEDIA):
                has_media = True
                if look.role is Role.KEYFRAME and meta and (at, time_ms) > (meta.last_key[1], 0):
                    meta.keyframe(time_ms, at)
        at, last_ms = stop + 4, max(last_ms, time_ms)
    return at, last_ms, has_media


def _tag(header: bytes) -> tuple[int, int, int]:
    """Type, time and body size of a tag header; size −1 when it is none."""
    if len(header) < 11 or header[0] not in (AUDIO, VIDEO, SCRIPT) or header[8:11] != b"\0\0\0":
        return 0, 0, -1
    size = int.from_bytes(header[1:4], "big")
    time_ms = int.from_bytes(header[7:8] + header[4:7], "big")
    return header[0], time_ms, (size if size <= LARGEST_BODY[header[0]] else -1)
