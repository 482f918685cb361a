"""What all kinds of recording share: the open part, broadcast.json with figures and ledger, and when to end.

Runs on the main thread of a recorder process, which never waits long: `tick` is called several times a second and
raises `Ending` when the run is over. Touches one broadcast's folder, the figures file, and by stat the heartbeat and
the spec, which the daemon may write anew.
"""

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from biliupd.errors import PermanentError
from biliupd.record import broadcast as broadcasts
from biliupd.record import ledger
from biliupd.record import spec as specs
from biliupd.record.addresses import Addresses
from biliupd.record.broadcast import Broadcast
from biliupd.record.ledger import Cause
from biliupd.record.parts import Part, next_number
from biliupd.record.spec import Exit, Spec

log = logging.getLogger("recorder")

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FIGURES_SECONDS = 2.0
LOOK_SECONDS = 1.0  # at what the daemon may have changed
TICK_SECONDS = 0.25
SPEED_SECONDS = 30.0
REAL_TIME = 0.95  # of real time: less than this over SPEED_SECONDS is slow


class Ending(Exception):
    """The run is over, for the reason `exit`."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit.reason)
        self.exit = exit


class Session:
    """One run of the recorder. Raises `OSError` when the disk does; what fills it up ends the run as NO_SPACE.

    `addresses` are renewed, and `spec` replaced, when the daemon has written the spec anew: `renewals` counts that.
    """

    def __init__(self, spec: Spec, broadcast: Broadcast, spec_path: Path | None = None) -> None:
        self.spec = spec
        self.broadcast = broadcast
        self.directory = Path(spec.directory)
        self.addresses = Addresses(spec.streams)
        self.renewals = 0
        self.split_wanted = False  # the title is another one: a new file as soon as that loses nothing
        self.part: Part | None = None
        self.stop_asked = False  # set by the signal handler, which runs on this thread
        self.missing_before: float | None = None  # seconds between the last run and this one; None: by the wall clock
        self.lag_seconds = 0.0  # by which the newest media came late
        self.media_at: float | None = None  # monotonic: when media of this run came last
        self._spec_path = spec_path
        self._spec_seen = _stamp(spec_path)
        self._media_wall = 0.0
        self._unsynced_since: float | None = None
        self._figures_at = self._saved_at = self._looked_at = 0.0
        self._dirty = False
        self._heartbeat_seen: tuple[int, float] = (-1, time.monotonic())
        self._recent: deque[tuple[float, float, int]] = deque()  # monotonic, media seconds, bytes
        self._save_failed = False

    def begin(self) -> None:
        """Put this process into broadcast.json."""
        broadcast = self.broadcast
        broadcast.pid, broadcast.boot_id, broadcast.exit = os.getpid(), broadcasts.boot_id(), None
        broadcast.pid_started = broadcasts.process_started(os.getpid())
        broadcast.needs_address = ""
        self._save()

    def end(self, exit: Exit) -> None:
        """End the part properly and write down why."""
        try:
            self.close_part()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            log.error("no space to end %s", self.part.name if self.part else "the part")
        self.broadcast.exit = exit.reason
        self._save()

    def tick(self) -> None:
        """Do what is due. Raises `Ending` when the run is to end now."""
        if self.stop_asked:
            raise Ending(Exit.STOPPED)
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look(now)
        if now - self._figures_at >= FIGURES_SECONDS:
            self._figures_at = now
            self._write_figures(now)
        synced = self._unsynced_since is not None and now - self._unsynced_since >= self.spec.sync_seconds - 1
        if synced:
            self._unsynced_since = None
            if self.part:
                self.part.sync()
        if synced or (self._dirty and now - self._saved_at >= FIGURES_SECONDS):
            self._save()

    def wait(self, seconds: float) -> None:
        """Wait, but go on ticking; less long when the daemon brings new addresses meanwhile."""
        deadline, renewals = time.monotonic() + seconds, self.renewals
        self.tick()
        while (left := deadline - time.monotonic()) > 0 and renewals == self.renewals:
            time.sleep(min(left, TICK_SECONDS))
            self.tick()

    def open_part(self, make: Callable[[Path, int], Part], cause: str = "") -> None:
        """End the open part and begin the next, with the next free number; `cause` (a ledger.Cause): why."""
        self.close_part()
        number = next_number(self.directory, [str(item.get("name")) for item in self.broadcast.files])
        self.part = make(self.directory, number)
        self.broadcast.files.append({"name": self.part.name, "seconds": 0.0, "bytes": 0})
        self.split_wanted = False
        log.info("recording to %s", self.part.name)
        if cause:
            self.note(cause)
        self._dirty = True

    def close_part(self) -> None:
        """End the open part, if there is one."""
        part, self.part = self.part, None
        if part is None:
            return
        self._unsynced_since = None
        self._count(part)
        self._dirty = True
        if not part.finish():
            self.broadcast.files.pop()
        elif part.seconds < self.spec.fragment_seconds:
            self.broadcast.files[-1]["fragment"] = True
            self.note(Cause.FRAGMENT, at=0.0, file=part.name, detail=f"{part.seconds:.1f} s")

    def media_written(self) -> None:
        """Call it after media went into the open part."""
        now, wall = time.monotonic(), time.time()
        if self.media_at is None:
            self._first_of_run(wall)
        self.media_at, self._media_wall = now, wall
        if self._unsynced_since is None:
            self._unsynced_since = now

    def note(self, cause: str, seconds: float = 0.0, *, at: float | None = None, file: str | None = None,
             detail: str = "") -> None:
        """A row of the ledger: `seconds` are missing (or were mended) at `at` seconds of `file`.

        Left out, they are the end of the open part.
        """
        part = self.part
        ledger.add(self.broadcast, {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "cause": str(cause),
            "file": (part.name if part else "") if file is None else file,
            "media_seconds_at": round((part.seconds if part else 0.0) if at is None else at, 3),
            "seconds": round(seconds, 3), "detail": detail})
        self._dirty = True
        log.info("ledger: %s of %.1f s %s", cause, seconds, detail)

    def needs_address(self, why: str) -> None:
        """None of the addresses works any more: the daemon is told at once, and renews the spec."""
        if self.broadcast.needs_address != why:
            log.warning("needs a new address: %s", why)
            self.broadcast.needs_address = why
            self._save()

    def is_slow(self) -> bool:
        """Whether less than real time came for half a minute; asking again begins to measure anew."""
        if not self._recent or self._recent[-1][0] - self._recent[0][0] < SPEED_SECONDS - FIGURES_SECONDS:
            return False
        if self.broadcast.figures.speed >= REAL_TIME:
            return False
        self._recent.clear()
        return True

    def _look(self, now: float) -> None:
        """What the daemon has changed, and whether there still is one."""
        if self.spec.heartbeat and self._orphaned(now):
            log.warning("no daemon for %g s: ending the file", self.spec.orphan_seconds)
            raise Ending(Exit.ORPHANED)
        seen = _stamp(self._spec_path)
        if self._spec_path is None or seen in (None, self._spec_seen):
            return
        self._spec_seen = seen
        try:
            spec = specs.read(self._spec_path)
        except PermanentError as error:
            log.error("%s", error)
            return
        if spec.title != self.spec.title and spec.split_on_title:
            self.split_wanted = True
        if spec.streams != self.spec.streams or self.broadcast.needs_address:
            self.addresses.renew(spec.streams)
            self.renewals += 1
            if self.broadcast.needs_address:
                self.broadcast.needs_address, self._dirty = "", True
        self.spec = spec

    def _orphaned(self, now: float) -> bool:
        moved = _stamp(Path(self.spec.heartbeat)) or self._heartbeat_seen[0]
        if moved != self._heartbeat_seen[0]:
            self._heartbeat_seen = (moved, now)
        return now - self._heartbeat_seen[1] >= self.spec.orphan_seconds

    def _first_of_run(self, wall: float) -> None:
        broadcast = self.broadcast
        if broadcast.last_media_at:
            away = max(0.0, wall - _seconds(broadcast.last_media_at))
            self.note(self.spec.cause, away if self.missing_before is None else self.missing_before, at=0.0)
        if not broadcast.first_media_at:
            broadcast.first_media_at = _moment(wall)

    def _count(self, part: Part) -> None:
        figures, files = self.broadcast.figures, self.broadcast.files
        files[-1].update(seconds=round(part.seconds, 3), bytes=part.bytes)
        figures.bytes = sum(item.get("bytes", 0) for item in files)
        seconds = sum(item.get("seconds", 0.0) for item in files) - figures.empty_seconds
        figures.media_seconds = round(max(0.0, seconds), 3)
        figures.files = len(files)

    def _measure(self, now: float) -> None:
        broadcast, figures = self.broadcast, self.broadcast.figures
        if self.part:
            self._count(self.part)
        if self.media_at is None:
            return
        broadcast.last_media_at = _moment(self._media_wall)
        if broadcast.first_media_at:
            wall = self._media_wall - _seconds(broadcast.first_media_at) - figures.paused_seconds - self.lag_seconds
            figures.live_seconds = round(max(0.0, wall), 3)
        self._recent.append((now, figures.media_seconds, figures.bytes))
        while len(self._recent) > 2 and now - self._recent[0][0] > SPEED_SECONDS:
            self._recent.popleft()
        began, media, size = self._recent[0]
        if now > began:
            figures.speed = round((figures.media_seconds - media) / (now - began), 3)
            figures.bitrate = round((figures.bytes - size) * 8 / (now - began), 1)

    def _write_figures(self, now: float) -> None:
        self._measure(now)
        if self.spec.figures_path:
            try:
                broadcasts.write_figures(Path(self.spec.figures_path), self.broadcast)
            except OSError as error:
                log.debug("no figures: %s", error.strerror)  # only the page misses them

    def _save(self) -> None:
        self._saved_at, self._dirty = time.monotonic(), False
        self._measure(self._saved_at)
        try:
            broadcasts.write(self.directory, self.broadcast)
            self._save_failed = False
        except OSError as error:
            if not self._save_failed:
                log.error("cannot write broadcast.json: %s", error.strerror)
            self._save_failed = True


def _stamp(path: Path | None) -> int | None:
    try:
        return os.stat(path).st_mtime_ns if path else None
    except OSError:
        return None


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")


def _seconds(moment: str) -> float:
    """A moment of broadcast.json, which was checked when it was read, in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
