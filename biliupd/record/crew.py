"""Start, adopt, watch and stop the recorder processes.

Runs in the daemon, on the thread `crew`; every public method may be called from any thread. Touches the recordings
directory (new folders, broadcast.json while no recorder runs, salvage) and data_directory/recorders. Recorders outlive
the daemon: a state file per open broadcast lets the next daemon find them.
"""

import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from loguru import logger

from biliupd.config import RecordConfig, RecordingsConfig
from biliupd.errors import BiliupdError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast, Figures
from biliupd.record.disk import sync_directory
from biliupd.record.ledger import Cause
from biliupd.record.process import Process
from biliupd.record.salvage import salvage
from biliupd.record.spec import Exit, Spec, Stream

IDLE_SECONDS = 1.0
RECHECK_SECONDS = (0.0, 5.0, 10.0, 20.0, 40.0, 60.0)
KILL_AFTER_SECONDS = 30.0
LEAST_FREE_BYTES = 64 << 20
FREE_AGAIN_BYTES = 256 << 20  # after a disk was full
LONGEST_TITLE_BYTES = 120
_T = TypeVar("_T")
_UNSAFE = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))


@dataclass(frozen=True)
class Show:
    """A streamer that is live now. `streams` are ways to its media, the best first."""

    streamer: str
    platform: str
    url: str
    title: str
    cover_url: str
    live_id: str
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Started:
    """A recorder began to run."""

    task_id: str
    broadcast_id: str
    streamer: str
    pid: int
    directory: Path
    at: datetime


@dataclass(frozen=True)
class Ended:
    """A recorder ended, or (`over`) its broadcast did, which may be told in one or in two calls.

    `reason` is that of the recorder: over, needs_url, stopped, no_space, orphaned, unsupported, crashed.
    """

    task_id: str
    broadcast_id: str
    streamer: str
    at: datetime
    reason: str
    over: bool


@dataclass(frozen=True)
class Running:
    """A recorder that runs now. `pid` is 0 until an adopted one has told it."""

    streamer: str
    task_id: str
    broadcast_id: str
    directory: Path
    pid: int
    started_at: str
    figures: Figures


@dataclass
class _Open:
    """A broadcast that is not over. Times are monotonic seconds."""

    directory: Path
    broadcast: Broadcast
    state_path: Path
    process: Process | None = None
    silent_since: float = 0.0
    offline: bool = False
    stopping_since: float | None = None
    told: bool = False  # whether its recorder has been sent SIGTERM
    rechecks: int = 0
    recheck_at: float = 0.0
    bytes_at_start: int = 0
    read_mtime: int = 0


class Crew:
    """Keeps one recorder per streamer that is live.

    `on_started`, `on_stopped`, `recheck` (look at this streamer soon) and `on_space` (a streamer and why the disk keeps
    it from being recorded, empty when it no longer does) are called on the crew thread; what they raise
    is logged. `offline_delay_seconds`: live again within this time after the last media is the same broadcast.
    """

    def __init__(self, record: RecordConfig, recordings: RecordingsConfig, offline_delay_seconds: float, *,
                 on_started: Callable[[Started], None], on_stopped: Callable[[Ended], None],
                 recheck: Callable[[str], None],
                 on_space: Callable[[tuple[str, str]], None] = lambda told: None) -> None:
        self._record = record
        self._recordings = recordings
        self._state_directory = recordings.data_directory / "recorders"
        self._heartbeat = self._state_directory / "heartbeat"
        self._offline_delay = offline_delay_seconds
        self._on_started, self._on_stopped, self._recheck = on_started, on_stopped, recheck
        self._on_space = on_space
        self._open: dict[str, _Open] = {}
        self._asked: SimpleQueue[Callable[[float], None]] = SimpleQueue()
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._adopted = False
        self._full: set[str] = set()
        self._beatless = ""  # why there is no heartbeat
        self._ending = False
        self._stop_event = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Adopt what runs and begin to watch."""
        self.turn(time.monotonic())
        self._thread = threading.Thread(target=self._run, name="crew")
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and self._thread.is_alive()

    def close(self, deadline_seconds: float) -> None:
        """End the thread; recorders run on."""
        self._stop_event.set()
        self._wake.set()
        if self._thread:
            self._thread.join(deadline_seconds)
        with self._lock:
            for entry in self._open.values():
                if entry.process:
                    entry.process.leave()

    def _run(self) -> None:
        while not self._stop_event.is_set():
            try:
                self.turn(time.monotonic())
            except Exception:  # noqa: BLE001 - the top of a turn
                logger.exception("the crew's turn failed")
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()

    def turn(self, now: float) -> None:
        """One look at everything; `now` is monotonic seconds. Callbacks are called at its end."""
        with self._lock:
            self._beat()
            if not self._adopted:
                self._adopt(now)
                self._adopted = True
            self._answer(now)
            for streamer in list(self._open):
                try:
                    self._look(streamer, now)
                except (BiliupdError, OSError) as error:
                    logger.bind(streamer=streamer).error("crew: {}", error)
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever a callback raises, the crew goes on
                logger.exception("a callback of the crew failed")

    def went_live(self, show: Show) -> None:
        """Have it recorded: a new broadcast, or the open one goes on. Nothing when it is being recorded."""
        self._ask(lambda now: self._begin(show, now))

    def went_offline(self, streamer: str) -> None:
        """The site says so explicitly; "unknown" is never passed on."""
        def mark(now: float) -> None:
            self._space_is_no_matter(streamer)
            if streamer in self._open:
                self._open[streamer].offline = True
        self._ask(mark)

    def recording(self, streamer: str) -> bool:
        """Whether a recorder runs for this streamer."""
        with self._lock:
            return streamer in self._open and self._open[streamer].process is not None

    def stop(self, streamer: str) -> None:
        """End that recorder properly; its broadcast is over then."""
        self._ask(lambda now: self._stop(streamer, now))

    def stop_all(self, deadline_seconds: float) -> None:
        """End all recorders, start none any more and wait, at most so long; what still runs then runs on."""
        self._ending = True  # the sites are looked at until the poller is closed
        deadline = time.monotonic() + deadline_seconds
        self.wanted(set())
        self.turn(time.monotonic())
        while self._open and time.monotonic() < deadline:
            self._stop_event.wait(0.05)
            self.turn(time.monotonic())

    def end_forgotten(self, directory: Path) -> None:
        """End a broadcast that was left open and that no recorder and no state file knows of; else do nothing."""
        def end(now: float) -> None:
            broadcast = broadcasts.read(directory)
            if broadcast is None or broadcast.ended_at is not None or broadcasts.locked(directory):
                return
            if any(entry.broadcast.id == broadcast.id for entry in self._open.values()):
                return
            for what in salvage(directory):
                logger.bind(streamer=broadcast.streamer).warning("salvaged: {}", what)
            broadcast = broadcasts.read(directory) or broadcast
            broadcast.ended_at = broadcast.last_media_at or broadcast.started_at
            broadcasts.write(directory, broadcast)
            logger.bind(streamer=broadcast.streamer).warning("a broadcast left open is ended: {}", str(directory))
        self._ask(end)

    def wanted(self, streamers: set[str]) -> None:
        """Stop the recorders of all other streamers."""
        def stop_others(now: float) -> None:
            for streamer in set(self._open) - streamers:
                self._stop(streamer, now)
            for streamer in self._full - streamers:
                self._space_is_no_matter(streamer)
        self._ask(stop_others)

    def apply(self, record: RecordConfig, offline_delay_seconds: float) -> None:
        """New settings, for recorders that start from now on."""
        with self._lock:
            self._record, self._offline_delay = record, offline_delay_seconds

    def running(self) -> list[Running]:
        """The recorders that run now, with the figures of the last turn."""
        with self._lock:
            return [
                Running(streamer, entry.broadcast.task_id, entry.broadcast.id, entry.directory,
                        entry.process.pid or entry.broadcast.pid or 0, entry.broadcast.started_at,
                        replace(entry.broadcast.figures))
                for streamer, entry in self._open.items() if entry.process]

    def _ask(self, question: Callable[[float], None]) -> None:
        self._asked.put(question)
        self._wake.set()

    def _answer(self, now: float) -> None:
        while True:
            try:
                question = self._asked.get_nowait()
            except Empty:
                return
            try:
                question(now)
            except (BiliupdError, OSError) as error:
                logger.error("crew: {}", error)

    def _beat(self) -> None:
        try:
            self._state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._heartbeat.touch()
            trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble and trouble != self._beatless:
            logger.error("crew: {}: {}", self._heartbeat, trouble)
        self._beatless = trouble

    def _adopt(self, now: float) -> None:
        """Find what a daemon before us left open."""
        for path in sorted(self._state_directory.glob("*.json")):
            try:
                directory = Path(specs.read(path).directory)
                broadcast = broadcasts.read(directory)
            except BiliupdError as error:
                logger.error("a broadcast cannot be taken up again: {}", error)
                continue
            if broadcast is None or broadcast.streamer in self._open:
                logger.warning("{} is gone or not the last of its streamer: not taken up again", directory)
                if directory.parent.is_dir():  # else a mount is missing, and it may come back
                    path.unlink(missing_ok=True)
                continue
            entry = _Open(directory, broadcast, path, bytes_at_start=broadcast.figures.bytes)
            entry.silent_since = now - _seconds_since(broadcast.last_media_at or broadcast.started_at)
            self._open[broadcast.streamer] = entry
            process = Process(directory, self._log_path(broadcast))
            if process.alive(broadcast):
                entry.process = process
                logger.bind(streamer=broadcast.streamer).info("recorder adopted (pid {})", broadcast.pid)
            elif broadcast.ended_at is not None:  # only its state file was still to go
                self._over(broadcast.streamer, entry, broadcast.exit or "crashed")
            else:
                self._ended(broadcast.streamer, entry, broadcast.exit or "crashed", now)

    def _log_path(self, broadcast: Broadcast) -> Path:
        return self._state_directory / f"{broadcast.id}.log"

    def _begin(self, show: Show, now: float) -> None:
        entry = self._open.get(show.streamer)
        if self._ending or (entry and (entry.process or entry.stopping_since is not None)):
            return
        cause = Cause.RESTART.value
        if entry and self._is_another(entry, show, now):
            self._over(show.streamer, entry, entry.broadcast.exit or "crashed")
            entry = None
        if entry is None:
            if not self._has_space(show.streamer, again=False):
                return
            entry = self._new_broadcast(show)
            entry.silent_since = now
            self._open[show.streamer] = entry
        else:
            if not self._has_space(show.streamer, again=entry.broadcast.exit == Exit.NO_SPACE.reason):
                return
            cause = Cause.NEW_ADDRESS.value if entry.broadcast.exit == Exit.NEEDS_URL.reason else Cause.RESTART.value
        self._launch(entry, show, cause)

    def _is_another(self, entry: _Open, show: Show, now: float) -> bool:
        """Whether the show is a new broadcast, and the open one is over."""
        before = entry.broadcast.live_id
        if before and show.live_id:
            return before != show.live_id
        return now - entry.silent_since >= self._offline_delay

    def _has_space(self, streamer: str, *, again: bool) -> bool:
        least = FREE_AGAIN_BYTES if again else LEAST_FREE_BYTES
        self._recordings.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._recordings.directory).free
        if free >= least:
            self._space_is_no_matter(streamer)
            return True
        if streamer not in self._full:
            self._full.add(streamer)
            logger.bind(streamer=streamer).error(
                "not recording: {} MiB free, {} needed", free >> 20, least >> 20)
        text = f"{streamer} is not recorded: less than {least >> 20} MiB are free in {self._recordings.directory}"
        self._tell(self._on_space, (streamer, text))
        return False

    def _space_is_no_matter(self, streamer: str) -> None:
        if streamer in self._full:
            self._full.discard(streamer)
            self._tell(self._on_space, (streamer, ""))

    def _new_broadcast(self, show: Show) -> _Open:
        started = datetime.now(UTC)
        name = f"{started.astimezone():%Y-%m-%d %H-%M-%S} {safe_title(show.title)}".strip()
        parent = self._recordings.directory / show.streamer
        directory, count = parent / name, 1
        while directory.exists():
            count += 1
            directory = parent / f"{name} ({count})"
        directory.mkdir(parents=True)
        sync_directory(parent)
        broadcast = Broadcast(
            id=uuid.uuid4().hex, streamer=show.streamer, platform=show.platform,
            url=broadcasts.public_address(show.url), title=show.title,
            cover_url=show.cover_url, live_id=show.live_id, started_at=started.isoformat(timespec="milliseconds"))
        return _Open(directory, broadcast, self._state_directory / f"{broadcast.id}.json")

    def _launch(self, entry: _Open, show: Show, cause: str) -> None:
        record, broadcast = self._record, entry.broadcast
        broadcast.task_id, broadcast.exit = uuid.uuid4().hex, None
        broadcast.pid = broadcast.pid_started = None
        broadcast.live_id = broadcast.live_id or show.live_id
        broadcasts.write(entry.directory, broadcast)
        spec = Spec(
            directory=str(entry.directory), streams=show.streams, title=show.title,
            heartbeat=str(self._heartbeat), cause=cause, split_size=int(record.split_size),
            split_seconds=record.split_seconds, connect_timeout_seconds=record.connect_timeout_seconds,
            stall_seconds=record.stall_seconds, reconnect_seconds=record.reconnect_seconds,
            sync_seconds=record.sync_seconds, orphan_seconds=record.orphan_seconds)
        specs.write(entry.state_path, spec)
        entry.process = Process.started(entry.state_path, entry.directory, self._log_path(broadcast))
        entry.offline, entry.bytes_at_start = False, broadcast.figures.bytes
        pid = entry.process.pid or 0
        logger.bind(streamer=broadcast.streamer).info("recorder started (pid {}) in {}", pid, str(entry.directory))
        self._tell(self._on_started, Started(
            broadcast.task_id, broadcast.id, broadcast.streamer, pid, entry.directory, datetime.now(UTC)))

    def _stop(self, streamer: str, now: float) -> None:
        entry = self._open.get(streamer)
        if entry is None or entry.stopping_since is not None:
            return
        if entry.process is None:
            self._over(streamer, entry, entry.broadcast.exit or "crashed")
            return
        entry.stopping_since = now
        entry.told = entry.process.signal(entry.broadcast, signal.SIGTERM)

    def _look(self, streamer: str, now: float) -> None:
        entry = self._open[streamer]
        process = entry.process
        if process is None:
            if entry.offline and now - entry.silent_since >= self._offline_delay:
                self._over(streamer, entry, entry.broadcast.exit or "crashed")
            elif now >= entry.recheck_at:
                self._recheck_now(streamer, entry, now)
            return
        alive = process.alive(entry.broadcast)
        self._refresh(entry)
        self._relay(streamer, process)
        if alive:
            if entry.stopping_since is not None:
                if now - entry.stopping_since > KILL_AFTER_SECONDS:
                    process.signal(entry.broadcast, signal.SIGKILL)
                elif not entry.told:  # an adopted one had not told its pid
                    entry.told = process.signal(entry.broadcast, signal.SIGTERM)
            return
        self._ended(streamer, entry, entry.broadcast.exit or _reason(process.exit_code), now)

    def _refresh(self, entry: _Open) -> None:
        """Read broadcast.json again when the recorder has written it."""
        try:
            mtime = os.stat(entry.directory / broadcasts.NAME).st_mtime_ns
        except OSError:
            return
        if mtime != entry.read_mtime:
            entry.read_mtime = mtime
            entry.broadcast = _read(entry)

    def _relay(self, streamer: str, process: Process) -> None:
        for line in process.log_lines():
            level, _, text = line.partition(" ")
            known = level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
            logger.bind(streamer=streamer).log(level if known else "WARNING", "{}", text if known else line)

    def _ended(self, streamer: str, entry: _Open, reason: str, now: float) -> None:
        """A recorder has ended: make whole what it left, and say so."""
        entry.process = None
        self._salvage(streamer, entry)
        entry.broadcast = broadcast = _read(entry)
        if broadcast.exit != reason:
            broadcast.exit = reason
            try:
                broadcasts.write(entry.directory, broadcast)
            except OSError as error:  # a full disk, mostly: it is known here, and everybody has to hear of it
                logger.bind(streamer=streamer).error("cannot write broadcast.json: {}", error.strerror)
        logger.bind(streamer=streamer).info("recorder ended: {}", reason)
        if entry.stopping_since is not None:
            self._over(streamer, entry, reason)
            return
        if broadcast.last_media_at:
            entry.silent_since = now - _seconds_since(broadcast.last_media_at)
        if broadcast.figures.bytes > entry.bytes_at_start:
            entry.rechecks = 0
        self._tell(self._on_stopped, Ended(
            broadcast.task_id, broadcast.id, streamer, datetime.now(UTC), reason, over=False))
        entry.recheck_at = now + RECHECK_SECONDS[min(entry.rechecks, len(RECHECK_SECONDS) - 1)]
        if now >= entry.recheck_at:
            self._recheck_now(streamer, entry, now)

    def _salvage(self, streamer: str, entry: _Open) -> None:
        try:
            for what in salvage(entry.directory):
                logger.bind(streamer=streamer).warning("salvaged: {}", what)
        except BiliupdError as error:
            logger.bind(streamer=streamer).error("{}", error)

    def _recheck_now(self, streamer: str, entry: _Open, now: float) -> None:
        entry.rechecks += 1
        entry.recheck_at = now + RECHECK_SECONDS[min(entry.rechecks, len(RECHECK_SECONDS) - 1)]
        self._tell(self._recheck, streamer)

    def _over(self, streamer: str, entry: _Open, reason: str) -> None:
        """The broadcast is over: write that down, forget its state; nothing is left of one that recorded nothing."""
        self._salvage(streamer, entry)  # finds something only when it could not be done before
        broadcast = entry.broadcast = _read(entry)
        broadcast.ended_at = broadcast.last_media_at or broadcast.started_at
        if broadcast.files or any(entry.directory.glob("P*")):
            broadcasts.write(entry.directory, broadcast)
        else:
            (entry.directory / broadcasts.NAME).unlink(missing_ok=True)
            for directory in (entry.directory, entry.directory.parent):
                try:
                    directory.rmdir()
                except OSError:
                    break  # something else is in it
        del self._open[streamer]
        entry.state_path.unlink(missing_ok=True)
        self._log_path(broadcast).unlink(missing_ok=True)
        logger.bind(streamer=streamer).info("broadcast over: {} files, {:.0f} s", broadcast.figures.files,
                                            broadcast.figures.media_seconds)
        self._tell(self._on_stopped, Ended(
            broadcast.task_id, broadcast.id, streamer, datetime.now(UTC), reason, over=True))

    def _tell(self, callback: Callable[[_T], None], value: _T) -> None:
        """Call it when this turn is done and the lock is free."""
        self._calls.append(lambda: callback(value))


def safe_title(title: str) -> str:
    """A title as part of a folder's name: at most 120 bytes, no separator, nothing a NAS would refuse."""
    text = "".join(c for c in title.translate(_UNSAFE) if c.isprintable())
    text = text.encode(errors="ignore")[:LONGEST_TITLE_BYTES].decode(errors="ignore")
    return " ".join(text.split()).strip(". ")


def _read(entry: _Open) -> Broadcast:
    """broadcast.json as it is now; what was known of it before, when it cannot be read."""
    try:
        return broadcasts.read(entry.directory) or entry.broadcast
    except BiliupdError as error:
        logger.bind(streamer=entry.broadcast.streamer).error("{}", error)
        return entry.broadcast


def _reason(exit_code: int | None) -> str:
    try:
        return Exit(exit_code).reason if exit_code is not None else "crashed"
    except ValueError:
        return "crashed"


def _seconds_since(moment: str) -> float:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
