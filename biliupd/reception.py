"""What people ask over HTTP, done with the rooms: `control.house.House`, as the daemon fills it.

Any thread of control. Decides nothing that a room decides: it looks, asks and passes on.
"""

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import segno

from biliupd import __version__, log, settings
from biliupd.catalog import records
from biliupd.catalog.database import Catalog, stamp
from biliupd.catalog.paths import readable
from biliupd.config import Config
from biliupd.control import models
from biliupd.control.house import Look, Running
from biliupd.control.models import Refusal
from biliupd.edit import play
from biliupd.edit.glimpse import glimpse
from biliupd.errors import ConfigError, TemporaryError
from biliupd.intake import Intake
from biliupd.live.poller import Poller
from biliupd.pipeline import Pipeline
from biliupd.pipeline.logins import Code, Logins
from biliupd.pipeline.preview import preview
from biliupd.publish.manners import StandingFile
from biliupd.record.crew import Crew
from biliupd.record.ledger import LOSSES, Cause
from biliupd.record.parts import INDEX
from biliupd.record.places import read_queue
from biliupd.wanted import Mode, Unfit, Wanted
from biliupd.watch.watcher import Watcher
from biliupd.yaml_file import KeyPath, places

MOST_WAITS = 100  #: files that are not taken yet, told


class Reception:
    """One for the daemon's life. `apply` tells it when settings came into force."""

    version = __version__
    harmless = frozenset(cause.value for cause in Cause if cause not in LOSSES)

    def __init__(
        self, path: Path, config: Config, catalog: Catalog, *, trouble: Callable[[], list[str]], wanted: Wanted,
        crew: Crew, poller: Poller, watcher: Watcher, intake: Intake, pipeline: Pipeline,
    ) -> None:  # fmt: skip
        self.started_at = stamp(datetime.now(UTC))
        self._path, self._config, self._catalog = path, config, catalog
        self.trouble = trouble
        self._wanted, self._crew, self._poller, self._watcher = wanted, crew, poller, watcher
        self._intake, self._pipeline, self._logins = intake, pipeline, Logins()
        self._meter = Meter()
        self._lines: dict[KeyPath, int] = {}
        self.apply(config)

    def apply(self, config: Config) -> None:
        """These settings are in force, as the file has them now."""
        try:
            self._lines = places(self._path.read_bytes())
        except (OSError, ConfigError):
            self._lines = {}  # it changed again: told anew with what comes
        lines = [self._lines.get(("streamers", number)) for number in range(len(config.streamers))]
        self._origins = {one.name: f"{self._path}, line {line}" if line else str(self._path)
                         for one, line in zip(config.streamers, lines, strict=True)}  # fmt: skip
        self._config = config

    # what is going on

    def running(self) -> list[Running]:
        """The recorders that run now."""
        return [Running(one.task_id, one.streamer, one.broadcast_id, one.pid, models.Figures(**asdict(one.figures)))
                for one in self._crew.running()]  # fmt: skip

    def waiting(self) -> list[models.Waiting]:
        """Who is live and waits for a place."""
        return [models.Waiting(**one) for one in read_queue(self._config.recordings.data_directory / "recorders")]

    def recording_file(self, task_id: str) -> Path | None:
        """What a recorder writes now. Of an FLV the catalog learns when it has ended and has its own name."""
        return next((newest_part(one.directory) for one in self._crew.running() if one.task_id == task_id), None)

    def disk(self) -> models.Disk | None:
        """How much is free where recordings go."""
        directory = self._config.recordings.directory
        usage = self._meter.usage(directory)
        if usage is None:
            return None
        left, warning = self._crew.outlook()
        free, total = usage
        return models.Disk(
            directory=readable(str(directory)), free=free, total=total,
            least_free=int(self._config.record.least_free), seconds_left=left if math.isfinite(left) else None,
            warning=warning,
        )  # fmt: skip

    # streamers

    def origin(self, streamer: str) -> str:
        """File and line of a streamer of the YAML."""
        return self._origins.get(streamer, "")

    def make_streamer(self, wanted: models.NewStreamer) -> int:
        """Add one. Refusal 409 or 422."""
        with _fitting():
            return self._wanted.make(wanted.model_dump())

    def change_streamer(self, id: int, change: models.StreamerChange) -> None:
        """Only what was given changes."""
        row = self._own_row(id)
        with _fitting():
            self._wanted.change(row, change.model_dump(exclude_unset=True))

    def remove_streamer(self, id: int) -> None:
        """Its recording ends properly, its videos stay."""
        self._wanted.remove(self._own_row(id))

    def set_mode(self, id: int, mode: Mode) -> None:
        """Start, stop or pause."""
        name = str(self._row(id)["name"])
        if mode == "on" and not all(one.record for one in self._config.streamers if one.name == name):
            raise Refusal(409, f"record is false for {name} in {self.origin(name)}", kind="yaml",
                          hint="set it to true there; saving the file applies it at once")  # fmt: skip
        self._wanted.set_mode(name, mode)
        if mode == "on":
            self._poller.check_now(name)
        else:
            self._crew.stop(name)

    def look(self, streamer: str) -> Look:
        """What the site said last of a room."""
        seen = self._wanted.look(streamer)
        return Look(seen.number, seen.status, seen.reason)

    def _row(self, id: int) -> dict[str, Any]:
        for row in records.active_streamers(self._catalog.db):
            if row["id"] == id:
                return row
        raise Refusal(404, f"there is no streamer {id}")

    def _own_row(self, id: int) -> dict[str, Any]:
        row = self._row(id)
        if origin := self.origin(row["name"]):
            raise Refusal(409, f"{row['name']} is set in {origin}", kind="yaml",
                          hint="change it there; saving the file applies it at once")  # fmt: skip
        return row

    # the library and publishing

    def mp4(self, path: Path, from_seconds: float) -> Iterator[bytes]:
        """A recording for a browser."""
        return play.mp4(self._config.edit, path, from_seconds)

    def glimpse(self, path: Path) -> bytes:
        """The newest picture of a recording."""
        return glimpse(self._config.edit, path)

    def preview(self, what: str) -> list[models.Preview]:
        """What would be sent."""
        found = preview(self._wanted.config, self._catalog.db, what)
        return [models.Preview(**{**asdict(one), "files": [readable(file) for file in one.files]}) for one in found]

    def accounts(self) -> list[str]:
        """Names of the accounts of the configuration."""
        return list(self._config.accounts)

    def retry_account(self, name: str) -> None:
        """Somebody did what Bilibili asked for."""
        if name not in self._config.accounts:
            raise Refusal(404, f"there is no account {name!r} in the configuration")
        StandingFile(self._config.accounts[name].cookies).calm()
        self._pipeline.accounts.check_at.pop(name, None)

    def qr_code(self, account: str) -> models.QrCode:
        """A code to log in with."""
        if account and account not in self._config.accounts:
            raise Refusal(404, f"there is no account {account!r} in the configuration")
        return _qr_code(self._logins.begin(self._config, account))

    def poll_qr_code(self, id: str) -> models.QrCode:
        """How it stands."""
        code = self._logins.poll(id)
        if code is None:
            raise Refusal(404, "there is no such QR code any more", hint="ask for a new one")
        if code.state == "confirmed":
            self._pipeline.accounts.check_at.pop(code.account, None)
        return _qr_code(code)

    # the watcher, the settings, the log

    def watcher(self) -> models.Watcher:
        """What it is doing."""
        told = self._watcher.status()
        waits = {readable(path): why for path, why in list(told.waits.items())[:MOST_WAITS]}
        return models.Watcher(
            watching=told.watching, suspended=told.suspended,
            roots=[models.Root(path=readable(path), trouble=trouble, observed=told.observed.get(path, ""))
                   for path, trouble in told.roots.items()],
            queued=told.waiting, settling=told.settling, waits=waits,
            last_scan_at=stamp(told.last_scan_at) if told.last_scan_at else None,
            last_scan_seconds=told.last_scan_seconds, last_scan_entries=told.last_scan_entries, rescans=told.rescans,
        )  # fmt: skip

    def suspend_watcher(self) -> None:
        """Look away."""
        self._watcher.suspend()

    def resume_watcher(self) -> None:
        """Look again, at everything."""
        self._watcher.resume()

    def sync(self, wanted: models.Sync) -> None:
        """Look through all watched directories soon."""
        if wanted.mode == "full":
            self._intake.forget_what_was_read()
        self._watcher.rescan()

    def roots(self) -> list[Path]:
        """The watched directories."""
        return [self._config.recordings.directory, *(one.directory for one in self._config.drop_folders)]

    def settings(self) -> models.Settings:
        """The configuration in force."""
        refused = [one["text"] for one in records.notices(self._catalog.db) if one["key"] == "config"]
        return models.Settings(
            file=str(self._path), refused=refused,
            settings=[
                models.Setting(key=one.key, value=one.value, source="default" if one.line is None else "file",
                               line=one.line, description=one.description)
                for one in settings.table(self._config, self._lines)
            ],
        )  # fmt: skip

    def log_lines(self, after: int) -> list[models.LogLine]:
        """The lines that are still remembered."""
        return [
            models.LogLine(
                seq=line.seq, at=stamp(line.at), level=line.level, text=line.text,
                streamer=_text(line.bound.get("streamer")), video=_number(line.bound.get("video")),
                submission=_number(line.bound.get("submission")),
            )
            for line in log.lines(after)
        ]  # fmt: skip


def newest_part(directory: Path) -> Path | None:
    """The file of a broadcast that is written now (`P007.flv.part`), or its playlist (`P007/index.m3u8`)."""
    try:
        paths = [*directory.glob("P*.flv.part"), *directory.glob(f"P*/{INDEX}")]
    except OSError as error:
        raise TemporaryError(f"{directory.name!a} cannot be read: {error.strerror}") from error
    found = {int(number[1]): path for path in paths
             if (number := re.match(r"P(\d{3,})\b", path.relative_to(directory).parts[0]))}  # fmt: skip
    return found[max(found)] if found else None


class Meter:
    """Free space, asked for on a thread of its own: a mount that hangs holds up nothing else."""

    def __init__(self, ask: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage) -> None:
        self._ask = ask  #: total, used, free, in bytes
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._found: list[tuple[int, int]] = []  #: by this thread alone: another look does not touch what it found

    def usage(self, directory: Path, patience_seconds: float = 1.0) -> tuple[int, int] | None:
        """Free bytes, and all; None when that cannot be told within this time."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._found = []
                self._thread = threading.Thread(
                    target=self._look, args=[directory, self._found], name="free space", daemon=True)  # fmt: skip
                self._thread.start()
            thread, found = self._thread, self._found
        thread.join(patience_seconds)
        return found[0] if found else None

    def _look(self, directory: Path, found: list[tuple[int, int]]) -> None:
        with suppress(OSError):
            total, _, free = self._ask(directory)
            found.append((free, total))


@contextmanager
def _fitting() -> Iterator[None]:
    """What does not fit becomes an answer that names the field."""
    try:
        yield
    except Unfit as error:
        raise Refusal(422 if error.field else 409, str(error), hint=error.hint,
                      field=f"body.{error.field}" if error.field else "") from error


def _qr_code(code: Code) -> models.QrCode:
    image = segno.make(code.url, error="m", micro=False).svg_data_uri(scale=6, border=4, light="#fff")
    return models.QrCode(id=code.id, account=code.account, url=code.url, image=image, state=code.state,
                         expires_at=stamp(code.expires_at), detail=code.detail)  # fmt: skip


def _text(given: object) -> str | None:
    return str(given) if given is not None else None


def _number(given: object) -> int | None:
    return given if isinstance(given, int) else None
