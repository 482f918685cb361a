"""Make whole what a recorder left that was killed, or lost its power.

Run by the crew when no recorder is at work in the folder. Safe to repeat: a second time finds nothing to do.
"""

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path

from biliupd.errors import PermanentError, TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record import ledger
from biliupd.record.disk import replace_file, sync_directory
from biliupd.record.flv_salvage import salvage_flv
from biliupd.record.ledger import Cause
from biliupd.record.parts import INDEX, REMEMBERED, SEGMENT_SUFFIXES, digest_of
from biliupd.record.playlist import Entry, MediaPlaylist, NotAPlaylist, parse, write

_FLV_PART = re.compile(r"P\d{3,}\.flv\.part")
_FOLDER = re.compile(r"P\d{3,}")


def salvage(directory: Path, fragment_seconds: float = 0.0) -> list[str]:
    """End every unfinished part of a broadcast's folder; returns what was done, one sentence each.

    Nobody may be recording there. Figures and ledger in broadcast.json are corrected; a part shorter than
    `fragment_seconds` is marked. Raises `TemporaryError` when the disk refuses.
    """
    done: list[str] = []
    try:
        broadcast = None
        with contextlib.suppress(PermanentError):
            broadcast = broadcasts.read(directory)
        for path in sorted(directory.iterdir()):
            written_at = path.stat().st_mtime
            if _FLV_PART.fullmatch(path.name):
                name = path.name.removesuffix(".part")
                result = salvage_flv(path)
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
                _correct(broadcast, name, seconds, size, fragment_seconds)
                _note(broadcast, name, seconds, text, written_at)
        if done:
            sync_directory(directory)
            if broadcast:
                broadcasts.write(directory, broadcast)
    except OSError as error:
        raise TemporaryError(f"{directory}: cannot be salvaged: {error.strerror}") from error
    return done


def _note(broadcast: broadcasts.Broadcast, name: str, seconds: float, text: str, written_at: float) -> None:
    """The recorder said last what it had written seconds before its end: media came up to the file's own time."""
    last = datetime.fromtimestamp(written_at, UTC)
    if seconds and (not broadcast.last_media_at or datetime.fromisoformat(broadcast.last_media_at) < last):
        broadcast.last_media_at = last.isoformat(timespec="milliseconds")
        broadcast.first_media_at = broadcast.first_media_at or broadcast.last_media_at
    ledger.add(broadcast, {
        "at": last.isoformat(timespec="milliseconds"), "cause": Cause.SALVAGED.value, "file": name,
        "media_seconds_at": round(seconds, 3), "seconds": 0.0, "detail": text})


def _correct(broadcast: broadcasts.Broadcast, name: str, seconds: float, size: int, fragment_seconds: float) -> None:
    files = [item for item in broadcast.files if item.get("name") != name]
    if size:
        marks = {"fragment": True} if seconds < fragment_seconds else {}
        files.append({"name": name, "seconds": round(seconds, 3), "bytes": size, **marks})
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
