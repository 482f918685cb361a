"""Record an HTTP-FLV address: connect, repair, append, connect again.

A network thread reads and never waits for the disk; the main thread of the recorder process does all the rest.
"""

import logging
import time
from queue import Empty, Queue
from threading import Event as Flag
from threading import Thread
from typing import NamedTuple

from biliupd.errors import TemporaryError
from biliupd.record.fetch import CHUNK, GONE, NETWORK_ERRORS, Client, Refused, explain
from biliupd.record.flv import Parser, Tag
from biliupd.record.flv_part import FlvPart
from biliupd.record.ledger import Cause
from biliupd.record.repair import Event, NewFile, Repair
from biliupd.record.session import TICK_SECONDS, Ending, Session
from biliupd.record.spec import Exit, Spec

log = logging.getLogger("recorder")

MOST_WAITING = (64 << 20) // CHUNK  # chunks between the two threads
MOST_GARBAGE = 1 << 20
NO_PROGRESS_SECONDS = 30.0
GOOD_CONNECTION_SECONDS = 5.0  # media for this long: the next reconnect is a new story
LONGEST_PAUSE = 8.0
LONGEST_GATHER_SECONDS = 0.25  # let bytes gather in the kernel, instead of waking up for each packet …
GATHERED = 64 << 10  # … but only so many, or the window closes and the server drops data


class Lost(NamedTuple):
    """The connection is gone. With `exit` the address is no good; else it is worth another try."""

    reason: str
    exit: Exit | None = None


class Connection:
    """Reads one answer on a thread of its own and puts pieces of it, then a `Lost`, into `inbox`."""

    def __init__(self, spec: Spec) -> None:
        # no SimpleQueue: in Python 3.11 a signal at the end of its timeout makes `get` wait for ever
        self.inbox: Queue[bytes | Lost] = Queue()
        self._url = spec.stream.url
        self._client = Client(
            spec.stream.url, spec.stream.headers, spec.connect_timeout_seconds, spec.stall_seconds)
        self._stop = Flag()

    def start(self) -> None:
        """Connect and read."""
        Thread(target=self._run, name="network", daemon=True).start()

    def abandon(self) -> None:
        """Read no more. A thread that waits for a silent server ends by its own time-out."""
        self._stop.set()

    def _run(self) -> None:
        try:
            lost = self._read()
        except Refused as error:
            lost = Lost(str(error), Exit.NEEDS_URL if error.status in GONE else None)
        except TemporaryError as error:
            lost = Lost(str(error))
        except Exception:
            log.exception("the network thread failed")
            lost = Lost("an error of our own")
        self.inbox.put(lost)

    def _read(self) -> Lost:
        answer, _ = self._client.open(self._url)
        pause, gathered = LONGEST_GATHER_SECONDS / 8, 0
        try:
            while not self._stop.is_set():
                before = time.monotonic()
                chunk = answer.read1(CHUNK)
                if not chunk:
                    return Lost("the server ended the stream")
                if self.inbox.qsize() >= MOST_WAITING:
                    return Lost("overflow: the disk is slower than the stream")
                self.inbox.put(chunk)
                gathered += len(chunk)
                if time.monotonic() - before > 0.001 or len(chunk) < GATHERED // 4:  # all that came is read
                    pause = min(LONGEST_GATHER_SECONDS, pause * (0.5 if gathered > GATHERED else 1.2))
                    gathered = 0
                    self._stop.wait(pause)
            return Lost("abandoned")
        except NETWORK_ERRORS as error:
            raise TemporaryError(explain(error)) from error
        finally:
            answer.close()


class FlvStream:
    """Everything between the address and the files of one recorder run."""

    def __init__(self, session: Session) -> None:
        spec = session.spec
        self._session = session
        self._repair = Repair(spec.split_size, spec.split_seconds)
        self._connection: Connection | None = None
        self._parser = Parser()
        self._head = b""
        self._had_tags = False
        self._garbage_seen = 0

    def run(self) -> None:
        """Record until `Ending` is raised."""
        session, pause = self._session, 0.0
        trying_since = time.monotonic()
        while True:
            before = session.media_at
            lost = self._one_connection()
            good = session.media_at is not None and session.media_at != before
            log.info("connection lost: %s", lost.reason)
            if lost.exit is not None:
                raise Ending(lost.exit)
            now = time.monotonic()
            if good and self._delivered_seconds() >= GOOD_CONNECTION_SECONDS:
                trying_since, pause = now, 0.0
            if now + pause - trying_since > session.spec.reconnect_seconds:
                log.warning("this address did not come back within %g s", session.spec.reconnect_seconds)
                raise Ending(Exit.NEEDS_URL)
            session.wait(pause)
            pause = min(LONGEST_PAUSE, pause * 2 or 1.0)

    def flush(self) -> None:
        """Write what has arrived: nothing of it is to be lost because the run ends."""
        if self._connection:
            self._connection.abandon()
            while not self._connection.inbox.empty():
                item = self._connection.inbox.get()
                if isinstance(item, bytes):
                    self._write(self._repair.feed(self._parser.feed(item)))
        self._write(self._repair.feed(self._parser.flush()))
        self._write(self._repair.flush())

    def _delivered_seconds(self) -> float:
        return (self._session.media_at or 0.0) - (self._first_media_at or 0.0) if self._first_media_at else 0.0

    def _one_connection(self) -> Lost:
        """Connect and record until the connection is lost; everything it brought is written then."""
        connection = self._connection = Connection(self._session.spec)
        self._parser, self._head, self._had_tags, self._garbage_seen = Parser(), b"", False, 0
        self._first_media_at: float | None = None
        self._write(self._repair.reconnected())
        connection.start()
        try:
            lost = self._take(connection)
        finally:
            connection.abandon()
        self.flush()
        self._connection = None
        if lost.exit is None and self._head and not self._had_tags and not self._looks_like_media():
            return Lost("the answer is no FLV but text or a web page", Exit.NEEDS_URL)
        return lost

    def _take(self, connection: Connection) -> Lost:
        progress, media_at = time.monotonic(), self._session.media_at
        while True:
            self._session.tick()
            if self._session.media_at != media_at:
                progress, media_at = time.monotonic(), self._session.media_at
            elif time.monotonic() - progress > NO_PROGRESS_SECONDS:
                return Lost(f"bytes, but no media for {NO_PROGRESS_SECONDS:g} s")
            try:
                item = connection.inbox.get(timeout=TICK_SECONDS)
            except Empty:
                continue
            if isinstance(item, Lost):
                return item
            if lost := self._chunk(item):
                return lost

    def _chunk(self, chunk: bytes) -> Lost | None:
        if len(self._head) < 16:
            self._head += chunk[:16]
            if len(self._head) >= 16 and not self._looks_like_media():
                return Lost("the answer is no FLV but text or a web page", Exit.NEEDS_URL)
        tags = self._parser.feed(chunk)
        self._had_tags = self._had_tags or bool(tags)
        self._write(self._repair.feed(tags))
        if self._parser.lost_bytes > MOST_GARBAGE:
            return Lost("1 MiB that is no FLV", None if self._had_tags else Exit.NEEDS_URL)
        if self._parser.garbage_bytes > self._garbage_seen and not self._parser.lost:
            count, self._garbage_seen = self._parser.garbage_bytes - self._garbage_seen, self._parser.garbage_bytes
            log.warning("%d bytes of garbage skipped", count)
            self._session.note(Cause.GARBAGE, detail=f"{count} bytes")
        return None

    def _looks_like_media(self) -> bool:
        return not self._head.lstrip().startswith((b"<", b"{", b"#EXTM3U"))

    def _write(self, events: list[Event]) -> None:
        batch: list[Tag] = []
        for event in events:
            if isinstance(event, Tag):
                batch.append(event)
                continue
            self._append(batch)
            batch = []
            if isinstance(event, NewFile):
                self._session.open_part(FlvPart, event.cause)
            elif event.seconds is None:
                self._session.broadcast.figures.reconnects += 1
                self._session.note(Cause.CUT, time.monotonic() - (self._session.media_at or time.monotonic()),
                                   at=event.media_ms / 1000)
            else:
                self._session.note(event.cause, event.seconds, at=event.media_ms / 1000)
        self._append(batch)

    def _append(self, batch: list[Tag]) -> None:
        part = self._session.part
        if batch and isinstance(part, FlvPart):
            part.write(batch)
            self._session.media_written()
            self._first_media_at = self._first_media_at or self._session.media_at
