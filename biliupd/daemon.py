"""Builds the rooms, joins them with plain callables, starts them, waits, stops them; decides nothing else.

Runs on the main thread, which also owns the signals: their handlers only put into a queue that `run` reads.
"""

import itertools
import os
import queue
import signal
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from biliupd import __version__, log, systemd
from biliupd import config as configuration
from biliupd.catalog import ledgers, records
from biliupd.catalog.backup import heed_copy, mend
from biliupd.catalog.database import Catalog, Damaged, stamp, write
from biliupd.catalog.queries import WELL
from biliupd.config import Config, Streamer
from biliupd.edit import ffmpeg, media
from biliupd.errors import BiliupdError, ConfigError, PermanentError, TemporaryError
from biliupd.intake import Intake
from biliupd.live.platform import LiveStatus, LiveStream, Platform, State, answers
from biliupd.live.poller import Poller
from biliupd.pipeline import Pipeline
from biliupd.record.crew import Crew
from biliupd.record.shows import Ended, Show, Started
from biliupd.record.spec import Stream
from biliupd.wanted import Wanted
from biliupd.watch.settle import Settled
from biliupd.watch.watcher import Watcher

if TYPE_CHECKING:
    from biliupd.reception import Reception

STOP_SECONDS = 20.0  #: for all parts together; a recorder is not waited for
CONFIG_SECONDS = 1.0  #: how often the file is looked at
NEWS = -1  #: among the signals
WAITS = "waits"
BUSY_MILLISECONDS = 3000  #: for the main thread
PEOPLE_SECONDS = 3.0  #: the same for those at the page: better a word than a long wait, and few threads serve all


class _Part(Protocol):
    def start(self) -> None: ...
    def close(self, deadline_seconds: float) -> None: ...
    def is_alive(self) -> bool: ...


class Daemon:
    """One daemon on one data directory, whose lock the caller holds."""

    def __init__(self, path: Path, config: Config, *, stderr: bool = True, unclean: bool = False) -> None:
        """`unclean`: the last daemon did not end properly."""
        self._path, self._stderr = path, stderr
        self._config = self._first = config
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # and NEWS, when others changed what is wanted
        self._stopping = self._news = False
        self._stuck = ""  # why the catalog cannot be written at the moment
        self._owed: deque[Callable[[], object]] = deque()  # what it has to be told then
        self._statuses: dict[str, tuple[State, str]] = {}  # what the catalog says of each streamer
        self._seen = self._looked = _state_of(path)
        self._beat = (systemd.watchdog_seconds() or 60.0) / 2
        self._next_beat = time.monotonic() + self._beat
        log.set_up(config.log, stderr=stderr)
        try:
            config.recordings.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(
                f"recordings.directory: {config.recordings.directory} cannot be made: {error.strerror}",
                hint="make it, and give it to the user that biliupd runs as",
            ) from error
        catalog = config.recordings.data_directory / "catalog.db"
        mend(catalog, unclean=unclean)
        self._catalog = Catalog(catalog)
        heed_copy(catalog, self._catalog.db)
        self._public = self._catalog.with_patience(PEOPLE_SECONDS)
        self._wanted = Wanted(self._public, lambda: self._signals.put(NEWS), self._later)
        roots = _roots(config)
        self._intake = Intake(self._catalog, config.recordings.directory, roots)
        self._crew = Crew(
            config.record, config.recordings, config.live.offline_delay_seconds,
            on_started=self._on_started, on_stopped=self._on_stopped, recheck=self._recheck,
            on_notice=self._on_notice, on_pressure=self._on_pressure, unmerged=self._unmerged,
            ffmpeg=_ffmpeg(config),
        )  # fmt: skip
        self._poller = Poller(
            config.live, config.streamers, on_status=self._on_status,
            needs_stream=lambda name: not self._wanted.skips(name) and self._crew.wants_stream(name),
        )  # fmt: skip
        self._watcher = Watcher(
            config.watch, roots,
            on_settled=self._on_settled, on_scan=self._intake.survey, on_root=self._intake.root,
            unfinished=lambda path: media.unfinished(Path(path)),
        )  # fmt: skip
        self._pipeline = Pipeline(config, self._catalog, log.hide)
        self._reception: Reception | None = None
        # in the order in which they are closed: along the flow
        self._parts: dict[str, _Part] = {
            "poller": self._poller, "crew": self._crew, "watcher": self._watcher, "pipeline": self._pipeline,
        }  # fmt: skip
        records.notice(self._catalog.db, "control", "")
        if config.control.enabled:
            self._open_to_people(config)

    def _open_to_people(self, config: Config) -> None:
        """The page and its API. Who does not want them does not pay for them either: a third of the memory."""
        try:
            from biliupd.control.server import Control
            from biliupd.reception import Reception
        except ImportError as error:  # another version of a library: recording matters more than the page
            text = f"control: the page does not go with what is installed: {error}; biliupd runs without it"
            records.notice(self._catalog.db, "control", text)
            logger.error("{}", text)
            return

        self._reception = Reception(
            self._path, config, self._public, trouble=self._trouble, wanted=self._wanted, crew=self._crew,
            poller=self._poller, watcher=self._watcher, intake=self._intake, pipeline=self._pipeline,
        )  # fmt: skip
        self._parts["control"] = Control(
            config.control, self._public, self._reception,
            on_address=lambda text: self._on_notice(("control", text)),
        )  # fmt: skip

    def run(self) -> int:
        """Until a signal says stop. The exit code: 0, or 1 when a part died."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        logger.info("biliupd {} starts (pid {}), recordings in {}", __version__, os.getpid(),
                    self._config.recordings.directory)  # fmt: skip
        self._put_in_force()
        for start in ("space", "place:", "root:", "emptied:"):  # told anew where it still holds
            records.take_back(self._catalog.db, start)
        try:
            for part in reversed(self._parts.values()):
                part.start()
            self._keep_tasks()
            systemd.notify("READY=1")
            logger.info("ready: {} streamers, {} drop folders", len(self._config.streamers),
                        len(self._config.drop_folders))  # fmt: skip
            code = self._wait()
        except Exception:  # noqa: BLE001 - the top of the main thread: without it the others would go on unattended
            logger.exception("the main thread failed; ending, so that a new daemon takes over")
            code = 1
        self._close(code)
        return code

    def _wait(self) -> int:
        # signals are answered here: no long waiting for a busy catalog, the next turn tries again
        self._catalog.db.execute(f"pragma busy_timeout = {BUSY_MILLISECONDS}")
        while True:
            try:
                number = self._signals.get(timeout=CONFIG_SECONDS)
            except queue.Empty:
                number = 0
            if number in (signal.SIGTERM, signal.SIGINT):
                logger.info("{}: stopping", signal.Signals(number).name)
                self._stopping = True
                if number == signal.SIGINT:  # a person at the terminal: nothing is left running
                    self._crew.stop_all(STOP_SECONDS / 2)
                return 0
            try:
                self._turn(number)
            except TemporaryError as error:  # the catalog is busy or its disk full: the next turn tries again
                self._is_stuck(str(error))
            except Damaged:
                pass  # and is told below
            if trouble := self._catalog.trouble():
                logger.critical("{}; ending, so that a new daemon mends it", trouble)
                return 1
            dead = [name for name, part in self._parts.items() if not part.is_alive()]
            if dead:
                logger.critical("{} died; ending, so that a new daemon takes over", ", ".join(dead))
                return 1

    def _turn(self, number: int) -> None:
        """Guard the clock, take new settings, beat. Raises TemporaryError when the catalog cannot be written."""
        self._poller.guard(time.time(), time.monotonic())
        before, self._looked = self._looked, _state_of(self._path)
        self._news = self._news or number == NEWS
        if self._news:
            self._put_in_force()
            self._news = False
        # a file that is still being written may be valid already, and half as long: it has to rest for a turn
        if number == signal.SIGHUP or (self._looked != self._seen and self._looked == before):
            self._reload(self._looked)
        while self._owed:
            self._owed[0]()
            self._owed.popleft()
        if (self._stuck or time.monotonic() >= self._next_beat) and self._progresses():
            systemd.notify("WATCHDOG=1")
            self._next_beat = time.monotonic() + self._beat
            for directory in records.open_broadcasts(self._catalog.db):
                self._crew.end_forgotten(Path(directory))
            records.notice(self._catalog.db, WAITS, _waits(self._watcher.status().waits))

    def _close(self, code: int) -> None:
        systemd.notify("STOPPING=1")
        until = time.monotonic() + STOP_SECONDS
        with ExitStack() as closing:  # every part is closed, whatever another one raises
            for part in reversed(self._parts.values()):
                closing.callback(lambda close: close(max(0.5, until - time.monotonic())), part.close)
        left = [name for name, part in self._parts.items() if part.is_alive()]
        logger.info("stopped; recordings go on" if self._crew.running() else "stopped")
        if left or code:
            # a thread that hangs in a library would keep the process alive; its row goes back at the next start
            if left:
                logger.warning("not ended in time: {}", ", ".join(left))
            os._exit(code)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping and number in (signal.SIGTERM, signal.SIGINT):
            os._exit(1)  # asked twice: at once; what was being done is taken up at the next start
        self._signals.put(number)

    def _progresses(self) -> bool:
        """Whether real work would get through: the catalog can be written, and no worker hangs in a turn."""
        try:
            with write(self._catalog.db):
                pass
        except TemporaryError as error:
            self._is_stuck(str(error))
            return False
        self._is_stuck("")
        longest = 2 * self._config.edit.deadline_seconds
        now = time.monotonic()
        slow = [n for n, at in self._pipeline.turned_at.items() if n.startswith("edit") and now - at > longest]
        if slow:
            logger.error("hangs: {}", ", ".join(slow))
        return not slow

    def _is_stuck(self, why: str) -> None:
        """Said once, and once when it is over."""
        if why != self._stuck:
            logger.error("{}; trying on", why) if why else logger.info("the catalog can be written again")
        self._stuck = why

    def _tell(self, write: Callable[[], object]) -> None:
        """What a room says, into the catalog; when that cannot be written now, the main thread does it later, in
        order. Whoever says it is not held up."""
        if not self._owed:
            try:
                write()
                return
            except TemporaryError as error:
                self._is_stuck(str(error))
        self._owed.append(write)

    def _later(self, write: Callable[[], object]) -> None:
        """The same from a thread that lives for one look: a connection to the catalog of its own would cost it more
        than all the rest."""
        self._owed.append(write)
        self._signals.put(0)

    def _trouble(self) -> list[str]:
        """What does not work right now, for the health check."""
        dead = [f"{name} is dead" for name, part in self._parts.items() if not part.is_alive()]
        stuck = [self._stuck] if self._stuck else []
        notices = records.notices(self._catalog.db)
        return dead + stuck + [
            str(one["text"]) for one in notices if one["key"].partition(":")[0] not in WELL]

    # settings

    def _reload(self, state: tuple[int, int, int] | None) -> None:
        """Take the file as it is now; a broken one is refused whole. Raises TemporaryError: nothing is taken then."""
        old = self._config
        try:
            self._take(old)
        except TemporaryError:
            self._config = old
            raise
        self._seen = state

    def _take(self, old: Config) -> None:
        try:
            new = configuration.load(self._path, answers)
        except ConfigError as error:
            text = "; ".join(error.problems)
            records.notice(self._catalog.db, "config", f"{self._path} is refused, the old settings stay: {text}")
            logger.error("{} is refused whole, the old settings stay in force: {}", self._path, text)
            return
        records.notice(self._catalog.db, "config", "")
        self._config = new
        if new == old:
            logger.info("{} says nothing new", self._path)
            if self._reception is not None:
                self._reception.apply(new)  # its lines may have moved
            return
        fixed = [n for n in ("recordings", "control") if getattr(new, n) != getattr(old, n)]
        later = fixed + [f"{n}.workers" for n in ("edit", "publish")
                         if getattr(new, n).workers != getattr(self._first, n).workers]  # fmt: skip
        if later:
            text = f"{', '.join(later)}: these settings are taken at the next start"
            logger.warning("{}", text)
        records.notice(self._catalog.db, "restart", text if later else "")
        if fixed:
            new = self._config = new.model_copy(update={name: getattr(old, name) for name in fixed})
        if new.log != old.log:
            try:
                log.set_up(new.log, stderr=self._stderr)
                records.notice(self._catalog.db, "log", "")
            except PermanentError as error:
                records.notice(self._catalog.db, "log", f"{error}; the old log goes on")
                logger.error("{}; the old log goes on", error)
        roots = _roots(new)
        self._intake.apply(roots)
        self._watcher.apply(new.watch, roots)
        self._crew.apply(new.record, new.live.offline_delay_seconds, _ffmpeg(new))
        self._put_in_force()
        logger.info("new settings: {} streamers, {} drop folders", len(new.streamers), len(new.drop_folders))

    def _put_in_force(self) -> None:
        """What the settings and the people at the page want now. Raises TemporaryError: nothing is taken then."""
        config = self._wanted.in_force(self._config, self._catalog.db)
        try:
            ffmpeg.find(config.edit)
            trouble = ""
        except BiliupdError as error:
            trouble = f"{error} {error.hint}".strip()
            logger.error("{}", trouble)
        records.notice(self._catalog.db, "ffmpeg", trouble)
        # recordings of streamers that are no longer named, or paused, end; the others learn which matter most
        self._crew.wanted({streamer.name: streamer.priority for streamer in config.streamers if streamer.record})
        for name in self._wanted.skipped():  # the last daemon may have been killed before it could
            self._crew.stop(name)
        self._poller.apply(config.live, config.streamers)
        self._pipeline.apply(config)
        if self._reception is not None:
            self._reception.apply(self._config)

    def _keep_tasks(self) -> None:
        """Runs of recorders that ended while nobody looked, and those of which the last daemon had no time to say."""
        running = self._crew.running()
        records.end_tasks_but(self._catalog.db, [task.task_id for task in running])
        for task in running:
            if not records.has_task(self._catalog.db, task.task_id):
                self._on_started(Started(
                    task.task_id, task.broadcast_id, task.streamer, task.pid, task.directory, datetime.now(UTC)))

    # what the rooms say to each other

    def _on_status(
        self, streamer: Streamer, platform: Platform, status: LiveStatus, stream: LiveStream | None
    ) -> None:
        wanted = self._wanted.seen(streamer.name, status)
        if status.state is State.LIVE and wanted:
            self._crew.titled(streamer.name, status.title)
        if status.state is State.LIVE and stream is not None and wanted:
            self._crew.went_live(
                Show(
                    streamer=streamer.name, platform=platform.name, url=streamer.url, title=status.title,
                    cover_url=status.cover_url, live_id=status.live_id,
                    streams=tuple(_way(one) for one in (stream, *stream.alternates)),
                )
            )  # fmt: skip
        elif status.state is State.OFFLINE:
            self._crew.went_offline(streamer.name)
        seen = (status.state, status.reason)
        if self._statuses.get(streamer.name) != seen:
            self._statuses[streamer.name] = seen
            self._later(lambda: records.live_status(self._catalog.db, streamer.name, *seen))

    def _on_settled(self, batch: list[Settled]) -> None:
        # the main thread knows of damage by then, says so and ends the process; the next start's scan finds these
        with suppress(Damaged):
            self._intake.settled(batch)

    def _recheck(self, streamer: str) -> None:
        self._poller.check_now(streamer)

    def _on_notice(self, told: tuple[str, str]) -> None:
        key, text = told
        self._tell(lambda: records.notice(self._catalog.db, key, text))

    def _on_pressure(self, directory: str) -> None:
        self._pipeline.hurry_tidying()

    def _unmerged(self, running: Collection[str]) -> int:
        return ledgers.unmerged_bytes(self._catalog.db, os.path.abspath(self._config.recordings.directory), running)

    def _on_started(self, task: Started) -> None:
        self._tell(lambda: self._started(task))

    def _started(self, task: Started) -> None:
        db = self._catalog.db
        streamer = records.streamer_id(db, task.streamer)
        records.task_started(db, task.task_id, streamer, task.broadcast_id, task.pid, stamp(task.at))
        self._intake.broadcast(task.directory)

    def _on_stopped(self, task: Ended) -> None:
        self._tell(lambda: self._stopped(task))

    def _stopped(self, task: Ended) -> None:
        records.task_stopped(self._catalog.db, task.task_id, task.reason, stamp(task.at))
        self._intake.broadcast_told(task.broadcast_id)


def _waits(waits: dict[str, str]) -> str:
    """What lies in the watched folders and is not taken yet, for `status`: it may be a copy that never ended."""
    if not waits:
        return ""
    some = "; ".join(f"{path!a}: {why}" for path, why in itertools.islice(waits.items(), 3))
    return f"{len(waits)} files are not taken yet: {some}" + ("; …" if len(waits) > 3 else "")


def _way(stream: LiveStream) -> Stream:
    """What a platform says, as a recorder is told."""
    expires = stream.expires_at.isoformat() if stream.expires_at else ""
    return Stream(stream.url, stream.protocol, dict(stream.headers), expires)


def _ffmpeg(config: Config) -> str:
    """The program for recorders that need it; without one, they say so."""
    try:
        return ffmpeg.find(config.edit)
    except BiliupdError:
        return "ffmpeg"


def _roots(config: Config) -> list[Path]:
    return [config.recordings.directory, *(folder.directory for folder in config.drop_folders)]


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
