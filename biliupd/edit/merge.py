"""A playlist, or a folder of numbered segments → one mp4, remuxed, never transcoded.

Runs on a worker thread. Writes hidden `.part` files beside the output, then the output; deletes sources only in
`remove_source`.

Segments are fed into ffmpeg one after the other, as a player sees them, so that their own timestamps join them. Where
the timestamps start anew (a discontinuity, a gap, another init section) each run of segments becomes an mp4 of its own
first and these are joined. The index stays at the end of the file: to move it to the front is to write all of it twice.
"""

import contextlib
import errno
import functools
import hashlib
import math
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from biliupd.edit import loose, media
from biliupd.edit.ffmpeg import Ffmpeg, Refused, file_url
from biliupd.edit.playlist import Listing, Ref, read, spellings
from biliupd.edit.segments import Assembly, Found, Gap, Gaps, Plan, Run, Segment, SegmentDamaged, plan
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

__all__ = ["Gap", "Gaps", "Merged", "Plan", "merge", "plan", "remove_source"]

MARK = "biliupd "  #: begins the comment by which a merge knows its own output again
LEAST_HOLE_SECONDS = 2.0  #: shorter silence may be the stream's own
SYNC_SECONDS = 1.0  #: how often what ffmpeg wrote is sent on to the disk
MOST_REFUSED = 10  #: when ffmpeg likes none of the first ones it is not asked about the others
PLACES = (0.0, 0.5, 1.0)  #: of the whole: where a second is decoded


class Merged(NamedTuple):
    """One whole mp4."""

    path: Path
    duration_seconds: float
    size_bytes: int
    gaps: tuple[Gap, ...] = ()  #: what was left out, in order


def merge(
    source: Path, output: Path, ffmpeg: Ffmpeg, *, gaps: Gaps = "refuse",
    on_progress: Callable[[float], None] | None = None,
) -> Merged:
    """Remux what a playlist lists, or a folder of numbered segments holds, into `output`; the sources stay.

    With `gaps` "merge" segments that are missing, empty or damaged are left out and named in the result; "refuse":
    they are an error, as it is when none is left. What a playlist itself marks with EXT-X-GAP is no gap of the merge.
    Repeating it is safe: leftovers of an earlier try are removed, and its finished output is checked and taken.
    `on_progress` is called with the seconds of media written. Raises PermanentError (a bad playlist or segment, or
    another file of the output's name), TemporaryError (a segment is missing, more came meanwhile, no space), Stopped.
    """
    stem = "." + hashlib.sha256(os.fsencode(output.name)).hexdigest()[:20]  # the name itself may be too long already
    try:
        before = _form(source)
        wanted = loose.plan(source, ffmpeg, gaps) if source.is_dir() else plan(source, gaps)
        mark = _mark(wanted)
        _remove_leftovers(output.parent, stem)
        if os.path.lexists(output) and (made := _made_before(output, mark, wanted, ffmpeg, gaps)) is not None:
            return made
        # A folder of our own with a name that nobody can foresee: whoever may write beside the output could lay links
        # in the way of ffmpeg, which follows them.
        temp = Path(tempfile.mkdtemp(prefix=f"{stem}.", suffix=".part", dir=output.parent)) / "whole.part"
        _check_space(wanted, output.parent)
        with _reaching_the_disk(temp):
            try:
                codecs = _Maker(wanted, temp, mark, ffmpeg, on_progress).make()
            except Refused as error:
                refused = _refused(wanted, temp, ffmpeg)
                if gaps == "refuse" or not refused:
                    raise _naming(wanted, refused, error) from error
                wanted = _without(wanted, refused)
                mark = " ".join([mark, *(str(number) for number in refused)])
                codecs = _Maker(wanted, temp, mark, ffmpeg, on_progress).make()
            seconds, left_out = _verify(temp, wanted, codecs, ffmpeg, gaps)
        if _form(source) not in (before, None):
            raise TemporaryError(f"{source.name!a} changed while it was merged: it is merged again")
        size_bytes = _keep(temp, output)
    except OSError as error:
        raise _ours(error, output) from error
    finally:
        _remove_leftovers(output.parent, stem)
    return Merged(output, seconds, size_bytes, left_out)


def _form(source: Path) -> object:
    """What changes when a playlist is written on or another segment comes; None when the source is not there."""
    try:
        if source.is_dir():
            return loose.files(os.listdir(source))
        status = os.stat(source)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextlib.contextmanager
def _reaching_the_disk(path: Path) -> Iterator[None]:
    """Meanwhile a file that grows is written to the disk bit by bit, so that the fsync at its end has little to do."""
    over = threading.Event()
    trouble: list[OSError] = []

    def sync() -> None:
        while not over.wait(SYNC_SECONDS) and not trouble:
            try:
                with open(path, "rb") as file:
                    os.fdatasync(file.fileno())
            except FileNotFoundError:
                continue  # not yet
            except OSError as error:
                trouble.append(error)  # the kernel tells it only once

    thread = threading.Thread(target=sync, name="sync")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if trouble:
        raise trouble[0]


def remove_source(source: Path, *, until_ns: float = math.inf, and_directory: bool = True) -> None:
    """Delete what `merge` was given: the files a playlist lists and the playlist, or the numbered segments of a folder.

    A segment that came after `until_ns`, when the output was written, is not in it, and stays; of a playlist that was
    written on since, all does.
    Then the directory goes, too, if it is empty; with `and_directory` false it stays, being a watched one. Repeating it
    is safe. Raises PermanentError for a playlist that lists what it must not, TemporaryError when a file cannot be
    deleted.
    """
    directory = source
    try:
        if source.is_dir():
            for name in loose.files(os.listdir(source)):
                if os.lstat(source / name).st_ctime_ns <= until_ns:
                    _delete(source / name)
        elif source.exists():
            directory = source.parent
            if os.stat(source).st_ctime_ns > until_ns:
                logger.warning("{!a} was written on after it was merged: it stays", source.name)
                return
            _remove_listed(source)
        elif source.suffix.lower() in (".m3u8", ".m3u"):  # removed before; else it was a folder, and that is gone
            directory = source.parent
    except OSError as error:
        raise TemporaryError(f"{source.name!a}: its files cannot be deleted: {error.strerror}") from error
    if and_directory:
        with contextlib.suppress(OSError):  # not empty, or gone already
            directory.rmdir()


def _remove_listed(playlist: Path) -> None:
    """Delete what a playlist lists, then the playlist, so that a repetition still knows what else to delete."""
    listing = read(playlist)
    root = os.path.realpath(playlist.parent).rstrip("/") + "/"
    paths = []
    for ref in (ref for variant in listing.variants for ref in (variant.playlist, variant.audio) if ref is not None):
        with contextlib.suppress(PermanentError):  # not among what was merged
            path = _listed(root, ref)
            if path is not None and not read(path).variants:
                _remove_listed(path)
                paths.append(path)
    paths += [path for ref in _refs(listing) if (path := _listed(root, ref)) is not None]
    for path in dict.fromkeys(paths):
        _delete(path)
        for folder in path.parents:
            if not os.fspath(folder).startswith(root):
                break
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
    _delete(playlist)


def _refs(listing: Listing) -> list[Ref]:
    """All files a media playlist names."""
    refs = [ref for entry in listing.entries for ref in (entry.segment, entry.init) if ref is not None]
    return list(dict.fromkeys([*refs, *(Ref(ref.line, ref.key) for ref in refs if ref.key)]))


def _listed(root: str, ref: Ref) -> Path | None:
    """The file of a line, or the symbolic link; None: there is none. Raises PermanentError when it lies elsewhere."""
    for name in spellings(ref.name):
        path = os.path.normpath(os.path.join(root, name))
        if not (os.path.realpath(os.path.dirname(path)) + "/").startswith(root):
            raise PermanentError(f"{ref.place} leads out of the playlist's directory")
        if os.path.lexists(path):
            return Path(path)
    return None


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _mark(wanted: Plan) -> str:
    """A comment that says from which segments an output was made."""
    digest = hashlib.sha256()
    for run in [*wanted.runs, *wanted.sound]:
        for feed in run.feeds:
            digest.update(b"%s %d %d\n" % (os.fsencode(feed.path.name), feed.offset_bytes, feed.size_bytes))
    return MARK + digest.hexdigest()[:32]


def _made_before(output: Path, mark: str, wanted: Plan, ffmpeg: Ffmpeg, gaps: Gaps) -> Merged | None:
    """The output of an earlier call, which ended after the file was whole and before anybody knew.

    None: it was ours, is no longer what it should be, and is gone now. Raises PermanentError for what is not ours.
    """
    foreign = f"{output.name!a} is there already and was not made from this playlist"
    try:
        comment = "" if output.is_symlink() else media.probe(output, ffmpeg).comment
    except PermanentError as error:
        raise PermanentError(foreign, hint="move it away") from error
    if not re.fullmatch(re.escape(mark) + r"( \d{1,6})*", comment):
        raise PermanentError(foreign, hint="move it away")
    refused = [int(number) for number in comment[len(mark):].split()]
    try:
        seconds, left_out = _verify(output, _without(wanted, refused), ("", ""), ffmpeg, gaps)
    except PermanentError as error:
        logger.warning("{!a} was merged before and is made again: {}", output.name, error)
        output.unlink()
        return None
    return Merged(output, seconds, output.stat().st_size, left_out)


class _Maker:
    """Makes the mp4 of a plan, not yet verified."""

    def __init__(
        self, wanted: Plan, temp: Path, mark: str, ffmpeg: Ffmpeg, on_progress: Callable[[float], None] | None
    ) -> None:
        self._wanted, self._temp, self._mark, self._ffmpeg = wanted, temp, mark, ffmpeg
        self._on_progress = on_progress
        self._done_seconds = 0.0

    def make(self) -> tuple[str, str]:
        """Write it; video and audio codec of its source ("": none)."""
        runs, sound = self._wanted.runs, self._wanted.sound
        if len(runs) == 1:
            return self._run(runs[0], sound[0] if sound else None, self._temp)
        parts: list[Path] = []
        codecs = ("", "")
        for number, run in enumerate(runs):
            part = self._beside(number)
            found = self._run(run, sound[number] if sound else None, part)
            if parts and found != codecs:
                raise PermanentError(f"the codecs change at segment {run.segments[0].name!a}: "
                                     "this cannot be joined without transcoding")
            codecs = found
            parts.append(part)
            self._done_seconds += run.duration_seconds
        listed = self._beside("list")
        listed.write_text("".join(f"file '{part.name}'\n" for part in parts))  # our own names, without a special sign
        self._mux(["-protocol_whitelist", "file", "-f", "concat", "-safe", "0", "-i", file_url(listed)], self._temp)
        if self._temp.stat().st_size < 0.98 * sum(part.stat().st_size for part in parts):
            raise TemporaryError("joining failed: it lost some of the parts")
        return codecs

    def _run(self, run: Run, sound: Run | None, target: Path) -> tuple[str, str]:
        """One run of segments, with its sound if that comes apart."""
        if sound is None:
            return self._remux(run, target)[0]
        picture, audible = self._beside("picture"), self._beside("sound")
        (video, _), from_seconds = self._remux(run, picture)
        (_, audio), sound_from_seconds = self._remux(sound, audible)
        shift = sound_from_seconds - from_seconds
        shift = shift if abs(shift) < 10 else 0.0  # else they count from different moments, and nothing is known
        self._mux(["-protocol_whitelist", "file", "-f", "mp4", "-i", file_url(picture),
                   "-protocol_whitelist", "file", "-itsoffset", f"{shift:.6f}", "-f", "mp4", "-i", file_url(audible)],
                  target, "1:a:0")
        return video, audio

    def _remux(self, run: Run, target: Path) -> tuple[tuple[str, str], float]:
        """Feed segments into ffmpeg; the codecs of the source and the timestamp in seconds at which it begins."""
        done, on_progress = self._done_seconds, self._on_progress
        stderr = self._ffmpeg.run([
            "-y", *_piped(run.demuxer), "-metadata", f"comment={self._mark}", "-f", "mp4", file_url(target),
        ], output=target, feed=run.feeds, on_progress=on_progress and (lambda seconds: on_progress(done + seconds)),
        ).stderr  # fmt: skip
        # Segments are whole, that was checked; what is marked here came damaged, or begins to count its packets anew.
        if "corrupt" in stderr:
            logger.info("{!a}: ffmpeg marked packets of the source as damaged", run.segments[0].feed.path.parent.name)
        return media.streams(stderr)[:2], media.begins(stderr)

    def _mux(self, inputs: list[str], target: Path, audio: str = "0:a:0?") -> None:
        stderr = self._ffmpeg.run(["-y", *inputs, "-map", "0:v:0?", "-map", audio, "-c", "copy", "-metadata",
                                   f"comment={self._mark}", "-f", "mp4", file_url(target)], output=target).stderr
        for sign in ("Impossible to open", "Failed to open", "corrupt"):
            if sign in stderr:
                raise TemporaryError(f"joining failed: {sign}")

    def _beside(self, what: object) -> Path:
        return self._temp.with_name(f"{self._temp.stem}.{what}.part")


def _refused(wanted: Plan, temp: Path, ffmpeg: Ffmpeg) -> list[int]:
    """Ask ffmpeg about each segment on its own, after it refused them all together: the numbers it does not like."""
    if wanted.sound or any(run.demuxer == "mov" and run.init is None for run in wanted.runs):
        return []  # they do not stand for themselves
    refused = []
    for number, (run, segment) in enumerate(_segments(wanted)):
        feeds = [*([run.init] if run.init else []), segment.feed]
        try:
            ffmpeg.run(["-y", *_piped(run.demuxer), "-f", "mp4", file_url(temp)], feed=feeds, output=temp)
        except Refused as error:
            logger.warning("segment {!a} is refused: {}", segment.name, error)
            refused.append(number)
            if len(refused) == number + 1 == MOST_REFUSED:
                return []  # it is not the segments
    return refused


def _segments(wanted: Plan) -> list[tuple[Run, Segment]]:
    return [(run, segment) for run in wanted.runs for segment in run.segments]


def _naming(wanted: Plan, refused: list[int], error: Refused) -> PermanentError:
    """The error, with the segment that it is about."""
    if not refused:
        return error
    return PermanentError(f"segment {_segments(wanted)[refused[0]][1].name!a} is damaged: {error}")


def _without(wanted: Plan, refused: list[int]) -> Plan:
    """A plan without some of its segments, which become gaps. Raises PermanentError when nothing is left."""
    made = Assembly("merge")

    def find(number: int, run: Run, segment: Segment) -> Found:
        if number in refused:
            raise SegmentDamaged(f"segment {segment.name!a} is damaged: ffmpeg refuses it")
        return Found(run.demuxer, run.init, segment, segment is run.segments[0])

    for number, (run, segment) in enumerate(_segments(wanted)):
        made.add(segment.name, segment.duration_seconds, functools.partial(find, number, run, segment))
    left_out = [(gap.at_seconds, gap.seconds) for gap in made.gaps]
    for gap in wanted.gaps:
        shift = 0.0
        for at, seconds in left_out:
            if at + shift < gap.at_seconds:
                shift += seconds
        made.gaps.append(gap._replace(at_seconds=gap.at_seconds - shift))
    return made.plan("it", wanted.target_seconds, wanted.ended)._replace(sound=wanted.sound)


def _piped(demuxer: str) -> list[str]:
    """Options to take media from standard input. ffmpeg is given no file name and no other protocol."""
    return ["-protocol_whitelist", "pipe", "-analyzeduration", "20M", "-probesize", "50M", "-f", demuxer, "-i",
            "pipe:0", "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy"]


def _check_space(wanted: Plan, directory: Path) -> None:
    size_bytes = sum(feed.size_bytes for run in [*wanted.runs, *wanted.sound] for feed in run.feeds)
    written = 1 + (len(wanted.runs) > 1) + bool(wanted.sound)
    needed = size_bytes * written * 11 // 10
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TemporaryError(f"no space: merging needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free",
                             hint="make room", retry_after_seconds=60)


def _verify(
    path: Path, wanted: Plan, codecs: tuple[str, str], ffmpeg: Ffmpeg, gaps: Gaps
) -> tuple[float, tuple[Gap, ...]]:
    """Open the result again: its duration in seconds and what it lacks, if it is what was promised.

    It has the streams of the source (`codecs`; "": not known), its duration is that of the segments within 2 % (torn
    ones may be shorter), its packets leave no hole, and its start, middle and end decode. Raises PermanentError if not.
    """
    found, undecodable = _reopen(path, wanted.duration_seconds, ffmpeg)
    for has, had in zip((found.video_codec, found.audio_codec), codecs, strict=True):
        if had not in ("", has):
            raise PermanentError(f"the merge lacks {had}, which its segments have: it is not used")
    torn_seconds = sum(segment.duration_seconds for run in wanted.runs for segment in run.segments if segment.torn)
    lost_seconds = min(max(wanted.duration_seconds - found.duration_seconds, 0.0), torn_seconds)
    slack = max(2.0, 0.02 * wanted.duration_seconds)
    if abs(found.duration_seconds - wanted.duration_seconds + lost_seconds) > slack:
        raise PermanentError(f"the merge is {found.duration_seconds:.1f} s long, its segments "
                             f"{wanted.duration_seconds:.1f} s: it is not used")
    left_out = list(wanted.gaps)
    at = 0.0
    places: list[tuple[float, str]] = []
    for segment in (segment for run in wanted.runs for segment in run.segments):
        places.append((at, segment.name))
        at += segment.duration_seconds
        if segment.torn:
            share = lost_seconds * segment.duration_seconds / torn_seconds
            at -= share
            left_out.append(Gap(segment.name, at, share, segment.torn))
    limit = max(LEAST_HOLE_SECONDS, 1.5 * wanted.target_seconds)
    bad = [(at, length, f"no packet for {length:.1f} s") for at, length in media.holes(path, limit)]
    bad += [(place * found.duration_seconds, 0.0, why) for place, why in undecodable]
    for at, length, why in bad:
        name = next((name for from_seconds, name in reversed(places) if from_seconds <= at), places[0][1])
        if any(gap.segment == name for gap in left_out):
            continue  # its last picture is torn, too
        if gaps == "refuse":
            raise PermanentError(f"the merge is damaged at {at:.1f} s, in segment {name!a}: {why}")
        left_out.append(Gap(name, at, length, why))
    return found.duration_seconds, tuple(sorted(left_out, key=lambda gap: gap.at_seconds))


def _reopen(path: Path, seconds: float, ffmpeg: Ffmpeg) -> tuple[media.Media, list[tuple[float, str]]]:
    """What a file says about itself, and at which of PLACES a second of it does not decode, and why.

    `seconds` is about its duration. Raises PermanentError when it decodes nowhere.
    """
    inputs = [[*media.READ_ONLY, *(("-sseof", "-1") if place == 1 else ("-ss", f"{place * seconds:.3f}", "-t", "1")),
               "-noaccurate_seek", "-i", file_url(path)] for place in PLACES]

    def decode(*chosen: list[str]) -> str:
        maps = [text for n in range(len(chosen)) for text in ("-map", f"{n}:v:0?", "-map", f"{n}:a:0?")]
        return ffmpeg.run(["-xerror", *(text for one in chosen for text in one), *maps, "-f", "null", "-"]).stderr

    try:
        return media.facts(path, decode(*inputs), ffmpeg), []
    except Refused as error:
        found, why = media.probe(path, ffmpeg), str(error)
    if re.search(r"[Dd]ecoder.* not found|no decoder found", why):
        logger.warning("the merge was not decoded, this ffmpeg cannot: {}", why)
        return found, []
    bad = []
    for place, one in zip(PLACES, inputs, strict=True):
        try:
            decode(one)
        except Refused as error:
            bad.append((place, str(error)))
    if len(bad) == len(PLACES):
        raise PermanentError(f"the merge does not decode: {bad[0][1]}")
    return found, bad


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
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _ours(error: OSError, output: Path) -> BiliupdError:
    if error.errno == errno.EEXIST:
        return PermanentError(f"{output.name!a} is there already", hint="move it away")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError("no space left for the merge", hint="make room", retry_after_seconds=60)
    return TemporaryError(f"merging into {output.name!a} failed: {error.strerror}")
