"""Look at every room when it is due, and report what was seen.

The scheduler's thread only starts looks; each look is a daemon thread of its own, so a site that hangs delays no other
room and holds up nobody's exit. Touches the network through the platforms. Does not know what a recorder is: the
callables given to it decide what follows.
"""

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from loguru import logger

from biliupd.config import LiveConfig, Streamer
from biliupd.errors import TemporaryError
from biliupd.live.platform import LiveStatus, LiveStream, Platform, State, platform_for

STAGGER_SECONDS = 0.05  # between the first looks at two rooms
JITTER = 0.2
CLOCK_JUMP_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 600.0
SOON_SECONDS = (5.0, 10.0, 20.0, 40.0)  # on air, but no stream to be had: look again after these

OnStatus = Callable[[Streamer, Platform, LiveStatus, LiveStream | None], None]


@dataclass(eq=False)
class _Room:
    """What the poller remembers of one streamer between two looks."""

    streamer: Streamer
    status: LiveStatus = field(default_factory=lambda: LiveStatus(State.UNKNOWN, "not looked at yet", answered=False))
    looked: bool = False
    platform: Platform | None = None
    job: Job | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)
    again: bool = False  # an extra look is wanted
    unknown_count: int = 0
    pause: int = 0  # so many of the next looks are left out
    streamless_count: int = 0
    since: float | None = None  # monotonic start of the look under way
    told_hanging: bool = False


class Poller:
    """Asks the platforms, each room at its own interval.

    `on_status` is called on the look's thread after every look; the stream is given when the room is live,
    `needs_stream(name)` says it is wanted, and the site had one. Nothing is reported after `close` began.
    """

    def __init__(
        self, live: LiveConfig, streamers: Sequence[Streamer], *, on_status: OnStatus,
        needs_stream: Callable[[str], bool],
    ) -> None:
        self.stop = threading.Event()
        self._live = live
        self._on_status = on_status
        self._needs_stream = needs_stream
        self._rooms: dict[str, _Room] = {}
        self._lock = threading.RLock()  # the rooms, and their jobs with them
        self._offset: float | None = None
        self._looks = _DaemonThreads()
        self._scheduler = _Scheduler(
            timezone=UTC,
            executors={"default": self._looks},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._streamers = list(streamers)
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # `guard` tells of a look that hangs, once

    def start(self) -> None:
        self._scheduler.start()
        self.apply(self._live, self._streamers)

    def close(self, deadline_seconds: float) -> None:
        """Stop looking. A look that still waits for its site by the deadline is left behind; it reports nothing."""
        self.stop.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if not self._looks.join(deadline_seconds):
            logger.warning("some sites still have not answered; not waiting for them")

    def is_alive(self) -> bool:
        return self._scheduler.is_alive()

    def apply(self, live: LiveConfig, streamers: Sequence[Streamer]) -> None:
        """Put another configuration in force: new rooms at once, dropped ones no more, the rest undisturbed."""
        wanted = {streamer.name: streamer for streamer in streamers if streamer.record}
        with self._lock:
            if not self._scheduler.running:
                self._live, self._streamers = live, list(streamers)
                return
            before, self._live = self._live, live
            for name in self._rooms.keys() - wanted.keys():
                self._drop(name)
            first = datetime.now(UTC)
            for name, streamer in wanted.items():
                room = self._rooms.get(name)
                if room is None or room.streamer.url != streamer.url:
                    self._drop(name)
                    first += timedelta(seconds=STAGGER_SECONDS)
                    self._add(_Room(streamer), first)
                    continue
                changed = _interval(room.streamer, before) != _interval(streamer, live)
                room.streamer = streamer
                if changed and room.job:
                    room.job.reschedule(_Every(_interval(streamer, live)))

    def _add(self, room: _Room, first: datetime) -> None:
        name = room.streamer.name
        self._rooms[name] = room
        room.job = self._scheduler.add_job(
            self._look, _Every(_interval(room.streamer, self._live)), args=[room], name=f"look at {name}",
            next_run_time=first,
        )

    def _drop(self, name: str) -> None:
        room = self._rooms.pop(name, None)
        if room is not None and room.job is not None:
            room.job.remove()

    def check_now(self, name: str) -> None:
        """An extra look at once, or right after the one under way. No such room: nothing happens."""
        with self._lock:
            room = self._rooms.get(name)
        if room is not None and not self.stop.is_set():
            self._looks.spawn(self._look, room, True)

    def guard(self, wall: float, monotonic: float) -> None:
        """Called every second with both clocks. After the wall clock was set, the timers are set anew.

        Without this, a clock that is set back by two hours ends all looks for two hours.
        """
        jumped = wall - monotonic - (self._offset if self._offset is not None else wall - monotonic)
        self._offset = wall - monotonic
        with self._lock:
            rooms = list(self._rooms.items())
            if abs(jumped) > CLOCK_JUMP_SECONDS and self.is_alive():
                logger.warning("the clock was set by {:+.0f} s; looking at all rooms anew", jumped)
                for n, (_, room) in enumerate(rooms):
                    if room.job:
                        room.job.modify(next_run_time=datetime.now(UTC) + timedelta(seconds=STAGGER_SECONDS * n))
        limit = max(60.0, 6 * self._live.request_timeout_seconds)
        for name, room in rooms:
            since = room.since
            if since is not None and monotonic - since > limit and not room.told_hanging:
                room.told_hanging = True
                logger.bind(streamer=name).warning("a look has been waiting for its site for {:.0f} s", limit)

    def statuses(self) -> dict[str, LiveStatus]:
        """What was last seen of every room that is looked at."""
        with self._lock:
            return {name: room.status for name, room in self._rooms.items()}

    def _look(self, room: _Room, extra: bool = False) -> None:
        """A turn, on a thread of its own. At most one per room at a time; an extra one waits for its predecessor."""
        if not extra and room.pause > 0:
            room.pause -= 1
            return
        room.again = room.again or extra
        wanted = True
        while wanted and room.busy.acquire(blocking=False):
            try:
                room.again = False
                room.since = time.monotonic()
                self._turn(room)
            finally:
                room.since = None
                room.told_hanging = False
                room.busy.release()
            wanted = room.again and not self.stop.is_set()

    def _turn(self, room: _Room) -> None:
        if not self._current(room):
            return
        streamer, live = room.streamer, self._live
        status = self._ask(room, streamer, live)
        if not self._current(room):
            return
        self._note(room, status)
        if room.platform is None:
            return
        stream: LiveStream | None = None
        try:
            if status.state is State.LIVE and self._needs_stream(streamer.name):
                stream = self._stream(room, streamer, live)
            if self._current(room):
                self._on_status(room.streamer, room.platform, status, stream)
        except Exception:  # noqa: BLE001 - the top of a turn
            logger.bind(streamer=streamer.name).exception("what was seen could not be passed on")

    def _current(self, room: _Room) -> bool:
        """False once the room was dropped or replaced, or the poller is being closed."""
        with self._lock:
            return not self.stop.is_set() and self._rooms.get(room.streamer.name) is room

    def _ask(self, room: _Room, streamer: Streamer, live: LiveConfig) -> LiveStatus:
        try:
            room.platform = room.platform or platform_for(streamer.url)
            if room.platform is None:
                return LiveStatus(State.UNKNOWN, "no platform answers for this address")
            return room.platform.check(streamer.url, live)
        except Exception as error:  # noqa: BLE001 - the top of a turn
            return LiveStatus(State.UNKNOWN, f"a bug in biliupd: {_where(error)}")

    def _note(self, room: _Room, status: LiveStatus) -> None:
        """Remember what was seen, say so if it is news, and look less often where a site is in trouble."""
        before, room.status = room.status, status
        log = logger.bind(streamer=room.streamer.name)
        if status.state is not before.state or not room.looked:
            level = "WARNING" if status.state in (State.UNKNOWN, State.RESTRICTED) else "INFO"
            log.log(level, "{}{}", status.state.value, f": {status.reason}" if status.reason else "")
        room.looked = True
        if status.state is not State.UNKNOWN:
            room.unknown_count = room.pause = 0
            if before.state is State.UNKNOWN:
                self._resume(room.platform)
        elif status.answered:
            room.unknown_count += 1
            room.pause = pause_after(room.unknown_count, _interval(room.streamer, self._live))

    def _resume(self, platform: Platform | None) -> None:
        """A site that answers for one room again is asked about its other rooms again, too."""
        with self._lock:
            for other in self._rooms.values():
                if other.platform is platform:
                    other.pause = 0

    def _stream(self, room: _Room, streamer: Streamer, live: LiveConfig) -> LiveStream | None:
        log = logger.bind(streamer=streamer.name)
        try:
            assert room.platform is not None
            stream = room.platform.stream(streamer.url, live)
        except TemporaryError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - the top of a turn
            reason = f"a bug in biliupd: {_where(error)}"
        else:
            room.streamless_count = 0
            return stream
        if room.streamless_count == 0:
            log.warning("live, but there is no stream to be had: {}", reason)
        self._look_soon(room)
        room.streamless_count += 1
        return None

    def _look_soon(self, room: _Room) -> None:
        now = datetime.now(UTC)
        due = now + timedelta(seconds=SOON_SECONDS[min(room.streamless_count, len(SOON_SECONDS) - 1)])
        with self._lock:
            if self._current(room) and room.job and not now < room.job.next_run_time <= due:
                room.job.modify(next_run_time=due)


def pause_after(unknown_count: int, interval_seconds: float) -> int:
    """How many looks to leave out after so many answers in a row that were none: 0, 1, 3, 7, … up to ten minutes."""
    most = max(0, int(LONGEST_PAUSE_SECONDS / interval_seconds) - 1)
    return min((1 << min(unknown_count - 1, 16)) - 1, most)


def _interval(streamer: Streamer, live: LiveConfig) -> float:
    return streamer.check_interval or live.check_interval


def _where(error: Exception) -> str:
    """The kind of an error and where it came from; its text might hold an address with a secret."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"


class _Every(BaseTrigger):  # type: ignore[misc]
    """So long after the last look, shifted by up to a fifth either way.

    The library's interval trigger lists every moment it missed: after a clock that jumps from 1970 to today, as on a
    board without a battery, thirty million per room.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + timedelta(seconds=self._seconds * random.uniform(1 - JITTER, 1 + JITTER))


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()


class _DaemonThreads(BaseExecutor):  # type: ignore[misc]
    """Runs each job on a new daemon thread.

    A pool would keep its idle threads, need a size, and be joined at the interpreter's exit, hanging jobs and all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[threading.Thread] = set()
        self._ended = threading.Condition()

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        self.spawn(self._run, job, run_times)

    def _run(self, job: Job, run_times: list[datetime]) -> None:
        self._run_job_success(job.id, run_job(job, job._jobstore_alias, run_times, self._logger.name))

    def spawn(self, target: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            try:
                target(*args)
            finally:
                with self._ended:
                    self._running.discard(thread)
                    self._ended.notify_all()

        thread = threading.Thread(target=run, name="look", daemon=True)
        with self._ended:
            self._running.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._ended:
                self._running.discard(thread)
            raise

    def join(self, deadline_seconds: float) -> bool:
        """Wait for the threads to end; False when some still run at the deadline."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._running, deadline_seconds)
