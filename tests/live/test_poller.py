"""The poller against real servers: what it asks, when, and what it reports."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loguru import logger
from support import clock_ahead, wait_until

from biliupd.config import LiveConfig, Streamer
from biliupd.errors import TemporaryError
from biliupd.live import platform as platforms
from biliupd.live import poller as poller_module
from biliupd.live.platform import LiveStatus, LiveStream, State
from biliupd.live.poller import Poller, _Every, pause_after

LIVE = LiveConfig(check_interval=60, request_timeout_seconds=5)


class Rooms:
    """Scripted rooms of the stand-in's API, and what a poller reported of them."""

    def __init__(self, script):
        self.script = script
        self.seen: list[tuple[str, State, LiveStream | None]] = []
        self.wanting: set[str] = set()
        self.pollers: list[Poller] = []
        self.broken = False

    def add(self, name: str, state: str = "offline", interval: float | None = None, **changes) -> Streamer:
        self.put(name, state)
        url = f"rehearsal+{self.script.url}/rooms/{name}"
        return Streamer(name=name, url=url, check_interval=interval, **changes)

    def put(self, name: str, state: str, **changes) -> None:
        stream = {"protocol": "flv", "url": f"{self.script.url}/{name}.flv?sign=secret"}
        content = {"room_id": name, "live_status": state, "streams": [stream], **changes}
        self.script.says(f"/api/rooms/{name}", body=json.dumps(content).encode())

    def asked(self, name: str) -> int:
        return self.script.count(f"/api/rooms/{name}")

    def poller(self, *streamers: Streamer, live: LiveConfig = LIVE) -> Poller:
        poller = Poller(live, streamers, on_status=self.note, needs_stream=lambda name: name in self.wanting)
        self.pollers.append(poller)
        poller.start()
        return poller

    def note(self, streamer, platform, status, stream) -> None:
        assert platform.name == "rehearsal"
        self.seen.append((streamer.name, status.state, stream))
        if self.broken:
            raise RuntimeError("the catalog is locked")

    def states(self, name: str) -> list[State]:
        return [state for seen, state, _ in self.seen if seen == name]


@pytest.fixture
def rooms(script) -> Iterator[Rooms]:
    rooms = Rooms(script)
    yield rooms
    script.over.set()
    for poller in rooms.pollers:
        poller.close(5)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).strip()), format="{extra[streamer]} {level} {message}",
                      filter=lambda record: "streamer" in record["extra"])
    yield lines
    logger.remove(sink)


def for_a_while(seconds: float) -> None:
    """Let a moment pass in which something must not happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until)


def test_each_room_is_looked_at_soon_after_the_start_and_then_at_its_own_interval(rooms):
    poller = rooms.poller(rooms.add("often", interval=1), rooms.add("seldom", "live"), rooms.add("no", record=False))
    wait_until(lambda: rooms.states("seldom") == [State.LIVE] and rooms.states("often"), seconds=2)
    wait_until(lambda: rooms.asked("often") >= 3, seconds=5)
    assert rooms.asked("seldom") == 1
    assert rooms.asked("no") == 0
    assert {name: status.state for name, status in poller.statuses().items()} == {
        "often": State.OFFLINE, "seldom": State.LIVE,
    }
    assert poller.is_alive()


def test_a_stream_is_asked_for_only_when_the_room_is_live_and_it_is_wanted(rooms):
    rooms.wanting = {"wanted", "off"}
    rooms.poller(rooms.add("wanted", "live"), rooms.add("off"), rooms.add("unwanted", "live"))
    wait_until(lambda: len(rooms.seen) == 3)
    streams = {name: stream and stream.url.split("?")[0] for name, _, stream in rooms.seen}
    assert streams == {"wanted": f"{rooms.script.url}/wanted.flv", "off": None, "unwanted": None}
    assert (rooms.asked("wanted"), rooms.asked("off"), rooms.asked("unwanted")) == (2, 1, 1)


def test_rooms_that_hang_delay_no_other(rooms):
    hanging = [rooms.add(f"hanging{n}", interval=1) for n in range(20)]
    for streamer in hanging:
        rooms.script.says(f"/api/rooms/{streamer.name}", silent=True)
    rooms.poller(*hanging, rooms.add("well", interval=1), live=LIVE.model_copy(update={"request_timeout_seconds": 60}))
    wait_until(lambda: rooms.asked("well") >= 3, seconds=10)
    assert rooms.states("hanging0") == []


def test_whoever_listens_may_fail_and_the_looks_go_on(rooms, log):
    rooms.broken = True
    rooms.poller(rooms.add("a", interval=1))
    wait_until(lambda: rooms.asked("a") >= 3)
    assert any("could not be passed on" in line for line in log)


def test_another_configuration_leaves_alone_what_it_does_not_change(rooms):
    a, b, c = rooms.add("a"), rooms.add("b"), rooms.add("c", interval=1)
    poller = rooms.poller(a, b, c)
    wait_until(lambda: {name for name, _, _ in rooms.seen} == {"a", "b", "c"})
    faster = b.model_copy(update={"check_interval": 1.0})
    poller.apply(LIVE, [a.model_copy(update={"template": "other"}), faster, rooms.add("d", "live")])
    wait_until(lambda: rooms.states("d") == [State.LIVE], seconds=2)
    dropped = rooms.asked("c")
    wait_until(lambda: rooms.asked("b") >= 4, seconds=8)
    assert rooms.asked("a") == 1
    assert rooms.asked("c") <= dropped + 1
    assert set(poller.statuses()) == {"a", "b", "d"}


def test_another_address_is_looked_at_at_once_and_the_old_one_no_more(rooms):
    a = rooms.add("a", "live", interval=1)
    poller = rooms.poller(a)
    wait_until(lambda: rooms.states("a"))
    rooms.add("elsewhere", "offline")
    poller.apply(LIVE, [a.model_copy(update={"url": a.url.replace("/a", "/elsewhere")})])
    wait_until(lambda: rooms.states("a")[-1] is State.OFFLINE, seconds=2)
    asked = rooms.asked("a")
    wait_until(lambda: rooms.asked("elsewhere") >= 3)
    assert rooms.asked("a") == asked


def test_the_default_interval_can_be_changed_for_all(rooms):
    a = rooms.add("a")
    poller = rooms.poller(a)
    wait_until(lambda: rooms.states("a"))
    poller.apply(LIVE.model_copy(update={"check_interval": 1.0}), [a])
    wait_until(lambda: rooms.asked("a") >= 3, seconds=5)


def test_an_extra_look_is_taken_at_once_and_an_unknown_name_is_no_error(rooms):
    poller = rooms.poller(rooms.add("a"), rooms.add("b"))
    wait_until(lambda: len(rooms.seen) == 2)
    rooms.put("a", "live")
    poller.check_now("a")
    poller.check_now("nobody")
    wait_until(lambda: rooms.states("a") == [State.OFFLINE, State.LIVE], seconds=2)
    assert rooms.asked("b") == 1


def test_an_extra_look_does_not_shift_the_next_one(rooms):
    poller = rooms.poller(rooms.add("a", interval=100))
    wait_until(lambda: rooms.states("a"))
    due = poller._rooms["a"].job.next_run_time
    poller.check_now("a")
    wait_until(lambda: rooms.asked("a") == 2)
    assert poller._rooms["a"].job.next_run_time == due


def test_an_extra_look_wanted_during_a_look_follows_it(rooms):
    a = rooms.add("a")
    rooms.script.says("/api/rooms/a", silent=True)
    poller = rooms.poller(a)
    wait_until(lambda: rooms.asked("a") == 1)
    poller.check_now("a")
    poller.check_now("a")
    rooms.put("a", "live")
    rooms.script.over.set()
    wait_until(lambda: State.LIVE in rooms.states("a"), seconds=2)
    for_a_while(0.3)
    assert rooms.asked("a") == 2


class Odd:
    """A platform with bugs."""

    name = "rehearsal"

    def matches(self, url):
        return True

    def check(self, url, live):
        if "broken" in url:
            raise KeyError("token=secret")
        return LiveStatus(State.LIVE)

    def stream(self, url, live):
        raise TypeError("token=secret") if "typo" in url else TemporaryError("no stream yet")


def test_a_bug_in_a_platform_makes_only_that_room_unknown(rooms, log, monkeypatch):
    monkeypatch.setattr(platforms, "PLATFORMS", (Odd(),))
    rooms.wanting = {"typo"}
    poller = rooms.poller(rooms.add("broken", interval=1), rooms.add("typo"), rooms.add("well"))
    wait_until(lambda: len(rooms.states("broken")) >= 2 and rooms.states("well") and rooms.states("typo"))
    states = {name: status.state for name, status in poller.statuses().items()}
    assert states == {"broken": State.UNKNOWN, "typo": State.LIVE, "well": State.LIVE}
    text = "\n".join(log)
    assert "KeyError in check (test_poller.py:" in text
    assert "TypeError in stream (test_poller.py:" in text
    assert "secret" not in text


def test_a_live_room_without_a_stream_is_looked_at_again_soon(rooms, log, monkeypatch):
    monkeypatch.setattr(platforms, "PLATFORMS", (Odd(),))
    monkeypatch.setattr(poller_module, "SOON_SECONDS", (0.1, 0.2))
    rooms.wanting = {"a"}
    rooms.poller(rooms.add("a"))
    wait_until(lambda: rooms.states("a") == [State.LIVE] * 4, seconds=3)
    assert {stream for _, _, stream in rooms.seen} == {None}
    assert [line for line in log if "no stream" in line] == [
        "a WARNING live, but there is no stream to be had: no stream yet"
    ]


def test_an_address_without_a_platform_is_unknown_and_reported_to_nobody(rooms, log):
    poller = rooms.poller(Streamer(name="x", url="nonsense", check_interval=1), rooms.add("a", interval=1))
    wait_until(lambda: rooms.asked("a") >= 3)
    reason = "no platform answers for this address"  # streamlink is asked, too: it takes a while to load
    wait_until(lambda: poller.statuses()["x"].reason == reason, seconds=60)
    assert rooms.states("x") == []
    assert sum(line.startswith("x ") for line in log) == 1


def test_a_change_of_state_is_logged_once(rooms, log):
    poller = rooms.poller(rooms.add("a"))

    def look(state: str, count: int) -> None:
        rooms.put("a", state)
        for _ in range(count):
            before = len(rooms.seen)
            poller.check_now("a")
            wait_until(lambda: len(rooms.seen) > before)  # noqa: B023 - called in this turn only

    wait_until(lambda: rooms.seen)
    look("live", 3)
    look("odd", 3)
    look("restricted", 2)
    look("live", 1)
    assert log == [
        "a INFO offline",
        "a INFO live",
        "a WARNING unknown: the site answers with a state that is not known",
        "a WARNING restricted: the site says it is not for everybody",
        "a INFO live",
    ]


@pytest.mark.parametrize(
    ("count", "interval", "pause"),
    [(1, 60, 0), (2, 60, 1), (3, 60, 3), (4, 60, 7), (5, 60, 9), (9999, 60, 9), (9999, 1, 599), (3, 600, 0)],
)
def test_a_site_in_trouble_is_asked_less_often_up_to_ten_minutes(count, interval, pause):
    assert pause_after(count, interval) == pause


def test_a_room_in_trouble_is_left_out_until_a_room_of_the_same_site_answers_again(rooms):
    a, b = rooms.add("a", "odd", interval=1), rooms.add("b", "odd")
    poller = rooms.poller(a, b)
    wait_until(lambda: rooms.asked("a") >= 2)
    for _ in range(6):
        before = len(rooms.seen)
        poller.check_now("a")
        wait_until(lambda: len(rooms.seen) > before)  # noqa: B023 - called in this turn only
    asked = rooms.asked("a")
    for_a_while(2.5)
    assert rooms.asked("a") == asked
    rooms.put("a", "offline")
    rooms.put("b", "offline")
    poller.check_now("b")
    wait_until(lambda: rooms.asked("a") > asked, seconds=3)


def test_closing_returns_by_its_deadline_though_a_site_hangs_and_nothing_is_reported_after(rooms):
    a = rooms.add("a")
    rooms.script.says("/api/rooms/a", silent=True)
    poller = rooms.poller(a)
    wait_until(lambda: rooms.asked("a") == 1)
    began = time.monotonic()
    poller.close(0.3)
    assert time.monotonic() - began < 1
    assert not poller.is_alive()
    poller.check_now("a")
    rooms.script.over.set()
    wait_until(lambda: not any(thread.name == "look" for thread in threading.enumerate()))
    assert rooms.seen == []
    assert rooms.asked("a") == 1


def test_a_process_ends_though_a_site_hangs(script):
    """The looks are daemon threads; those of a pool are joined when the interpreter ends."""
    script.says("/api/rooms/a", silent=True)
    program = (
        "import sys; from biliupd.config import *; from biliupd.live.poller import Poller;"
        "p = Poller(LiveConfig(), [Streamer(name='a', url=sys.argv[1])], on_status=print, needs_stream=bool);"
        "p.start(); sys.stdin.read(); p.close(0.1)"
    )
    argv = [sys.executable, "-c", program, f"rehearsal+{script.url}/rooms/a"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: script.count("/api/rooms/a") == 1)
        assert child.stdin
        child.stdin.close()
        assert child.wait(3) == 0


def test_a_configuration_that_comes_before_the_start_counts(rooms):
    a, b = rooms.add("a"), rooms.add("b")
    poller = Poller(LIVE, [a], on_status=rooms.note, needs_stream=bool)
    poller.apply(LIVE, [b])
    rooms.pollers.append(poller)
    poller.start()
    wait_until(lambda: rooms.states("b"))
    assert (rooms.asked("a"), set(poller.statuses())) == (0, {"b"})


def test_closing_before_the_start_is_fine():
    poller = Poller(LIVE, [], on_status=print, needs_stream=bool)
    poller.close(1)
    assert not poller.is_alive()


def test_a_look_that_hangs_for_long_is_told_once(rooms, log):
    a = rooms.add("a")
    rooms.script.says("/api/rooms/a", silent=True)
    poller = rooms.poller(a)
    wait_until(lambda: rooms.asked("a") == 1)
    now = time.monotonic()
    for later in (1, 59, 70, 80):
        poller.guard(1e9 + now + later, now + later)
    assert [line for line in log if "waiting" in line] == ["a WARNING a look has been waiting for its site for 60 s"]


def test_a_timer_names_one_moment_however_far_the_clock_jumped():
    every, now = _Every(60), datetime(2026, 1, 1, tzinfo=UTC)
    waits = [
        every.get_next_fire_time(now - timedelta(days=365 * 56), now).timestamp() - now.timestamp() for _ in range(200)
    ]
    assert min(waits) >= 48
    assert max(waits) <= 72
    assert max(waits) - min(waits) > 12


CHILD = """
import sys, threading, time
from biliupd.config import LiveConfig, Streamer
from biliupd.live.poller import Poller

streamers = [Streamer(name=name, url=sys.argv[1] + name, check_interval=1) for name in sys.argv[3:]]
poller = Poller(LiveConfig(), streamers, on_status=lambda *_: None, needs_stream=lambda _: False)
poller.start()
threading.Thread(target=lambda: (sys.stdin.read(), poller.stop.set()), daemon=True).start()
began, told = time.time(), False
while not poller.stop.wait(0.2):
    if sys.argv[2] == "guarded":
        poller.guard(time.time(), time.monotonic())
    if not told and abs(time.time() - began) > 3600:
        told = print("jumped", flush=True) or True
poller.close(2)
"""


class Child:
    """A poller in a process whose wall clock jumps while its monotonic clock does not, as after NTP."""

    def __init__(self, rooms: Rooms, directory: Path, name: str, guard: str) -> None:
        self.rooms, self.names, self.clock = rooms, [f"{name}1", f"{name}2"], directory / name
        for room in self.names:
            rooms.add(room)
        environment = os.environ | clock_ahead(self.clock, 0)
        argv = [sys.executable, "-c", CHILD, f"rehearsal+{rooms.script.url}/rooms/", guard, *self.names]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def asked(self) -> list[int]:
        return [self.rooms.asked(name) for name in self.names]

    def looked(self, before: list[int], times: int) -> bool:
        return all(now >= then + times for now, then in zip(self.asked(), before, strict=True))


def test_looks_go_on_after_the_clock_was_set_because_of_the_guard(rooms, tmp_path):
    children = [
        Child(rooms, tmp_path, "back", "guarded"),
        Child(rooms, tmp_path, "forth", "guarded"),
        Child(rooms, tmp_path, "alone", "unguarded"),
    ]
    try:
        wait_until(lambda: all(child.looked([0, 0], 2) for child in children))
        for child, jump in zip(children, (-7200, 30 * 86400, -7200), strict=True):
            clock_ahead(child.clock, jump)
        assert [child.process.stdout.readline() for child in children] == ["jumped\n"] * 3
        for_a_while(1.5)  # looks that were due already may still be on their way
        before = [child.asked() for child in children]
        wait_until(lambda: children[0].looked(before[0], 3) and children[1].looked(before[1], 3), seconds=10)
        assert children[2].asked() == before[2]
    finally:
        for child in children:
            child.process.communicate(timeout=10)
    assert [child.process.returncode for child in children] == [0, 0, 0]
