"""A real daemon between a stand-in live site and a stand-in Bilibili, for the tests of a whole life."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import requests
import yaml
from sqlite_utils import Database
from support import set_apart, wait_until

from biliupd.catalog.database import connect
from biliupd.record.broadcast import alive, read
from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.live_site import LiveSite

PASSWORD = "correct horse battery"


def make_video(path: Path, seconds: float = 3, *, size: str = "320x180") -> Path:
    """A real video with sound; no two mp4 are of the same content."""
    path.write_bytes(_encoded(path.suffix, seconds, size))
    if path.suffix == ".mp4":
        set_apart(path)
    return path


@cache
def _encoded(suffix: str, seconds: float, size: str) -> bytes:
    """By ffmpeg, once in each process."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"video{suffix}"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}",
             "-f", "lavfi", "-i", f"sine=duration={seconds}", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25",
             "-c:a", "aac", str(path)],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return path.read_bytes()


class World:
    """Everything one life needs, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.site = LiveSite(directory / "site")
        self.bilibili = Bilibili(directory / "bilibili")
        self.bilibili.submit_interval_seconds = 0.0
        self.drop = directory / "drop"
        self.drop.mkdir()
        self.cookies = self.bilibili.write_cookies(directory / "cookies.json")
        self.path = directory / "config.yaml"
        self.settings: dict[str, Any] = {
            "recordings": {"directory": "recordings", "data_directory": "data"},
            "streamers": [],
            "drop_folders": [{"directory": "drop"}],
            "accounts": {"main": {"cookies": "cookies.json"}},
            "live": {"offline_delay_seconds": 1.5, "request_timeout_seconds": 3},
            "record": {"orphan_seconds": 30, "stall_seconds": 3, "fragment_seconds": 0},
            "watch": {"quiet_seconds": 0.7, "limit_seconds": 3},
            "edit": {},
            "publish": {
                "member_url": self.bilibili.url, "passport_url": self.bilibili.url, "api_url": self.bilibili.url,
                "submit_interval_seconds": 0, "review_seconds": 0.5, "retry_seconds": 0.5, "lookup_seconds": 1,
                "timeout_seconds": 20,
            },
            "control": {"enabled": False},
            "log": {"level": "DEBUG"},
        }  # fmt: skip
        self.daemon: subprocess.Popen[bytes] | None = None

    def room(self, room: str, **more: Any) -> None:
        """Add a room to the site and to the configuration; it is called like its id."""
        protocol = "flv" if room.startswith("flv") else "hls"
        page = self.site.add_room(room, protocol=protocol, streamer=room, title=f"{room} 的直播", size="320x180")
        self.settings["streamers"].append({"name": room, "url": f"rehearsal+{page}", "check_interval": 1, **more})

    def save(self) -> None:
        self.path.write_text(yaml.safe_dump(self.settings, allow_unicode=True))

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "biliupd", *words, "-c", str(self.path)], capture_output=True, text=True, timeout=90,
            cwd=self.directory, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    def start(self, **environment: str) -> None:
        """A daemon with the settings as they are, ready."""
        self.save()
        before = self.log().count("ready: ")
        with (self.directory / "stderr").open("ab") as errors:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "biliupd", "run", "-c", str(self.path)], stdin=subprocess.DEVNULL, stderr=errors,
                start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip
        self.wait(lambda: self.log().count("ready: ") > before, 30, "the daemon is ready")

    def kill(self) -> None:
        """As a power cut would: nothing is closed."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask the daemon to end; its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.daemon.wait(seconds)

    def wait(self, condition: Any, seconds: float = 60, what: str = "") -> None:
        """Wait; when that fails, or the daemon dies meanwhile, say what its log says."""
        try:
            wait_until(lambda: condition() or self._dead(), seconds, what, every=0.05)  # each look opens the catalog
            assert condition() or not self._dead(), "the daemon died"
        except AssertionError as error:
            tail = "\n".join(self.log().splitlines()[-40:])
            rows = json.dumps([*self.rows("videos"), *self.rows("submissions")], indent=1)
            raise AssertionError(f"{error}\n{tail}\n{rows}") from None

    def _dead(self) -> bool:
        return self.daemon is not None and self.daemon.poll() not in (None, -signal.SIGKILL)

    def close(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        for pid in self.recorders():
            os.kill(pid, signal.SIGKILL)
        self.site.close()
        self.bilibili.close()

    # the page

    def page(self) -> str:
        """Its address, without a slash at the end."""
        return re.findall(r"the page: (http\S+)/", self.log())[-1]

    def log_in(self) -> requests.Session:
        """The first user, made with the code of the log."""
        code = re.findall(r"with the code (\S+)", self.log())[-1]
        session = requests.Session()
        first = {"code": code, "username": "ann", "password": PASSWORD}
        answer = session.post(f"{self.page()}/api/setup", json=first, timeout=10)
        assert answer.status_code == 201, answer.text
        return session

    # looking

    def log(self) -> str:
        path = self.directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def db(self) -> Database:
        return connect(self.directory / "data" / "catalog.db", read_only=True)

    def rows(self, table: str, where: str = "1") -> list[dict[str, Any]]:
        if not (self.directory / "data" / "catalog.db").exists():
            return []
        db = self.db()
        try:
            return list(db.query(f"select * from {table} where {where}"))
        finally:
            db.conn.close()

    def states(self, table: str = "videos") -> list[str]:
        return [row["state"] for row in self.rows(table)]

    def recorders(self) -> list[int]:
        """Processes that record for this world, as far as they have said so."""
        found = [read(path.parent) for path in (self.directory / "recordings").glob("*/*/broadcast.json")]
        return [broadcast.pid for broadcast in found if broadcast and broadcast.pid and alive(broadcast)]

    def check_published(self, submissions: int, videos: int) -> None:
        """Exactly so many, every byte there, and no row left behind."""
        rows = self.rows("videos v join uploads u on u.video_id = v.id", "v.state = 'published'")
        assert len(rows) == videos
        assert len(self.bilibili.archives) == submissions
        for row in rows:
            here = hashlib.sha256(Path(row["file_path"]).read_bytes()).hexdigest()
            assert here == self.bilibili.sha256(row["filename"]), row["file_path"]
            assert Path(row["cover_path"]).stat().st_size > 1000
        used = [name for archive in self.bilibili.archives for name in [part.filename for part in archive.parts]]
        assert sorted(used) == sorted(row["filename"] for row in rows)
        assert set(self.states("submissions")) == {"published"}
