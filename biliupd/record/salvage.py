"""Make whole what a recorder left that was killed, or lost its power.

Run by the crew when no recorder is at work in the folder. Safe to repeat: a second time finds nothing to do.
"""

import contextlib
import os
import re
from pathlib import Path

from biliupd.errors import PermanentError, TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record.disk import replace_file, sync_directory
from biliupd.record.flv import (
    AUDIO,
    DURATION_AT,
    FILE_HEADER,
    FILESIZE_AT,
    LARGEST_BODY,
    SCRIPT,
    VIDEO,
    double,
    opening,
)
from biliupd.record.parts import INDEX, REMEMBERED, SEGMENT_SUFFIXES, digest_of
from biliupd.record.playlist import Entry, MediaPlaylist, NotAPlaylist, parse, write

_BLOCK = 1 << 20
_FLV_PART = re.compile(r"P\d{3,}\.flv\.part")
_FOLDER = re.compile(r"P\d{3,}")


def salvage(directory: Path) -> list[str]:
    """End every unfinished part of a broadcast's folder; returns what was done, one sentence each.

    Nobody may be recording there. Figures in broadcast.json are corrected. Raises `TemporaryError` when the disk
    refuses.
    """
    done: list[str] = []
    try:
        broadcast = None
        with contextlib.suppress(PermanentError):
            broadcast = broadcasts.read(directory)
        known = {str(item.get("name")): item for item in broadcast.files} if broadcast else {}
        for path in sorted(directory.iterdir()):
            if _FLV_PART.fullmatch(path.name):
                name = path.name.removesuffix(".part")
                result = _salvage_flv(path, int(known.get(name, {}).get("bytes", 0)))
            elif _FOLDER.fullmatch(path.name) and path.is_dir() and not _has_ended(path / INDEX):
                name = f"{path.name}/{INDEX}"
                result = _salvage_folder(path)
                if broadcast:
                    _remember(broadcast, path)
            else:
                if path.name == f"{broadcasts.NAME}.part":
                    path.unlink()
                continue
            text, seconds, size = result
            done.append(f"{name}: {text}")
            if broadcast:
                _correct(broadcast, name, seconds, size)
        if done:
            sync_directory(directory)
            if broadcast:
                broadcasts.write(directory, broadcast)
    except OSError as error:
        raise TemporaryError(f"{directory}: cannot be salvaged: {error.strerror}") from error
    return done


def _correct(broadcast: broadcasts.Broadcast, name: str, seconds: float, size: int) -> None:
    files = [item for item in broadcast.files if item.get("name") != name]
    if size:
        files.append({"name": name, "seconds": round(seconds, 3), "bytes": size})
    broadcast.files = sorted(files, key=lambda item: str(item.get("name")))
    figures = broadcast.figures
    figures.bytes = sum(item.get("bytes", 0) for item in files)
    figures.media_seconds = round(sum(item.get("seconds", 0.0) for item in files), 3)
    figures.files = len(files)


def _remember(broadcast: broadcasts.Broadcast, folder: Path) -> None:
    """The last segments may be newer than broadcast.json: the next recorder must know that it has them."""
    if not folder.is_dir():
        return
    names = sorted(path for path in folder.iterdir() if path.suffix in SEGMENT_SUFFIXES)[-REMEMBERED:]
    position = broadcast.position or {}
    recent = [str(digest) for digest in position.get("recent", [])] + [digest_of(path.read_bytes()) for path in names]
    broadcast.position = {**position, "recent": list(dict.fromkeys(recent))[-REMEMBERED:]}


def _salvage_flv(path: Path, hint: int) -> tuple[str, float, int]:
    """Cut after the last whole tag, correct duration and size, take `.part` off. `hint`: a size that ended a tag."""
    handle = os.open(path, os.O_RDWR)
    try:
        total = os.fstat(handle).st_size
        size, last_ms, tags = _whole_tags(handle, total, hint)
        ours = os.pread(handle, DURATION_AT, 0) == opening()[:DURATION_AT]
        empty = last_ms == 0 and tags <= 3  # metadata and two sequence headers
        if not empty:
            os.ftruncate(handle, size)
            if ours:
                os.pwrite(handle, double(last_ms / 1000), DURATION_AT)
                os.pwrite(handle, double(size), FILESIZE_AT)
            os.fsync(handle)
    finally:
        os.close(handle)
    if empty:
        path.unlink()
        return "held no media, removed", 0.0, 0
    target = path.with_suffix("")
    if target.exists():
        target = path.with_name(f"{path.name.split('.')[0]} salvaged.flv")
    path.rename(target)
    return f"ended after {last_ms / 1000:.1f} s, {total - size} torn bytes cut off", last_ms / 1000, size


def _whole_tags(handle: int, total: int, hint: int) -> tuple[int, int, int]:
    """Where the last whole tag stops, the highest time (ms) near the end, and how many tags were looked at."""
    if hint > len(FILE_HEADER) and hint <= total:
        start = _tag_before(handle, hint)
        if start is not None:
            return _walk(handle, start, total)
    return _walk(handle, len(FILE_HEADER), total)


def _tag_before(handle: int, stop: int) -> int | None:
    """Start of a tag some way before `stop`, found by back pointers; None when they do not fit."""
    at = stop
    for _ in range(8):  # so that both audio and video are among them
        if at <= len(FILE_HEADER):
            break
        start = at - 4 - int.from_bytes(os.pread(handle, 4, at - 4), "big")
        if start < len(FILE_HEADER) or _tag(os.pread(handle, 11, start))[0] != at - start - 15:
            return None
        at = start
    return at


def _tag(header: bytes) -> tuple[int, int]:
    """Body size and time of a tag header; size −1 when it is none."""
    if len(header) < 11 or header[0] not in (AUDIO, VIDEO, SCRIPT) or header[8:11] != b"\0\0\0":
        return -1, 0
    size = int.from_bytes(header[1:4], "big")
    return (size if size <= LARGEST_BODY[header[0]] else -1), int.from_bytes(header[7:8] + header[4:7], "big")


def _walk(handle: int, at: int, total: int) -> tuple[int, int, int]:
    last_ms, tags, block, block_at = 0, 0, b"", 0

    def at_place(place: int, count: int) -> bytes:
        nonlocal block, block_at
        if not block_at <= place <= place + count <= block_at + len(block):
            block, block_at = os.pread(handle, _BLOCK, place), place
        return block[place - block_at: place - block_at + count]

    while at + 15 <= total:
        size, time = _tag(at_place(at, 11))
        stop = at + 11 + size
        if size < 0 or stop + 4 > total or int.from_bytes(at_place(stop, 4), "big") != size + 11:
            break
        at, last_ms, tags = stop + 4, max(last_ms, time), tags + 1
    return at, last_ms, tags


def _has_ended(index: Path) -> bool:
    try:
        return index.read_text(errors="replace").rstrip().endswith("#EXT-X-ENDLIST")
    except FileNotFoundError:
        return False


def _salvage_folder(folder: Path) -> tuple[str, float, int]:
    """Remove half-written files, bring the playlist in line with the segments that are there, and end it."""
    for stray in folder.glob("*.part"):
        stray.unlink()
    listed: dict[str, Entry] = {}
    with contextlib.suppress(FileNotFoundError, NotAPlaylist):
        playlist = parse((folder / INDEX).read_text(errors="replace"))
        if isinstance(playlist, MediaPlaylist):
            listed = {s.uri: Entry(s.uri, s.duration, s.discontinuity) for s in playlist.segments}
    usual = sum(entry.duration for entry in listed.values()) / len(listed) if listed else 2.0
    present = sorted(path.name for path in folder.iterdir() if path.suffix in SEGMENT_SUFFIXES and path.stat().st_size)
    entries = [listed.get(name, Entry(name, usual)) for name in present]
    init = "init.mp4" if (folder / "init.mp4").exists() else ""
    if not entries:
        for name in (INDEX, "init.mp4"):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something that is not ours is in it
            folder.rmdir()
        return "held no media, removed", 0.0, 0
    replace_file(folder / INDEX, write(entries, init=init, ended=True).encode())
    size = sum((folder / name).stat().st_size for name in [*present, *([init] if init else [])])
    added = len([name for name in present if name not in listed])
    gone = len([name for name in listed if name not in present])
    return (f"ended with {len(entries)} segments ({added} were not listed yet, {gone} listed are not there)",
            sum(entry.duration for entry in entries), size)
