"""A broadcast that is not over, as the crew keeps it: its folder, its recorder, and the files of both.

Used on the crew thread only. Touches the broadcast's folder (broadcast.json while no recorder runs, salvage) and its
files in data_directory/recorders: ID.json (the spec), ID.figures, ID.log.
"""

import math
import os
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from biliupd.config import RecordConfig
from biliupd.errors import BiliupdError
from biliupd.record import broadcast as broadcasts
from biliupd.record import ledger
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast
from biliupd.record.disk import sync_directory
from biliupd.record.ledger import Cause
from biliupd.record.places import Runner
from biliupd.record.process import Process
from biliupd.record.salvage import salvage
from biliupd.record.shows import Show, safe_title
from biliupd.record.space import Load
from biliupd.record.spec import Exit, Spec, Stream

RECHECK_SECONDS = (0.0, 5.0, 10.0, 20.0, 40.0, 60.0)
SWITCH_SECONDS = 45.0  # before an address ends another one is wanted, or a quarter of its life before
LEAST_LIFE_SECONDS = 5.0
ANSWER_SECONDS = 3.0
STEP_SECONDS = 5.0  # a turn that came late says nothing about the recorder
END_SECONDS = 60.0  # sites go on saying live for so long after the end
WAITED = "waited"  # in `exit`: another streamer was given its place
_CAUSES = {Exit.NEEDS_URL.reason: Cause.NEW_ADDRESS, Exit.NO_SPACE.reason: Cause.NO_SPACE, WAITED: Cause.WAITED}


@dataclass
class OpenBroadcast:
    """Times are monotonic seconds. `stopping`: why its recorder was told to end: over, waited, no_space."""

    directory: Path
    broadcast: Broadcast
    state_path: Path
    spec: Spec | None = None
    process: Process | None = None
    began_at: float = 0.0  # its last recorder
    bytes_at_start: int = 0
    vain_runs: int = 0  # so many in a row recorded nothing
    silent_since: float = 0.0
    offline: bool = False
    live_at: float = 0.0  # wall clock: when the site last said that it is live
    was_offline: bool = False  # while no recorder ran
    stopping: str = ""
    stopping_since: float = 0.0
    told: bool = False  # whether its recorder has been sent SIGTERM
    rechecks: int = 0
    recheck_at: float = 0.0
    renew_at: float = math.inf
    deaf_until: float = 0.0  # its recorder has not yet read the answer it asked for
    still_seconds: float = 0.0  # its recorder gave no sign of life
    _looked_at: float = 0.0
    _read_mtimes: tuple[int, int] = (0, 0)
    _beat: int = 0

    @property
    def log_path(self) -> Path:
        """What its recorders say."""
        return self.state_path.with_suffix(".log")

    @property
    def figures_path(self) -> Path:
        """The figures of a recorder that runs."""
        return self.state_path.with_suffix(".figures")

    @property
    def runner(self) -> Runner:
        """As those who share the disk see it."""
        broadcast, figures = self.broadcast, self.broadcast.figures
        rate = figures.bitrate
        if not rate and figures.media_seconds > 0:
            rate = figures.bytes * 8 / figures.media_seconds
        segmented = [item for item in broadcast.files if "/" in str(item.get("name"))]
        merged = bool(segmented) or (self.spec is not None and self.spec.stream.protocol == "hls")
        return Runner(broadcast.streamer, broadcast.id, broadcast.started_at, bool(self.stopping),
                      Load(rate, figures.bytes if merged else 0, merged))

    def refresh(self) -> None:
        """Read what the recorder has written since."""
        mtime, figures = _mtime(self.directory / broadcasts.NAME), _mtime(self.figures_path)
        if (mtime, figures) == self._read_mtimes:
            return
        if mtime != self._read_mtimes[0]:
            self.read_again()
        if figures > mtime:
            broadcasts.read_figures(self.figures_path, self.broadcast)
        self._read_mtimes = mtime, figures

    def read_again(self) -> None:
        """broadcast.json as it is now; what was known of it before, when it cannot be read."""
        try:
            self.broadcast = broadcasts.read(self.directory) or self.broadcast
        except BiliupdError as error:
            logger.bind(streamer=self.broadcast.streamer).error("{}", error)

    def listen(self, now: float, *, deaf: bool) -> None:
        """Count for how long the recorder has given no sign of life; not while we are `deaf`.

        It writes its figures every other second; on a full disk it still tries, which can be seen, too.
        """
        step, self._looked_at = min(now - self._looked_at, STEP_SECONDS), now
        part = self.figures_path.with_name(self.figures_path.name + ".part")
        beat = max(map(_mtime, (self.figures_path, part, self.directory / broadcasts.NAME)))
        if beat != self._beat or deaf or self.spec is None or not self.spec.figures_path:
            self._beat, self.still_seconds = beat, 0.0
        else:
            self.still_seconds += step

    def wants_address(self, now: float) -> bool:
        """Whether its recorder needs another address, now or soon."""
        return self.process is not None and not self.stopping and (
            (bool(self.broadcast.needs_address) and now >= self.deaf_until) or now >= self.renew_at)

    def cause(self) -> Cause:
        """Why there is a gap between the last run and the next."""
        if self.was_offline:
            return Cause.OFFLINE
        return _CAUSES.get(self.broadcast.exit or "", Cause.RESTART)

    def note_end(self) -> None:
        """The site said for longer that it is live than media came: that much of the end is missing."""
        broadcast, figures = self.broadcast, self.broadcast.figures
        if not broadcast.last_media_at:
            return
        seconds = self.live_at - datetime.fromisoformat(broadcast.last_media_at).timestamp()
        if seconds > END_SECONDS:
            at = datetime.fromtimestamp(self.live_at, UTC).isoformat(timespec="milliseconds")
            cause = _CAUSES.get(broadcast.exit or "", Cause.RESTART)
            ledger.add(broadcast, {
                "at": at, "cause": cause.value, "file": "", "media_seconds_at": figures.media_seconds,
                "seconds": round(seconds, 3), "detail": "the site said live, and no media came any more"})
            figures.live_seconds = round(figures.live_seconds + seconds, 3)

    def new_spec(self, record: RecordConfig, streams: tuple[Stream, ...]) -> Spec:
        """For the next recorder, with the settings of now."""
        return Spec(
            directory=str(self.directory), streams=streams, figures_path=str(self.figures_path),
            split_size=int(record.split_size), split_seconds=record.split_seconds,
            split_on_title=record.split_on_title, split_gap_seconds=record.split_gap_seconds,
            fragment_seconds=record.fragment_seconds, connect_timeout_seconds=record.connect_timeout_seconds,
            stall_seconds=record.stall_seconds, reconnect_seconds=record.reconnect_seconds,
            sync_seconds=record.sync_seconds, orphan_seconds=record.orphan_seconds, max_height=record.max_height,
            max_bitrate=record.max_bitrate, codecs=tuple(record.codecs))

    def write_spec(self, spec: Spec, now: float) -> None:
        """Hand it to the recorder, which looks at it every second. Raises `OSError`."""
        specs.write(self.state_path, spec)
        self.spec = spec
        self.note_expiry(now, datetime.now(UTC))

    def note_expiry(self, now: float, given_at: datetime) -> None:
        """When the addresses, which are as old as `given_at` says, have to be replaced."""
        self.renew_at = math.inf
        ends = [end for stream in (self.spec.streams if self.spec else ()) if (end := _moment(stream.expires_at))]
        if ends:
            life = (min(ends) - given_at).total_seconds()
            left = (min(ends) - datetime.now(UTC)).total_seconds()
            if life > LEAST_LIFE_SECONDS:  # else a clock is wrong
                self.renew_at = now + left - min(SWITCH_SECONDS, life / 4)

    def renew(self, streams: tuple[Stream, ...], now: float) -> None:
        """Other addresses for the recorder that runs. Raises `OSError`.

        One that needs an address is answered even when it is the one it had: the site has looked again.
        """
        if self.spec and (streams != self.spec.streams or self.broadcast.needs_address):
            self.write_spec(replace(self.spec, streams=streams), now)
            self.deaf_until = now + ANSWER_SECONDS
            logger.bind(streamer=self.broadcast.streamer).info("new addresses for the recorder")

    def next_recheck(self, now: float) -> None:
        """The site is being asked: when to do so again."""
        self.rechecks += 1
        self.pause(now)

    def pause(self, now: float) -> None:
        """Ask no earlier than the number of tries in vain says."""
        self.recheck_at = now + RECHECK_SECONDS[min(self.rechecks, len(RECHECK_SECONDS) - 1)]

    def salvage(self) -> None:
        """Make whole what a recorder left; says what it did, or why it could not."""
        try:
            for what in salvage(self.directory):
                logger.bind(streamer=self.broadcast.streamer).warning("salvaged: {}", what)
        except BiliupdError as error:
            logger.bind(streamer=self.broadcast.streamer).error("{}", error)

    def ended(self, now: float) -> None:
        """Its recorder is gone: note what came of it."""
        self.process, self.stopping, self.renew_at = None, "", math.inf
        broadcast = self.broadcast
        if broadcast.last_media_at:
            self.silent_since = now - seconds_since(broadcast.last_media_at)
        gained = broadcast.figures.bytes > self.bytes_at_start
        if gained and broadcast.exit != Exit.NO_SPACE.reason:
            self.rechecks = 0
        self.vain_runs = 0 if gained and now - self.began_at >= LEAST_LIFE_SECONDS else self.vain_runs + 1


def forget(state_path: Path) -> None:
    """Remove the spec of a broadcast's recorders, and what they wrote beside it."""
    for suffix in (".json", ".log", ".figures", ".figures.part"):
        state_path.with_suffix(suffix).unlink(missing_ok=True)


def make(show: Show, recordings: Path, state_directory: Path, now: float) -> OpenBroadcast:
    """A folder for a new broadcast. Raises `OSError`."""
    started = datetime.now(UTC)
    name = f"{started.astimezone():%Y-%m-%d %H-%M-%S} {safe_title(show.title)}".strip()
    parent = recordings / show.streamer
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
    return OpenBroadcast(directory, broadcast, state_directory / f"{broadcast.id}.json", silent_since=now)


def seconds_since(moment: str) -> float:
    """How long ago an ISO 8601 moment was; 0 for one that is none, or to come."""
    then = _moment(moment)
    return max(0.0, (datetime.now(UTC) - then).total_seconds()) if then else 0.0


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def _mtime(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
