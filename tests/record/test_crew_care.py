"""How the crew looks after recorders that run: figures, signs of life, addresses, titles; and who has to wait."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crew_support import Daemon
from recording_support import MediaServer

from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast
from biliupd.record.places import read_queue


@pytest.fixture
def make(tmp_path: Path) -> Iterator[type[Daemon]]:
    made: list[Daemon] = []

    class Made(Daemon):
        def __init__(self, **settings: float) -> None:
            super().__init__(tmp_path, **settings)  # type: ignore[arg-type]
            made.append(self)

    yield Made
    for daemon in made:
        daemon.crew.stop_all(5)
        daemon.crew.close(5)


@pytest.fixture
def endless(server: MediaServer, media: Path) -> MediaServer:
    """The clip at two addresses, then silence; at /other.flv another one that ends."""
    clip, other = ((media / f"{name}.flv").read_bytes() for name in ("clip", "other"))
    server.answers["/live.flv"] = server.answers["/new.flv"] = server.live(clip, silent=True)
    server.answers["/other.flv"] = server.in_turn(server.live(other), server.live(silent=True))
    return server


def spec_of(daemon: Daemon) -> specs.Spec:
    path, = (daemon.recordings.data_directory / "recorders").glob("*.json")
    return specs.read(path)


def known(daemon: Daemon) -> Broadcast:
    found = broadcasts.read(daemon.folder)
    assert found is not None
    return found


def losses(daemon: Daemon) -> list[str]:
    return [row["cause"] for row in known(daemon).ledger if row["seconds"] > 0]


def test_every_setting_reaches_the_recorder(make: type[Daemon], endless: MediaServer) -> None:
    settings = {
        "split_size": 1 << 30, "split_seconds": 77, "split_on_title": True, "split_gap_seconds": 5,
        "fragment_seconds": 3, "max_height": 720, "max_bitrate": 10**6, "codecs": ["hevc", "avc"], "sync_seconds": 4,
        "connect_timeout_seconds": 7, "stall_seconds": 8, "reconnect_seconds": 9, "orphan_seconds": 60,
    }
    daemon = make(**settings)  # type: ignore[arg-type]
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    found = vars(spec_of(daemon))
    assert {name: found[name] for name in settings} == {**settings, "codecs": ("hevc", "avc")}
    assert found["title"] == "a show"
    assert found["figures_path"].endswith(f"/{daemon.started[0].broadcast_id}.figures")


def test_figures_are_those_of_now_and_go_with_the_broadcast(
        make: type[Daemon], server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    pieces = [clip[at:at + len(clip) // 20] for at in range(0, len(clip), len(clip) // 20)]
    server.answers["/live.flv"] = server.live(*pieces, silent=True, pause=0.3)
    daemon = make()
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.crew.running()
                 and daemon.crew.running()[0].figures.media_seconds > known(daemon).figures.media_seconds > 0)
    assert daemon.crew.running()[0].figures.bytes > known(daemon).figures.bytes
    daemon.crew.stop("someone")
    daemon.until(lambda: daemon.ended)
    assert daemon.state_files == []


def test_a_recorder_without_a_sign_of_life_is_killed_and_replaced(make: type[Daemon], endless: MediaServer) -> None:
    daemon = make()
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(lambda: daemon.media_flows() and ".figures" in daemon.state_files)
    pid = daemon.started[0].pid
    os.kill(pid, signal.SIGSTOP)
    daemon.turn(1000)  # a turn that came late says nothing about the recorder
    for _ in range(10):
        daemon.turn(5)
    assert daemon.ended == []
    for _ in range(5):
        daemon.turn(5)
    daemon.until(lambda: len(daemon.started) == 2)
    assert daemon.ended[0].reason == "crashed"
    assert daemon.started[1].pid != pid
    assert daemon.rechecks == []


def test_a_recorder_that_needs_an_address_is_given_one_while_it_runs(
        make: type[Daemon], endless: MediaServer, media: Path) -> None:
    endless.answers["/live.flv"] = endless.in_turn(
        endless.live((media / "clip.flv").read_bytes()), endless.status(403))
    daemon = make(reconnect_seconds=60)
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    assert not daemon.crew.wants_stream("someone")
    daemon.until(lambda: daemon.rechecks)
    assert daemon.crew.wants_stream("someone")
    daemon.crew.went_live(daemon.show(endless, "/new.flv"))
    daemon.until(lambda: "/new.flv" in endless.requests and not daemon.crew.wants_stream("someone"))
    assert (len(daemon.started), daemon.ended) == (1, [])
    assert len(daemon.rechecks) == 1


def test_an_address_is_replaced_before_it_ends_and_only_by_another_one(
        make: type[Daemon], endless: MediaServer) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1000)).isoformat()
    daemon = make()
    daemon.crew.went_live(daemon.show(endless, expires_at=soon))
    daemon.until(daemon.media_flows)
    daemon.turn(940)
    assert not daemon.crew.wants_stream("someone")
    daemon.turn(20)
    assert daemon.crew.wants_stream("someone")
    assert daemon.rechecks == ["someone"]
    before = spec_of(daemon)
    daemon.crew.went_live(daemon.show(endless, expires_at=soon))
    daemon.turn(4)
    assert spec_of(daemon) == before
    assert daemon.rechecks == ["someone"]
    daemon.turn(2)
    assert daemon.rechecks == ["someone"] * 2
    daemon.crew.close(5)
    daemon.crew = daemon.new_crew()  # a daemon that comes later knows from the spec
    daemon.turn()
    assert not daemon.crew.wants_stream("someone")
    daemon.turn(960)
    assert daemon.crew.wants_stream("someone")
    later = (datetime.now(UTC) + timedelta(seconds=5000)).isoformat()
    daemon.crew.went_live(daemon.show(endless, "/new.flv", expires_at=later))
    daemon.until(lambda: "/new.flv" in endless.requests)
    assert not daemon.crew.wants_stream("someone")
    assert spec_of(daemon).stream.url.endswith("/new.flv")
    assert len(daemon.started) == 1


@pytest.mark.parametrize("offline", [True, False])
def test_a_recorder_that_waits_for_an_address_ends_when_the_site_said_offline_for_long_enough(
        make: type[Daemon], endless: MediaServer, media: Path, offline: bool) -> None:
    endless.answers["/live.flv"] = endless.in_turn(
        endless.live((media / "clip.flv").read_bytes()), endless.status(404))
    daemon = make(delay=1.0, reconnect_seconds=4)
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(lambda: daemon.rechecks)
    daemon.crew.went_offline("someone")
    if not offline:
        daemon.crew.titled("someone", "live again")
    daemon.until(lambda: daemon.ended)
    assert (daemon.ended[0].reason, daemon.ended[0].over) == (
        ("stopped", True) if offline else ("needs_url", False))


def test_another_title_reaches_the_recorder_and_the_broadcast_keeps_its_own(
        make: type[Daemon], endless: MediaServer) -> None:
    daemon = make()
    daemon.crew.titled("someone", "nobody records it")
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    streams = spec_of(daemon).streams
    for title in ("the second hour", ""):
        daemon.crew.titled("someone", title)
        daemon.turn()
        assert (spec_of(daemon).title, spec_of(daemon).streams) == ("the second hour", streams)
    assert known(daemon).title == "a show"


def test_a_pause_of_the_streamer_is_no_loss(make: type[Daemon], endless: MediaServer, media: Path) -> None:
    endless.answers["/live.flv"] = endless.in_turn(
        endless.live((media / "clip.flv").read_bytes()), endless.status(404))
    daemon = make()
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(lambda: daemon.ended)
    daemon.crew.went_offline("someone")
    daemon.turn()
    daemon.crew.titled("someone", "back again")
    daemon.crew.went_live(daemon.show(endless, "/other.flv"))
    daemon.until(lambda: any(row["cause"] == "offline" for row in known(daemon).ledger))
    figures = known(daemon).figures
    assert figures.paused_seconds > 0
    assert figures.gaps == 0
    assert not {"new-address", "restart"} & set(losses(daemon))


def test_who_was_displaced_waits_and_goes_on_with_the_reason_in_the_ledger(
        make: type[Daemon], endless: MediaServer) -> None:
    daemon = make(most=1)
    daemon.crew.wanted({"someone": 0, "vip": 1})
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    assert daemon.crew.wants_stream("vip")
    daemon.crew.went_live(daemon.show(endless, streamer="vip"))
    daemon.turn()
    assert daemon.notices == {"place:vip": "vip is live and waits: 1 of 1 recordings run, its priority is 1",
                              "place:someone": "someone is live and waits: 1 of 1 recordings run, its priority is 0"}
    daemon.until(lambda: "vip" in daemon.rechecks)
    assert (daemon.ended[0].reason, daemon.ended[0].over) == ("waited", False)
    assert (daemon.crew.wants_stream("vip"), daemon.crew.wants_stream("someone")) == (True, False)
    daemon.crew.went_live(daemon.show(endless, streamer="vip"))
    daemon.until(lambda: daemon.crew.recording("vip"))
    assert [one["streamer"] for one in read_queue(daemon.recordings.data_directory / "recorders")] == ["someone"]
    daemon.turn(1000)  # it has been live all the time
    daemon.crew.close(5)
    daemon.crew = daemon.new_crew()
    daemon.crew.wanted({"someone": 0, "vip": 1})
    daemon.turn()
    assert not daemon.crew.wants_stream("someone")
    daemon.turn(1000)
    daemon.crew.stop("vip")
    daemon.until(lambda: "someone" in daemon.rechecks)
    daemon.crew.went_live(daemon.show(endless, "/other.flv"))
    daemon.until(lambda: "waited" in losses(daemon))
    assert daemon.notices == {}
    assert daemon.started[0].broadcast_id == daemon.started[2].broadcast_id
    assert losses(daemon) == ["waited"]


def test_who_waits_and_goes_offline_waits_no_more(make: type[Daemon], endless: MediaServer) -> None:
    daemon = make(most=1)
    daemon.crew.wanted(dict.fromkeys(("someone", "late", "later"), 0))
    for name in ("someone", "late", "later"):
        daemon.crew.went_live(daemon.show(endless, streamer=name))
        daemon.turn()
    assert set(daemon.notices) == {"place:late", "place:later"}
    daemon.crew.went_offline("late")
    daemon.crew.wanted({"someone": 0})
    daemon.turn()
    assert daemon.notices == {}
    assert daemon.crew.wants_stream("late")


def test_a_small_disk_is_never_full_and_recording_goes_on_when_there_is_room(tmp_path: Path, media: Path) -> None:
    """A real file system of some megabytes, in a namespace of its own."""
    tried = subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True)
    script = Path(__file__).with_name("small_disk.py")
    done = subprocess.run(
        ["unshare", "-m" if tried.returncode else "-Urm", sys.executable, str(script), str(tmp_path), str(media)],
        capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_site_that_says_live_for_long_after_the_last_media_makes_a_gap_at_the_end(
        make: type[Daemon], server: MediaServer, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/live.flv"] = server.in_turn(server.live((media / "clip.flv").read_bytes()), server.status(404))
    daemon = make(reconnect_seconds=1.0, delay=0.0)
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.ended)
    last = datetime.fromisoformat(known(daemon).last_media_at or "").timestamp()
    monkeypatch.setattr("biliupd.record.crew.time.time", lambda: last + 100)
    daemon.crew.titled("someone", "")
    daemon.turn()
    daemon.crew.went_offline("someone")
    daemon.until(lambda: daemon.ended[-1].over)
    row = known(daemon).ledger[-1]
    assert (row["cause"], row["seconds"], row["file"]) == ("new-address", pytest.approx(100, abs=0.01), "")
    assert known(daemon).figures.lost_seconds == pytest.approx(100, abs=0.01)
