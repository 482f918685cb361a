"""What people and disks do to a daemon: no login, bad input, a missing ffmpeg, a lost catalog."""

import os
import shutil
import signal
import subprocess
import sys
import time

import requests
from support import wait_until
from test_daemon import on_air, published
from world import make_video

import biliupd
from biliupd.config import PublishConfig


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
        world.settings["control"] = {"port": 0}
        world.save()
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        with (world.directory / "stderr").open("ab") as errors:
            world.daemon = subprocess.Popen(
                [sys.executable, "-m", "biliupd", "run", "-c", str(world.path)], env=env, stderr=errors
            )
        assert notify.recv(100) == b"READY=1"
        assert notify.recv(100) == b"WATCHDOG=1"
        assert requests.get(f"{world.page()}/api/health", timeout=5).json()["ok"]
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
    wait_until(lambda: list((world.directory / "recordings" / "flv1").glob("*/P001.flv.part")), 20, "it records")
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
