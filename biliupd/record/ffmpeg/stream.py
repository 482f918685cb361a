"""Record what only ffmpeg reads (DASH, RTMP, RTSP, SRT and more): it writes short segments, which go into parts.

Runs on the main thread of a recorder process. ffmpeg is a child of it and works in a hidden folder within the
broadcast's folder; finished segments are taken out of there in their order, so that files, figures and ledger are those
of any other recording.
"""

import errno
import logging
import os
import time
from collections.abc import Iterable
from datetime import datetime
from urllib.parse import urlsplit

from biliupd.record import container
from biliupd.record.container import Clock
from biliupd.record.ffmpeg.child import FORMS, Child, Finished, find
from biliupd.record.ffmpeg.segments import mark_of, same_init
from biliupd.record.hls.clock import Timeline
from biliupd.record.ledger import Cause
from biliupd.record.parts import REMEMBERED, SegmentPart
from biliupd.record.session import TICK_SECONDS, Ending, Session
from biliupd.record.spec import Exit

log = logging.getLogger("recorder")

LONGEST_PAUSE = 8.0
GOOD_SECONDS = 5.0  # media for this long: the next reconnect is a new story
TAIL_SECONDS = 2.0  # so long ffmpeg may take to end its last segment
SAME_SECONDS = 0.5  # clocks that differ by less agree
BURST_SECONDS = 10.0  # so much media a server may send in advance


class FfmpegStream:
    """Everything between the addresses and the folders of one recorder run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        saved = session.broadcast.position or {}
        self._recent = [str(mark) for mark in saved.get("recent", [])]  # of the last segments
        self._ends = _clock(saved.get("clock"))  # of the media's clock, where the last segment ends
        self._last_seconds = 0.0  # the last segment's duration
        self._child: Child | None = None
        self._has_manifest = False
        self._form = ""  # of segments; empty: what suits the address
        self._forms_failed: set[str] = set()
        self._timeline = Timeline()
        self._renewals = session.renewals
        self._pause = 0.0
        self._trying_since = time.monotonic()
        self._silent_since: float | None = None  # monotonic: the last sign of media before this run of ffmpeg
        self._cause: Cause | None = None  # why there was a break
        self._joint = True  # what comes may be known already
        self._matched = -1  # at this joint: which one of the last segments came again
        self._gap_seconds = 0.0  # before what comes

    def run(self) -> None:
        """Record until `Ending` is raised."""
        try:
            while True:
                self._session.tick()
                if self._child is None:
                    self._connect()
                else:
                    self._turn(self._child)
        except OSError:
            if self._child:
                self._child.end(0.0)
            raise

    def _turn(self, child: Child) -> None:
        session = self._session
        child.look(TICK_SECONDS)
        self._take(child, child.finished())
        if trouble := child.trouble():
            self._lost(child, *trouble)
        elif self._renewals != session.renewals and child.stream != session.addresses.current:
            self._lost(child, Cause.CDN_SWITCH, "there is a new address")
        elif session.is_slow():
            session.note(Cause.SLOW, detail=f"{session.broadcast.figures.speed:.2f} of real time")
            if session.addresses.left():
                self._lost(child, Cause.CDN_SWITCH, "another way, this one is slow")

    def flush(self) -> None:
        """Let ffmpeg end its last segment, and write it."""
        if self._child:
            self._finish(self._child)

    # runs of ffmpeg

    def _connect(self) -> None:
        """Start ffmpeg anew, after a pause that grows; ends the run when it has been in vain for too long."""
        session, now = self._session, time.monotonic()
        if session.media_at and session.media_at > self._trying_since:
            self._trying_since = session.media_at
        refused = session.addresses.current is None
        if refused:
            session.needs_address("every address is refused")
        if now + self._pause - self._trying_since > session.spec.reconnect_seconds:
            log.warning("no address came back within %g s", session.spec.reconnect_seconds)
            raise Ending(Exit.NEEDS_URL)
        left = self._trying_since + session.spec.reconnect_seconds - now
        session.wait(max(TICK_SECONDS, left) if refused else self._pause)
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or 1.0)
        if self._renewals != session.renewals:
            self._renewals, self._pause = session.renewals, 0.0
        if (stream := session.addresses.current) is None:
            return
        program = find(session.spec.ffmpeg)
        if program is None:
            log.error("ffmpeg is needed for this address and was not found: %s", session.spec.ffmpeg)
            raise Ending(Exit.UNSUPPORTED)
        self._has_manifest = urlsplit(stream.url).path.endswith(".mpd")
        self._child = Child(program, stream, session.spec, session.directory, self._form)
        self._joint, self._matched, self._gap_seconds = True, -1, 0.0

    def _finish(self, child: Child) -> None:
        """End ffmpeg and write what it has brought."""
        self._child = None
        child.end(TAIL_SECONDS)
        self._take(child, child.left())
        child.close()

    def _lost(self, child: Child, cause: Cause, reason: str) -> None:
        """A run of ffmpeg is over: what is next?"""
        session = self._session
        log.info("%s", reason)
        self._silent_since = child.sign_at
        self._cause = self._cause or cause
        gained = child.taken_seconds
        self._finish(child)
        if child.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if child.over and not child.refused:
            log.info("the stream ended")
            raise Ending(Exit.OVER)
        if child.misfit and gained < GOOD_SECONDS:
            self._other_form(child.form)
            return
        if gained >= GOOD_SECONDS:
            self._pause = 0.0
        if cause is not Cause.CDN_SWITCH and session.addresses.failed(gone=bool(child.refused)):
            self._pause = 0.0  # another way, at once

    def _other_form(self, form: str) -> None:
        """Not every container holds every codec."""
        self._forms_failed.add(form)
        left = [other for other in FORMS if other not in self._forms_failed]
        if not left:
            log.error("no container of segments holds these codecs")
            raise Ending(Exit.UNSUPPORTED)
        self._form, self._pause = left[0], 0.0

    # media

    def _take(self, child: Child, segments: Iterable[Finished]) -> None:
        if child.misfit and child.taken_seconds < GOOD_SECONDS:
            return  # it comes again, in another container
        for finished in segments:
            self._segment(finished)
            child.taken(finished)

    def _segment(self, finished: Finished) -> None:
        """Write a segment, unless it is there already."""
        session, now, duration = self._session, time.monotonic(), finished.segment.duration
        clock = container.clock(finished.body, finished.init)
        step = clock.since(self._ends) if clock and self._ends else None
        mark = mark_of(finished.body)
        first = self._joint
        if first:
            if self._comes_again(mark, duration):
                self._pause = 0.0
                return
            self._join(step, duration, now)
            self._joint = False
        elif mark in self._recent[-1:] and step is not None and step <= -duration + SAME_SECONDS:
            session.note(Cause.DUPLICATE, detail=f"{duration:.1f} s came again")
            return
        found = self._timeline.add(finished.segment, clock, now, known=first)
        lost = found.missing_seconds
        if found.is_set and step is not None and step > SAME_SECONDS and self._has_manifest:
            lost = step  # nobody sets the clock of DASH
        if lost:
            session.note(Cause.HOLE, lost)
            self._gap_seconds = lost
        elif found.is_set:
            session.note(Cause.JUMP)
        discontinuity = first or lost > 0 or found.is_set
        self._write(finished, discontinuity=discontinuity)
        self._recent = [*self._recent, mark][-REMEMBERED:]
        self._last_seconds, self._gap_seconds = duration, 0.0
        self._ends = clock and clock._replace(ticks=clock.ticks + round(duration * clock.rate))
        session.broadcast.position = {"recent": self._recent, "clock": self._ends}
        session.addresses.delivered()

    def _comes_again(self, mark: str, duration: float) -> bool:
        """Whether a new run brings what is recorded; in the same order, or it is a picture that stands still."""
        if mark not in self._recent:
            return False
        place = len(self._recent) - 1 - self._recent[::-1].index(mark)
        if place <= self._matched or (not self._has_manifest and place == len(self._recent) - 1 and
                                      0 < self._last_seconds < duration - SAME_SECONDS):
            return False  # the last one was cut off, this one is whole
        self._matched = place
        return True

    def _join(self, step: float | None, duration: float, now: float) -> None:
        """How much is missing between the last run of ffmpeg and this one."""
        session, cause = self._session, self._cause
        before, self._silent_since, self._cause = self._silent_since, None, None
        if session.media_at is None:  # the session tells what was missing between two runs of the recorder
            last = session.broadcast.last_media_at
            if last:
                away = max(0.0, time.time() - datetime.fromisoformat(last).timestamp())
                missing = self._missing(step, away)
                session.missing_before = max(0.0, away - duration) if missing is None else missing
            return
        missing = self._missing(step, now - (before or session.media_at))
        session.broadcast.figures.reconnects += 1
        if missing == 0:
            session.note(Cause.SEAMLESS_JOIN, detail=f"after {cause}" if cause else "")
        else:
            self._gap_seconds = max(0.0, now - (before or session.media_at) - duration) if missing is None else missing
            session.note(cause or Cause.CUT, self._gap_seconds)

    def _missing(self, step: float | None, away: float) -> float | None:
        """Seconds by the media's own clock, if that went on; None when nobody knows.

        `away`: so long ago there was any media.
        """
        goes_on = step is not None and -SAME_SECONDS <= step <= away + BURST_SECONDS
        if step is not None and (goes_on or (self._matched >= 0 and step < away + BURST_SECONDS)):
            return step if step > SAME_SECONDS else 0.0
        return 0.0 if 0 <= self._matched == len(self._recent) - 1 else None

    def _write(self, finished: Finished, *, discontinuity: bool) -> None:
        session = self._session
        part = session.part if isinstance(session.part, SegmentPart) else None
        cause = self._reason(part, finished) if part else ""
        if part is None or cause:
            form = container.form(finished.body)
            session.open_part(
                lambda directory, number: SegmentPart(directory, number, finished.init, form), cause)
            part = session.part if isinstance(session.part, SegmentPart) else None
            assert part is not None
        part.add(finished.body, finished.segment.duration, finished.suffix, discontinuity=discontinuity)
        session.media_written()

    def _reason(self, part: SegmentPart, finished: Finished) -> str:
        """Why a segment begins a new part; empty when it does not."""
        spec, session = self._session.spec, self._session
        if not same_init(part.init, finished.init) or part.suffix not in ("", finished.suffix) or not (
                finished.init or container.same_form(part.form, container.form(finished.body))):
            return Cause.CODEC_CHANGE
        if session.split_wanted:
            return Cause.TITLE_SPLIT
        if 0 < spec.split_gap_seconds < self._gap_seconds:
            return Cause.GAP_SPLIT
        too_big = 0 < spec.split_size < part.bytes + len(finished.body)
        too_long = 0 < spec.split_seconds < part.seconds + finished.segment.duration
        return Cause.LIMIT_SPLIT if too_big or too_long else ""


def _clock(saved: object) -> Clock | None:
    if isinstance(saved, list) and len(saved) == 3 and all(isinstance(number, int) for number in saved):
        return Clock(*saved)
    return None
