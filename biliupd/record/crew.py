"""Start, adopt, watch and stop the recorder processes.

Runs in the daemon, on the thread `crew`; every public method may be called from any thread. Touches the recordings
directory (new folders, broadcast.json while no recorder runs, salvage) and data_directory/recorders. Recorders outlive
the daemon: a state file per open broadcast lets the next daemon find them.
"""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from loguru import logger

from biliupd.config import RecordConfig, RecordingsConfig
from biliupd.errors import BiliupdError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.ledger import Cause
from biliupd.record.nursery import Nursery
from biliupd.record.open_broadcast import WAITED, OpenBroadcast, forget, make, seconds_since
from biliupd.record.places import Places, Runner
from biliupd.record.process import Process
from biliupd.record.salvage import salvage
from biliupd.record.shows import Ended, Running, Show, Started
from biliupd.record.spec import Exit, Stream

IDLE_SECONDS = 1.0
KILL_AFTER_SECONDS = 30.0
STILL_SECONDS = 60.0  # without a sign of life: a recorder hangs
MOST_VAIN_RUNS = 2  # then the site is asked
OVER = "over"
_T = TypeVar("_T")


class Crew:
    """Keeps one recorder per streamer that is live, as far as limit, priority and space allow.

    `on_started`, `on_stopped`, `recheck` (look at this streamer soon), `on_notice` (what a notice is about and its
    text, empty when that is over) and `on_pressure` (the disk fills up: clean what may be cleaned) are called on the
    crew thread; what they raise is logged. `unmerged`: see places.Places. `offline_delay_seconds`: live again within
    this time after the last media is the same broadcast.
    """

    def __init__(self, record: RecordConfig, recordings: RecordingsConfig, offline_delay_seconds: float, *,
                 on_started: Callable[[Started], None], on_stopped: Callable[[Ended], None],
                 recheck: Callable[[str], None],
                 on_notice: Callable[[tuple[str, str]], None] = lambda told: None,
                 on_pressure: Callable[[str], None] = lambda why: None,
                 unmerged: Callable[[Collection[str]], int] = lambda running: 0, ffmpeg: str = "ffmpeg") -> None:
        self._record, self._recordings, self._ffmpeg = record, recordings, ffmpeg
        self._state_directory = recordings.data_directory / "recorders"
        self._heartbeat = self._state_directory / "heartbeat"
        self._offline_delay = offline_delay_seconds
        self._on_started, self._on_stopped, self._recheck = on_started, on_stopped, recheck
        self._on_pressure = on_pressure
        self._places = Places(record, recordings.directory, self._state_directory,
                              lambda told: self._tell(on_notice, told), unmerged)
        self._nursery = Nursery()
        self._open: dict[str, OpenBroadcast] = {}
        self._asked: SimpleQueue[Callable[[float], None]] = SimpleQueue()
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._now = time.monotonic()  # of the last turn
        self._adopted = False
        self._said: dict[str, str] = {}  # what does not work, by what it is about
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
        self._nursery.close()

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
            self._now = now
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
            self._look_at_places(now)
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever a callback raises, the crew goes on
                logger.exception("a callback of the crew failed")

    # what others ask

    def went_live(self, show: Show) -> None:
        """Have it recorded: a new broadcast, or the open one goes on. Of one that is being recorded, the recorder is
        given the addresses if it needs others, now or soon."""
        self._ask(lambda now: self._begin(show, now))

    def titled(self, streamer: str, title: str) -> None:
        """The site says that it is live, and how it is called now. A broadcast keeps the title it began with; its
        recorder may begin a new file."""
        def note(now: float) -> None:
            entry = self._open.get(streamer)
            if entry is None:
                return
            entry.offline, entry.live_at = False, time.time()
            if entry.process and entry.spec and title and entry.spec.title != title:
                entry.write_spec(replace(entry.spec, title=title), now)
        self._ask(note)

    def went_offline(self, streamer: str) -> None:
        """The site says so explicitly; "unknown" is never passed on."""
        def mark(now: float) -> None:
            entry = self._open.get(streamer)
            if entry:
                entry.offline = True
                entry.was_offline = entry.was_offline or entry.process is None
                if self._places.waits(streamer):  # until now it was live
                    entry.silent_since = now
            self._places.leave(streamer)
        self._ask(mark)

    def recording(self, streamer: str) -> bool:
        """Whether a recorder runs for this streamer."""
        with self._lock:
            return streamer in self._open and self._open[streamer].process is not None

    def wants_stream(self, streamer: str) -> bool:
        """Whether addresses of its media would be of use: it is not recorded and has a place, or needs others."""
        with self._lock:
            entry = self._open.get(streamer)
            if entry and entry.process:
                return entry.wants_address(self._now)
            return self._places.wants(streamer)

    def stop(self, streamer: str) -> None:
        """End that recorder properly; its broadcast is over then."""
        self._ask(lambda now: self._stop(streamer, now))

    def stop_all(self, deadline_seconds: float) -> None:
        """End all recorders, start none any more and wait, at most so long; what still runs then runs on."""
        self._ending = True  # the sites are looked at until the poller is closed
        deadline = time.monotonic() + deadline_seconds
        self.wanted({})
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

    def wanted(self, priorities: Mapping[str, int]) -> None:
        """The streamers to record, with their priorities. The recorders of all others are stopped."""
        def take(now: float) -> None:
            self._places.prioritise(priorities)
            for streamer in self._open.keys() - priorities.keys():
                self._stop(streamer, now)
        self._ask(take)

    def apply(self, record: RecordConfig, offline_delay_seconds: float, ffmpeg: str = "ffmpeg") -> None:
        """New settings, for recorders that start from now on."""
        with self._lock:
            self._record, self._offline_delay, self._ffmpeg = record, offline_delay_seconds, ffmpeg
            self._places.apply(record)

    def running(self) -> list[Running]:
        """The recorders that run now, with the figures of the last turn."""
        with self._lock:
            return [
                Running(streamer, entry.broadcast.task_id, entry.broadcast.id, entry.directory,
                        entry.process.pid or entry.broadcast.pid or 0, entry.broadcast.started_at,
                        replace(entry.broadcast.figures))
                for streamer, entry in self._open.items() if entry.process]

    def outlook(self) -> tuple[float, str]:
        """Seconds until recordings fill the disk (infinite: nothing is recorded), and the warning about it, if any."""
        return self._places.seconds_left, self._places.warning

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
            self._say(str(self._heartbeat), "")
        except OSError as error:
            self._say(str(self._heartbeat), error.strerror or str(error))

    def _say(self, what: str, trouble: str) -> None:
        """Once, as long as it is the same."""
        if trouble and trouble != self._said.get(what):
            logger.error("crew: {}: {}", what, trouble)
        self._said[what] = trouble

    # beginning

    def _adopt(self, now: float) -> None:
        """Find what a daemon before us left open."""
        for path in sorted(self._state_directory.glob("*.json")):
            try:
                spec = specs.read(path)
                directory = Path(spec.directory)
                broadcast = broadcasts.read(directory)
            except BiliupdError as error:
                logger.error("a broadcast cannot be taken up again: {}", error)
                continue
            if broadcast is None or broadcast.streamer in self._open:
                logger.warning("{} is gone or not the last of its streamer: not taken up again", directory)
                if directory.parent.is_dir():  # else a mount is missing, and it may come back
                    forget(path)
                continue
            entry = OpenBroadcast(directory, broadcast, path, spec, began_at=now,
                                  bytes_at_start=broadcast.figures.bytes)
            entry.silent_since = now - seconds_since(broadcast.last_media_at or broadcast.started_at)
            self._open[broadcast.streamer] = entry
            process = Process(directory, entry.log_path)
            if process.alive(broadcast):
                entry.process = process
                entry.note_expiry(now, datetime.fromtimestamp(path.stat().st_mtime, UTC))
                logger.bind(streamer=broadcast.streamer).info("recorder adopted (pid {})", broadcast.pid)
            elif broadcast.ended_at is not None:  # only its state file was still to go
                self._over(broadcast.streamer, entry, broadcast.exit or "crashed")
            else:
                if broadcast.exit in (WAITED, Exit.NO_SPACE.reason):
                    self._places.put_in(broadcast.streamer, broadcast.started_at)
                self._ended(broadcast.streamer, entry, broadcast.exit or "crashed", now, ask=True)

    def _begin(self, show: Show, now: float) -> None:
        entry = self._open.get(show.streamer)
        if self._ending or (entry and entry.stopping):
            return
        if entry and entry.process:
            self._renew(entry, show, now)
            return
        if entry and self._is_another(entry, show, now):
            self._over(show.streamer, entry, entry.broadcast.exit or "crashed")
            entry = None
        if not self._places.admit(show.streamer, _since(entry), self._runners(), now):
            return
        if entry is None:
            entry = make(show, self._recordings.directory, self._state_directory, now)
            self._open[show.streamer] = entry
        entry.broadcast.live_id = entry.broadcast.live_id or show.live_id
        self._launch(entry, show.streams, show.title, entry.cause(), now)

    def _renew(self, entry: OpenBroadcast, show: Show, now: float) -> None:
        """Addresses for a recorder that runs; if it waits for those of a broadcast that is over, it ends."""
        before = entry.broadcast.live_id
        if entry.broadcast.needs_address and before and show.live_id and before != show.live_id:
            self._stop(show.streamer, now)
        elif entry.wants_address(now):
            entry.renew(show.streams, now)

    def _is_another(self, entry: OpenBroadcast, show: Show, now: float) -> bool:
        """Whether the show is a new broadcast, and the open one is over."""
        before = entry.broadcast.live_id
        if before and show.live_id:
            return before != show.live_id
        return not self._places.waits(show.streamer) and now - entry.silent_since >= self._offline_delay

    def _launch(self, entry: OpenBroadcast, streams: tuple[Stream, ...], title: str, cause: Cause,
                now: float) -> None:
        broadcast = entry.broadcast
        broadcast.task_id, broadcast.exit = uuid.uuid4().hex, None
        broadcast.pid = broadcast.pid_started = None
        broadcast.needs_address = ""
        broadcasts.write(entry.directory, broadcast)
        entry.figures_path.unlink(missing_ok=True)
        entry.write_spec(replace(
            entry.new_spec(self._record, streams), title=title, heartbeat=str(self._heartbeat), cause=cause.value,
            ffmpeg=self._ffmpeg), now)
        entry.process = Process.started(self._nursery, entry.state_path, entry.directory, entry.log_path)
        entry.offline = entry.was_offline = False
        entry.still_seconds, entry.began_at, entry.bytes_at_start = 0.0, now, broadcast.figures.bytes
        pid = entry.process.pid or 0
        logger.bind(streamer=broadcast.streamer).info("recorder started (pid {}) in {}", pid, str(entry.directory))
        self._tell(self._on_started, Started(
            broadcast.task_id, broadcast.id, broadcast.streamer, pid, entry.directory, datetime.now(UTC)))

    # watching

    def _look(self, streamer: str, now: float) -> None:
        entry = self._open[streamer]
        process = entry.process
        if process is None:
            if entry.offline and now - entry.silent_since >= self._offline_delay:
                self._over(streamer, entry, entry.broadcast.exit or "crashed")
            elif now >= entry.recheck_at and not self._places.waits(streamer):
                self._ask_site(streamer, entry, now)
            return
        alive = process.alive(entry.broadcast)
        entry.refresh()
        self._relay(streamer, process)
        if not alive:
            self._ended(streamer, entry, entry.broadcast.exit or _reason(process.exit_code), now)
        elif entry.stopping:
            if now - entry.stopping_since > KILL_AFTER_SECONDS:
                process.signal(entry.broadcast, signal.SIGKILL)
            elif not entry.told:  # an adopted one had not told its pid
                entry.told = process.signal(entry.broadcast, signal.SIGTERM)
        else:
            self._look_after(streamer, entry, process, now)

    def _look_after(self, streamer: str, entry: OpenBroadcast, process: Process, now: float) -> None:
        """Of a recorder that runs: does it live, has it what it needs, is there still something to record."""
        entry.listen(now, deaf=bool(self._said.get(str(self._heartbeat))))
        if entry.still_seconds >= STILL_SECONDS:
            logger.bind(streamer=streamer).error("the recorder hangs: no sign of life for {:.0f} s; killing it",
                                                 entry.still_seconds)
            entry.still_seconds = 0.0
            process.signal(entry.broadcast, signal.SIGKILL)
        needs = entry.broadcast.needs_address
        if needs and entry.offline and entry.broadcast.last_media_at and \
                seconds_since(entry.broadcast.last_media_at) >= self._offline_delay:
            self._stop(streamer, now)
        elif not entry.wants_address(now):
            if entry.broadcast.figures.bytes > entry.bytes_at_start:  # what it was given works
                entry.rechecks, entry.recheck_at = 0, now
        elif now >= entry.recheck_at:
            self._ask_site(streamer, entry, now)

    def _relay(self, streamer: str, process: Process) -> None:
        for line in process.log_lines():
            level, _, text = line.partition(" ")
            known = level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
            logger.bind(streamer=streamer).log(level if known else "WARNING", "{}", text if known else line)

    def _look_at_places(self, now: float) -> None:
        """Who ends for others or for space, and who is asked for because there is a place."""
        try:
            verdict = self._places.turn(self._runners(), now)
        except OSError as error:
            self._say(str(self._recordings.directory), error.strerror or str(error))
            return
        self._say(str(self._recordings.directory), "")
        if verdict.stop:
            streamer, why = verdict.stop
            self._places.put_in(streamer, _since(self._open[streamer]))
            self._stop(streamer, now, why)
        for streamer in verdict.offers:
            self._tell(self._recheck, streamer)
        if verdict.pressure:
            self._tell(self._on_pressure, str(self._recordings.directory))

    def _runners(self) -> list[Runner]:
        return [entry.runner for entry in self._open.values() if entry.process]

    # ending

    def _stop(self, streamer: str, now: float, why: str = OVER) -> None:
        entry = self._open.get(streamer)
        if why == OVER:
            self._places.leave(streamer)
        if entry is None or entry.stopping:
            if entry and why == OVER:
                entry.stopping = OVER
            return
        if entry.process is None:
            self._over(streamer, entry, entry.broadcast.exit or "crashed")
            return
        entry.stopping, entry.stopping_since = why, now
        entry.told = entry.process.signal(entry.broadcast, signal.SIGTERM)

    def _ended(self, streamer: str, entry: OpenBroadcast, reason: str, now: float, *, ask: bool = False) -> None:
        """A recorder has ended: make whole what it left, say so, and have another one go on. `ask`: the site first."""
        stopping = entry.stopping
        if stopping in (WAITED, Exit.NO_SPACE.reason) and reason in (Exit.STOPPED.reason, "crashed"):
            reason = stopping
        entry.salvage()
        entry.read_again()
        broadcast = entry.broadcast
        if broadcast.exit != reason:
            broadcast.exit = reason
            try:
                broadcasts.write(entry.directory, broadcast)
            except OSError as error:  # a full disk, mostly: it is known here, and everybody has to hear of it
                logger.bind(streamer=streamer).error("cannot write broadcast.json: {}", error.strerror)
        logger.bind(streamer=streamer).info("recorder ended: {}", reason)
        entry.ended(now)
        if stopping == OVER:
            self._over(streamer, entry, reason)
            return
        self._tell(self._on_stopped, Ended(
            broadcast.task_id, broadcast.id, streamer, datetime.now(UTC), reason, over=False))
        if reason == Exit.NO_SPACE.reason and not stopping:
            self._places.is_full()
        entry.pause(now)
        if self._places.waits(streamer) or self._ending:
            return
        if reason == "crashed" and not ask and entry.vain_runs < MOST_VAIN_RUNS and entry.spec:
            self._launch(entry, entry.spec.streams, entry.spec.title, Cause.RESTART, now)
        elif now >= entry.recheck_at:
            self._ask_site(streamer, entry, now)

    def _ask_site(self, streamer: str, entry: OpenBroadcast, now: float) -> None:
        entry.next_recheck(now)
        self._tell(self._recheck, streamer)

    def _over(self, streamer: str, entry: OpenBroadcast, reason: str) -> None:
        """The broadcast is over: write that down, forget its state; nothing is left of one that recorded nothing."""
        entry.salvage()  # finds something only when it could not be done before
        entry.read_again()
        broadcast = entry.broadcast
        if reason != Exit.STOPPED.reason:
            entry.note_end()
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
        forget(entry.state_path)
        logger.bind(streamer=streamer).info("broadcast over: {} files, {:.0f} s", broadcast.figures.files,
                                            broadcast.figures.media_seconds)
        self._tell(self._on_stopped, Ended(
            broadcast.task_id, broadcast.id, streamer, datetime.now(UTC), reason, over=True))

    def _tell(self, callback: Callable[[_T], None], value: _T) -> None:
        """Call it when this turn is done and the lock is free."""
        self._calls.append(lambda: callback(value))


def _since(entry: OpenBroadcast | None) -> str:
    """Since when a streamer is live, as far as it is known here."""
    return entry.broadcast.started_at if entry else datetime.now(UTC).isoformat(timespec="milliseconds")


def _reason(exit_code: int | None) -> str:
    try:
        return Exit(exit_code).reason if exit_code is not None else "crashed"
    except ValueError:
        return "crashed"
