"""Every fault a live site can have, played against the real crew and real recorder processes: `biliupd selftest`.

The live site is shared; each scenario has a room in it, a crew, a folder and a thread that asks the site once a second
as the poller does. Touches its own directory only. As a program it reads one scenario and prints its verdict as JSON:
so the one that needs a file system of its own can be played where such a thing may be mounted.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from loguru import logger

from biliupd.config import LiveConfig, RecordConfig, RecordingsConfig
from biliupd.errors import BiliupdError, TemporaryError
from biliupd.live.rehearsal import Rehearsal
from biliupd.live.status import LiveStream, State
from biliupd.record import broadcast as broadcasts
from biliupd.record.crew import Crew
from biliupd.record.shows import Show
from biliupd.record.spec import Stream
from biliupd.rehearsal.live_site import LiveSite
from biliupd.rehearsal.scenarios import Scenario, Step
from biliupd.rehearsal.verdict import Verdict, judge

AT_A_TIME = 6
SIZE, FPS = "160x90", 10
LIVE = LiveConfig(check_interval=1.0, request_timeout_seconds=3.0)
OFFLINE_DELAY_SECONDS = 3.0
START_SECONDS = 30.0
END_SECONDS = 45.0
RECORD = {
    "connect_timeout_seconds": 3.0, "stall_seconds": 3.0, "reconnect_seconds": 10.0, "sync_seconds": 2.0,
    "fragment_seconds": 0.0, "least_free": 16 << 20, "forecast_hours": 0.0,
}  # fmt: skip
SMALL_DISK_BYTES = 24 << 20
LEFT_BYTES = 256 << 10  # by whoever fills the disk
Say = Callable[[str, str], None]


class Selftest:
    """Scenarios, a few at a time, in `directory`. Use it once.

    `say` is called with a scenario's name and what it does, on the threads of the scenarios.
    """

    def __init__(self, directory: Path, ffmpeg: str, say: Say = lambda name, what: None) -> None:
        self._directory = directory
        self._ffmpeg = ffmpeg
        self._say = say
        self._site = LiveSite(directory / "live-site", ffmpeg=ffmpeg)
        self._encoders = _encoders(ffmpeg)
        self._stop = threading.Event()

    def run(
        self, scenarios: Sequence[Scenario], seconds: float = 0.0,
        on_verdict: Callable[[Verdict], None] = lambda verdict: None,
    ) -> list[Verdict]:
        """Play them; `seconds`: each broadcast is at least so long. Verdicts are told as they come."""
        verdicts = []
        self._site.start()
        try:
            with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="selftest") as pool:
                futures = [pool.submit(self._play, scenario, seconds) for scenario in scenarios]
                try:
                    for future in as_completed(futures):
                        verdicts.append(future.result())
                        on_verdict(verdicts[-1])
                finally:
                    self._stop.set()
                    for future in futures:
                        future.cancel()
        finally:
            self._site.close()
        return verdicts

    def _play(self, scenario: Scenario, seconds: float) -> Verdict:
        directory = self._directory / scenario.name
        directory.mkdir(parents=True)
        self._say(scenario.name, scenario.sentence)
        if scenario.encoder not in self._encoders:
            return Verdict(scenario.name, not_run=f"the encoder {scenario.encoder} is not in this ffmpeg")
        if scenario.small_disk:
            return _elsewhere(scenario, seconds, directory, self._ffmpeg)
        try:
            return Stage(scenario, self._site, directory, self._ffmpeg, self._stop, self._say).play(seconds)
        except (BiliupdError, OSError) as error:
            return Verdict(scenario.name, [str(error)])


class Stage:
    """One scenario being played."""

    def __init__(
        self, scenario: Scenario, site: LiveSite, directory: Path, ffmpeg: str, stop: threading.Event, say: Say
    ) -> None:
        self._scenario, self._site, self._ffmpeg, self._stop, self._say = scenario, site, ffmpeg, stop, say
        self._name = scenario.name
        self._record = RecordConfig.model_validate({**RECORD, **scenario.record})
        self._recordings = RecordingsConfig(
            directory=directory / "recordings", data_directory=directory.with_name(f"{directory.name}-data"))
        self._ballast = directory / "ballast"
        self._url = ""
        self._platform = Rehearsal()
        self._look_now = threading.Event()
        self._over = threading.Event()
        self._crew = self._new_crew()

    def play(self, seconds: float) -> Verdict:
        """The whole scenario. Raises `BiliupdError` when there is no media or nobody records it."""
        scenario, site = self._scenario, self._site
        page = site.add_room(self._name, **{
            "streamer": self._name, "title": scenario.sentence, "size": SIZE, "fps": FPS, **scenario.room})  # fmt: skip
        self._url = f"rehearsal+{page}"
        self._do([step for step in scenario.steps if step.at < 0], 0.0)
        site.go_live(self._name)
        self._crew.start()
        looks = threading.Thread(target=self._look, name=f"selftest look {self._name}")
        looks.start()
        try:
            self._wait(START_SECONDS, lambda: any(unit.delivered for unit in site.made(self._name)), "is recorded")
            began = time.monotonic()
            self._do([step for step in scenario.steps if step.at >= 0], began)
            self._pause(began + max(seconds, scenario.seconds))
            withheld = site.withheld(self._name)
            site.go_offline(self._name)
            trouble = self._until_over()
        finally:
            self._over.set()
            self._look_now.set()
            looks.join(10)
            self._crew.stop_all(10.0)
            self._crew.close(5.0)
            site.go_offline(self._name)
        verdict = judge(scenario, self._folders(), withheld, site.made(self._name), self._ffmpeg)
        verdict.trouble += trouble
        return verdict

    def _do(self, steps: Sequence[Step], began: float) -> None:
        for step in steps:
            self._pause(began + step.at)
            if step.what.startswith("stage."):
                getattr(self, step.what.removeprefix("stage."))()
            else:
                getattr(self._site, step.what)(self._name, *step.arguments, **step.named)

    # what happens to us

    def kill_recorder(self) -> None:
        """As the kernel does when memory is short."""
        self._site.note(self._name, "recorder killed")
        for running in self._crew.running():
            os.kill(running.pid, signal.SIGKILL)

    def new_daemon(self) -> None:
        """The crew ends and another one adopts what it left."""
        self._crew.close(5.0)
        self._crew = self._new_crew()
        self._crew.start()

    def fill_disk(self) -> None:
        """Somebody else fills it up, all at once."""
        self._site.note(self._name, "disk full")
        free = shutil.disk_usage(self._ballast.parent).free
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - LEFT_BYTES))

    def empty_disk(self) -> None:
        self._ballast.unlink(missing_ok=True)

    # the daemon's part

    def _new_crew(self) -> Crew:
        crew = Crew(
            self._record, self._recordings, OFFLINE_DELAY_SECONDS, on_started=lambda started: None,
            on_stopped=lambda ended: None, recheck=lambda streamer: self._look_now.set(),
            on_notice=lambda told: self._say(self._name, told[1]) if told[1] else None, ffmpeg=self._ffmpeg,
        )  # fmt: skip
        crew.wanted({self._name: 0})
        return crew

    def _look(self) -> None:
        """Ask the site as the poller does, and tell the crew as the daemon does; on its own thread."""
        while not self._over.is_set():
            self._look_now.clear()
            status = self._platform.check(self._url, LIVE)
            crew = self._crew
            if status.state is State.LIVE:
                crew.titled(self._name, status.title)
                if crew.wants_stream(self._name):
                    with contextlib.suppress(TemporaryError):
                        stream = self._platform.stream(self._url, LIVE)
                        ways = tuple(_way(one) for one in (stream, *stream.alternates))
                        crew.went_live(Show(self._name, self._platform.name, self._url, status.title, "",
                                            status.live_id, ways))  # fmt: skip
            elif status.state is State.OFFLINE:
                crew.went_offline(self._name)
            self._look_now.wait(1.0)

    # waiting and looking

    def _pause(self, until: float) -> None:
        if self._stop.wait(max(0.0, until - time.monotonic())):
            raise BiliupdError("not played to its end")

    def _wait(self, seconds: float, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise BiliupdError(f"after {seconds:.0f} s nothing {what}")
            self._pause(time.monotonic() + 0.05)

    def _until_over(self) -> list[str]:
        """Wait until the broadcast is over; what is wrong when it never is."""
        deadline = time.monotonic() + END_SECONDS
        while any((found := broadcasts.read(folder)) and found.ended_at is None for folder in self._folders()):
            if time.monotonic() > deadline:
                return [f"the broadcast is not over {END_SECONDS:.0f} s after its end"]
            self._pause(time.monotonic() + 0.1)
        return []

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self._recordings.directory.glob(f"*/*/{broadcasts.NAME}"))


def _way(stream: LiveStream) -> Stream:
    expires = stream.expires_at.isoformat() if stream.expires_at else ""
    return Stream(stream.url, stream.protocol, dict(stream.headers), expires)


def _encoders(ffmpeg: str) -> str:
    try:
        return subprocess.run([ffmpeg, "-hide_banner", "-encoders"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=10, check=False).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""


# a file system of its own

def _elsewhere(scenario: Scenario, seconds: float, directory: Path, ffmpeg: str) -> Verdict:
    """Play it in a mount namespace, where a small tmpfs can be put under it."""
    own = next((own for own in (["unshare", "-m"], ["unshare", "-Urm"]) if _may(*own, *_mount(directory))), None)
    if own is None:
        return Verdict(scenario.name, not_run="needs root, or user namespaces, to mount a small file system")
    argv = [*own, sys.executable, "-m", __name__, str(seconds), str(directory), ffmpeg]
    limit = START_SECONDS + END_SECONDS + max(seconds, scenario.seconds) + 30
    try:
        told = json.dumps(asdict(scenario))
        done = subprocess.run(argv, input=told, capture_output=True, text=True, timeout=limit, check=True)
        return Verdict(**json.loads(done.stdout))
    except subprocess.CalledProcessError as error:
        return Verdict(scenario.name, [f"not played to its end: {error.stderr.strip()[-300:]}"])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return Verdict(scenario.name, [f"not played to its end: {type(error).__name__}"])


def _mount(directory: Path) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(directory)]


def _may(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main(seconds: str, directory: str, ffmpeg: str) -> None:
    """Play the scenario on standard input on a small disk; we are in a mount namespace of our own."""
    logger.remove()
    told = json.load(sys.stdin)
    scenario = Scenario(**{**told, "steps": tuple(Step(**step) for step in told["steps"])})
    disk = Path(directory) / "disk"
    disk.mkdir()
    subprocess.run(_mount(disk), check=True, timeout=10)
    site = LiveSite(Path(directory) / "live-site", ffmpeg=ffmpeg)
    site.start()
    try:
        stage = Stage(scenario, site, disk, ffmpeg, threading.Event(), lambda name, what: None)
        verdict = stage.play(float(seconds))
    finally:
        site.close()
    sys.stdout.write(json.dumps(asdict(verdict)))


if __name__ == "__main__":
    main(*sys.argv[1:])
