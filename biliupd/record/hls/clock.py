"""What is missing between two segments of which the playlist says nothing: by the media's own clock, else by dates.

Pure. Runs on the main thread of a recorder process.
"""

from typing import NamedTuple

from biliupd.record.container import Clock
from biliupd.record.flv.live_edge import LiveEdge
from biliupd.record.playlist import Segment

LEAST_STEP_SECONDS = 0.5
IN_A_ROW = 3  # steps between so many segments: their durations are not what the playlist says


class Step(NamedTuple):
    """`missing_seconds` before a segment; `is_set`: its clock does not go on from what was before."""

    missing_seconds: float = 0.0
    is_set: bool = False


NONE = Step()


class Timeline:
    """The times of the segments that are written, in their order."""

    def __init__(self) -> None:
        self._edge = LiveEdge()
        self._before: tuple[Segment, Clock | None] | None = None
        self._at = 0.0  # of the last segment's beginning, in seconds without any jump
        self._steps = 0  # in a row

    def add(self, segment: Segment, clock: Clock | None, now: float, *, known: bool) -> Step:
        """What lies between the last segment and this one, which came at `now` (monotonic seconds).

        `known`: the playlist has said it (a discontinuity, missing numbers, another address): nothing is looked for.
        """
        before, self._before = self._before, (segment, clock)
        since = None if known or before is None else _since(before, segment, clock)
        if before is None or since is None:
            self._edge.forget()
            self._at += segment.duration
            self._edge.note(int((self._at + segment.duration) * 1000), now)
            return NONE
        last = before[0].duration
        step = since - last
        found = NONE
        if abs(step) <= max(LEAST_STEP_SECONDS, last / 2, segment.duration / 2):
            self._steps = 0
            self._at += since
        else:
            self._steps += 1
            if step > 0:  # as much as real time allows is missing; a clock cannot run ahead of it
                end = int((self._at + last + segment.duration) * 1000)
                missing = self._edge.lost(end, int(step * 1000), now)
                found = Step(missing, step - missing > LEAST_STEP_SECONDS)
            else:
                found = Step(0.0, is_set=True)
                self._edge.forget()
            self._at += last + max(0.0, step)
        self._edge.note(int((self._at + segment.duration) * 1000), now)
        return NONE if self._steps >= IN_A_ROW else found


def _since(before: tuple[Segment, Clock | None], segment: Segment, clock: Clock | None) -> float | None:
    """Seconds between the beginnings of two segments; None when nothing tells."""
    last, last_clock = before
    if clock is not None and last_clock is not None and (seconds := clock.since(last_clock)) is not None:
        return seconds
    if last.dated and segment.dated and last.date is not None and segment.date is not None:
        return segment.date - last.date
    return None
