"""What a daemon does with a crew, for the tests of it."""

from collections.abc import Callable
from pathlib import Path

from recording_support import MediaServer
from support import wait_until

from biliupd.config import RecordConfig, RecordingsConfig
from biliupd.record import spec as specs
from biliupd.record.crew import Crew
from biliupd.record.shows import Ended, Show, Started

DELAY = 100.0


class Daemon:
    """What the daemon does with a crew, and what it hears from it."""

    def __init__(self, room: Path, delay: float = DELAY, **record: object) -> None:
        self.delay = delay
        self.recordings = RecordingsConfig(directory=room / "recordings", data_directory=room / "data")
        self.record = RecordConfig(**{  # type: ignore[arg-type]
            "reconnect_seconds": 0.05, "stall_seconds": 30.0, "orphan_seconds": 30.0, **record})
        self.started: list[Started] = []
        self.ended: list[Ended] = []
        self.rechecks: list[str] = []
        self.notices: dict[str, str] = {}
        self.pressed: list[str] = []
        self.unmerged = 0
        self.now = 1000.0
        self.crew = self.new_crew()

    def new_crew(self) -> Crew:
        return Crew(self.record, self.recordings, self.delay, on_started=self.started.append,
                    on_stopped=self.ended.append, recheck=self.rechecks.append, on_notice=self.hear,
                    on_pressure=self.pressed.append, unmerged=lambda running: self.unmerged)

    def hear(self, told: tuple[str, str]) -> None:
        """Keep a notice until it is taken back."""
        self.notices[told[0]] = told[1]
        if not told[1]:
            del self.notices[told[0]]

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.crew.turn(self.now)

    def until(self, condition: Callable[[], object]) -> None:
        def look() -> object:
            self.turn()
            return condition()
        wait_until(look)

    def show(self, server: MediaServer, path: str = "/live.flv", expires_at: str = "", **more: str) -> Show:
        facts = {"streamer": "someone", "platform": "site", "url": "https://site/1", "title": "a show", "cover_url": "",
                 "live_id": "", **more}
        return Show(**facts, streams=(specs.Stream(server.url + path, "flv", {"Cookie": "secret"}, expires_at),))

    @property
    def folder(self) -> Path:
        folder, = (self.recordings.directory / "someone").iterdir()
        return folder

    @property
    def state_files(self) -> list[str]:
        return sorted(p.suffix for p in (self.recordings.data_directory / "recorders").iterdir()
                      if p.name != "heartbeat")

    def media_flows(self) -> bool:
        """The recorder runs and the clip is on its way to the disk."""
        parts = list(self.recordings.directory.glob("someone/*/P*.flv.part"))
        return bool(self.crew.running() and parts) and parts[0].stat().st_size > 200_000


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
