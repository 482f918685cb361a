"""The whole job here and now: `biliupd demo`.

Starts the stand-in live site and the stand-in Bilibili, then a real daemon as a process of its own with a configuration
in a temporary directory, and tells what happens by reading the daemon's catalog. At the end the bytes that Bilibili
assembled are compared with the files.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from sqlite_utils import Database

from biliupd.catalog.database import connect
from biliupd.config import EditConfig
from biliupd.edit.ffmpeg import find
from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.live_site import LiveSite

ON_AIR_SECONDS = 12.0
DEADLINE_SECONDS = 150.0
LINE_BYTES_PER_SECOND = 150_000.0  # so slow that there is something to see
PASSWORD = "demo-demo"  # of a page that only this machine reaches, while the demo runs
PART_BYTES = 128 << 10  # so small that a short video has several; the real ones are 10 MiB
ROOMS = (("flv", "阿花", "HTTP-FLV room"), ("hls", "小白", "HLS room"))

_TOLD = {
    "recorded": "whole on the disk and in the catalog",
    "editing": "being merged, measured and given a cover",
    "ready": "one file with a cover, ready to upload",
    "uploading": "upload begins",
    "uploaded": "Bilibili has every byte",
    "submitting": "submitting; written down first, so that it is never sent twice",
    "submitted": "submitted",
    "published": "published",
    "held": "[red]held for a person[/]",
    "missing": "[red]missing[/]",
}


class Demo:
    """One rehearsal in a directory of its own, which is kept."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.directory = Path(tempfile.mkdtemp(prefix="biliupd-demo-"))
        self._began = time.monotonic()
        self._ffmpeg = find(EditConfig())
        self._site = LiveSite(self.directory / "live-site", ffmpeg=self._ffmpeg)
        self._bilibili = Bilibili(self.directory / "bilibili")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._move = 0
        self._told: set[str] = set()
        self._bars: dict[int, TaskID] = {}
        self._page = ""
        self._progress = Progress(
            TextColumn("         {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, transient=True,
        )  # fmt: skip

    def run(self, *, once: bool) -> int:
        """Exit code: 0 when all of it happened, else 1. Without `once` it stays until Ctrl-C."""
        self._site.start()
        self._bilibili.start()
        try:
            with self._progress:
                trouble = self._play()
            if trouble:
                self._console.print(f"[red bold]That did not work:[/] {escape(trouble)}")
                self._console.print(f"  the daemon's log: {self.directory / 'data' / 'biliupd.log'}", markup=False)
            self._say_where()
            if not once and not trouble:
                with self._progress:
                    self._stay()
            return 1 if trouble else 0
        except KeyboardInterrupt:
            self._console.print("\nending …")
            return 1 if once else 0
        finally:
            self._end()

    def _play(self) -> str:
        """The whole way; an empty text, or what went wrong."""
        self._say(f"biliupd rehearses in {self.directory}")
        self._configure()
        self._start_daemon()
        if trouble := self._until("the daemon is ready", self._log_in):
            return trouble
        self._say(f"[bold]its page:[/] {self._page}  (user demo, password {PASSWORD})")
        for room, name, _ in ROOMS:
            self._site.go_live(room)
            self._say(f"[cyan]{name}[/] goes live on {self._site.url}/rooms/{room}")
        if trouble := self._until("both rooms are recorded", lambda: self._count("tasks", "1") >= len(ROOMS)):
            return trouble
        off_at = time.monotonic() + ON_AIR_SECONDS
        if trouble := self._until("the show goes on", lambda: time.monotonic() > off_at):
            return trouble
        for room, name, _ in ROOMS:
            self._site.go_offline(room)
            self._say(f"[cyan]{name}[/] goes off air")
        if trouble := self._until("both broadcasts are published", lambda: self._published() >= len(ROOMS)):
            return trouble
        self._say("a finished video is copied into the drop folder")
        self._drop("holiday.mp4")
        if trouble := self._until("the dropped file is published", lambda: self._published() > len(ROOMS)):
            return trouble
        return self._compare()

    def _configure(self) -> None:
        cookies = self._bilibili.write_cookies(self.directory / "cookies.json")
        self._bilibili.slow(LINE_BYTES_PER_SECOND)
        self._bilibili.chunk_size_bytes = PART_BYTES
        self._bilibili.submit_interval_seconds = 1.0  # the real one wants half a minute
        (self.directory / "drop").mkdir()
        streamers = []
        for room, name, title in ROOMS:
            page = self._site.add_room(room, protocol="flv" if room == "flv" else "hls", streamer=name, title=title)
            streamers.append({"name": name, "url": f"rehearsal+{page}", "check_interval": 2})
        settings = {
            "recordings": {"directory": "recordings", "data_directory": "data"},
            "streamers": streamers,
            "drop_folders": [{"directory": "drop"}],
            "accounts": {"main": {"cookies": str(cookies)}},
            "live": {"offline_delay_seconds": 2, "request_timeout_seconds": 5},
            "watch": {"quiet_seconds": 1, "limit_seconds": 5},
            "publish": {
                "member_url": self._bilibili.url, "passport_url": self._bilibili.url, "api_url": self._bilibili.url,
                "submit_interval_seconds": 1, "review_seconds": 1, "retry_seconds": 2, "lookup_seconds": 5,
            },
            "control": {"port": 0},
        }  # fmt: skip
        text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
        (self.directory / "config.yaml").write_text(text)

    def _start_daemon(self) -> None:
        with (self.directory / "daemon.stderr").open("wb") as errors:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "biliupd", "run", "-c", str(self.directory / "config.yaml")],
                stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True, cwd=self.directory,
            )  # fmt: skip
        self._say(f"the daemon runs as process {self._daemon.pid}")

    def _log_in(self) -> bool:
        """Make the first user, with the code of the log; False while the daemon does not answer yet."""
        try:
            told = (self.directory / "data" / "biliupd.log").read_text(encoding="utf-8")
        except OSError:
            return False
        page, code = re.search(r"the page: (\S+)", told), re.search(r"with the code (\S+)", told)
        if page is None or code is None:
            return False
        self._page = page[1]
        first = {"code": code[1], "username": "demo", "password": PASSWORD}
        return requests.post(f"{self._page}api/setup", json=first, timeout=10).status_code == 201

    def _drop(self, name: str) -> None:
        """A person's copy: it grows under its final name, which only settles when it is whole."""
        source = self.directory / name
        subprocess.run(
            [self._ffmpeg, "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=6",
             "-f", "lavfi", "-i", "sine=frequency=330:duration=6", "-c:v", "libx264", "-preset", "ultrafast",
             "-c:a", "aac", "-movflags", "+faststart", str(source)],
            check=True, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        content = source.read_bytes()
        with (self.directory / "drop" / name).open("wb") as copy:
            for start in range(0, len(content), 1 << 17):
                copy.write(content[start : start + (1 << 17)])
                copy.flush()
        source.unlink()

    # telling

    def _until(self, what: str, condition: Any) -> str:
        """Tell what happens until `condition` holds; an empty text, or why it will not."""
        while not condition():
            self._tell()
            if self._daemon is not None and self._daemon.poll() is not None:
                return f"the daemon ended with exit code {self._daemon.returncode} before {what}"
            if held := self._held():
                return f"{held}, before {what}"
            if time.monotonic() - self._began > DEADLINE_SECONDS:
                return f"after {DEADLINE_SECONDS:.0f} s still waiting until {what}"
            time.sleep(0.2)
        self._tell()
        return ""

    def _stay(self) -> None:
        self._say("staying until Ctrl-C; copy a video into the drop folder and watch it go")
        while self._daemon is not None and self._daemon.poll() is None:
            self._tell()
            time.sleep(0.5)

    def _tell(self) -> None:
        """Everything that is new in the catalog, in the order in which it happened."""
        if (db := self._db()) is None:
            return
        try:
            for task in db.query("select t.*, s.name from tasks t join streamers s on s.id = t.streamer_id"):
                name = f"[cyan]{escape(task['name'])}[/]"
                self._once(f"live {task['id']}", f"{name} is live: recorder {task['pid']} started")
                if task["status"] == "ended":
                    self._once(f"end {task['id']}", f"{name} recorder ended: {task['reason']}")
            for b in db.query("select b.*, s.name from broadcasts b join streamers s on s.id = b.streamer_id"):
                if b["ended_at"]:
                    self._once(f"over {b['id']}", f"[cyan]{escape(b['name'])}[/] the broadcast is over")
            self._tell_videos(db)
            self._tell_moves(db)
            self._tell_uploads(db)
        finally:
            db.conn.close()

    def _tell_videos(self, db: Database) -> None:
        for video in db.query("select * from videos order by id"):
            kind = "playlist of segments" if video["kind"] == "playlist" else "file"
            self._once(f"row {video['id']}", f"video {video['id']}: {escape(video['path'])} ({kind}) is in the catalog")

    def _tell_made(self, db: Database, id: int) -> None:
        (video,) = db.query("select * from videos where id = ?", [id])
        if video["merged_from"]:
            name = escape(Path(video["file_path"]).name)
            self._once(f"merged {id}", f"video {id}: merged into {name}, {video['duration']:.1f} s, checked")
        self._once(f"cover {id}", f"video {id}: cover made, {video['cover_path']}")

    def _tell_moves(self, db: Database) -> None:
        for move in db.query("select * from moves where id > ? order by id", [self._move]):
            self._move = move["id"]
            subject = f"video {move['video']}" if move["video"] else f"submission {move['submission']}"
            if move["video"] and move["new"] == "ready":
                self._tell_made(db, move["video"])
            text = _TOLD.get(move["new"], move["new"])
            if move["submission"] and move["new"] == "submitted":
                (bvid,) = db.execute("select bvid from submissions where id = ?", [move["submission"]]).fetchone()
                text = f"submitted: [green bold]{bvid}[/]"
            self._say(f"{subject}: {text}")

    def _tell_uploads(self, db: Database) -> None:
        for upload in db.query("select u.*, v.state from uploads u join videos v on v.id = u.video_id"):
            video, total = upload["video_id"], upload["bytes_total"]
            if upload["line"]:
                probed = sorted({r.query.get("upcdn", "") for r in self._bilibili.requests if r.route == "probe"})
                self._once("lines", f"upload lines probed: {', '.join(probed)}; {upload['line']} is the fastest")
            if upload["finished_at"] is None and upload["state"] == "uploading":
                bar = self._bars.get(video)
                if bar is None:
                    bar = self._bars[video] = self._progress.add_task(f"video {video}", total=total)
                self._progress.update(bar, completed=upload["bytes_sent"])
            elif video in self._bars:
                self._progress.remove_task(self._bars.pop(video))
                self._say(f"video {video}: {upload['bytes_sent']:,} bytes by line {upload['line']}")

    def _once(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/] {text}", soft_wrap=True)

    # looking

    def _db(self) -> Database | None:
        path = self.directory / "data" / "catalog.db"
        if not path.exists():
            return None
        db = connect(path, read_only=True)
        if not {"moves", "uploads"} <= set(db.table_names()):  # not made yet
            db.conn.close()
            return None
        return db

    def _count(self, table: str, where: str) -> int:
        if (db := self._db()) is None:
            return 0
        try:
            return int(db.execute(f"select count(*) from {table} where {where}").fetchone()[0])
        finally:
            db.conn.close()

    def _published(self) -> int:
        return self._count("submissions", "state = 'published'")

    def _held(self) -> str:
        if (db := self._db()) is None:
            return ""
        try:
            for table in ("videos", "submissions"):
                for row in db.query(f"select * from {table} where state = 'held'"):
                    return f"{table[:-1]} {row['id']} is held: {row['last_error']}"
        finally:
            db.conn.close()
        return ""

    def _compare(self) -> str:
        """The files on the disk against what Bilibili assembled, and how often it was submitted."""
        if (db := self._db()) is None:
            return "the catalog is gone"
        rows = list(
            db.query("select v.*, u.filename from videos v join uploads u on u.video_id = v.id order by v.id")
        )
        db.conn.close()
        for row in rows:
            if row["state"] != "published" or not Path(row["cover_path"]).is_file():
                return f"video {row['id']} is {row['state']}, cover {row['cover_path']}"
            with open(row["file_path"], "rb") as file:
                here = hashlib.file_digest(file, "sha256").hexdigest()
            there = self._bilibili.sha256(row["filename"])
            if here != there:
                return f"video {row['id']}: sha256 here {here}, at Bilibili {there}"
            self._say(f"video {row['id']}: sha256 {here} [green]identical[/] here and at Bilibili ({row['bvid']})")
        archives = self._bilibili.archives
        expected = len(ROOMS) + 1
        if len(archives) != expected:
            return f"{len(archives)} submissions arrived instead of {expected}"
        self._say(f"[green bold]all of it happened:[/] {expected} submissions, {len(rows)} videos, each exactly once")
        return ""

    def _say_where(self) -> None:
        self._console.print(f"  {'page':<18} {self._page}", markup=False)
        for name, where in (
            ("recordings", "recordings"), ("drop folder", "drop"), ("covers", "data/covers"),
            ("catalog (SQLite)", "data/catalog.db"), ("log", "data/biliupd.log"), ("configuration", "config.yaml"),
            ("what Bilibili got", "bilibili"),
        ):  # fmt: skip
            self._console.print(f"  {name:<18} {self.directory / where}", markup=False)

    def _end(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            os.kill(self._daemon.pid, signal.SIGINT)  # recorders, too
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        self._site.close()
        self._bilibili.close()

