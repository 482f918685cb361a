"""Record an HTTP-FLV address: connect, repair, append, and go on over another connection when one ends or has to.

A network thread per connection reads and never waits for the disk; the main thread of the recorder process does all the
rest. A new connection is searched for the last tags written before anything of it is used: after a cut, and also before
an old one is left on purpose.
"""

import logging
import time
from datetime import datetime
from queue import Empty, Queue

from biliupd.record.flv.connection import Chunk, Connection, Lost
from biliupd.record.flv.duplicates import Duplicates
from biliupd.record.flv.live_edge import LiveEdge
from biliupd.record.flv.meta import metadata
from biliupd.record.flv.nal import Pictures
from biliupd.record.flv.part import FlvPart, last_tags
from biliupd.record.flv.rejoin import Seam, Search
from biliupd.record.flv.repair import Event, Gap, NewFile, Repair
from biliupd.record.flv.tags import SCRIPT, START, Parser, Tag
from biliupd.record.ledger import Cause
from biliupd.record.session import TICK_SECONDS, Ending, Session
from biliupd.record.spec import Exit

log = logging.getLogger("recorder")

MOST_GARBAGE = 1 << 20
GOOD_CONNECTION_SECONDS = 2.0  # media for this long: the next reconnect is a new story
LONGEST_PAUSE = 8.0
CLOCK_SLACK_SECONDS = 2.0
SEARCH_SECONDS = 8.0  # media is on disk within 10 s of arriving, also while a seam is looked for
SWITCH_SECONDS = 45.0  # the old connection may be behind and has to reach the new one
SWITCH_PAUSE = 5.0


class Feed:
    """One connection and what has been made of it. `search` is None once its place in the recording is known."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.parser = Parser()
        self._pictures = Pictures()
        self.search: Search | None = Search()
        self.began = time.monotonic()
        self.media_at: float | None = None
        self.first_media_at: float | None = None
        self.over: Lost | None = None  # it ended before its place was known; what it brought waits
        self.shift = 0
        self.had_tags = False
        self.garbage_seen = 0
        self._head = b""

    def tags(self, chunk: bytes) -> list[Tag]:
        """The tags that are whole now, their times moved into the clock of the recording."""
        if len(self._head) < 16:
            self._head += chunk[:16]
        tags = self.parser.feed(chunk)
        self.had_tags = self.had_tags or bool(tags)
        return self._shifted(tags)

    def rest(self) -> list[Tag]:
        """End of input: what is still whole."""
        return self._shifted(self.parser.flush())

    def _shifted(self, tags: list[Tag]) -> list[Tag]:
        tags = self._pictures.feed(tags)
        return [tag._replace(timestamp=tag.timestamp + self.shift) for tag in tags] if self.shift else tags

    def problem(self, progress_seconds: float) -> Lost | None:
        """Why this is no stream that could be recorded; media have to come at least this often."""
        if not self.had_tags and self._head.lstrip().startswith((b"<", b"{", b"#EXTM3U")):
            return Lost("the answer is no FLV but text or a web page", Cause.SERVER_DROP, gone=True)
        if self.parser.lost_bytes > MOST_GARBAGE:
            return Lost("1 MiB that is no FLV", Cause.GARBAGE, gone=not self.had_tags)
        last = self.media_at or self.began
        if time.monotonic() - last > progress_seconds:
            return Lost(f"bytes, but no media for {progress_seconds:g} s", Cause.STALL)
        return None


def _shorter(away: float, missing_ms: int | None) -> float:
    """Seconds missing: by the stream's clock unless it claims more than was there to miss."""
    return away if missing_ms is None or missing_ms / 1000 > away + CLOCK_SLACK_SECONDS else missing_ms / 1000


def _tail_of_last_run(session: Session) -> list[Tag]:
    """The last tags of the newest file, in the stream's own clock if that is known."""
    tags = last_tags(session.directory, session.broadcast.files)
    known = session.broadcast.position or {}
    offset = known.get("offset") if session.broadcast.files[-1:] and (
        known.get("file") == session.broadcast.files[-1].get("name")) else None
    if not isinstance(offset, int):
        return tags
    return [tag._replace(timestamp=tag.timestamp + offset) for tag in tags]


class FlvStream:
    """Everything between the addresses and the files of one recorder run."""

    def __init__(self, session: Session) -> None:
        spec = session.spec
        self._session = session
        self._repair = Repair(spec.split_size, spec.split_seconds)
        self._duplicates = Duplicates()
        self._edge = LiveEdge()
        # no SimpleQueue: in Python 3.11 a signal at the end of its timeout makes `get` wait for ever
        self._inbox: Queue[tuple[Connection, Chunk | Lost]] = Queue()
        self._current: Feed | None = None
        self._next: Feed | None = None
        self._source: dict[str, object] = {}
        self._missing = 0.0
        self._before = _tail_of_last_run(session)
        self._renewals = session.renewals
        self._switch_wanted = ""
        self._slow = False  # why it is wanted
        self._switch_at = 0.0
        self._lost_cause: Cause | None = None
        self._trying_since = time.monotonic()
        self._pause = 0.0

    def run(self) -> None:
        """Record until `Ending` is raised."""
        while True:
            self._session.tick()
            if self._current is None and self._next is None:
                self._connect()
            self._consider_switch()
            try:
                connection, item = self._inbox.get(timeout=TICK_SECONDS)
            except Empty:
                self._look()
                continue
            for feed in (self._current, self._next):
                if feed is not None and feed.connection is connection:
                    self._take(feed, item)
            self._look()

    def flush(self) -> None:
        """Write what has arrived: nothing of it is to be lost because the run ends."""
        feeds = [feed for feed in (self._current, self._next) if feed]
        for feed in feeds:
            feed.connection.abandon()
        while not self._inbox.empty():
            connection, item = self._inbox.get()
            for feed in feeds:
                if feed.connection is connection and isinstance(item, bytes):
                    self._tags(feed, feed.tags(item))
        if self._current:
            self._tags(self._current, self._current.rest())
            self._write(self._repair.feed(self._duplicates.flush()) + self._repair.flush())
        if self._next and self._next.search:
            self._tags(self._next, self._next.rest())
        if self._next and self._next.search and (self._current is None or self._next.search.is_later(self._tail())):
            self._leave(self._next)
            self._write(self._repair.feed(self._duplicates.flush()) + self._repair.flush())

    # connections

    def _open(self) -> Feed | None:
        session, stream = self._session, self._session.addresses.current
        if stream is None:
            return None
        connection = Connection(stream, session.spec, self._inbox)
        connection.start()
        return Feed(connection)

    def _connect(self) -> None:
        """Another connection, after a pause that grows; ends the run when it has been in vain for too long."""
        session, now = self._session, time.monotonic()
        refused = session.addresses.current is None
        if refused:
            session.needs_address("every address is refused")
        if now + self._pause - self._trying_since > session.spec.reconnect_seconds:
            log.warning("no address came back within %g s", session.spec.reconnect_seconds)
            raise Ending(Exit.NEEDS_URL)
        session.wait(self._trying_since + session.spec.reconnect_seconds - now if refused else self._pause)
        if self._renewals != session.renewals:
            self._renewals, self._pause = session.renewals, 0.0
        else:
            self._pause = min(LONGEST_PAUSE, self._pause * 2 or 1.0)
        self._next = self._open()

    def _consider_switch(self) -> None:
        """Open a second connection beside one that works, when there is a reason to."""
        session = self._session
        if self._current is None:
            return
        if self._renewals != session.renewals:
            self._renewals, self._switch_wanted, self._switch_at = session.renewals, "a new address", 0.0
        elif not self._switch_wanted and session.is_slow():
            session.note(Cause.SLOW, detail=f"{session.broadcast.figures.speed:.2f} of real time")
            self._slow = session.addresses.left()
            if self._slow:
                self._switch_wanted, self._switch_at = "another way, this one is slow", 0.0
        if self._switch_wanted and self._next is None and time.monotonic() >= self._switch_at:
            log.info("switching to %s", self._switch_wanted)
            self._next = self._open()
            if self._next is None:
                self._switch_wanted = ""

    def _look(self) -> None:
        """At what time decides, for both connections."""
        now, patience = time.monotonic(), self._session.spec.progress_seconds
        if self._current and (problem := self._current.problem(patience)):
            self._end(self._current, problem)
        feed = self._next
        if feed is None:
            return
        if not feed.over and (problem := feed.problem(patience)):
            self._end(feed, problem)
        elif self._current is None:
            if feed.media_at is not None and feed.first_media_at is not None:
                self._join(feed, final=bool(feed.over) or now - feed.first_media_at > SEARCH_SECONDS)
        elif self._reached(feed):
            pass
        elif now - feed.began > SWITCH_SECONDS or (feed.search and feed.search.full):
            if self._slow and feed.search and feed.search.has_media:
                log.info("the old connection does not reach the new one: left with a gap")
                self._leave(feed)
            else:
                log.info("the new connection does not reach the old one: trying again")
                self._switch_later(feed)

    def _reached(self, feed: Feed) -> bool:
        """Join a second connection when the old one, which goes on all the while, has come to where it began."""
        if feed.search and feed.search.has_media:
            self._join(feed)
        return feed is not self._next

    def _leave(self, feed: Feed) -> None:
        """Go on with what a new connection has brought, though the old one has not come so far."""
        if self._current is not None:
            self._current.connection.abandon()
            self._current, self._lost_cause = None, Cause.SLOW if self._slow else Cause.SERVER_DROP
            self._session.note(Cause.CDN_SWITCH)
        self._join(feed, final=True)

    def _switch_later(self, feed: Feed) -> None:
        feed.connection.abandon()
        self._next, self._switch_at = None, time.monotonic() + SWITCH_PAUSE

    def _take(self, feed: Feed, item: Chunk | Lost) -> None:
        if isinstance(item, Lost):
            self._end(feed, item)
        else:
            feed.connection.taken += len(item)
            self._tags(feed, feed.tags(item))
            self._garbage(feed)

    def _garbage(self, feed: Feed) -> None:
        parser = feed.parser
        if parser.garbage_bytes > feed.garbage_seen and not parser.lost:
            count, feed.garbage_seen = parser.garbage_bytes - feed.garbage_seen, parser.garbage_bytes
            self._session.note(Cause.GARBAGE, detail=f"{count} bytes")

    def _end(self, feed: Feed, lost: Lost) -> None:
        """A connection is over; everything it brought is written."""
        log.info("connection lost: %s", lost.reason)
        feed.connection.abandon()
        session = self._session
        if feed is self._next and self._current is not None:
            session.addresses.failed(gone=lost.gone)
            if feed.search and feed.search.has_media:
                self._tags(feed, feed.rest())
                feed.over = lost
                return
            self._switch_later(feed)
            if session.addresses.current is None:
                self._switch_wanted = ""
            return
        self._tags(feed, feed.rest())
        if feed is self._next:
            self._join(feed, final=True)
            self._next = None
        else:
            self._write(self._repair.feed(self._duplicates.flush()) + self._repair.flush())
        self._current = None if feed is self._current else self._current
        problem = feed.problem(session.spec.progress_seconds) if not feed.had_tags else None
        if (session.media_at or 0.0) > self._trying_since:
            self._trying_since = time.monotonic()
        if feed.first_media_at and (feed.media_at or 0.0) - feed.first_media_at >= GOOD_CONNECTION_SECONDS:
            self._pause = 0.0
        self._lost_cause = self._lost_cause or lost.cause
        if session.addresses.failed(gone=lost.gone or bool(problem), silent=lost.cause == Cause.STALL):
            self._pause = 0.0  # another way, at once

    # tags

    def _tags(self, feed: Feed, tags: list[Tag]) -> None:
        if not tags:
            return
        if feed.search is None:
            starts = [number for number, tag in enumerate(tags) if tag.type == START]
            if starts:  # the server began anew within its answer: as after a reconnect
                self._record(feed, tags[:starts[0]])
                self._lost_cause = self._lost_cause or Cause.SERVER_DROP
                feed.search, feed.first_media_at, feed.shift = Search(), None, 0
                if self._next:
                    self._next.connection.abandon()
                self._current, self._next = None, feed
                self._tags(feed, tags[starts[-1] + 1:])
                return
            self._record(feed, tags)
            return
        feed.search.feed(tags)
        if feed.search.has_media:
            feed.media_at = time.monotonic()
            feed.first_media_at = feed.first_media_at or feed.media_at
            self._join(feed)

    def _join(self, feed: Feed, *, final: bool = False) -> None:
        """Let a new connection take its place, when it is known; `final`: now, whatever is known."""
        search = feed.search
        if search is None or (self._current is not None and self._duplicates.holding):
            return
        tail = self._tail()
        anew = not self._repair.tail  # by an earlier run, into a file that is closed
        seam = search.seam(tail, from_keyframe=anew, final=final)
        if seam is None:
            if self._current is not None or not (final or search.hopeless(tail)):
                return
            if not search.has_media:
                return
            seam = search.give_up(tail)
        if self._current is not None:
            self._current.connection.abandon()
            self._session.note(Cause.CDN_SWITCH)
        self._switch_wanted, self._slow = "", False
        self._current, self._next = feed, None if feed is self._next else self._next
        feed.search, feed.shift = None, seam.shift
        if anew:
            self._after_a_run(feed, seam)
        elif seam.seamless:
            if self._lost_cause is not None:
                self._session.broadcast.figures.reconnects += 1
                self._session.note(Cause.SEAMLESS_JOIN, detail=f"after {self._lost_cause}")
            self._lost_cause = None
        else:
            self._with_a_gap(feed, seam.missing_ms)
        moved = [tag._replace(timestamp=tag.timestamp + seam.shift) for tag in seam.tags] if seam.shift else seam.tags
        self._record(feed, moved)
        if feed.over and feed is self._current:
            self._end(feed, feed.over)

    def _tail(self) -> list[Tag]:
        """The last tags written; whatever the repair still holds back is given out for that."""
        self._write(self._repair.flush())
        return self._repair.tail or self._before

    def _after_a_run(self, feed: Feed, seam: Seam) -> None:
        """The first connection of this run; a run before may have recorded."""
        session, before = self._session, self._session.broadcast.last_media_at
        if before is None:
            return
        first = feed.first_media_at or time.monotonic()
        away = max(0.0, time.time() - (time.monotonic() - first) - datetime.fromisoformat(before).timestamp())
        session.missing_before = 0.0 if seam.seamless else _shorter(away, seam.missing_ms)
        if seam.seamless:
            session.note(Cause.SEAMLESS_JOIN, at=0.0, detail="after the run before")

    def _with_a_gap(self, feed: Feed, missing_ms: int | None) -> None:
        """What comes next does not follow what is written: `missing_ms` by the stream's clock, else by ours."""
        session = self._session
        first = feed.first_media_at or time.monotonic()
        away = max(0.0, first - (session.media_at or first))
        late = missing_ms is not None and self._lost_cause is Cause.SLOW  # the old connection was behind real time
        self._missing = (missing_ms or 0) / 1000 if late else _shorter(away, missing_ms)
        self._duplicates.reconnected()
        self._edge.forget()
        limit = session.spec.split_gap_seconds
        self._write(self._repair.reconnected(split=Cause.GAP_SPLIT if 0 < limit < self._missing else ""))

    def _record(self, feed: Feed, tags: list[Tag]) -> None:
        now, session = time.monotonic(), self._session
        for tag in tags:
            if tag.type == SCRIPT:
                self._source = metadata(tag.body) or self._source
        if session.split_wanted:
            session.split_wanted = False
            self._repair.split(Cause.TITLE_SPLIT)
        before = session.media_at
        self._write(self._repair.feed(self._duplicates.feed(tags, now)))
        if tags and session.media_at != before:
            feed.media_at = now
            feed.first_media_at = feed.first_media_at or now
            session.addresses.delivered()
            newest = self._repair.tail[-1].timestamp
            self._edge.note(newest, now)
            session.lag_seconds = self._edge.behind(newest, now)
            self._remember_clock(newest)
        for length in self._duplicates.dropped:
            session.note(Cause.DUPLICATE, detail=f"{length / 1000:.1f} s came again")
            feed.media_at = now
        self._duplicates.dropped.clear()
        if self._duplicates.looping:
            self._duplicates = Duplicates()
            self._end(feed, Lost("the server repeats itself", Cause.STALL))

    def _remember_clock(self, newest: int) -> None:
        """So that a next run knows what the stream's clock was in this file."""
        part = self._session.part
        if isinstance(part, FlvPart):
            self._session.broadcast.position = {"file": part.name, "offset": newest - part.media_ms}

    def _write(self, events: list[Event]) -> None:
        batch: list[Tag] = []
        for event in events:
            if isinstance(event, Tag):
                batch.append(event)
                continue
            self._append(batch)
            batch = []
            if isinstance(event, NewFile):
                self._session.open_part(lambda at, number: FlvPart(at, number, self._source), event.cause)
            else:
                self._gap(event)
        self._append(batch)

    def _gap(self, gap: Gap) -> None:
        session, at = self._session, gap.media_ms / 1000
        if gap.seconds is None:
            session.broadcast.figures.reconnects += 1
            session.note(self._lost_cause or Cause.CUT, self._missing, at=at)
            self._lost_cause = None
        elif gap.cause == "jump":
            lost = self._edge.lost(gap.since, round(gap.seconds * 1000), time.monotonic())
            if lost:
                session.note(Cause.HOLE, lost, at=at)
            else:
                session.note(Cause.JUMP, at=at, detail=f"the clock was set by {gap.seconds:+.3f} s")
        else:
            session.note(gap.cause, gap.seconds, at=at)
            if gap.cause == Cause.HOLE:
                figures = session.broadcast.figures
                figures.empty_seconds = round(figures.empty_seconds + gap.seconds, 3)

    def _append(self, batch: list[Tag]) -> None:
        part = self._session.part
        if batch and isinstance(part, FlvPart):
            part.write(batch)
            self._session.media_written()
