"""Who may record: at most so many, those of the highest priority first, and only while the disk has room.

Runs on the crew thread. Asks the recordings' file system how much is free, and writes who waits to a file that
`biliupd status` reads. Starts and stops nobody itself: it says who has to end and who may be asked for.
"""

import json
import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from biliupd.config import RecordConfig
from biliupd.errors import BiliupdError
from biliupd.record.disk import replace_file
from biliupd.record.space import Load, Space, again_bytes, seconds_left, shown

LOOK_SECONDS = 60.0
SHORT_LOOK_SECONDS = 5.0  # when space is short
OFFER_SECONDS = 30.0  # a place is kept so long for the first in the queue
OFFER_AGAIN_SECONDS = 60.0
QUEUE = "queue"  # the file's name, beside the state of the recorders

Notice = Callable[[tuple[str, str]], None]
"""What it is about (space, space:STREAMER or place:STREAMER), and the text, empty when that is over."""


class Runner(NamedTuple):
    """A recording that runs. `began`: ISO 8601; `ending`: it has been told to end."""

    streamer: str
    broadcast_id: str
    began: str
    ending: bool
    load: Load


class Verdict(NamedTuple):
    """What has to happen now: `stop` at most one, for the reason given (waited or no_space), and ask for `offers`."""

    stop: tuple[str, str] | None
    offers: list[str]
    pressure: bool  #: whatever may be cleaned should be cleaned now


@dataclass
class _Waiting:
    since: str
    promised: bool = False  # somebody ends for it, though nothing new begins now
    offered_at: float = -math.inf


class Places:
    """The queue and the disk. `now` is monotonic seconds everywhere; `since` and `began` are ISO 8601.

    `unmerged` says how many bytes of other broadcasts than those given wait to be merged.
    """

    def __init__(self, record: RecordConfig, directory: Path, state_directory: Path, notice: Notice,
                 unmerged: Callable[[Collection[str]], int]) -> None:
        self._record, self._directory, self._queue_path = record, directory, state_directory / QUEUE
        self._notice, self._unmerged = notice, unmerged
        self._priorities: Mapping[str, int] | None = None  # not told yet: nobody is stopped for another
        self._queue: dict[str, _Waiting] = {}
        self._told: dict[str, str] = {}
        self._written: str | None = None
        self._space = Space()
        self.seconds_left = math.inf  #: until recordings fill the disk, by the last forecast
        self._look_at = self._forecast_at = -math.inf

    def apply(self, record: RecordConfig) -> None:
        """New settings."""
        self._record = record
        self._look_at = self._forecast_at = -math.inf

    def prioritise(self, priorities: Mapping[str, int]) -> None:
        """The streamers that are wanted, with their priorities. Others no longer wait."""
        self._priorities = priorities
        for streamer in self._queue.keys() - priorities.keys():
            self.leave(streamer)

    def wants(self, streamer: str) -> bool:
        """Whether an address would be of use: it does not wait, or a place is kept for it."""
        waiting = self._queue.get(streamer)
        return waiting is None or waiting.offered_at > -math.inf

    def waits(self, streamer: str) -> bool:
        """Whether it is in the queue."""
        return streamer in self._queue

    def is_full(self) -> None:
        """A recorder met the end of the disk."""
        self._space.is_full()
        self._look_at = -math.inf

    def admit(self, streamer: str, since: str, runners: Sequence[Runner], now: float) -> bool:
        """Whether it may begin now. If not it waits, and is said to."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._measure(runners)
        self._queue.setdefault(streamer, _Waiting(since))
        ahead = [name for name in self._in_order() if name == streamer or not self._passed_over(name, now)]
        if ahead.index(streamer) < self._room(runners) - _ending(runners):
            self.leave(streamer)
            return True
        if self._space.short:
            self._look_at = min(self._look_at, now + SHORT_LOOK_SECONDS)
        self._tell_all()
        return False

    def put_in(self, streamer: str, since: str) -> None:
        """One that had a place waits again."""
        self._queue.setdefault(streamer, _Waiting(since))
        self._tell_all()

    def leave(self, streamer: str) -> None:
        """It waits no more: it is recorded, not live or not wanted."""
        if self._queue.pop(streamer, None) is not None:
            self._tell_all()

    def turn(self, runners: Sequence[Runner], now: float) -> Verdict:
        """One look. Raises `OSError` when the disk cannot be asked."""
        if self._priorities is None:
            return Verdict(None, [], False)
        stop: tuple[str, str] | None = None
        looked = now >= self._look_at
        pressure = False
        if looked and (runners or self._queue):
            self._measure(runners)
            self._look_at = now + (SHORT_LOOK_SECONDS if self._space.short else LOOK_SECONDS)
        if now >= self._forecast_at and (runners or self._queue or self._space.warning):
            self._forecast_at = now + LOOK_SECONDS
            self._forecast(runners)
            pressure = self._space.short or bool(self._space.warning)
        staying = sorted((runner for runner in runners if not runner.ending), key=self._worth)
        if self._space.below:
            for waiting in self._queue.values():
                waiting.promised = False
            if looked and staying and len(staying) == len(runners):
                stop = staying[0].streamer, "no_space"
        elif staying and self._record.most and len(staying) > self._record.most:
            stop = staying[0].streamer, "waited"
        elif staying:
            stop = self._displaced(staying, self._room(runners))
        offers = self._offers(self._room(runners) - _ending(runners) - (stop is not None), now)
        self._tell_all()
        return Verdict(stop, offers, pressure)

    def _displaced(self, staying: list[Runner], room: float) -> tuple[str, str] | None:
        """Who ends for the first in the queue that has no place and a higher priority."""
        without = [name for n, name in enumerate(self._in_order()) if n >= room]
        if not without or self._priority(without[0]) <= self._priority(staying[0].streamer):
            return None
        self._queue[without[0]].promised = self._space.short
        logger.bind(streamer=staying[0].streamer).info("its place goes to {}, of higher priority", without[0])
        return staying[0].streamer, "no_space" if self._space.short else "waited"

    def _room(self, runners: Sequence[Runner]) -> float:
        """For how many there is room beside those that stay."""
        if self._space.below:
            return 0
        if self._space.short:
            return sum(waiting.promised for waiting in self._queue.values())
        staying = len(runners) - _ending(runners)
        return max(0, self._record.most - staying) if self._record.most else math.inf

    def _offers(self, places: float, now: float) -> list[str]:
        offered = []
        for n, name in enumerate(self._in_order()):
            waiting = self._queue[name]
            if n >= places:
                waiting.offered_at = -math.inf
            elif now - waiting.offered_at >= OFFER_AGAIN_SECONDS:
                waiting.offered_at = now
                offered.append(name)
        return offered

    def _passed_over(self, name: str, now: float) -> bool:
        """It was offered a place and did not come: nobody waits for it."""
        waited = now - self._queue[name].offered_at
        return OFFER_SECONDS < waited < math.inf

    def _in_order(self) -> list[str]:
        return sorted(self._queue, key=lambda name: (-self._priority(name), self._queue[name].since, name))

    def _priority(self, streamer: str) -> int:
        return (self._priorities or {}).get(streamer, 0)

    def _worth(self, runner: Runner) -> tuple[int, float]:
        """Smallest of those that end first: the lowest priority, of equals what began last."""
        return self._priority(runner.streamer), -_seconds(runner.began)

    def _measure(self, runners: Sequence[Runner]) -> None:
        free = shutil.disk_usage(self._directory).free
        was = self._space.short
        self._space.look(free, int(self._record.least_free), [runner.load for runner in runners])
        if self._space.short != was:
            logger.log("ERROR" if self._space.short else "INFO", "{}: {} free, {}", str(self._directory), shown(free),
                       "nothing new is recorded" if self._space.short else "recording goes on")

    def _forecast(self, runners: Sequence[Runner]) -> None:
        try:
            unmerged = self._unmerged([runner.broadcast_id for runner in runners]) if runners else 0
        except BiliupdError as error:  # the catalog is busy: the next look
            logger.debug("no forecast: {}", error)
            return
        free, loads = shutil.disk_usage(self._directory).free, [runner.load for runner in runners]
        self.seconds_left = seconds_left(free, int(self._record.least_free), loads, unmerged)
        self._space.forecast(free, int(self._record.least_free), loads, unmerged, self._record.forecast_hours,
                             datetime.now(UTC))

    @property
    def warning(self) -> str:
        """What the forecast warns of; empty: of nothing."""
        return self._space.warning

    def _tell_all(self) -> None:
        """Notices and the queue's file, when they say something else than before."""
        kind = "space" if self._space.short else "place"
        texts = {f"{kind}:{name}": self._why(name) for name in self._queue}
        if self._space.warning:
            texts["space"] = f"{self._directory}: {self._space.warning}"
        for key in self._told.keys() - texts.keys():
            self._notice((key, ""))
        for key, text in texts.items():
            if self._told.get(key) != text:
                logger.warning("{}", text)
                self._notice((key, text))
        self._told = texts
        self._write_queue()

    def _why(self, streamer: str) -> str:
        if self._space.short:
            again = shown(again_bytes(int(self._record.least_free)))
            return f"{streamer} is not recorded: too little is free in {self._directory}; from {again} on it is"
        most = self._record.most
        return f"{streamer} is live and waits: {most} of {most} recordings run, its priority is " \
               f"{self._priority(streamer)}"

    def _write_queue(self) -> None:
        content = json.dumps([
            {"streamer": name, "priority": self._priority(name), "since": self._queue[name].since}
            for name in self._in_order()])
        if content == self._written:
            return
        try:
            if self._queue:
                replace_file(self._queue_path, content.encode(), mode=0o600, durable=False)
            else:
                self._queue_path.unlink(missing_ok=True)
            self._written = content
        except OSError as error:
            logger.debug("the queue cannot be written down: {}", error.strerror)


def read_queue(state_directory: Path) -> list[dict[str, Any]]:
    """Who waits to be recorded, the first first: streamer, priority, since. Empty when there is no such file."""
    try:
        content = json.loads((state_directory / QUEUE).read_bytes())
        return [{"streamer": str(one["streamer"]), "priority": int(one["priority"]), "since": str(one["since"])}
                for one in content]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _ending(runners: Sequence[Runner]) -> int:
    return sum(runner.ending for runner in runners)


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0
