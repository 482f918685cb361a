"""A whole life of the real daemon, as a process, with both stand-ins; power cuts included."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import wait_until
from world import World, make_video

from biliupd.catalog.database import connect
from biliupd.record.broadcast import read
from biliupd.record.ledger import LOSSES, summary


def slow_ffmpeg(world: World, seconds: float) -> None:
    """An ffmpeg that takes its time, so that there is a moment to pull the plug in."""
    script = world.directory / "slow-ffmpeg"
    script.write_text(f'#!/bin/sh\nsleep {seconds}\nexec ffmpeg "$@"\n')
    script.chmod(0o755)
    world.settings["edit"]["ffmpeg"] = str(script)


def on_air(world: World, *rooms: str, seconds: float = 5) -> None:
    """The rooms go live and are recorded for so long."""
    for room in rooms:
        world.site.go_live(room)
    world.wait(lambda: len(world.rows("tasks", "status = 'recording'")) == len(rooms) == len(world.recorders()), 20,
               "rooms are recorded")  # fmt: skip
    until = time.monotonic() + seconds
    world.wait(lambda: time.monotonic() > until, seconds + 5, "some media")


def published(world: World, count: int) -> bool:
    return world.states("submissions").count("published") == count


def test_from_live_to_bvid(world):
    world.room("flv1")
    world.room("hls1")
    world.start()
    on_air(world, "flv1", "hls1", seconds=6)
    (flv,) = world.rows("streamers", "name = 'flv1'")
    assert (flv["status"], flv["platform"]) == ("live", "rehearsal")
    world.site.go_offline("flv1")
    world.site.go_offline("hls1")
    world.wait(lambda: published(world, 2), 60, "both broadcasts are published")
    make_video(world.drop / "holiday.mp4")
    world.wait(lambda: published(world, 3), 40, "the dropped file is published")
    world.check_published(submissions=3, videos=3)
    by_name = {Path(row["file_path"]).name: row for row in world.rows("videos")}
    assert set(by_name) == {"P001.flv", "P001.mp4", "holiday.mp4"}
    for name in ("P001.flv", "P001.mp4"):
        assert by_name[name]["duration"] > 5
        assert not (Path(by_name[name]["file_path"]).parent / "P001").exists()
    assert {archive.body["title"].split()[0] for archive in world.bilibili.archives[:2]} == {"flv1", "hls1"}
    assert all(archive.body["cover"] for archive in world.bilibili.archives)
    assert world.recorders() == []
    status = world.command("status").stdout
    for word in ("flv1", "hls1", "3 published", world.bilibili.archives[0].bvid):
        assert word in status
    assert world.end() == 0
    for secret in ("SESSDATA=", "access_key=", (world.directory / "cookies.json").read_text().split('"')[15]):
        assert secret not in world.log().replace("SESSDATA=***", "").replace("access_key=***", "")


def test_a_power_cut_at_every_step_loses_nothing_and_publishes_once(world):
    """SIGKILL of the daemon while recording, merging, uploading and submitting, a restart after each."""
    slow_ffmpeg(world, 1.5)
    world.settings["publish"]["lookup_seconds"] = 4  # longer than a request may be held up below, as it should be
    world.room("hls1")
    world.start()
    on_air(world, "hls1", seconds=3)
    (recorder,) = world.recorders()

    world.kill()  # while recording: the recorder goes on, and the new daemon adopts it
    assert world.recorders() == [recorder]
    world.start()
    on_air(world, "hls1", seconds=2)
    assert world.recorders() == [recorder]
    world.site.go_offline("hls1")

    world.wait(lambda: "editing" in world.states(), 40, "the merge begins")
    world.kill()
    assert world.states() == ["editing"]
    world.start()

    world.bilibili.slow(30_000)
    world.wait(lambda: world.rows("uploads", "bytes_sent > 0"), 40, "bytes arrive")
    world.kill()
    assert world.states() == ["uploading"]
    world.bilibili.slow(0)
    world.bilibili.stall("submit", 3)
    world.start()

    world.wait(lambda: world.states("submissions") == ["submitting"], 40, "the submit begins")
    world.kill()  # the request is on its way, nobody hears the answer
    assert world.states("submissions") == ["submitting"]
    world.start()
    world.wait(lambda: published(world, 1), 60, "it is published")
    world.check_published(submissions=1, videos=1)
    (row,) = world.rows("videos")
    assert row["duration"] > 5
    assert len(world.rows("broadcasts")) == 1
    assert len([r for r in world.bilibili.requests if r.route == "submit" and r.status == 200]) <= 1


@pytest.mark.parametrize("arrived", [True, False])
def test_a_submit_without_an_answer_is_looked_up_and_never_doubled(world, arrived):
    if arrived:
        world.bilibili.lose_submit_answer()
        world.bilibili.delay_listing(0.5)
    else:
        world.bilibili.fail("submit", 502, b"<html>Bad Gateway</html>")
    world.start()
    make_video(world.drop / "a.mp4")
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.check_published(submissions=1, videos=1)
    asked = [r.route for r in world.bilibili.requests if r.route in ("submit", "archives")]
    assert asked[:2] == ["submit", "archives"]
    assert asked.count("submit") == (1 if arrived else 2)


def test_ten_kills_of_the_daemon_leave_one_recorder_one_file_and_no_loss(world):
    world.room("flv1", auto_upload=False)
    world.start()
    on_air(world, "flv1", seconds=0)
    (recorder,) = world.recorders()
    for _ in range(10):
        world.kill()
        assert world.recorders() == [recorder]
        world.start()
    on_air(world, "flv1", seconds=1)
    assert world.recorders() == [recorder]
    assert len(world.rows("tasks")) == 1
    world.site.go_offline("flv1")
    world.wait(lambda: world.rows("broadcasts", "ended_at is not null"), 20, "the broadcast is over")
    (row,) = world.rows("broadcasts")
    broadcast = read(Path(row["directory"]))
    assert [file["name"] for file in broadcast.files] == ["P001.flv"]
    assert not list(Path(row["directory"]).glob("*.part"))
    assert [line for line in broadcast.ledger if line["cause"] in LOSSES] == []
    told = summary(broadcast)
    assert (str(told), told.unexplained_seconds) == ("100 %, no gap", 0)
    assert broadcast.figures.media_seconds > 10
    assert (row["media_seconds"], row["gaps"]) == (broadcast.figures.media_seconds, 0)
    assert "100 %, no gap" in world.command("ledger", "flv1").stdout


def test_bare_addresses_and_what_streamlink_knows_take_the_same_way(world):
    for room in ("flv1", "hls1"):
        world.room(room)
    direct, via = world.settings["streamers"]
    direct["url"] = f"{world.site.url}/live/flv1.flv"
    via["url"] = f"hls://{world.site.url}/live/hls1/index.m3u8"
    world.start()
    on_air(world, "flv1", "hls1", seconds=5)
    platforms = {row["name"]: (row["platform"], row["status"]) for row in world.rows("streamers")}
    assert platforms == {"flv1": ("direct", "live"), "hls1": ("streamlink", "live")}
    world.site.go_offline("flv1")
    world.site.go_offline("hls1")
    world.wait(lambda: published(world, 2), 60, "both are published")
    world.check_published(submissions=2, videos=2)


def test_a_dead_thread_ends_the_process_so_that_a_new_daemon_takes_over(world):
    world.save()
    code = (
        "from biliupd.pipeline.editing import Editing; from biliupd.cli import main\n"
        "def turn(self): raise RuntimeError('bug')\n"
        "Editing.turn = turn; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "run", "-c", str(world.path)], capture_output=True, text=True, timeout=40
    )
    assert ended.returncode == 1
    assert "RuntimeError: bug" in ended.stderr
    assert "pipeline died" in ended.stderr


def test_a_recorder_whose_daemon_died_before_it_said_so_is_listed(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=0)
    (task,) = world.rows("tasks")
    world.kill()
    db = connect(world.directory / "data" / "catalog.db")
    db["tasks"].delete(task["id"])
    db.conn.close()
    world.start()
    on_air(world, "flv1", seconds=0)
    (again,) = world.rows("tasks")
    assert (again["id"], again["broadcast_id"]) == (task["id"], task["broadcast_id"])


def test_a_killed_recorder_is_replaced_within_seconds_and_its_file_is_saved(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=2)
    (first,) = world.recorders()
    os.kill(first, signal.SIGKILL)
    world.wait(lambda: world.recorders() not in ([], [first]), 5, "a new recorder")
    on_air(world, "flv1", seconds=2)
    status = world.command("status").stdout
    assert "Mbit/s" in status
    world.site.go_offline("flv1")
    world.wait(lambda: published(world, 1), 60, "it is published")
    world.check_published(submissions=1, videos=2)
    assert len(world.bilibili.archives[0].parts) == 2
    (broadcast,) = world.rows("broadcasts")
    assert broadcast["ended_at"]
    rows = world.rows("ledger", f"broadcast_id = '{broadcast['id']}'")
    assert [row["cause"] for row in rows].count("restart") == 1


def test_whoever_waits_for_a_place_is_shown_and_recorded_when_one_is_free(world):
    for room, priority in (("flv1", 0), ("hls1", 1)):
        world.room(room, auto_upload=False, priority=priority)
    world.settings["record"]["most"] = 1
    world.start()
    on_air(world, "flv1", seconds=1)
    world.site.go_live("hls1")
    world.wait(lambda: world.rows("tasks", "reason = 'waited'"), 20, "the higher priority takes the place")
    world.wait(lambda: len(world.rows("tasks", "status = 'recording'")) == 1, 20, "it is recorded")
    status = world.command("status").stdout
    assert "flv1 is live and waits: 1 of 1 recordings run, its priority is 0" in status
    line = next(line for line in status.split("Waiting to be recorded")[1].splitlines() if "flv1" in line)
    assert line.split()[:3] == ["1", "flv1", "0"]
    world.site.go_offline("hls1")
    world.wait(lambda: len(world.rows("tasks", "status = 'recording'")) == 1 and not world.rows("notices"), 30,
               "the one that waited goes on")  # fmt: skip
    world.wait(lambda: list((world.directory / "recordings" / "flv1").glob("*/P002.flv.part")), 20, "media of it")
    world.site.go_offline("flv1")
    world.wait(lambda: world.rows("ledger", "cause = 'waited'"), 20, "and its ledger says why there is a gap")
    (shown,) = (row for row in world.rows("broadcasts") if "flv1" in row["directory"])
    assert shown["gaps"] >= 1


def test_settings_apply_while_it_runs_and_a_broken_file_is_refused_whole(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=1)
    (recorder,) = world.recorders()
    world.room("hls1")
    world.site.go_live("hls1")
    world.save()
    world.wait(lambda: len(world.recorders()) == 2, 15, "the new room is recorded")

    good = world.path.read_text()
    world.path.write_text(good.replace("streamers:", "streamres:"))
    world.wait(lambda: world.rows("notices", "key = 'config'"), 10, "the broken file is refused")
    status = world.command("status").stdout
    assert "did you mean streamers?" in status
    assert "the old settings stay" in status
    assert recorder in world.recorders()

    del world.settings["streamers"][1]
    world.save()
    world.daemon.send_signal(signal.SIGHUP)
    world.wait(lambda: world.recorders() == [recorder], 15, "the dropped room is no longer recorded")
    assert not world.rows("notices", "key = 'config'")
    assert [row["name"] for row in world.rows("streamers", "active = 1")] == ["flv1"]

    world.settings["publish"]["workers"] = 2
    world.save()
    world.wait(lambda: world.rows("notices", "text like 'publish.workers: %next start'"), 10, "it is said")
    assert world.end(signal.SIGINT) == 0  # a person at the terminal: recorders, too
    assert world.recorders() == []


def test_a_catalog_that_others_lock_delays_new_settings_and_ends_nothing(world):
    world.start()
    db = connect(world.directory / "data" / "catalog.db")
    db.execute("begin immediate")
    world.room("flv1")
    world.save()
    world.wait(lambda: "the catalog cannot be written" in world.log(), 20, "it says so")
    db.conn.rollback()
    db.conn.close()
    on_air(world, "flv1", seconds=0)
    assert world.end(signal.SIGINT) == 0


def test_a_file_that_is_still_being_written_is_not_taken(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=0)
    (recorder,) = world.recorders()
    whole = world.path.read_text()
    half = whole[: whole.index("streamers:")]
    turns = itertools.cycle([half, whole])
    until = time.monotonic() + 6

    def save() -> bool:
        world.path.write_text(next(turns))
        return time.monotonic() > until

    wait_until(save, 10)
    assert "0 streamers" not in world.log()
    assert world.recorders() == [recorder]


def test_a_streamer_taken_out_while_no_daemon_ran_is_no_longer_recorded(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=2)
    world.kill()
    assert len(world.recorders()) == 1
    world.settings["streamers"] = []
    world.start()
    world.wait(lambda: not world.recorders(), 15, "its recorder ends")
    world.wait(lambda: world.states() == ["ready"], 20, "what it recorded is in the library")


def test_one_daemon_per_data_directory(world):
    world.start()
    second = world.command("run")
    assert second.returncode == 3
    assert f"process {world.daemon.pid} runs on" in second.stderr
    assert "Traceback" not in second.stderr
    world.kill()
    world.start()  # the lock of a dead one is no obstacle
