"""Make whole what a recorder left that was killed, or lost its power.

Run by the crew when no recorder is at work in the folder. Safe to repeat: a second time finds nothing to do.
"""

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from biliupd.errors import PermanentError, TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record import container, ledger
from biliupd.record.disk import replace_file, sync_directory
from biliupd.record.ffmpeg.segments import (
    WORK_FIRST,
    WORK_INDEX,
    WORK_INIT,
    WORK_PREFIX,
    mark_of,
    same_init,
    usable,
)
from biliupd.record.flv.salvage import salvage_flv
from biliupd.record.ledger import Cause
from biliupd.record.parts import (
    INDEX,
    REMEMBERED,
    SOUND_LIST,
    VIDEO_LIST,
    digest_of,
    next_number,
)
from biliupd.record.playlist import Entry, MediaPlaylist, NotAPlaylist, parse, write, write_master

_FLV_PART = re.compile(r"P\d{3,}\.flv\.part")
_FOLDER = re.compile(r"P\d{3,}")
_SEGMENT = re.compile(r"(sound)?\d+\.(?:ts|m4s|aac)")
_USUAL_SECONDS = 2.0  # of a segment, when no other one says


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
        for path in sorted(directory.glob(f"{WORK_PREFIX}*")):
            _adopt(path, directory, broadcast)
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
    position = broadcast.position or {}
    by_media = "clock" in position  # what ffmpeg wrote is known by its media, the rest by its bytes
    marks = [mark_of] if by_media else [digest_of] if position else [digest_of, mark_of]
    recent = [str(mark) for mark in position.get("recent", [])]
    body, name = b"", ""
    for name in _segments(folder, "")[-REMEMBERED // len(marks):]:
        body = (folder / name).read_bytes()
        recent += [mark(body) for mark in marks]
    broadcast.position = {**position, "recent": list(dict.fromkeys(recent))[-REMEMBERED:]}
    if by_media:
        init = folder / "init.mp4"
        clock = container.clock(body, init.read_bytes() if init.exists() else b"") if body else None
        seconds = _listed(folder, INDEX).get(name, Entry(name, 0.0)).duration
        broadcast.position["clock"] = clock and clock._replace(ticks=clock.ticks + round(seconds * clock.rate))


def _has_ended(index: Path) -> bool:
    try:
        return index.read_text(errors="replace").rstrip().endswith("#EXT-X-ENDLIST")
    except FileNotFoundError:
        return False


def _listed(folder: Path, name: str) -> dict[str, Entry]:
    """The segments of a playlist; none when it is not there, is broken, or names other playlists."""
    with contextlib.suppress(FileNotFoundError, NotAPlaylist):
        playlist = parse((folder / name).read_text(errors="replace"))
        if isinstance(playlist, MediaPlaylist):
            return {s.uri: Entry(s.uri, s.duration, s.discontinuity) for s in playlist.segments}
    return {}


def _segments(folder: Path, prefix: str) -> list[str]:
    """Names of the segments of pictures (no prefix) or of sound, in their order."""
    found = (_SEGMENT.fullmatch(path.name) for path in folder.iterdir())
    names = [match[0] for match in found if match and (match[1] or "") == prefix]
    return sorted(names, key=lambda name: (len(name), name))


def _salvage_folder(folder: Path) -> tuple[str, float, int]:
    """Remove half-written files, bring the playlists in line with the segments that are there, and end them."""
    for stray in folder.glob("*.part"):
        stray.unlink()
    listed = {**_listed(folder, INDEX), **_listed(folder, VIDEO_LIST)}
    entries = _whole_ones(folder, "", listed)
    sounds = _whole_ones(folder, "sound", _listed(folder, SOUND_LIST))
    if not entries:
        for name in (INDEX, VIDEO_LIST, SOUND_LIST, "init.mp4", "sound-init.mp4", *(entry.name for entry in sounds)):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something that is not ours is in it
            folder.rmdir()
        return "held no media, removed", 0.0, 0
    init, sound_init = (name if (folder / name).exists() else "" for name in ("init.mp4", "sound-init.mp4"))
    if sounds:
        replace_file(folder / VIDEO_LIST, write(entries, init=init, ended=True).encode())
        replace_file(folder / SOUND_LIST, write(sounds, init=sound_init, ended=True).encode())
        replace_file(folder / INDEX, write_master(VIDEO_LIST, SOUND_LIST, ended=True).encode())
    else:
        replace_file(folder / INDEX, write(entries, init=init, ended=True).encode())
    names = [entry.name for entry in (*entries, *sounds)]
    size = sum((folder / name).stat().st_size for name in (*names, init, sound_init if sounds else "") if name)
    present = {entry.name for entry in entries}
    added, gone = len(present - set(listed)), len(set(listed) - present)
    return (f"ended with {len(entries)} segments ({added} were not listed yet, {gone} listed are not there)",
            sum(entry.duration for entry in entries), size)


def _whole_ones(folder: Path, prefix: str, listed: dict[str, Entry]) -> list[Entry]:
    """The segments that are there. One that was not listed may be torn: what cannot be used of it is removed."""
    known = [entry.duration for entry in listed.values()]
    usual = sum(known) / len(known) if known else _USUAL_SECONDS
    entries = []
    for name in _segments(folder, prefix):
        path = folder / name
        size = path.stat().st_size
        if name in listed and size:
            entries.append(listed[name])
            continue
        body = usable(path.read_bytes(), path.suffix)
        if not body:
            path.unlink()
            continue
        if len(body) < size:
            replace_file(path, body)
        entries.append(Entry(name, usual * len(body) / size))
    return entries


def _adopt(work: Path, directory: Path, broadcast: broadcasts.Broadcast | None) -> None:
    """Put segments that ffmpeg has ended, and the recorder has not taken, behind those of the open part."""
    listed = _listed(work, WORK_INDEX)
    init = (work / WORK_INIT).read_bytes() if (work / WORK_INIT).exists() else b""
    names = [name for name in _segments(work, "") if usable((work / name).read_bytes(), Path(name).suffix)]
    part: Path | None = None
    if names:
        part = _open_part(directory, init, Path(names[0]).suffix)
        if part is None:
            known = [str(item.get("name")) for item in broadcast.files] if broadcast else []
            part = directory / f"P{next_number(directory, known):03}"
            part.mkdir()
        if init and not (part / "init.mp4").exists():
            replace_file(part / "init.mp4", init)
        _move(work, names, listed, part, init)
    shutil.rmtree(work)


def _open_part(directory: Path, init: bytes, suffix: str) -> Path | None:
    """The folder of the last part, when it was not ended and holds media of the same form."""
    folders = [path for path in directory.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir()]
    last = max(folders, key=lambda path: int(path.name[1:]), default=None)
    if last is None or _has_ended(last / INDEX):
        return None
    there = (last / "init.mp4").read_bytes() if (last / "init.mp4").exists() else b""
    suffixes = {Path(name).suffix for name in _segments(last, "")}
    return last if suffixes <= {suffix} and (not suffixes or same_init(there, init)) else None


def _move(work: Path, names: Sequence[str], listed: Mapping[str, Entry], part: Path, init: bytes) -> None:
    """Each gets the next number; one that the recorder had copied already is left out."""
    entries = _listed(part, INDEX)
    present = _segments(part, "")
    known = {digest_of((part / name).read_bytes()) for name in present[-len(names) - 1:]}
    number = int(Path(present[-1]).stem) if present else 0
    for name in names:
        body = (work / name).read_bytes()
        if name not in listed:
            body = usable(body, Path(name).suffix)
        if digest_of(body) in known:
            continue
        number += 1
        target = f"{number:06}{Path(name).suffix}"
        replace_file(part / target, body)
        if name in listed:
            begins = int(Path(name).stem) == WORK_FIRST and number > 1  # of a run of ffmpeg that has nothing there yet
            entries[target] = Entry(target, listed[name].duration, begins)
    replace_file(part / INDEX, write(entries.values(), init="init.mp4" if init else "").encode())
