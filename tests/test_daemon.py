"""A whole life of the real daemon, as a process, with both stand-ins; power cuts included."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from support import wait_until
from world import World, make_video

import biliupd
from biliupd.catalog.database import connect
from biliupd.config import PublishConfig


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
    world.wait(lambda: len(world.rows("tasks", "status = 'recording'")) == len(rooms), 20, "rooms are recorded")
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


def test_a_recording_survives_restarts_of_the_daemon_in_one_piece(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=2)
    (recorder,) = world.recorders()
    for _ in range(3):
        assert world.end() == 0
        assert world.recorders() == [recorder]
        world.start()
        on_air(world, "flv1", seconds=1)
        assert world.recorders() == [recorder]
    world.site.go_offline("flv1")
    world.wait(lambda: published(world, 1), 60, "it is published")
    world.check_published(submissions=1, videos=1)


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


def test_a_killed_recorder_is_replaced_and_its_file_is_saved(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=3)
    (first,) = world.recorders()
    os.kill(first, signal.SIGKILL)
    world.wait(lambda: world.recorders() not in ([], [first]), 20, "a new recorder")
    on_air(world, "flv1", seconds=3)
    world.site.go_offline("flv1")
    world.wait(lambda: published(world, 1), 60, "it is published")
    world.check_published(submissions=1, videos=2)
    assert len(world.bilibili.archives[0].parts) == 2


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

    world.wait(save, 10)
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


def test_without_credentials_everything_up_to_ready_works_and_the_row_says_what_it_waits_for(world):
    kept = world.cookies.read_bytes()
    world.cookies.unlink()
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: world.rows("videos", "state = 'ready' and waits_for is not null"), 30, "it waits")
    (row,) = world.rows("videos")
    assert "cookies.json" in row["waits_for"]
    assert row["attempts"] == 0
    assert "cookies.json" in world.command("status").stdout
    world.cookies.write_bytes(kept)
    world.cookies.chmod(0o600)
    world.daemon.send_signal(signal.SIGHUP)
    world.save()
    world.settings["publish"]["part_attempts"] = 4
    world.save()
    world.wait(lambda: published(world, 1), 40, "it goes on by itself")


def test_bad_input_is_named_and_stops_nothing_else(world):
    (world.drop / "empty.mp4").touch()
    (world.drop / "text.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    for name, segment in (("lost", "000.ts"), ("outside", "../../config.yaml"), ("absolute", "/etc/passwd")):
        (world.drop / name).mkdir()
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{segment}\n#EXT-X-ENDLIST\n"
        (world.drop / name / "list.m3u8").write_text(text)
    world.settings["publish"]["attempts"] = 2
    world.start(WATCHDOG_USEC="2000000")
    make_video(world.drop / "good.mp4")
    world.wait(lambda: published(world, 1), 40, "the good one is published")
    world.wait(lambda: world.states().count("held") == 3, 20, "the bad ones are held")
    why = {row["path"]: row["last_error"] for row in world.rows("videos", "state = 'held'")}
    assert "/etc/passwd" in why["absolute/list.m3u8"]
    assert "config.yaml" in why["outside/list.m3u8"]
    assert world.rows("videos", "path = 'empty.mp4'") == [], "it may still be filled"
    (waits,) = world.rows("notices", "key = 'waits'")
    assert "empty.mp4': it is empty" in waits["text"]
    assert "text.mp4" in why["text.mp4"]
    (lost,) = world.rows("videos", "path = 'lost/list.m3u8'")
    assert lost["state"] == "recorded"
    assert lost["last_error"] == "waits for segment '000.ts' (line 4)"
    assert "Traceback" not in world.log()
    status = world.command("status").stdout
    assert "Held for you" in status
    assert "waits for segment '000.ts'" in status
    make_video(world.directory / "000.ts", 2).rename(world.drop / "lost" / "000.ts")
    make_video(world.directory / "a.mp4").rename(world.drop / "empty.mp4")
    world.wait(lambda: published(world, 3), 40, "mended, they are published")
    world.check_published(submissions=3, videos=3)
    assert world.command("retry", "video:999").returncode == 1


def test_a_missing_ffmpeg_is_said_and_work_waits_for_it(world):
    world.settings["edit"]["ffmpeg"] = str(world.directory / "nowhere" / "ffmpeg")
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: world.rows("videos", "waits_for like '%ffmpeg%'"), 30, "it says so")
    assert world.states() == ["recorded"]
    assert "ffmpeg" in world.rows("notices", "key = 'ffmpeg'")[0]["text"]
    world.settings["edit"] = {}
    world.save()
    world.wait(lambda: published(world, 1), 40, "with ffmpeg it goes on")
    assert world.rows("notices") == []


def test_expired_cookies_pause_the_account_and_nothing_is_lost(world):
    world.bilibili.expire_login()
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: world.rows("accounts", "state = 'waiting'"), 10, "it is known before it is used")
    world.wait(lambda: world.rows("videos", "state = 'ready' and waits_for like '%account main%'"), 30, "and why")
    assert world.rows("videos")[0]["attempts"] == 0
    asked = len(world.bilibili.requests)
    until = time.monotonic() + 3
    world.wait(lambda: time.monotonic() > until, 10)
    assert len(world.bilibili.requests) == asked, "it keeps asking"
    world.bilibili.write_cookies(world.cookies)
    world.settings["publish"]["part_attempts"] = 4
    world.save()
    world.wait(lambda: published(world, 1), 40, "with new cookies it goes on")


def test_a_missing_drop_folder_is_said_and_found_when_it_comes(world):
    world.settings["drop_folders"].append({"directory": "later"})
    world.start()
    world.wait(lambda: world.rows("notices", "key like 'root:%'"), 10, "it is missed")
    make_video(world.drop / "a.mp4")
    world.wait(lambda: published(world, 1), 40, "the other folder works")
    (world.directory / "later").mkdir()
    world.wait(lambda: world.rows("notices") == [], 20, "it is back")
    make_video(world.directory / "later" / "b.mp4")
    world.wait(lambda: published(world, 2), 40, "a file in it is published")
    (world.directory / "later").rename(world.directory / "away")
    world.wait(lambda: world.rows("notices", "key like 'root:%'"), 10, "it is missed again")
    world.kill()
    (world.directory / "away").rename(world.directory / "later")
    world.start()
    assert world.rows("notices") == [], "what the last daemon said of it"


def test_deleting_the_catalog_rebuilds_the_library_and_publishes_nothing_twice(world):
    world.room("flv1")
    make_video(world.drop / "holiday.mp4")
    world.start()
    on_air(world, "flv1", seconds=2)
    world.site.go_offline("flv1")
    world.wait(lambda: published(world, 2), 60, "both are published")
    assert world.end() == 0
    for file in (world.directory / "data").glob("catalog.db*"):
        file.unlink()
    world.start()
    world.wait(lambda: world.states() == ["held", "held"], 30, "the library is there again, and asks")
    (broadcast,) = world.rows("broadcasts")
    assert broadcast["title"] == "flv1 的直播"
    assert len(world.bilibili.archives) == 2
    for row in world.rows("videos"):
        assert any(archive.bvid in row["last_error"] for archive in world.bilibili.archives)
    world.bilibili.same_title_seconds = 0
    (holiday,) = world.rows("videos", "path = 'holiday.mp4'")
    assert world.command("retry", f"video:{holiday['id']}").returncode == 0
    world.wait(lambda: published(world, 1), 30, "a person may insist")
    assert len(world.bilibili.archives) == 3


def test_a_catalog_deleted_under_a_running_daemon_ends_it_and_the_next_one_goes_on(world):
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=1)
    (recorder,) = world.recorders()
    for file in (world.directory / "data").glob("catalog.db*"):
        file.unlink()
    assert world.daemon.wait(25) == 1
    assert "was deleted or replaced" in world.log()
    world.start()
    on_air(world, "flv1", seconds=1)
    assert world.recorders() == [recorder]
    world.site.go_offline("flv1")
    world.wait(lambda: published(world, 1), 60, "it is published")
    world.check_published(submissions=1, videos=1)


def test_a_broadcast_whose_state_was_lost_is_saved_and_published(world):
    """The data directory is deleted while a recording dies: nothing knows of it but its folder."""
    world.room("flv1")
    world.start()
    on_air(world, "flv1", seconds=3)
    (recorder,) = world.recorders()
    world.kill()
    os.kill(recorder, signal.SIGKILL)
    world.site.go_offline("flv1")
    shutil.rmtree(world.directory / "data")
    (part,) = (world.directory / "recordings").glob("*/*/P001.flv.part")
    world.start(WATCHDOG_USEC="2000000")
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.check_published(submissions=1, videos=1)
    assert not part.exists()


def test_a_refused_submission_is_held_with_the_reason(world):
    world.bilibili.review_seconds = 3600
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: world.states("submissions") == ["submitted"], 30, "it is in review")
    world.bilibili.set_state(world.bilibili.archives[0].bvid, -2, "画面模糊")
    world.wait(lambda: world.states("submissions") == ["held"], 15, "it is held")
    assert "画面模糊" in world.command("status").stdout


def test_it_tells_systemd_and_answers_its_health(world, tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        world.save()
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        with (world.directory / "stderr").open("ab") as errors:
            world.daemon = subprocess.Popen(
                [sys.executable, "-m", "biliupd", "run", "-c", str(world.path)], env=env, stderr=errors
            )
        assert notify.recv(100) == b"READY=1"
        assert notify.recv(100) == b"WATCHDOG=1"
        address = next(line.split()[-1] for line in world.log().splitlines() if "/api/health" in line)
        assert requests.get(address, timeout=5).json()["ok"]
        world.daemon.send_signal(signal.SIGTERM)
        while (said := notify.recv(100)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"
        assert world.daemon.wait(20) == 0


def test_detached_it_runs_without_a_terminal_and_stop_ends_it_with_its_recorders(world):
    world.room("flv1")
    world.save()
    assert world.command("run", "--detach").returncode == 0
    world.site.go_live("flv1")
    wait_until(lambda: world.recorders(), 20, "it records")
    assert "running (pid" in world.command("status").stdout
    assert world.command("run", "--detach").returncode == 3
    stopped = world.command("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "daemon ended; 1 recordings ended\n"), stopped.stderr
    assert world.recorders() == []
    assert "not running" in world.command("status").stdout
    assert list((world.directory / "recordings" / "flv1").glob("*/P001.flv"))
    mode = (world.directory / "data" / "catalog.db").stat().st_mode
    assert mode & 0o077 == 0


def test_check_says_every_mistake_and_exits_78(world):
    world.path.write_text("wacth: {}\nlog: {level: LOUD}\n")
    checked = world.command("check")
    assert checked.returncode == 78
    assert "wacth (line 1): there is no such setting: did you mean watch?" in checked.stderr
    assert "log.level (line 2)" in checked.stderr
    assert world.command("run").returncode == 78
    world.save()
    assert world.command("check").returncode == 0


def test_upload_video_from_python(world):
    seen = []
    path = make_video(world.directory / "clip.mp4")
    publish = PublishConfig(member_url=world.bilibili.url, passport_url=world.bilibili.url, api_url=world.bilibili.url)
    bvid = biliupd.upload_video(
        world.cookies, path, "a title", desc="d", tags=["t"], publish=publish,
        on_progress=lambda sent, total: seen.append((sent, total)),
    )  # fmt: skip
    (archive,) = world.bilibili.archives
    assert archive.bvid == bvid
    assert archive.title == "a title"
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert [sent for sent, _ in seen] == sorted(sent for sent, _ in seen)
