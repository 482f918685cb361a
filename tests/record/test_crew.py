"""The crew in the daemon, with real recorder processes."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crew_support import DELAY, Daemon, state_of
from loguru import logger
from recording_support import MediaServer, complaints
from support import wait_until

from biliupd.config import RecordConfig
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.crew import Crew
from biliupd.record.shows import safe_title


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.crew.stop_all(5)
    daemon.crew.close(5)


@pytest.fixture
def endless(server: MediaServer, media: Path) -> MediaServer:
    """The clip, then silence."""
    server.answers["/live.flv"] = server.live((media / "clip.flv").read_bytes(), silent=True)
    return server


def test_a_show_is_recorded_and_stopped(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless, title="a/b: 直播\n*"))
    daemon.until(daemon.media_flows)
    assert daemon.crew.recording("someone")
    started, = daemon.started
    assert started.directory == daemon.folder
    assert daemon.folder.name.endswith(" a_b_ 直播_")
    running, = daemon.crew.running()
    assert (running.streamer, running.pid, running.broadcast_id) == ("someone", started.pid, started.broadcast_id)
    assert os.getsid(started.pid) == started.pid
    daemon.until(lambda: daemon.state_files == [".figures", ".json", ".log"])
    spec, = (daemon.recordings.data_directory / "recorders").glob("*.json")
    assert spec.stat().st_mode & 0o777 == 0o600
    daemon.crew.stop("someone")
    daemon.until(lambda: daemon.ended)
    ended, = daemon.ended
    assert (ended.task_id, ended.reason, ended.over) == (started.task_id, "stopped", True)
    assert not daemon.crew.recording("someone")
    assert complaints(daemon.folder / "P001.flv") == ""
    found = broadcasts.read(daemon.folder)
    assert found is not None
    assert found.ended_at == found.last_media_at is not None
    assert daemon.state_files == []
    assert state_of(started.pid) == ""


def test_a_show_that_is_recorded_is_not_started_twice(daemon: Daemon, endless: MediaServer) -> None:
    for _ in range(3):
        daemon.crew.went_live(daemon.show(endless))
        daemon.turn()
    assert len(daemon.started) == 1


def test_after_a_cut_the_site_is_asked_and_the_broadcast_goes_on(
        daemon: Daemon, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(server.live(clip), server.status(404))
    other = (media / "other.flv").read_bytes()
    server.answers["/new.flv"] = server.in_turn(server.live(other), server.live(silent=True))
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.ended)
    assert daemon.rechecks == ["someone"]
    assert (daemon.ended[0].reason, daemon.ended[0].over) == ("needs_url", False)
    daemon.crew.went_live(daemon.show(server, "/new.flv"))
    daemon.until(lambda: list(daemon.folder.glob("P002.flv*")))
    assert daemon.started[0].broadcast_id == daemon.started[1].broadcast_id
    assert daemon.started[0].task_id != daemon.started[1].task_id
    daemon.crew.stop("someone")
    daemon.until(lambda: daemon.ended[-1].over)
    found = broadcasts.read(daemon.folder)
    assert found is not None
    assert found.figures.files == 2
    assert [row["cause"] for row in found.ledger if row["seconds"] > 0] == ["new-address"]


def test_the_site_is_asked_again_and_again_but_ever_more_seldom(daemon: Daemon, server: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(server, "/missing.flv"))
    daemon.until(lambda: daemon.ended)
    begin, asked = daemon.now, [0.0]
    assert len(daemon.rechecks) == 1
    for _ in range(300):
        before = len(daemon.rechecks)
        daemon.turn(1.0)
        asked += [daemon.now - begin] * (len(daemon.rechecks) - before)
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255]


def test_an_address_that_never_works_is_not_hammered(daemon: Daemon, server: MediaServer) -> None:
    for runs in range(1, 4):
        daemon.crew.went_live(daemon.show(server, "/missing.flv"))
        daemon.until(lambda runs=runs: len(daemon.ended) == runs)
    assert len(daemon.rechecks) == 1  # the next only after 5 s, and later ever more seldom


def test_offline_and_the_delay_end_a_broadcast_and_unknown_does_not(
        daemon: Daemon, server: MediaServer, media: Path) -> None:
    server.answers["/live.flv"] = server.in_turn(
        server.live((media / "clip.flv").read_bytes()), server.status(404))
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.ended)
    daemon.turn(3 * DELAY)
    assert [ended.over for ended in daemon.ended] == [False]
    daemon.crew.went_offline("someone")
    daemon.turn()
    assert [ended.over for ended in daemon.ended] == [False, True]
    found = broadcasts.read(daemon.folder)
    assert found is not None
    assert found.ended_at == found.last_media_at
    assert daemon.state_files == []


def test_offline_inside_the_delay_does_not_end_it_yet(daemon: Daemon, server: MediaServer, media: Path) -> None:
    server.answers["/live.flv"] = server.in_turn(
        server.live((media / "clip.flv").read_bytes()), server.status(404))
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.ended)
    daemon.crew.went_offline("someone")
    daemon.turn(DELAY / 2)
    assert len(daemon.ended) == 1
    daemon.turn(DELAY / 2 + 1)
    assert daemon.ended[-1].over


def test_a_broadcast_that_recorded_nothing_leaves_nothing(daemon: Daemon, server: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(server, "/missing.flv"))
    daemon.until(lambda: daemon.ended)
    daemon.crew.went_offline("someone")
    daemon.turn(DELAY + 1)
    assert daemon.ended[-1].over
    assert list(daemon.recordings.directory.iterdir()) == []
    assert daemon.state_files == []


@pytest.mark.parametrize(("before", "after", "seconds", "same"), [
    ("1", "2", 0, False), ("1", "1", 10 * DELAY, True), ("", "2", 0, True), ("", "", DELAY / 2, True),
    ("", "", 2 * DELAY, False)])
def test_the_live_id_or_else_the_delay_says_what_is_one_broadcast(
        daemon: Daemon, server: MediaServer, before: str, after: str, seconds: float, same: bool) -> None:
    daemon.crew.went_live(daemon.show(server, "/missing.flv", live_id=before))
    daemon.until(lambda: daemon.ended)
    daemon.now += seconds
    daemon.crew.went_live(daemon.show(server, "/missing.flv", live_id=after))
    daemon.until(lambda: len(daemon.started) == 2)
    assert (daemon.started[0].broadcast_id == daemon.started[1].broadcast_id) is same
    daemon.until(lambda: not daemon.crew.running())


def test_a_killed_recorder_is_salvaged_and_another_goes_on_at_once_without_asking(
        daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    os.kill(daemon.started[0].pid, signal.SIGKILL)
    daemon.until(lambda: len(daemon.started) == 2)
    assert daemon.ended[0].reason == "crashed"
    assert daemon.rechecks == []
    assert complaints(daemon.folder / "P001.flv") == ""
    assert state_of(daemon.started[0].pid) == ""
    daemon.until(lambda: (daemon.folder / "P002.flv.part").exists())
    assert daemon.started[1].broadcast_id == daemon.started[0].broadcast_id


def test_one_that_is_killed_before_it_recorded_anything_is_not_begun_again_and_again(
        daemon: Daemon, server: MediaServer) -> None:
    server.answers["/live.flv"] = server.live(silent=True)
    daemon.crew.went_live(daemon.show(server))
    for count in (1, 2):
        daemon.until(lambda count=count: len(daemon.started) == count)
        assert daemon.rechecks == []
        os.kill(daemon.started[-1].pid, signal.SIGKILL)
        daemon.until(lambda count=count: len(daemon.ended) == count)
    assert daemon.rechecks == ["someone"]
    assert not daemon.crew.recording("someone")


def test_a_recorder_whose_end_cannot_be_written_down_has_ended_all_the_same(
    daemon: Daemon, endless: MediaServer
) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    os.kill(daemon.started[0].pid, signal.SIGKILL)
    wait_until(lambda: state_of(daemon.started[0].pid) in ("", "Z"))
    obstacle = daemon.folder / "broadcast.json.part"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    daemon.until(lambda: daemon.ended)
    assert [ended.reason for ended in daemon.ended] == ["crashed"]
    assert not daemon.crew.recording("someone")
    obstacle.rmdir()


def test_a_new_crew_adopts_the_recorder_that_runs(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    pid = daemon.started[0].pid
    daemon.crew.close(5)
    assert state_of(pid) in "RSD"
    daemon.crew = daemon.new_crew()
    daemon.turn()
    running, = daemon.crew.running()
    assert (running.pid, running.broadcast_id) == (pid, daemon.started[0].broadcast_id)
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    assert len(daemon.started) == 1
    daemon.crew.stop("someone")
    daemon.until(lambda: daemon.ended)
    assert (daemon.ended[0].reason, daemon.ended[0].over) == ("stopped", True)
    assert complaints(daemon.folder / "P001.flv") == ""
    assert state_of(pid) in ("", "Z")  # whoever it was left to buries it


def test_a_new_crew_adopts_a_recorder_that_has_not_come_to_its_first_line(
    daemon: Daemon, endless: MediaServer
) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    pid = daemon.started[0].pid
    os.kill(pid, signal.SIGSTOP)
    daemon.crew.close(5)
    assert broadcasts.read(daemon.folder).pid is None  # type: ignore[union-attr]
    daemon.crew = daemon.new_crew()
    daemon.turn()
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    os.kill(pid, signal.SIGCONT)
    daemon.until(daemon.media_flows)
    assert len(daemon.started) == 1
    assert daemon.rechecks == []
    assert daemon.crew.running()[0].pid == pid


def test_a_stop_reaches_an_adopted_recorder_that_has_not_told_its_pid(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    os.kill(daemon.started[0].pid, signal.SIGSTOP)
    daemon.crew.close(5)
    daemon.crew = daemon.new_crew()
    daemon.crew.stop("someone")
    daemon.turn()
    os.kill(daemon.started[0].pid, signal.SIGCONT)
    daemon.until(lambda: daemon.ended)
    assert (daemon.ended[0].reason, daemon.ended[0].over) == ("stopped", True)


def test_a_broadcast_that_ended_is_not_taken_up_again(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless, live_id="1"))
    daemon.until(daemon.media_flows)
    state, = (daemon.recordings.data_directory / "recorders").glob("*.json")
    spec = specs.read(state)
    daemon.crew.stop("someone")
    daemon.until(lambda: daemon.ended)
    specs.write(state, spec)  # as a power cut leaves it between the two steps
    daemon.crew.close(5)
    daemon.crew = daemon.new_crew()
    daemon.turn()
    assert daemon.state_files == []
    daemon.crew.went_live(daemon.show(endless, live_id="1"))
    daemon.until(lambda: len(daemon.started) == 2)
    assert daemon.started[1].broadcast_id != daemon.started[0].broadcast_id


def test_a_new_crew_takes_up_a_broadcast_whose_recorder_died_meanwhile(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    daemon.crew.close(5)
    os.kill(daemon.started[0].pid, signal.SIGKILL)
    wait_until(lambda: state_of(daemon.started[0].pid) in ("", "Z"))
    daemon.crew = daemon.new_crew()
    daemon.until(lambda: daemon.ended)
    assert daemon.ended[0].reason == "crashed"
    assert complaints(daemon.folder / "P001.flv") == ""
    if not daemon.crew.recording("someone"):  # a thread of it may have been ending still: then it was adopted first
        assert daemon.rechecks == ["someone"]
        daemon.crew.went_live(daemon.show(endless))
    daemon.until(lambda: len(daemon.started) == 2)
    assert daemon.started[1].broadcast_id == daemon.started[0].broadcast_id


def test_a_new_crew_does_not_take_another_process_for_the_recorder(daemon: Daemon, server: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(server, "/missing.flv"))
    daemon.until(lambda: daemon.ended)
    found = broadcasts.read(daemon.folder)
    assert found is not None
    found.pid, found.pid_started, found.boot_id, found.exit = os.getpid(), 1, broadcasts.boot_id(), None
    broadcasts.write(daemon.folder, found)
    daemon.crew.close(5)
    daemon.crew = daemon.new_crew()
    daemon.turn()
    assert daemon.crew.running() == []


def test_a_state_file_without_its_folder_is_forgotten(daemon: Daemon, server: MediaServer) -> None:
    state = daemon.recordings.data_directory / "recorders"
    state.mkdir(parents=True)
    (daemon.recordings.directory / "someone").mkdir(parents=True)
    for name, folder in (("removed", "someone"), ("unmounted", "elsewhere")):
        gone = str(daemon.recordings.directory / folder / "gone")
        specs.write(state / f"{name}.json", specs.Spec(gone, (specs.Stream("http://x", "flv"),)))
    (state / "broken.json").write_text("broken")
    daemon.turn()
    assert sorted(path.name for path in state.glob("*.json")) == ["broken.json", "unmounted.json"]
    daemon.crew.went_live(daemon.show(server, "/missing.flv"))
    daemon.until(lambda: daemon.ended)


def test_streamers_that_are_no_longer_wanted_are_stopped(daemon: Daemon, endless: MediaServer) -> None:
    for name in ("someone", "other"):
        daemon.crew.went_live(daemon.show(endless, streamer=name))
    daemon.until(lambda: len(daemon.crew.running()) == 2)
    daemon.crew.wanted({"other": 0})
    daemon.until(lambda: daemon.ended)
    assert [(ended.streamer, ended.over) for ended in daemon.ended] == [("someone", True)]
    assert daemon.crew.recording("other")


def test_a_streamer_seen_live_while_everything_ends_is_not_recorded(daemon: Daemon, endless: MediaServer) -> None:
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    daemon.crew.stop_all(10)
    daemon.crew.went_live(daemon.show(endless))
    daemon.turn()
    assert len(daemon.started) == 1
    assert daemon.crew.running() == []


def test_new_settings_go_to_the_next_recorder(daemon: Daemon, server: MediaServer) -> None:
    daemon.crew.apply(RecordConfig(split_seconds=77, reconnect_seconds=0.3), 5.0)
    daemon.crew.went_live(daemon.show(server, "/missing.flv"))
    daemon.turn()
    spec, = (daemon.recordings.data_directory / "recorders").glob("*.json")
    assert specs.read(spec).split_seconds == 77
    daemon.until(lambda: daemon.ended)


def test_what_a_callback_raises_does_not_hurt_the_crew(daemon: Daemon, endless: MediaServer) -> None:
    def fail(event: object) -> None:
        raise RuntimeError("no")

    daemon.crew.close(1)
    daemon.crew = Crew(daemon.record, daemon.recordings, DELAY, on_started=fail, on_stopped=fail, recheck=fail)
    daemon.crew.went_live(daemon.show(endless))
    daemon.until(daemon.media_flows)
    first = daemon.crew.running()[0].pid
    os.kill(first, signal.SIGKILL)
    daemon.until(lambda: [running.pid for running in daemon.crew.running()] not in ([], [first]))


def test_the_thread_does_it_all_by_itself_and_relays_the_log(tmp_path: Path, server: MediaServer, media: Path) -> None:
    server.answers["/live.flv"] = server.in_turn(
        server.live((media / "clip.flv").read_bytes()), server.status(404), server.live(silent=True))
    heard: list[tuple[str, str]] = []
    sink = logger.add(lambda m: heard.append((m.record["extra"].get("streamer", ""), m.record["message"])))
    daemon = Daemon(tmp_path)
    show = daemon.show(server)
    asked = threading.Event()

    def live_again(streamer: str) -> None:
        asked.set()
        daemon.crew.went_live(show)

    daemon.crew = Crew(daemon.record, daemon.recordings, DELAY, on_started=daemon.started.append,
                       on_stopped=daemon.ended.append, recheck=live_again)
    daemon.crew.start()
    try:
        daemon.crew.went_live(show)
        wait_until(lambda: asked.is_set() and len(daemon.started) == 2)
        wait_until(lambda: ("someone", "recording to P001.flv") in heard)
        daemon.crew.stop_all(5)
        assert daemon.ended[-1].over
    finally:
        daemon.crew.close(5)
        logger.remove(sink)
    assert not any("secret" in text for _, text in heard)


@pytest.mark.parametrize(("title", "expected"), [
    ("plain", "plain"), ("../../etc/passwd", "_.._etc_passwd"), ("a\nb\x00c\u202e", "abc"), ("直" * 80, "直" * 40),
    ("  . dots .  ", "dots"), ("", ""), ("\ud800x", "x"), ('<a:b|c?d*e"f>', "_a_b_c_d_e_f_")])
def test_a_title_becomes_a_name_that_every_disk_takes(title: str, expected: str) -> None:
    assert safe_title(title) == expected


def test_a_broadcast_is_read_back_with_keys_that_nobody_knows(tmp_path: Path) -> None:
    made = broadcasts.Broadcast(id="1", streamer="s", title="标题", ledger=[{"cause": "gap"}],
                                started_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    made.unknown = {"from_the_future": [1]}
    made.figures.bytes = 5
    broadcasts.write(tmp_path, made)
    assert broadcasts.read(tmp_path) == made
    assert broadcasts.read(tmp_path / "missing") is None


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"id": 1, "streamer": "s"}', '{"id": "1", "streamer": "s", "ledger": 3}',
    '{"id": "1", "streamer": "s", "files": [1]}', '{"id": "1", "streamer": "s", "figures": {"bytes": "x"}}',
    '{"id": "1", "streamer": "s", "pid": "x"}', "[" * 100_000])
def test_a_broken_broadcast_json_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    from biliupd.errors import PermanentError

    (tmp_path / "broadcast.json").write_text(text)
    with pytest.raises(PermanentError):
        broadcasts.read(tmp_path)


@pytest.mark.parametrize(("url", "expected"), [
    ("https://u:p@host:8080/live/a.flv?token=x#y", "https://host:8080/live/a.flv"),
    ("rehearsal+http://127.0.0.1:1/rooms/a", "rehearsal+http://127.0.0.1:1/rooms/a"),
    ("http://[broken", ""),
])
def test_the_address_in_a_broadcast_json_holds_no_secret(url: str, expected: str) -> None:
    assert broadcasts.public_address(url) == expected


def test_alive_means_this_boot_this_start_time_and_no_zombie() -> None:
    me = broadcasts.Broadcast(id="1", streamer="s", pid=os.getpid(), boot_id=broadcasts.boot_id(),
                              pid_started=broadcasts.process_started(os.getpid()))
    assert broadcasts.alive(me)
    for wrong in ({"boot_id": "x"}, {"pid_started": 1}, {"pid": None}, {"pid": 1 << 22}):
        assert not broadcasts.alive(broadcasts.Broadcast(**{**vars(me), **wrong}))
    child = os.fork()
    if child == 0:
        os._exit(0)
    wait_until(lambda: state_of(child) == "Z")
    zombie = broadcasts.Broadcast(**{**vars(me), "pid": child, "pid_started": broadcasts.process_started(child)})
    assert not broadcasts.alive(zombie)
    os.waitpid(child, 0)


def test_a_heartbeat_that_cannot_be_written_is_said_once(daemon: Daemon) -> None:
    place = daemon.recordings.data_directory / "recorders"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way")
    heard: list[str] = []
    sink = logger.add(heard.append, format="{message}")
    try:
        for _ in range(3):
            daemon.turn(1)
        place.unlink()
        daemon.turn(1)
    finally:
        logger.remove(sink)
    assert [line for line in heard if "heartbeat" in line] == [f"crew: {place}/heartbeat: File exists\n"]
    assert (place / "heartbeat").exists()
