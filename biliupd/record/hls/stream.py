"""Record HLS: which address is followed, what goes into which part, and what the ledger says of it.

Runs on the main thread of a recorder process, which never waits for the network: `hls_source` brings what there is.
"""

import logging
import time
from datetime import datetime
from queue import Empty

from biliupd.record import container
from biliupd.record.fetch import same_host
from biliupd.record.hls.clock import Timeline
from biliupd.record.hls.following import Position
from biliupd.record.hls.items import Item, Joined, Missing, Over, Piece, Reset, Restricted, Task, Trouble
from biliupd.record.hls.items import Sound as SoundAt
from biliupd.record.hls.sound import LAST_SECONDS, LATE_SECONDS, Sound, saved
from biliupd.record.hls.source import Source
from biliupd.record.ledger import Cause
from biliupd.record.parts import REMEMBERED, SegmentPart, digest_of
from biliupd.record.playlist import Segment
from biliupd.record.session import SPEED_SECONDS, Ending, Session
from biliupd.record.spec import Exit, Stream

log = logging.getLogger("recorder")

TURN_SECONDS = 1.0
LONGEST_PAUSE = 8.0
PATIENT_SECONDS = 5.0  # so long a refused segment means an expired address, then that it is missing
SWITCH_SECONDS = 15.0  # so long the other address of a planned switch has to deliver
EXPIRY_SECONDS = 45.0  # so long before an address expires another one is asked for


class HlsStream:
    """Everything between the addresses and the folders of one recorder run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        saved_position = session.broadcast.position or {}
        self._position = Position.saved(saved_position)
        self._seen: list[str] = [str(digest) for digest in saved_position.get("recent", [])]
        self._source: Source | None = None
        self._sound: Sound | None = None  # when it comes in a playlist of its own
        self._sound_position = Position.saved(saved_position.get("sound"))
        self._other: Source | None = None  # of a planned switch
        self._other_since = 0.0
        self._renewals = session.renewals
        self._asked_for: Stream | None = None  # a successor of this one, which expires
        self._began_at = time.monotonic()
        self._trouble: Trouble | None = None  # since no media came
        self._trouble_at = 0.0
        self._renewed_at: float | None = None  # the site was asked, since no media came
        self._pause = 0.0
        self._tried = 0  # addresses, since media came
        self._joint = True  # what comes may be known already
        self._rejoins = False  # it is the first after a trouble
        self._hole = False  # timestamps of what comes do not go on from what was before
        self._missing_seconds = 0.0  # before what comes
        self._missing_at = 0.0
        self._held: list[Piece] = []  # older than what was recorded last, or not
        self._matched = False  # one of those that came since the joint is known
        self._timeline = Timeline()
        self._glance: container.Glance = (b"", b"")  # at the segment written last

    def run(self) -> None:
        """Record until `Ending` is raised."""
        while True:
            self._session.tick()
            if self._source is None:
                self._connect()
                continue
            if self._other is None:
                self._plan()
            else:
                self._compare(self._other)
            self._source.look()
            if self._sound and self._sound.late():
                self._session.wait(TURN_SECONDS / 8)
            else:
                self._turn(self._source)
            if self._sound:
                self._listen(self._sound)

    def flush(self) -> None:
        """Write what was fetched already."""
        for source in (self._other, self._source):
            if source:
                source.abandon()
        if self._source:
            self._drain(self._source)
        if self._sound:
            self._sound.take()
            self._sound.close()
            self._sound.pictures_seconds += LATE_SECONDS  # it may end a little later than they do
            self._sound.begun()

    def _drain(self, source: Source) -> None:
        while True:
            try:
                item = source.inbox.get_nowait()
            except Empty:
                return
            if not isinstance(item, Over | Restricted | Trouble):
                self._take(item)

    def _turn(self, source: Source) -> None:
        """Wait for an item, and do what it says."""
        try:
            item = source.inbox.get(timeout=TURN_SECONDS)
        except Empty:
            return
        if isinstance(item, Over):
            log.info("the playlist ended")
            until = time.monotonic() + LAST_SECONDS
            while self._sound and not self._sound.over and time.monotonic() < until:
                self._session.wait(TURN_SECONDS / 4)
                self._listen(self._sound)
            raise Ending(Exit.OVER)
        if isinstance(item, Restricted):
            log.error("%s", item.reason)
            raise Ending(Exit.UNSUPPORTED)
        if isinstance(item, Trouble):
            self._lost(item)
        else:
            self._take(item)

    # Addresses.

    def _connect(self) -> None:
        """Follow the address that is current; wait before, when that was tried already."""
        session = self._session
        if self._trouble and (self._pause or session.addresses.current is None):
            now = time.monotonic()
            since = max(session.media_at or self._began_at, self._renewed_at or 0.0)
            left = since + session.spec.reconnect_seconds - now
            if left <= 0:
                log.warning("no media for %.0f s: %s", now - since, self._trouble.reason)
                raise Ending(Exit.NEEDS_URL)
            session.wait(min(left, self._pause or LONGEST_PAUSE))
        if session.renewals != self._renewals:
            self._renewals, self._tried, self._renewed_at = session.renewals, 0, time.monotonic()
        if session.addresses.current is not None:
            self._source = Source(session.spec, self._task(session.addresses.current))
            self._source.start()

    def _task(self, stream: Stream) -> Task:
        session, now = self._session, time.monotonic()
        if session.media_at is not None:
            away = now - session.media_at
        else:
            last = session.broadcast.last_media_at
            away = max(0.0, time.time() - datetime.fromisoformat(last).timestamp()) if last else 0.0
        patient_seconds = min(PATIENT_SECONDS, session.spec.reconnect_seconds / 2)
        return Task(stream, self._position, away, others=self._tried + 1 < len(session.spec.streams),
                    patient=self._trouble is not None and now - self._trouble_at >= patient_seconds)

    def _lost(self, trouble: Trouble) -> None:
        """The source ended: what is next?"""
        session = self._session
        log.info("%s", trouble.reason)
        if self._trouble is None:
            self._trouble, self._trouble_at = trouble, time.monotonic()
        if self._sound:
            self._sound.close()
            self._sound = None
        self._source, self._other = self._other, None
        if self._source:
            return  # a planned switch was under way
        self._tried += 1
        moved = session.addresses.failed(gone=trouble.gone) or session.addresses.left()
        if moved and self._tried < len(session.spec.streams):
            return
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or 1.0)
        if self._renewed_at is not None:  # that did not help, so there is no hurry to ask again
            session.wait(self._pause)
        session.needs_address(trouble.reason)

    def _plan(self) -> None:
        """Begin a planned switch when there is a reason for one."""
        session, source = self._session, self._source
        assert source is not None
        current = session.addresses.current
        if session.renewals != self._renewals:
            self._renewals = session.renewals
            if current and (current.url, current.headers) != (source.task.stream.url, source.task.stream.headers):
                self._open_other(current)
        elif session.is_slow() and time.monotonic() - self._missing_at > SPEED_SECONDS:
            session.note(Cause.SLOW, detail=f"{session.broadcast.figures.speed:g} of real time")
            if session.addresses.left() and session.addresses.current:
                self._open_other(session.addresses.current)
        elif self._asked_for is not source.task.stream and _expires(source.task.stream):
            self._asked_for = source.task.stream
            session.needs_address("the address is about to expire")

    def _open_other(self, stream: Stream) -> None:
        log.info("another address is tried while this one goes on")
        self._other = Source(self._session.spec, self._task(stream))
        self._other_since = time.monotonic()
        self._other.start()

    def _compare(self, other: Source) -> None:
        """Leave the present source when the other one delivers what is new; give the other one up when it does not."""
        other.look()
        session, source = self._session, self._source
        assert source is not None
        first = next((item for item in list(other.inbox.queue) if isinstance(item, Over | Restricted | Trouble) or (
            isinstance(item, Piece) and not item.probe and digest_of(item.body) not in self._seen)), None)
        failed = isinstance(first, Over | Restricted | Trouble)
        if failed or (not isinstance(first, Piece) and time.monotonic() - self._other_since > SWITCH_SECONDS):
            other.abandon()
            self._other = None
            gone = isinstance(first, Trouble) and first.gone
            if session.addresses.failed(gone=gone) and session.addresses.current:
                self._open_other(session.addresses.current)
            else:
                session.addresses.current = source.task.stream
        elif isinstance(first, Piece):
            source.abandon()
            self._drain(source)
            self._source, self._other = other, None
            old, new = source.task.stream, other.task.stream
            session.note(Cause.CDN_SWITCH if not same_host(old.url, new.url) else Cause.SEAMLESS_JOIN)

    # Media.

    def _take(self, item: Item) -> None:
        session = self._session
        if self._sound and isinstance(item, Piece | Missing):
            sound = self._sound
            if not sound.pictures_seconds and item.segment:
                sound.pictures_began = item.segment.date
            sound.pictures_seconds += item.segment.duration if isinstance(item, Piece) else item.seconds
        if isinstance(item, Piece):
            self._piece(item)
            if self._source:
                self._source.written(item.body)
        elif isinstance(item, Missing):
            self._miss(item.cause, item.seconds)
            if item.segment:
                self._save(item.segment)
        elif isinstance(item, Reset):
            session.note(Cause.RESET)
            self._miss(Cause.SKIPPED_SEGMENT, item.seconds)
            self._joint = self._hole = True
        elif isinstance(item, Joined):
            self._join(item)
        elif isinstance(item, SoundAt):
            self._hear(item.url)

    def _hear(self, url: str) -> None:
        """The sound of the present source is there from now on; empty: it is in the pictures' segments."""
        if self._sound:
            self._sound.close()
        self._sound = None
        if url and self._source:
            task = self._source.task._replace(position=self._sound_position, url=url)
            self._sound = Sound(self._session, task)

    def _listen(self, sound: Sound) -> None:
        ended = sound.take()
        self._sound_position = sound.position
        if isinstance(ended, Restricted):
            log.error("%s", ended.reason)
            raise Ending(Exit.UNSUPPORTED)
        if ended and self._source:  # half of a stream is none: all of it is asked for elsewhere
            self._source.abandon()
            self._drain(self._source)
            self._lost(ended)

    def _join(self, item: Joined) -> None:
        """An address goes on where another one, or the same, ended."""
        session, trouble = self._session, self._trouble
        self._joint = True
        self._hole = self._hole or not item.known
        if session.media_at is None and session.spec.cause != Cause.OFFLINE:
            session.missing_before = 0.0
        self._rejoins = trouble is not None and session.media_at is not None
        asked = self._renewed_at is not None
        self._miss(Cause.NEW_ADDRESS if asked else trouble.cause if trouble else Cause.SKIPPED_SEGMENT, item.seconds)

    def _miss(self, cause: Cause, seconds: float) -> None:
        if seconds <= 0:
            return
        session = self._session
        self._hole, self._missing_at = True, time.monotonic()
        self._missing_seconds += seconds
        if session.media_at is None and session.broadcast.last_media_at and cause not in (Cause.AD, Cause.GAP_TAG):
            if session.missing_before is not None:  # one row for all that is missing between two runs
                session.missing_before += seconds
        else:
            session.note(cause, seconds)

    def _piece(self, piece: Piece) -> None:
        """Write a segment, unless it is there already."""
        session, digest = self._session, digest_of(piece.body)
        if digest in self._seen and (self._joint or piece.suffix != ".aac"):  # silence is all alike
            if not self._joint:
                session.note(Cause.DUPLICATE, piece.segment.duration)
            if piece.probe:
                self._held.clear()
                self._hole = False  # what follows goes on from it
                if session.media_at is None and session.missing_before is not None:
                    session.missing_before = 0.0
            self._save(piece.segment)
            self._matched = True
            self._delivered()
            return
        if piece.probe and not self._matched:
            self._held.append(piece)
            return
        self._held.clear()  # none of them was known: they are older
        self._write(self._timed(piece))
        self._seen = [*self._seen, digest][-REMEMBERED:]
        self._save(piece.segment)
        self._joint = self._hole = self._matched = False
        self._missing_seconds = 0.0
        self._delivered()

    def _timed(self, piece: Piece) -> Piece:
        """See what the media's own clock says of the place before a segment."""
        segment = piece.segment
        step = self._timeline.add(segment, container.clock(piece.body, piece.init), time.monotonic(),
                                  known=self._joint or self._hole or segment.discontinuity)
        self._miss(Cause.SKIPPED_SEGMENT, step.missing_seconds)
        if self._rejoins:
            self._rejoins = False
            self._session.broadcast.figures.reconnects += 1
            if not self._missing_seconds:
                self._session.note(Cause.SEAMLESS_JOIN)
        return piece._replace(segment=segment._replace(discontinuity=True)) if step.is_set else piece

    def _write(self, piece: Piece) -> None:
        session, segment = self._session, piece.segment
        part = session.part if isinstance(session.part, SegmentPart) else None
        glance = container.glance(piece.body)
        fresh = (part is None or self._joint or self._hole or segment.discontinuity or piece.label != part.label
                 or not container.alike(glance, self._glance))
        self._glance = (glance[0] or self._glance[0], glance[1] or self._glance[1])
        form = container.form(piece.body) if fresh else ()
        cause = self._reason(part, piece, form) if part else ""
        if part is None or cause:
            session.open_part(
                lambda directory, number: SegmentPart(directory, number, piece.init, form, piece.label), cause)
            part = session.part if isinstance(session.part, SegmentPart) else None
            assert part is not None
            if self._sound:
                self._sound.broken = False
        elif segment.discontinuity:
            session.note(Cause.DISCONTINUITY)
        part.add(piece.body, segment.duration, piece.suffix, discontinuity=self._hole or segment.discontinuity)
        if self._sound:
            self._sound.begun()
        session.media_written()

    def _reason(self, part: SegmentPart, piece: Piece, form: container.Form) -> str:
        """Why a segment begins a new part; empty when it does not."""
        spec = self._session.spec
        if part.init != piece.init or part.suffix != piece.suffix or not container.same_form(part.form, form):
            return Cause.VARIANT_CHANGE if piece.label != part.label else Cause.CODEC_CHANGE
        if self._sound and (why := self._sound.reason(hole=self._hole, discontinuity=piece.segment.discontinuity)):
            return why
        if self._session.split_wanted:
            return Cause.TITLE_SPLIT
        if self._missing_seconds > spec.split_gap_seconds:
            return Cause.GAP_SPLIT
        too_big = 0 < spec.split_size < part.bytes + len(piece.body)
        too_long = 0 < spec.split_seconds < part.seconds + piece.segment.duration
        return Cause.LIMIT_SPLIT if too_big or too_long else ""

    def _save(self, segment: Segment) -> None:
        self._position = position = Position.after(segment)
        self._session.broadcast.position = {
            **position._asdict(), "recent": self._seen, **saved(self._sound_position)}

    def _delivered(self) -> None:
        """The address works."""
        session = self._session
        session.addresses.delivered()
        if self._trouble:
            session.broadcast.needs_address = ""
        self._trouble, self._renewed_at, self._tried, self._pause = None, None, 0, 0.0


def _expires(stream: Stream) -> bool:
    if not stream.expires_at:
        return False
    try:
        return datetime.fromisoformat(stream.expires_at).timestamp() - time.time() < EXPIRY_SECONDS
    except ValueError:
        return False
