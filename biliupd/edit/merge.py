"""A playlist and its segments → one mp4, remuxed, never transcoded.

Runs on a worker thread. Writes hidden `.part` files beside the output, then the output; deletes sources only in
`remove_source`.

Segments are fed into ffmpeg one after the other, as a player sees them, so that their own timestamps join them. Where
the timestamps start anew (a discontinuity, a gap, another init section) each run of segments becomes an mp4 of its own
first and these are joined. The index stays at the end of the file: to move it to the front is to write all of it twice.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from biliupd.edit import media
from biliupd.edit.ffmpeg import Feed, Ffmpeg, file_url
from biliupd.edit.playlist import Group, Plan, plan, read
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

__all__ = ["Merged", "Plan", "merge", "plan", "remove_source"]

TS_PACKET_BYTES = 188
MARK = "biliupd "  #: begins the comment by which a merge knows its own output again


class Merged(NamedTuple):
    """One whole mp4."""

    path: Path
    duration_seconds: float
    size_bytes: int


def merge(
    playlist: Path, output: Path, ffmpeg: Ffmpeg, *, on_progress: Callable[[float], None] | None = None
) -> Merged:
    """Remux what a playlist lists into `output`; the sources stay.

    Repeating it is safe: leftovers of an earlier try are removed, and its finished output is checked and taken.
    `on_progress` is called with the seconds of media written. Raises PermanentError (a bad playlist or segment, or
    another file of the output's name), TemporaryError (a segment is missing, no space), Stopped.
    """
    wanted = plan(playlist)
    mark = _mark(wanted)
    stem = "." + hashlib.sha256(os.fsencode(output.name)).hexdigest()[:20]  # the name itself may be too long already
    temp = output.with_name(f"{stem}.part")
    _remove_leftovers(output.parent, stem)
    if os.path.lexists(output):
        return _made_before(output, mark, wanted, ffmpeg)
    try:
        _check_space(wanted, output.parent)
        if len(wanted.groups) == 1:
            _remux(wanted.groups[0], temp, mark, ffmpeg, on_progress, 0.0)
        else:
            _remux_groups(wanted.groups, temp, mark, ffmpeg, on_progress)
        seconds = _verify(temp, wanted, ffmpeg)
        size_bytes = _keep(temp, output)
    except OSError as error:
        raise _ours(error, output) from error
    finally:
        _remove_leftovers(output.parent, stem)
    return Merged(output, seconds, size_bytes)


def remove_source(playlist: Path, *, and_directory: bool = True) -> None:
    """Delete the files a playlist lists, the playlist, and its directory if that is empty then; repeating is safe.

    `and_directory` false: not the directory, which is a watched one.

    Raises PermanentError for a playlist that lists what it must not, TemporaryError when a file cannot be deleted.
    """
    if playlist.exists():
        lines, _ = read(playlist)
        directory = os.path.realpath(playlist.parent)
        names = dict.fromkeys(name for line in lines for name in (line.name, line.init) if name is not None)
        paths = [os.path.normpath(os.path.join(directory, name)) for name in names]
        for path in paths:
            if not (os.path.realpath(os.path.dirname(path)) + "/").startswith(directory.rstrip("/") + "/"):
                raise PermanentError(f"{os.path.basename(path)!a} leads out of the playlist's directory")
        try:
            for path in [*paths, os.fspath(playlist)]:  # the playlist last: a repetition still knows what to delete
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        except OSError as error:
            raise TemporaryError(f"{playlist.name!a}: its files cannot be deleted: {error.strerror}") from error
    if and_directory:
        with contextlib.suppress(OSError):  # not empty, or gone already
            playlist.parent.rmdir()


def _mark(wanted: Plan) -> str:
    """A comment that says from which segments an output was made."""
    digest = hashlib.sha256()
    for path in wanted.segments:
        digest.update(b"%s %d\n" % (os.fsencode(path.name), path.stat().st_size))
    return MARK + digest.hexdigest()[:32]


def _made_before(output: Path, mark: str, wanted: Plan, ffmpeg: Ffmpeg) -> Merged:
    """The output of an earlier call, which ended after the file was whole and before anybody knew."""
    foreign = f"{output.name!a} is there already and was not made from this playlist"
    try:
        if output.is_symlink() or media.probe(output, ffmpeg).comment != mark:
            raise PermanentError(foreign, hint="move it away")
        seconds = _verify(output, wanted, ffmpeg)
    except PermanentError as error:
        raise PermanentError(foreign, hint="move it away") from error
    return Merged(output, seconds, output.stat().st_size)


def _remux_groups(
    groups: list[Group], temp: Path, mark: str, ffmpeg: Ffmpeg, on_progress: Callable[[float], None] | None
) -> None:
    parts, codecs, done_seconds = [], set(), 0.0
    for number, group in enumerate(groups):
        part = temp.with_name(f"{temp.stem}.{number}.part")
        _remux(group, part, mark, ffmpeg, on_progress, done_seconds)
        found = media.probe(part, ffmpeg)
        codecs.add((found.video_codec, found.audio_codec))
        if len(codecs) > 1:
            raise PermanentError(f"the codecs change at segment {group.segments[0].name!a}: "
                                 "this cannot be joined without transcoding")
        done_seconds += found.duration_seconds
        parts.append(part)
    listed = temp.with_name(f"{temp.stem}.list.part")
    listed.write_text("".join(f"file '{part.name}'\n" for part in parts))  # our own names, without any special sign
    stderr = ffmpeg.run([
        "-y", "-xerror", "-protocol_whitelist", "file", "-f", "concat", "-safe", "0", "-i", file_url(listed),
        "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-metadata", f"comment={mark}", "-f", "mp4", file_url(temp),
    ], output=temp).stderr
    for sign in ("Impossible to open", "Failed to open", "corrupt"):
        if sign in stderr:
            raise TemporaryError(f"joining failed: {sign}")


def _remux(
    group: Group, temp: Path, mark: str, ffmpeg: Ffmpeg, on_progress: Callable[[float], None] | None,
    done_seconds: float,
) -> None:
    """Feed a run of segments into ffmpeg. It is given no file name and no protocol but its standard input."""
    fragmented = group.init is not None or group.segments[0].suffix.lower() in (".m4s", ".mp4")
    feed = [_checked_boxes(path) for path in ([group.init] if group.init else []) + group.segments] if fragmented \
        else [_checked_packets(path) for path in group.segments]
    stderr = ffmpeg.run([
        "-y", "-protocol_whitelist", "pipe", "-analyzeduration", "20M", "-probesize", "50M",
        "-f", "mov" if fragmented else "mpegts", "-i", "pipe:0", "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy",
        "-metadata", f"comment={mark}", "-f", "mp4", file_url(temp),
    ], output=temp, feed=feed, on_progress=on_progress and (lambda seconds: on_progress(done_seconds + seconds))).stderr
    # Segments are whole, that was checked; what is marked here came damaged, or begins to count its packets anew.
    if "corrupt" in stderr:
        logger.info("{!a}: ffmpeg marked packets of the source as damaged", group.segments[0].parent.name)


def _checked_packets(path: Path) -> Feed:
    """A segment of MPEG-TS packets (ISO/IEC 13818-1, 2.4.3.2): each begins with 0x47. Some are looked at."""
    with open(path, "rb") as file:
        count, rest = divmod(os.fstat(file.fileno()).st_size, TS_PACKET_BYTES)
        for step in range(17):
            offset = (count - 1) * step // 16 * TS_PACKET_BYTES
            if count == 0 or os.pread(file.fileno(), 1, offset) != b"\x47":
                raise PermanentError(f"segment {path.name!a} is damaged: no MPEG-TS packet at byte {offset}")
    if rest:
        raise PermanentError(f"segment {path.name!a} is cut short: {rest} bytes after its last whole packet")
    return Feed(path, count * TS_PACKET_BYTES)


def _checked_boxes(path: Path) -> Feed:
    """An init section or segment of whole boxes."""
    size_bytes = path.stat().st_size
    found = list(media.boxes(path))
    if not {kind for kind, _, _ in found} & {b"moov", b"moof"}:
        raise PermanentError(f"segment {path.name!a} is damaged: it holds neither moov nor moof")
    if found[-1][2] != size_bytes:
        raise PermanentError(f"segment {path.name!a} is cut short: its boxes end at {found[-1][2]}, "
                             f"the file at {size_bytes}")
    return Feed(path, size_bytes)


def _check_space(wanted: Plan, directory: Path) -> None:
    size_bytes = sum(path.stat().st_size for path in wanted.segments)
    needed = size_bytes * (1 if len(wanted.groups) == 1 else 2) * 11 // 10
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TemporaryError(f"no space: merging needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free",
                             hint="make room", retry_after_seconds=60)


def _verify(path: Path, wanted: Plan, ffmpeg: Ffmpeg) -> float:
    """Open the result again; duration in seconds if it is what the playlist promised."""
    found = media.probe(path, ffmpeg)
    slack = max(2.0, 0.02 * wanted.duration_seconds)
    if abs(found.duration_seconds - wanted.duration_seconds) > slack:
        raise PermanentError(f"the merge is {found.duration_seconds:.1f} s long, its segments "
                             f"{wanted.duration_seconds:.1f} s: it is not used")
    return found.duration_seconds


def _keep(temp: Path, output: Path) -> int:
    """Give the file its name for good, without replacing another; its size in bytes."""
    with open(temp, "rb") as file:
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
    try:
        os.link(temp, output)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        os.close(os.open(output, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))  # a file system without hard links
        os.rename(temp, output)
    directory = os.open(output.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size_bytes


def _remove_leftovers(directory: Path, stem: str) -> None:
    for path in directory.glob(f"{stem}*.part"):
        with contextlib.suppress(OSError):
            path.unlink()


def _ours(error: OSError, output: Path) -> BiliupdError:
    if error.errno == errno.EEXIST:
        return PermanentError(f"{output.name!a} is there already", hint="move it away")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError("no space left for the merge", hint="make room", retry_after_seconds=60)
    return TemporaryError(f"merging into {output.name!a} failed: {error.strerror}")
