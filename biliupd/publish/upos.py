"""A file → an object at UPOS: a ticket, the parts, complete; whatever the way does to it.

The caller's thread waits, listens to `stop` and reports; the work is done by threads of this room, which end with the
upload. A part that fails is sent again, the same bytes; then the next endpoint of the ticket is taken, and after the
last one the next line, with a new ticket and the file from its start. What was acknowledged is remembered in a
Session, with which a later call goes on, in this process or another.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from biliupd.errors import Stopped, TemporaryError
from biliupd.publish.line import Line
from biliupd.publish.member import Member
from biliupd.publish.meter import Meter, Progress, Rate
from biliupd.publish.preupload import preupload
from biliupd.publish.session import Session
from biliupd.publish.source import Source
from biliupd.publish.throttle import Throttle
from biliupd.publish.transfer import Ended, Refused, RefusedForGood, Transfer, Unserved

__all__ = ["Progress", "Session", "Uploaded", "upload"]

RESTARTS = 2  #: new tickets for refused ones, beyond the one an older session brought
MOST_COMPLETES = 3  #: uploads that end with a "complete" without answer, before the ticket is given up
TICK_SECONDS = 0.1
JOIN_SECONDS = 0.5


@dataclass(frozen=True)
class Uploaded:
    """What a submission needs of an uploaded file; `filename` is UPOS's name for it, without extension."""

    filename: str
    cid: int
    size_bytes: int
    line: str
    seconds: float


def upload(
    path: Path, member: Member, lines: Sequence[Line], *, stop: threading.Event,
    throttle: Throttle | None = None, session: Session | None = None,
    on_progress: Callable[[Progress], object] | None = None, on_session: Callable[[Session], object] | None = None,
    on_line_failed: Callable[[Line], object] | None = None, inside: Path | None = None,
) -> Uploaded:
    """Upload one file over the first of `lines` that serves, or go on with `session` where it still fits.

    With `inside` the file has to lie in that directory, wherever symbolic links lead.

    All callbacks are called in the caller's thread: `on_progress` with a Progress whenever it changed, `on_session`
    at least once, whenever there is something new to remember, and once more before an error is raised. What they raise
    ends the upload. `on_line_failed` tells of a line that was left.

    Raises Stopped within about a second after `stop` is set; TemporaryError (NeedsPerson when the account waits for
    somebody); PermanentError for a file or a refusal that another try cannot help, and when more was sent in vain than
    the file has (256 MiB at least), over all tries of the same file.
    """
    if stop.is_set():
        raise Stopped(f"{path.name}: not begun")
    job = _Job(path, member, lines, throttle, session, inside)
    teller = _Teller(job, on_progress, on_session, on_line_failed)
    thread = threading.Thread(target=job.run, name="upload", daemon=True)
    thread.start()
    try:
        while not job.over.wait(TICK_SECONDS):
            if stop.is_set():
                raise Stopped(f"{path.name}: stopped in mid-upload")
            job.hang_up_late_requests()
            teller.tell()
        teller.tell()
        if job.error:
            raise job.error
    except BaseException:
        job.end()
        thread.join(JOIN_SECONDS)
        teller.tell_the_last()
        raise
    thread.join()
    assert job.uploaded
    return job.uploaded


class _Teller:
    """Tells the caller what is new, in the caller's thread."""

    def __init__(
        self, job: "_Job", on_progress: Callable[[Progress], object] | None,
        on_session: Callable[[Session], object] | None, on_line_failed: Callable[[Line], object] | None,
    ) -> None:
        self._job = job
        self._on_progress, self._on_session, self._on_line_failed = on_progress, on_session, on_line_failed
        self._rate: Rate | None = None
        self._progress: Progress | None = None
        self._version = 0
        self._failed = 0
        self._session_fails = False

    def tell(self) -> None:
        self._tell_session()
        while self._on_line_failed and self._failed < len(self._job.failed):
            self._failed += 1
            self._on_line_failed(self._job.failed[self._failed - 1])
        meter = self._job.meter
        if not meter or not self._on_progress:
            return
        if self._rate is None:
            self._rate = Rate(meter)
        progress = self._rate.progress()
        if progress and progress != self._progress:
            self._progress = progress
            self._on_progress(progress)

    def tell_the_last(self) -> None:
        """The session as it is in the end, unless it was just this that failed."""
        if not self._session_fails:
            self._tell_session()

    def _tell_session(self) -> None:
        meter = self._job.meter
        if not meter or not self._on_session or meter.version() == self._version:
            return
        version, session = meter.told()
        if session:
            self._session_fails = True
            self._on_session(session)
            self._session_fails, self._version = False, version


class _Job:
    """One upload, with as many tickets as it takes."""

    def __init__(
        self, path: Path, member: Member, lines: Sequence[Line], throttle: Throttle | None, session: Session | None,
        inside: Path | None,
    ) -> None:
        self.over = threading.Event()
        self.meter: Meter | None = None
        self.failed: list[Line] = []
        self.uploaded: Uploaded | None = None
        self.error: BaseException | None = None
        self._path, self._member, self._lines, self._throttle = path, member, lines, throttle
        self._former, self._inside = session, inside
        self._refusals_left = RESTARTS
        self._lock = threading.Lock()
        self._ended = False
        self._transfer: Transfer | None = None

    def run(self) -> None:
        try:
            self.uploaded = self._run()
        except Ended:
            self.error = Stopped(f"{self._path.name}: stopped in mid-upload")
        except Exception as error:  # noqa: BLE001  the top of this thread's turn: the caller's thread raises it
            self.error = (self.meter and self.meter.too_much) or error
        finally:
            self.over.set()

    def end(self) -> None:
        """Wake and end whatever is under way."""
        with self._lock:
            self._ended = True
            if self.meter:
                self.meter.freeze()
            if self._transfer:
                self._transfer.end()

    def hang_up_late_requests(self) -> None:
        with self._lock:
            if self._transfer:
                self._transfer.hang_up_late_requests()

    def _run(self) -> Uploaded:
        began = time.monotonic()
        with Source(self._path, self._inside) as source:
            meter = self._measured(source)
            routes = list(self._routes(meter))
            for line in routes:
                try:
                    self._over(line, source, meter)
                except Unserved as unserved:
                    self.failed.append(line)
                    if line is routes[-1]:
                        raise TemporaryError(f"{source.name}: {unserved} (line {line.name})") from unserved.__cause__
                    logger.warning("{}: {} (line {}); once more from the start over the next line", source.name,
                                   unserved, line.name)
                    meter.set_aside()
                    continue
                session = meter.session
                return Uploaded(session.filename, session.cid, source.size_bytes, line.name, time.monotonic() - began)
        raise ValueError("no line to upload over")

    def _measured(self, source: Source) -> Meter:
        """A meter that goes on with the former session, as far as that still holds."""
        former = self._former
        if former and not former.is_of(source.size_bytes, source.mtime_ns, source.inode):
            logger.info("{}: not the file that was begun with; it starts anew", source.name)
            former = None
        meter = Meter(source.name, source.size_bytes, former.resent_bytes if former else 0)
        with self._lock:
            self.meter = meter
        if former:
            meter.begin(former)
            if not former.can_go_on(self._member.credential.mid, time.time()):
                meter.abandon()
            elif former.done:
                self._refusals_left += 1
                logger.info("{}: goes on, {} of {} parts are there", source.name, len(former.done), former.count)
        return meter

    def _routes(self, meter: Meter) -> Iterator[Line]:
        """The lines in their order, but first the one on which parts are there already."""
        former = meter.current
        if former and former.upload_id and not former.done and former.line != self._lines[0].name:
            meter.abandon()
        elif former and former.upload_id:
            yield Line(former.line, former.line_query)
        taken = former.line if former and meter.session.upload_id else None
        yield from (line for line in self._lines if line.name != taken)

    def _over(self, line: Line, source: Source, meter: Meter) -> None:
        """Get the file there over one line, with a new ticket for each that is refused. Raises Unserved."""
        while True:
            known = meter.current
            if not known or not known.upload_id:
                meter.begin(preupload(self._member, line, source))
            try:
                return self._over_endpoints(source, meter)
            except Refused as refused:
                meter.abandon()
                self._refusals_left -= 1
                if self._refusals_left < 0:
                    raise TemporaryError(
                        f"{source.name}: {1 + RESTARTS} tickets in vain, the last: {refused}") from refused
                logger.warning("{}: {}; once more from the start with a new ticket", source.name, refused)
            except RefusedForGood:
                meter.abandon()  # whoever has it tried again wants it otherwise than it was
                raise

    def _over_endpoints(self, source: Source, meter: Meter) -> None:
        """The same ticket at each of its endpoints, until one serves. Raises Unserved, Refused."""
        for left in reversed(range(len(meter.session.endpoints))):
            try:
                with self._begin(source, meter) as transfer:
                    return transfer.run()
            except Unserved as unserved:
                session = meter.session
                if not left:
                    self._judge_complete(source, meter, unserved)
                    raise
                first, *others = session.endpoints
                logger.warning("{}: {} at {}; going on at {}", source.name, unserved, first, others[0])
                meter.change(endpoints=(*others, first))

    def _judge_complete(self, source: Source, meter: Meter, unserved: Unserved) -> None:
        """All parts are there and only the end is not acknowledged: no other line is worth sending them again."""
        session = meter.session
        if len(session.done) < session.count:
            return
        meter.change(completes_failed=session.completes_failed + 1)
        if session.completes_failed + 1 >= MOST_COMPLETES:
            raise Refused(str(unserved)) from unserved.__cause__
        raise TemporaryError(f"{source.name}: {unserved}") from unserved.__cause__

    def _begin(self, source: Source, meter: Meter) -> Transfer:
        with self._lock:
            if self._ended:
                raise Ended
            if meter.too_much:
                raise meter.too_much
            self._transfer = Transfer(self._member, source, meter, self._throttle)
            return self._transfer
