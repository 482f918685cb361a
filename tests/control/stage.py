"""The real server on a real catalog, with a daemon around it that does what it is told. By hand it serves sample rows:

    .venv/bin/python tests/control/stage.py --port 19200      (user admin, password admin-password)
"""

import argparse
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import requests
import segno

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from sample import fill
from support import wait_until

from biliupd.catalog import records, users
from biliupd.catalog.database import Catalog, now, stamp
from biliupd.catalog.states import rows
from biliupd.config import ControlConfig, EditConfig
from biliupd.control import auth
from biliupd.control.house import Look, Running
from biliupd.control.models import (
    Disk,
    Figures,
    LogLine,
    Mode,
    NewStreamer,
    Preview,
    QrCode,
    Refusal,
    Root,
    Setting,
    Settings,
    StreamerChange,
    Sync,
    Waiting,
    Watcher,
)
from biliupd.control.passwords import Passwords
from biliupd.control.server import Control
from biliupd.edit import play
from biliupd.edit.glimpse import glimpse
from biliupd.errors import PermanentError

GIB = 1024**3


class FakeHouse:
    """A daemon in memory: what it is told it says, and what it is asked to do is in `asked`, as (what, with what)."""

    def __init__(self, catalog: Catalog, roots: list[Path]) -> None:
        self.version, self.started_at = "1.2.3", now()
        self.harmless = frozenset({"fragment", "jump", "seamless-join", "offline"})
        self.catalog, self.watched = catalog, roots
        self.asked: list[tuple[str, object]] = []
        self.refuses: dict[str, Exception] = {}  #: by method: what it raises from now on
        self.live: set[str] = set()  #: streamers that a look finds live
        self.troubles: list[str] = []
        self.runs: list[Running] = []
        self.waits: list[Waiting] = []
        self.named_accounts: list[str] = []
        self.free: Disk | None = Disk(directory=str(roots[0]), free=180 * GIB, total=500 * GIB, least_free=5 * GIB,
                                      seconds_left=93_600.0, warning="")  # fmt: skip
        self.origins: dict[str, str] = {}  #: by streamer: file and line
        self.looks: dict[str, Look] = {}
        self.previews: dict[str, list[Preview]] = {}
        self.codes: dict[str, QrCode] = {}
        self.lines: list[LogLine] = []
        self.played: list[tuple[Path, float]] = []
        self.still_playing = 0
        self.plays: Callable[[Path, float], Iterator[bytes]] = lambda path, at: play.mp4(EditConfig(), path, at)
        self.writes: dict[str, Path | None] = {}  #: by task: its file; of others that run it is a clip
        self.glimpses: Callable[[Path], bytes] = lambda path: glimpse(EditConfig(), path)
        self.on_mode: Callable[[int, Mode], None] = self.obey  #: what comes of a start or a stop
        self.watching = Watcher(
            watching=True, suspended=False, roots=[Root(path=str(root), trouble="", observed="inotify")
                                                   for root in roots],
            queued=0, settling=1, waits={"half a film.mp4": "it has no end yet"}, last_scan_at=now(),
            last_scan_seconds=0.42, last_scan_entries=1234, rescans={"start": 1, "interval": 3},
        )  # fmt: skip

    def _do(self, what: str, with_what: object = None) -> None:
        self.asked.append((what, with_what))
        if error := self.refuses.get(what):
            raise error

    def trouble(self) -> list[str]:
        return list(self.troubles)

    def running(self) -> list[Running]:
        return list(self.runs)

    def waiting(self) -> list[Waiting]:
        return list(self.waits)

    def recording_file(self, task_id: str) -> Path | None:
        if task_id not in self.writes:
            self.writes[task_id] = self.watched[0] / f"{task_id}.flv.part"
            shutil.copy(media() / "clip.flv", self.watched[0] / f"{task_id}.flv.part")
        return self.writes[task_id]

    def disk(self) -> Disk | None:
        return self.free

    # streamers

    def origin(self, streamer: str) -> str:
        return self.origins.get(streamer, "")

    def make_streamer(self, wanted: NewStreamer) -> int:
        self._do("make_streamer", wanted)
        name, db = wanted.name or wanted.url.rstrip("/").rpartition("/")[2], self.catalog.db
        if "." not in wanted.url:
            raise Refusal(422, f"no platform answers {wanted.url}", field="body.url")
        if db.execute("select 1 from streamers where name = ?", [name]).fetchone():
            raise Refusal(409, f"there is a streamer {name} already", field="body.name")
        rows(db, "streamers").insert({
            "name": name, "platform": wanted.url.split("/")[2].removeprefix("www.").split(".")[0], "url": wanted.url,
            "check_interval": wanted.check_interval or 60, "auto_upload": int(wanted.auto_upload), "source": "api",
            "settings": wanted.model_dump_json(), "created_at": now(), "updated_at": now(),
        })  # fmt: skip
        db.conn.commit()
        return self._row(name=name)["id"]

    def change_streamer(self, id: int, change: StreamerChange) -> None:
        self._do("change_streamer", (id, change))
        row = self._of_the_api(id)
        given = change.model_dump(exclude_none=True)
        settings = NewStreamer.model_validate_json(row["settings"]).model_copy(update=given)
        facts = {name: value for name, value in given.items() if name in ("url", "check_interval", "auto_upload")}
        rows(self.catalog.db, "streamers").update(
            id, {**facts, "settings": settings.model_dump_json(), "updated_at": now()})
        self.catalog.db.conn.commit()

    def remove_streamer(self, id: int) -> None:
        self._do("remove_streamer", id)
        row = self._of_the_api(id)
        self._end(row["name"])
        rows(self.catalog.db, "streamers").update(id, {"active": 0})
        self.catalog.db.conn.commit()

    def set_mode(self, id: int, mode: Mode) -> None:
        self._do("set_mode", (id, mode))
        self._row(id=id)
        rows(self.catalog.db, "streamers").update(id, {"mode": mode, "updated_at": now()})
        self.catalog.db.conn.commit()
        self.on_mode(id, mode)

    def obey(self, id: int, mode: Mode) -> None:
        """At once: it is looked at, and recorded if it is live; or its recording ends."""
        name = self._row(id=id)["name"]
        if mode != "on":
            self._end(name)
            return
        is_live = name in self.live
        self.looks[name] = Look(self.look(name).number + 1, "live" if is_live else "offline", "")
        records.live_status(self.catalog.db, name, self.looks[name].status, "")
        if is_live and not any(run.streamer == name for run in self.runs):
            self.record(name)

    def record(self, name: str, broadcast_id: str = "", began_seconds_ago: float = 0.0) -> Running:
        """A recorder of this streamer runs from now on."""
        task, broadcast_id = secrets.token_hex(8), broadcast_id or secrets.token_hex(8)
        began = stamp(datetime.now(UTC) - timedelta(seconds=began_seconds_ago))
        records.task_started(self.catalog.db, task, self._row(name=name)["id"], broadcast_id, 4242, began)
        self.runs.append(Running(task, name, broadcast_id, 4242, Figures(files=1)))
        return self.runs[-1]

    def _end(self, name: str) -> None:
        for run in [run for run in self.runs if run.streamer == name]:
            self.runs.remove(run)
            records.task_stopped(self.catalog.db, run.task_id, "stopped", now())

    def look(self, streamer: str) -> Look:
        return self.looks.get(streamer, Look(0, "unknown", ""))

    def _row(self, **by: object) -> dict:
        (column, value), = by.items()
        found = list(self.catalog.db.query(f"select * from streamers where active = 1 and {column} = ?", [value]))
        if not found:
            raise Refusal(404, "there is no such streamer")
        return found[0]

    def _of_the_api(self, id: int) -> dict:
        row = self._row(id=id)
        if row["source"] != "api":
            raise Refusal(409, f"{row['name']} is written in {self.origin(row['name'])}", hint="change it there")
        return row

    # the library and publishing

    def mp4(self, path: Path, from_seconds: float) -> Iterator[bytes]:
        self._do("mp4", (path, from_seconds))
        self.still_playing += 1
        try:
            yield from self.plays(path, from_seconds)
        finally:
            self.still_playing -= 1

    def glimpse(self, path: Path) -> bytes:
        self._do("glimpse", path)
        return self.glimpses(path)

    def preview(self, what: str) -> list[Preview]:
        self._do("preview", what)
        if what not in self.previews:
            raise PermanentError(f"there is nothing to send for {what}")
        return self.previews[what]

    def accounts(self) -> list[str]:
        return self.named_accounts

    def retry_account(self, name: str) -> None:
        self._do("retry_account", name)
        if records.account_row(self.catalog.db, name) is None:
            raise Refusal(404, f"there is no account {name}")
        records.account(self.catalog.db, name, "ok", hint="")

    def qr_code(self, account: str) -> QrCode:
        self._do("qr_code", account)
        id, url = secrets.token_hex(8), "https://account.bilibili.com/h5/account-h5/auth/scan-web?qrcode_key=sample"
        self.codes[id] = QrCode(
            id=id, account=account or "main", url=url, image=segno.make(url).svg_data_uri(scale=4), state="waiting",
            expires_at=stamp(datetime.now(UTC) + timedelta(seconds=180)),
        )  # fmt: skip
        return self.codes[id]

    def poll_qr_code(self, id: str) -> QrCode:
        self._do("poll_qr_code", id)
        if id not in self.codes:
            raise Refusal(404, "there is no such code (any more)")
        return self.codes[id]

    def confirm(self, id: str) -> None:
        """Somebody scanned it."""
        self.codes[id] = self.codes[id].model_copy(update={"state": "confirmed"})
        records.account(self.catalog.db, self.codes[id].account, "ok", mid=42, uname="somebody")

    # the watcher, the settings, the log

    def watcher(self) -> Watcher:
        return self.watching

    def suspend_watcher(self) -> None:
        self._do("suspend_watcher")
        self.watching = self.watching.model_copy(update={"suspended": True, "watching": False})

    def resume_watcher(self) -> None:
        self._do("resume_watcher")
        self.watching = self.watching.model_copy(update={"suspended": False, "watching": True})

    def sync(self, wanted: Sync) -> None:
        self._do("sync", wanted.mode)

    def roots(self) -> list[Path]:
        return list(self.watched)

    def settings(self) -> Settings:
        def one(key: str, value: object, line: int | None, text: str) -> Setting:
            return Setting(key=key, value=value, source="file" if line else "default", line=line, description=text)

        return Settings(file="/etc/biliupd/config.yaml", refused=[], settings=[
            one("recordings.directory", "/srv/recordings", 3, "Recorded broadcasts: one folder per streamer."),
            one("record.split_size", 4294967296, 9, "A new file from this size on."),
            one("record.split_seconds", None, None, "A new file after this long."),
            one("live.check_interval", 60.0, None, "How often a room is looked at."),
            one("publish.workers", 2, 21, "So many files are uploaded at once."),
            one("control.port", 19159, None, "Port to listen on; 0: any free one."),
            one("control.names", [], None, "Names of this machine under which the page may be asked for."),
        ])  # fmt: skip

    def say(self, text: str, level: str = "INFO", **bound: object) -> LogLine:
        """A line of the log."""
        seq = self.lines[-1].seq + 1 if self.lines else 1
        self.lines.append(LogLine(seq=seq, at=now(), level=level, text=text, **bound))
        del self.lines[:-2000]
        return self.lines[-1]

    def log_lines(self, after: int) -> list[LogLine]:
        return [line for line in self.lines if line.seq > after]


@lru_cache
def _hash(role: str) -> str:
    return Passwords().hash(f"{role}-password")


@lru_cache
def media() -> Path:
    """A folder with six seconds of real media: clip.mp4, clip.flv, cover.jpg. Made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="biliupd-stage-"))
    source = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=6", "-f", "lavfi", "-i", "sine=duration=6"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest"]
    run = ["ffmpeg", "-v", "error", "-y"]
    subprocess.run([*run, *source, *coded, "-movflags", "+faststart", str(folder / "clip.mp4")], check=True)
    subprocess.run([*run, "-i", str(folder / "clip.mp4"), "-c", "copy", str(folder / "clip.flv")], check=True)
    subprocess.run([*run, "-ss", "2", "-i", str(folder / "clip.mp4"), "-frames:v", "1", str(folder / "cover.jpg")],
                   check=True)  # fmt: skip
    return folder


class Stage:
    """`url` is where the server answers. Whoever made it closes it."""

    def __init__(self, base: Path, **config: object) -> None:
        """`config`: of ControlConfig; the port is any free one unless it says so."""
        self.base, self.recordings, self.drop = base, base / "recordings", base / "drop"
        for folder in (self.recordings, self.drop):
            folder.mkdir(parents=True, exist_ok=True)
        self.catalog = Catalog(base / "data" / "catalog.db")
        self.house = FakeHouse(self.catalog, [self.recordings, self.drop])
        self.said: list[str] = []  #: what is told of the address
        self.config = ControlConfig.model_validate({"port": 0, **config})
        self.control = Control(self.config, self.catalog, self.house, on_address=self.said.append)

    @property
    def url(self) -> str:
        return f"http{'s' if self.config.certificate else ''}://127.0.0.1:{self.control.port}"

    def start(self) -> "Stage":
        self.control.start()
        return self

    def close(self) -> None:
        self.control.close(5)
        self.catalog.close()

    def user(self, role: str = "admin") -> int:
        """The id of the user that is called like the role, with the password ROLE-password."""
        known = users.named(self.catalog.db, role)
        return known["id"] if known else users.add(self.catalog.db, role, _hash(role), role)

    def token(self, role: str = "admin", kind: str = "bearer", *, valid: timedelta = auth.VALID) -> str:
        """Of a session that has just begun."""
        row = users.get(self.catalog.db, self.user(role))
        token = secrets.token_urlsafe(32)
        users.begin_session(self.catalog.db, row, auth.hashed(token), stamp(datetime.now(UTC) + valid), kind=kind)
        return token

    def session(self, role: str = "admin") -> requests.Session:
        """A browser that is logged in, by cookie."""
        session = requests.Session()
        session.cookies.set("biliupd", self.token(role, "cookie"))
        return session

    def bearer(self, role: str = "admin") -> requests.Session:
        """A script that is logged in."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token(role)}"
        return session

    def sample(self, n: int = 24) -> None:
        """Streamers, broadcasts with their ledgers, `n` videos, submissions, accounts, notices, and two that are live;
        the 30 newest videos have files."""
        fill(self, media(), n)


def _liven_up(stage: Stage, stop: threading.Event) -> None:
    from sample import move_on

    second = 0
    while not stop.wait(1):
        move_on(stage, second := second + 1)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--port", type=int, default=19200)
    words.add_argument("--host", default="127.0.0.1")
    words.add_argument("--videos", type=int, default=60)
    words.add_argument("--empty", action="store_true", help="no sample rows")
    words.add_argument("--setup", action="store_true", help="no user either")
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="biliupd-stage-") as base:
        stage, stop = Stage(Path(base), port=given.port, host=given.host), threading.Event()
        if not given.setup:
            for role in ("admin", "operator", "viewer"):
                stage.user(role)
        if not (given.empty or given.setup):
            stage.sample(given.videos)
            threading.Thread(target=_liven_up, args=[stage, stop], daemon=True).start()
        stage.start()
        sys.stdout.write(f"{stage.url}  " + "".join(f"{role} / {role}-password  " for role in ("admin", "operator",
                         "viewer")) + "\n")  # fmt: skip
        sys.stdout.flush()
        try:
            wait_until(lambda: stop.wait(1), 1e9)
        except KeyboardInterrupt:
            stop.set()
            stage.close()
            shutil.rmtree(media(), ignore_errors=True)


if __name__ == "__main__":
    main()
