"""A folder full of numbered segments without a playlist, as downloaders leave it → what there is to merge.

Runs on a worker thread, `numbered` on any. Lists the folder and reads the segments, also through ffmpeg; writes
nothing.
"""

import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from biliupd.edit import media
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.playlist import Ref
from biliupd.edit.segments import Assembly, Files, Found, Gaps, Plan, SegmentDamaged, SegmentMissing, look
from biliupd.errors import PermanentError

LEAST_COUNT = 3
MOST_MISSING = 0.25  #: of the numbers: with more they are no count but dates, or chosen names
JUMP_SECONDS = 1.0  #: timestamps further apart do not go on from one segment to the next

_SEGMENT = re.compile(r"[^.].*\.(?:ts|m4s)", re.IGNORECASE | re.DOTALL)
_INIT = re.compile(r"[^.]?.*init.*\.(?:mp4|m4s|m4i|m4v)", re.IGNORECASE | re.DOTALL)
_MEDIA = re.compile(
    r"[^.].*\.(?:ts|m4s|mp4|m4v|m4a|m4i|mov|mkv|webm|flv|avi|wmv|mpe?g|m2ts|aac|mp3|wav|flac|m3u8?|mpd)",
    re.IGNORECASE | re.DOTALL)


class _Numbers(NamedTuple):
    """Names that differ in one number."""

    names: dict[int, str]
    init: str  #: "": none

    def name(self, number: int) -> str:
        """What the segment of a number is called, or would be."""
        if number in self.names:
            return self.names[number]
        known = self.names[max(other for other in self.names if other < number)]
        place = _varying(list(self.names.values()))
        parts = re.split(r"(\d+)", known)
        parts[place] = str(number).zfill(len(parts[place]) if parts[place][0] == "0" else 0)
        return "".join(parts)


def numbered(names: Sequence[str]) -> list[str]:
    """The segments among the names in a folder, in order; [] when it is not such a folder.

    It is one when there are at least three `.ts`, or `.m4s` with one init section, whose names differ in nothing but a
    number that counts up, with or without leading zeros, and nothing else that is media. A few numbers may be missing.
    """
    found = _numbers(names)
    return [found.names[number] for number in sorted(found.names)] if found else []


def files(names: Sequence[str]) -> list[str]:
    """The same with the init section in front: all that a merge of the folder is made of."""
    found = _numbers(names)
    return [*([found.init] if found.init else []), *numbered(names)] if found else []


def _numbers(names: Sequence[str]) -> _Numbers | None:
    of_media = [name for name in names if _MEDIA.fullmatch(name)]
    inits = [name for name in of_media if _INIT.fullmatch(name)]
    segments = [name for name in of_media if name not in inits]
    if len(segments) < LEAST_COUNT or not all(_SEGMENT.fullmatch(name) for name in segments):
        return None
    fragmented = segments[0].lower().endswith(".m4s")
    place = _varying(segments)
    if place < 0 or len(inits) != fragmented:
        return None
    by_number = {int(re.split(r"(\d+)", name)[place]): name for name in segments}
    found = _Numbers(by_number, inits[0] if inits else "")
    span = max(by_number) - min(by_number) + 1
    return found if len(by_number) == len(segments) and span - len(segments) <= MOST_MISSING * span else None


def _varying(names: Sequence[str]) -> int:
    """The one place, among texts and numbers by turns, in which the names differ; -1 when it is none, or several."""
    split = [re.split(r"(\d+)", name) for name in names]
    if any(len(parts) != len(split[0]) for parts in split):
        return -1
    places = [place for place, parts in enumerate(zip(*split, strict=True)) if len(set(parts)) > 1]
    return places[0] if len(places) == 1 and places[0] % 2 else -1


def plan(directory: Path, ffmpeg: Ffmpeg, gaps: Gaps = "refuse") -> Plan:
    """Look at the segments of a folder; each is read once to learn how long it is and where its timestamps begin.

    Raises as `segments.plan` does: a number that is left out is a missing segment.
    """
    found = _numbers(os.listdir(directory))
    if found is None:
        raise PermanentError(f"{directory.name!a} is no folder of numbered segments")
    files = Files(os.path.realpath(directory))
    looked: list[tuple[str, _Looked]] = []
    for number in range(min(found.names), max(found.names) + 1):
        name = found.name(number)
        looked.append((name, _look(files, name, found.init, ffmpeg, cut=gaps == "merge")))
    lengths = [piece.found.segment.duration_seconds for _, piece in looked if piece.found is not None]
    usual = statistics.median(lengths) if lengths else 0.0
    made = Assembly(gaps)
    ends = 0.0
    for name, piece in looked:
        made.add(name, usual, piece.outcome, anew=abs(piece.begins - ends) > JUMP_SECONDS)
        if piece.found is not None:
            ends = piece.begins + piece.found.segment.duration_seconds
    return made.plan(directory.name, max(lengths, default=0.0), ended=True)


class _Looked(NamedTuple):
    """What came of looking at one segment."""

    found: Found | None
    begins: float  #: its first timestamp in seconds
    trouble: SegmentMissing | SegmentDamaged | None

    def outcome(self) -> Found:
        if self.found is None:
            raise self.trouble or SegmentMissing("not there")
        return self.found


def _look(files: Files, name: str, init: str, ffmpeg: Ffmpeg, *, cut: bool) -> _Looked:
    try:
        first = files.feed(Ref(0, init)) if init else None
        found = look(name, files.feed(Ref(0, name)), 0.0, init=first, cut=cut)
        seconds = [0.0]
        try:
            stderr = ffmpeg.run([
                "-protocol_whitelist", "pipe", "-f", found.demuxer, "-i", "pipe:0", "-map", "0:v:0?", "-map", "0:a:0?",
                "-c", "copy", "-f", "null", "-",
            ], feed=[*([found.init] if found.init else []), found.segment.feed], on_progress=seconds.append).stderr
        except PermanentError as error:
            raise SegmentDamaged(f"segment {name[:200]!a} cannot be read: {error}") from error
    except (SegmentMissing, SegmentDamaged) as error:
        return _Looked(None, 0.0, error)
    segment = found.segment._replace(duration_seconds=max(seconds))
    return _Looked(found._replace(segment=segment), media.begins(stderr), None)
