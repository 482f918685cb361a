"""What a recorder takes of each reload of a playlist: what is new, and how much is missing before it.

Pure. Runs in the recorder process. A segment is known by its number while an address is followed; another address may
count differently, then it is found by its path, its date, or at last by its bytes.
"""

import math
from typing import Any, Literal, NamedTuple

from biliupd.record.playlist import MediaPlaylist, Segment

STALE_WINDOWS = 4  # behind by more than this many window lengths: the numbering began anew
STALE_IN_A_ROW = 3
PROBES = 3  # segments before the place where an address is joined, to be compared with what was recorded
LARGEST_HOLE_SECONDS = 86400.0  # dates farther apart are not those of one clock


class Follow(NamedTuple):
    """What to make of a reload: `kind`, the segments to take, and how many seconds are missing before them.

    `probes`: so many of them are only taken when one is found among those that are recorded already. `known`: nothing
    else than `missing_seconds` is missing; without it nobody can tell.
    """

    kind: Literal["new", "same", "stale", "reset", "joined"]
    segments: tuple[Segment, ...] = ()
    missing_seconds: float = 0.0
    probes: int = 0
    known: bool = True


class Position(NamedTuple):
    """The segment taken last: its number, path, and the moment at which it ends, in seconds since 1970 or None."""

    sequence: int
    path: str
    ends_at: float | None = None

    @classmethod
    def after(cls, segment: Segment) -> "Position":
        """Where one is when a segment was taken."""
        return cls(segment.sequence, segment.path, segment.date + segment.duration if segment.date else None)

    @classmethod
    def saved(cls, content: dict[str, Any] | None) -> "Position | None":
        """That of broadcast.json; None when it has none that makes sense."""
        content = content or {}
        sequence, path, ends_at = content.get("sequence"), content.get("path"), content.get("ends_at")
        if not isinstance(sequence, int) or not isinstance(path, str):
            return None
        return cls(sequence, path, float(ends_at) if isinstance(ends_at, int | float) else None)


def follow(playlist: MediaPlaylist, last: Position | None, stale_in_a_row: int = 0) -> Follow:
    """Compare a reload with the segment taken last of the same address; None: at the first fetch all are taken.

    `stale_in_a_row` counts the answers of kind stale just before. A reset means that the numbering began anew: all
    that is listed is taken, but what its dates show to be older.
    """
    segments, end = playlist.segments, playlist.next_sequence
    if last is None:
        return Follow("new", segments)
    wanted = last.sequence + 1
    if not playlist.length or end == wanted:
        return Follow("same")
    if end > wanted:
        segments = tuple(segment for segment in segments if segment.sequence >= wanted)
        if not segments or segments[0].sequence == wanted:
            return Follow("new", segments)
        return Follow("new", segments, _hole(playlist, last, segments[0]))
    newer = _later(segments, last)
    is_new = bool(newer) and newer[-1].date is not None and last.ends_at is not None
    if (not is_new and wanted - end <= STALE_WINDOWS * playlist.length and stale_in_a_row < STALE_IN_A_ROW - 1):
        return Follow("stale")
    missing = _by_date(last, newer[0]) if newer else None
    return Follow("reset", newer, missing or 0.0, known=missing is not None)


def resume(playlist: MediaPlaylist, last: Position, away_seconds: float) -> Follow:
    """The segments of another address that come after the one recorded last, `away_seconds` ago.

    Found by its path, or by its file name, by its number among equal names, or by dates; else by the time that went by,
    with some before them whose bytes may be known.
    """
    segments = playlist.segments
    dated = last.ends_at is not None and any(segment.date is not None for segment in segments)
    same = [segment.sequence for segment in segments if segment.path == last.path]
    if len(same) != 1:  # some servers tell segments apart by the query alone
        named = [segment.sequence for segment in segments if segment.name == last.path.rsplit("/", 1)[-1]]
        same = named if len(named) == 1 else [number for number in named if number == last.sequence]
    if same and not (dated and _clock_differs(segments, same[-1], last)):
        return Follow("joined", tuple(segment for segment in segments if segment.sequence > same[-1]))
    if dated:
        newer = _later(segments, last)
        missing = _by_date(last, newer[0]) if newer else 0.0
        if missing is not None:
            return Follow("joined", newer, missing)
    if segments and segments[0].sequence > last.sequence + 1 and \
            segments[0].sequence - last.sequence <= 2 + 2 * away_seconds / max(0.1, segments[0].duration) and \
            _alike(segments[0].name, last.path.rsplit("/", 1)[-1]):
        return Follow("joined", segments, _hole(playlist, last, segments[0]))
    usual = max(0.1, playlist.window_seconds / max(1, playlist.length))
    count = math.floor(max(0.0, away_seconds) / usual)
    taken = segments[max(0, len(segments) - count - PROBES):]
    probes = max(0, len(taken) - count)
    return Follow("joined", taken, max(0.0, away_seconds - sum(segment.duration for segment in taken[probes:]) - usual),
                  probes, known=False)


def _alike(one: str, other: str) -> bool:
    """Whether two file names differ in their digits only."""
    return one.strip("@").translate(_NO_DIGITS) == other.strip("@").translate(_NO_DIGITS)


_NO_DIGITS = {ord(digit): None for digit in "0123456789"}


def _later(segments: tuple[Segment, ...], last: Position) -> tuple[Segment, ...]:
    """Those that the dates show to come after the last one; all of them when there are no dates."""
    if last.ends_at is None:
        return segments
    return tuple(segment for segment in segments
                 if segment.date is None or segment.date + segment.duration / 2 > last.ends_at)


def _by_date(last: Position, first: Segment) -> float | None:
    """The seconds between the last one and another, by their dates; None when those do not tell."""
    if last.ends_at is None or first.date is None:
        return None
    hole = first.date - last.ends_at
    if abs(hole) > LARGEST_HOLE_SECONDS:
        return None
    return hole if hole > first.duration / 4 else 0.0


def _hole(playlist: MediaPlaylist, last: Position, first: Segment) -> float:
    """The length of the numbers between two segments: by date when that makes sense, else by the usual duration."""
    count = first.sequence - last.sequence - 1
    durations = sorted(segment.duration for segment in playlist.segments if not segment.ad)
    usual = durations[len(durations) // 2] if durations else playlist.target_duration
    by_date = _by_date(last, first)
    return by_date if by_date and by_date < 3 * count * max(usual, playlist.target_duration) else count * usual


def _clock_differs(segments: tuple[Segment, ...], sequence: int, last: Position) -> bool:
    """Whether what looks like the last segment has another date: the same names were used again."""
    found = next(segment for segment in segments if segment.sequence == sequence)
    return (found.date is not None and last.ends_at is not None
            and abs(found.date + found.duration - last.ends_at) > max(1.0, found.duration))
