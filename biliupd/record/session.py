"""What both kinds of recording share: the open part, broadcast.json, the ledger of gaps, and when to end.

Runs on the main thread of a recorder process, which never waits long: `tick` is called several times a second and
raises `Ending` when the run is over. Touches one broadcast's folder, and the heartbeat file (stat only).
"""

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from biliupd.record import broadcast as broadcasts
from biliupd.record.broadcast import Broadcast
from biliupd.record.parts import Part, next_number
from biliupd.record.spec import Exit, Spec

log = logging.getLogger("recorder")

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAVE_SECONDS = 2.0
TICK_SECONDS = 0.25
BITRATE_SAVES = 6


class Ending(Exception):
    """The run is over, for the reason `exit`."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit.reason)
        self.exit = exit


class Session:
    """One run of the recorder. Raises `OSError` when the disk does; what fills it up ends the run as NO_SPACE."""

    def __init__(self, spec: Spec, broadcast: Broadcast) -> None:
        self.spec = spec
        self.broadcast = broadcast
        self.directory = Path(spec.directory)
        self.part: Part | None = None
        self.stop_asked = False  # set by the signal handler, which runs on this thread
        self.media_at: float | None = None  # monotonic: when media of this run came last
        self._media_wall = 0.0
        self._unsynced_since: float | None = None
        self._saved_at = 0.0
        self._heartbeat_seen: tuple[int, float] = (-1, time.monotonic())
        self._recent: deque[tuple[float, int]] = deque(maxlen=BITRATE_SAVES)
        self._save_failed = False

    def begin(self) -> None:
        """Put this process into broadcast.json."""
        broadcast = self.broadcast
        broadcast.pid, broadcast.boot_id, broadcast.exit = os.getpid(), broadcasts.boot_id(), None
        broadcast.pid_started = broadcasts.process_started(os.getpid())
        self._save(durable=True)

    def end(self, exit: Exit) -> None:
        """End the part properly and write down why."""
        try:
            self.close_part()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            log.error("no space to end %s", self.part.name if self.part else "the part")
        self.broadcast.exit = exit.reason
        self._save(durable=True)

    def tick(self) -> None:
        """Do what is due. Raises `Ending` when the run is to end now."""
        now = time.monotonic()
        if self.stop_asked:
            raise Ending(Exit.STOPPED)
        if self.spec.heartbeat and self._orphaned(now):
            log.warning("no daemon for %g s: ending the file", self.spec.orphan_seconds)
            raise Ending(Exit.ORPHANED)
        if self._unsynced_since is not None and now - self._unsynced_since >= self.spec.sync_seconds - TICK_SECONDS:
            self._unsynced_since = None
            if self.part:
                self.part.sync()
        if now - self._saved_at >= SAVE_SECONDS:
            self._save(durable=False)

    def wait(self, seconds: float) -> None:
        """Wait, but go on ticking."""
        deadline = time.monotonic() + seconds
        self.tick()
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, TICK_SECONDS))
            self.tick()

    def open_part(self, make: Callable[[Path, int], Part]) -> None:
        """End the open part and begin the next, with the next free number."""
        self.close_part()
        number = next_number(self.directory, [str(item.get("name")) for item in self.broadcast.files])
        self.part = make(self.directory, number)
        self.broadcast.files.append({"name": self.part.name, "seconds": 0.0, "bytes": 0})
        log.info("recording to %s", self.part.name)

    def close_part(self) -> None:
        """End the open part, if there is one."""
        part, self.part = self.part, None
        if part is None:
            return
        self._unsynced_since = None
        self._count(part)
        if not part.finish():
            self.broadcast.files.pop()

    def media_written(self) -> None:
        """Call it after media went into the open part."""
        now = time.monotonic()
        if self.media_at is None and self.broadcast.last_media_at:
            self.gap(self.spec.cause, _seconds_since(self.broadcast.last_media_at), 0.0)
        self.media_at, self._media_wall = now, time.time()
        if self._unsynced_since is None:
            self._unsynced_since = now

    def gap(self, cause: str, seconds: float, media_seconds: float) -> None:
        """A row of the ledger: at `media_seconds` of the open part so much is missing, or stepped back if negative."""
        name = self.part.name if self.part else ""
        self.broadcast.gaps.append({"at": _now(), "file": name, "media_seconds_at": round(media_seconds, 3),
                                    "seconds": round(seconds, 3), "cause": cause})
        log.info("%s: %s of %.1f s at %.1f s", name or "between parts", cause, seconds, media_seconds)

    def _orphaned(self, now: float) -> bool:
        try:
            moved = os.stat(self.spec.heartbeat).st_mtime_ns
        except OSError:
            moved = self._heartbeat_seen[0]
        if moved != self._heartbeat_seen[0]:
            self._heartbeat_seen = (moved, now)
        return now - self._heartbeat_seen[1] >= self.spec.orphan_seconds

    def _count(self, part: Part) -> None:
        figures, files = self.broadcast.figures, self.broadcast.files
        files[-1].update(seconds=round(part.seconds, 3), bytes=part.bytes)
        figures.bytes = sum(item.get("bytes", 0) for item in files)
        figures.media_seconds = round(sum(item.get("seconds", 0.0) for item in files), 3)
        figures.files = len(files)

    def _save(self, *, durable: bool) -> None:
        now, broadcast = time.monotonic(), self.broadcast
        self._saved_at = now
        if self.part:
            self._count(self.part)
        self._recent.append((now, broadcast.figures.bytes))
        elapsed = now - self._recent[0][0]
        if elapsed > 0:
            broadcast.figures.bitrate = round((broadcast.figures.bytes - self._recent[0][1]) * 8 / elapsed, 1)
        if self.media_at is not None:
            broadcast.last_media_at = datetime.fromtimestamp(self._media_wall, UTC).isoformat(timespec="milliseconds")
        try:
            broadcasts.write(self.directory, broadcast, durable=durable)
            self._save_failed = False
        except OSError as error:
            if not self._save_failed:
                log.error("cannot write broadcast.json: %s", error.strerror)
            self._save_failed = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _seconds_since(moment: str) -> float:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
