"""A recorder process that records FLV, against a media server that misbehaves."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import pytest
from recording_support import MediaServer, Recording, complaints, probe_seconds, tags_of
from support import wait_until

from biliupd.record.flv.tags import AUDIO, VIDEO, Role, look_at, tag_bytes
from biliupd.record.salvage import salvage
from biliupd.record.spec import Exit


def payloads(raw: bytes, kind: int) -> list[bytes]:
    return [tag.body for tag in tags_of(raw) if tag.type == kind and look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]


def prefix(raw: bytes, seconds: float) -> bytes:
    """The file up to a keyframe at this time."""
    tags = tags_of(raw)
    return raw[:13] + tag_bytes(tag for tag in tags if tag.timestamp < seconds * 1000)


def growing(recording: Recording, least: int = 30_000) -> bool:
    part = recording.directory / "P001.flv.part"
    return part.exists() and part.stat().st_size > least


def test_a_stream_that_ends_becomes_one_whole_file(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(server.live(clip), server.status(404))
    assert recording.run(server.url + "/live.flv?token=secret") == Exit.NEEDS_URL
    assert recording.names == ["P001.flv"]
    made = recording.directory / "P001.flv"
    assert complaints(made) == ""
    assert abs(probe_seconds(made) - 12) < 0.2
    for kind in (VIDEO, AUDIO):
        assert payloads(made.read_bytes(), kind) == payloads(clip, kind)
    broadcast = recording.broadcast
    assert broadcast.exit == "needs_url"
    assert broadcast.figures.bytes == made.stat().st_size
    assert [(item["name"], item["bytes"]) for item in broadcast.files] == [("P001.flv", made.stat().st_size)]
    assert broadcast.last_media_at
    assert "secret" not in recording.log


def test_after_a_cut_a_server_that_begins_earlier_is_joined_without_a_seam(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(clip[:len(clip) // 2]), server.live(clip), server.status(410))
    assert recording.run(server.url + "/live.flv") == Exit.NEEDS_URL
    assert recording.names == ["P001.flv"]
    made = recording.directory / "P001.flv"
    for kind in (VIDEO, AUDIO):
        assert payloads(made.read_bytes(), kind) == payloads(clip, kind)
    assert complaints(made) == ""
    assert [row["cause"] for row in recording.broadcast.ledger] == ["seamless-join"]
    assert recording.broadcast.figures.reconnects == 1
    assert recording.broadcast.figures.gaps == 0


def test_another_picture_size_after_a_cut_begins_a_new_file(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip, other = (media / "clip.flv").read_bytes(), (media / "other.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(server.live(clip), server.live(other), server.status(404))
    assert recording.run(server.url + "/live.flv") == Exit.NEEDS_URL
    assert recording.names == ["P001.flv", "P002.flv"]
    for name, source in (("P001.flv", clip), ("P002.flv", other)):
        assert complaints(recording.directory / name) == ""
        assert payloads((recording.directory / name).read_bytes(), VIDEO) == payloads(source, VIDEO)
    assert recording.broadcast.ledger[0]["file"] == "P002.flv"


def test_a_split_by_size_loses_nothing(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(server.live(clip), server.status(404))
    limit = len(clip) // 3
    assert recording.run(server.url + "/live.flv", split_size=limit) == Exit.NEEDS_URL
    assert len(recording.names) >= 3
    files = [recording.directory / name for name in recording.names]
    assert all(path.stat().st_size <= limit and complaints(path) == "" for path in files)
    for kind in (VIDEO, AUDIO):
        assert [body for path in files for body in payloads(path.read_bytes(), kind)] == payloads(clip, kind)
    assert server.requests == ["/live.flv"] * 2


def test_a_next_run_takes_the_next_number_and_notes_the_time_between(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(clip), server.status(404), server.live(clip), server.status(404))
    recording.run(server.url + "/live.flv")
    (recording.directory / "P001.flv").unlink()  # published and removed already
    recording.run(server.url + "/live.flv", cause="new-address")
    assert recording.names == ["P002.flv"]
    assert [(gap["cause"], gap["file"]) for gap in recording.broadcast.ledger] == [("new-address", "P002.flv")]
    assert 0 < recording.broadcast.ledger[0]["seconds"] < 10


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refused_address_is_not_asked_again(recording: Recording, server: MediaServer, code: int) -> None:
    server.answers["/live.flv"] = server.status(code)
    assert recording.run(server.url + "/live.flv") == Exit.NEEDS_URL
    assert server.requests == ["/live.flv"]
    assert recording.names == []


def test_a_web_page_instead_of_media_needs_a_new_address(recording: Recording, server: MediaServer) -> None:
    server.answers["/live.flv"] = server.body(b"<!DOCTYPE html><html>sorry</html>", "text/html")
    assert recording.run(server.url + "/live.flv") == Exit.NEEDS_URL
    assert "web page" in recording.log
    assert recording.names == []


def test_a_server_that_is_gone_is_given_up_after_a_while(recording: Recording, server: MediaServer) -> None:
    server.answers["/live.flv"] = server.status(502)
    assert recording.run(server.url + "/live.flv", reconnect_seconds=1.5) == Exit.NEEDS_URL
    assert 2 <= len(server.requests) <= 3
    assert "no address came back" in recording.log


def test_a_silent_server_is_left_and_asked_again(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(prefix(clip, 6), silent=True), server.live(clip), server.status(404))
    assert recording.run(server.url + "/live.flv", stall_seconds=1.0) == Exit.NEEDS_URL
    assert [row["detail"] for row in recording.broadcast.ledger] == ["after stall"]
    assert payloads((recording.directory / "P001.flv").read_bytes(), VIDEO) == payloads(clip, VIDEO)


def test_a_redirect_is_followed_and_takes_no_cookie_to_another_host(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    other = MediaServer()
    seen: list[str | None] = []

    def redirect(handler: object) -> None:
        handler.send_response(302)  # type: ignore[attr-defined]
        handler.send_header("Location", other.url + "/edge.flv")  # type: ignore[attr-defined]
        handler.send_header("Content-Length", "0")  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]

    def edge(handler: object) -> None:
        seen.append(handler.headers.get("Cookie"))  # type: ignore[attr-defined]
        other.live(clip)(handler)  # type: ignore[arg-type]

    try:
        server.answers["/live.flv"] = server.in_turn(redirect, server.status(404))
        other.answers["/edge.flv"] = edge
        recording.run(server.url + "/live.flv")
    finally:
        other.close()
    assert recording.names == ["P001.flv"]
    assert seen == [None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_file_properly_though_the_server_is_silent(
        recording: Recording, server: MediaServer, media: Path, number: signal.Signals) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.live(clip[:-100], silent=True)
    process = recording.start(server.url + "/live.flv", stall_seconds=30.0)
    wait_until(lambda: growing(recording, len(clip) - 5000))
    process.send_signal(number)
    assert process.wait(2) == Exit.STOPPED
    assert recording.names == ["P001.flv"]
    assert complaints(recording.directory / "P001.flv") == ""
    assert payloads((recording.directory / "P001.flv").read_bytes(), VIDEO) == payloads(clip[:-100], VIDEO)
    assert recording.broadcast.exit == "stopped"


def test_a_killed_recorder_leaves_a_file_that_can_be_salvaged(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.live(prefix(clip, 10), silent=True)
    process = recording.start(server.url + "/live.flv", stall_seconds=30.0)
    wait_until(lambda: growing(recording, len(prefix(clip, 10)) - 5000))
    process.kill()
    process.wait()
    part = recording.directory / "P001.flv.part"
    with part.open("ab") as file:
        file.write(clip[3000:5000])  # a torn tag
    done = salvage(recording.directory)
    assert len(done) == 1
    assert "P001.flv" in done[0]
    made = recording.directory / "P001.flv"
    assert complaints(made) == ""
    assert probe_seconds(made) == pytest.approx(10, abs=1.2)
    assert recording.broadcast.files == [
        {"name": "P001.flv", "seconds": pytest.approx(10, abs=1.2), "bytes": made.stat().st_size}]
    assert salvage(recording.directory) == []


def test_salvage_removes_a_file_without_media(recording: Recording) -> None:
    (recording.directory / "P001.flv.part").write_bytes(b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12\0")
    (recording.directory / "P002.flv.part").write_bytes(b"")
    assert len(salvage(recording.directory)) == 2
    assert recording.names == []


@pytest.mark.parametrize("hint", [0, 1, 50_000, 10_000_000])
def test_salvage_does_not_trust_what_broadcast_json_says(recording: Recording, media: Path, hint: int) -> None:
    from biliupd.record import broadcast as broadcasts

    clip = (media / "clip.flv").read_bytes()
    (recording.directory / "P001.flv.part").write_bytes(clip[:-10])
    broadcast = recording.broadcast
    broadcast.files = [{"name": "P001.flv", "seconds": 1.0, "bytes": hint}]
    broadcasts.write(recording.directory, broadcast)
    salvage(recording.directory)
    assert tags_of((recording.directory / "P001.flv").read_bytes()) == tags_of(clip[:-10])


def test_a_recorder_without_a_daemon_ends_its_file(recording: Recording, server: MediaServer, media: Path,
                                                  tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    heartbeat.touch()
    server.answers["/live.flv"] = server.live((media / "clip.flv").read_bytes(), silent=True)
    process = recording.start(server.url + "/live.flv", stall_seconds=30.0, heartbeat=str(heartbeat),
                              orphan_seconds=2.0)
    wait_until(lambda: growing(recording))
    assert process.wait(10) == Exit.ORPHANED
    assert complaints(recording.directory / "P001.flv") == ""
    assert recording.broadcast.exit == "orphaned"


def test_a_full_disk_ends_the_file_at_a_whole_tag(recording: Recording, server: MediaServer, media: Path) -> None:
    """A limit of the file's size stands in for the full disk: the write fails in the same place."""
    clip = (media / "clip.flv").read_bytes()
    limit = len(clip) // 2
    server.answers["/live.flv"] = server.live(clip, silent=True)
    process = recording.start(server.url + "/live.flv", preexec=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (limit, limit)))
    assert process.wait(20) == Exit.NO_SPACE
    assert recording.names == ["P001.flv"]
    made = recording.directory / "P001.flv"
    assert limit - 20_000 < made.stat().st_size <= limit
    assert complaints(made) == ""
    kept = payloads(made.read_bytes(), VIDEO)
    assert kept == payloads(clip, VIDEO)[:len(kept)] != []
    assert recording.broadcast.exit == "no_space"


def test_garbage_in_the_stream_is_skipped_and_noted(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    place = len(prefix(clip, 6))
    server.answers["/live.flv"] = server.in_turn(
        server.live(clip[:place] + b"\x09\x08garbage\0\0\0" * 90 + clip[place:]), server.status(404))
    recording.run(server.url + "/live.flv")
    made = recording.directory / "P001.flv"
    assert payloads(made.read_bytes(), VIDEO) == payloads(clip, VIDEO)
    assert [gap["cause"] for gap in recording.broadcast.ledger] == ["garbage"]


def test_a_long_broadcast_is_on_disk_with_a_right_duration_while_it_runs(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.live(clip, silent=True)
    process = recording.start(server.url + "/live.flv", stall_seconds=30.0, sync_seconds=1.0)
    part = recording.directory / "P001.flv.part"
    wait_until(lambda: growing(recording) and probe_seconds(part) > 11)
    wait_until(lambda: recording.broadcast.figures.media_seconds > 11)
    assert recording.broadcast.pid == process.pid
    assert recording.broadcast.exit is None


def test_two_recorders_never_work_in_one_folder(recording: Recording, server: MediaServer, media: Path) -> None:
    server.answers["/live.flv"] = server.live((media / "clip.flv").read_bytes(), silent=True)
    recording.start(server.url + "/live.flv", stall_seconds=30.0)
    wait_until(lambda: growing(recording))
    assert recording.run(server.url + "/live.flv") == 1
    assert "another recorder" in recording.log


def test_a_recorder_process_is_light() -> None:
    code = "import json, sys, biliupd.record.recorder; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    heavy = {"pydantic", "loguru", "sqlite3", "sqlite_utils", "apscheduler", "watchdog", "streamlink", "yaml",
             "fastapi", "asyncio", "biliupd.config"}
    assert heavy & set(loaded) == set()


def test_a_spec_is_for_its_owner_only(recording: Recording, server: MediaServer, tmp_path: Path) -> None:
    server.answers["/live.flv"] = server.status(404)
    recording.run(server.url + "/live.flv")
    assert os.stat(tmp_path / "spec.json").st_mode & 0o777 == 0o600


def test_a_broken_spec_is_a_clear_line_and_exit_one(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"directory": 1')
    argv = [sys.executable, "-m", "biliupd.record.recorder", str(tmp_path / "spec.json")]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "not a readable spec" in found.stderr
    assert "Traceback" not in found.stderr

def test_a_signal_at_the_end_of_a_wait_does_not_make_the_recorder_wait_for_ever() -> None:
    inbox: Queue[object] = Queue()  # as FlvStream has one
    before = signal.signal(signal.SIGALRM, lambda number, frame: time.sleep(0.001))  # until the wait should be over
    try:
        for n in range(40):
            rescue = threading.Timer(2.0, inbox.put, [b"it waited for ever"])
            rescue.start()
            signal.setitimer(signal.ITIMER_REAL, 0.0195 + n % 20 * 0.00002)
            with pytest.raises(Empty):
                inbox.get(timeout=0.02)
            rescue.cancel()
            rescue.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
