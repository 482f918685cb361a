"""Runs that end well, badly, never, or at the wrong moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import pytest
from support import wait_until

from biliupd.config import EditConfig
from biliupd.edit import ffmpeg as room
from biliupd.edit.feed import Feed
from biliupd.edit.ffmpeg import Ffmpeg, file_url, find
from biliupd.errors import NeedsPerson, PermanentError, Stopped, TemporaryError


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_progress_is_told_in_seconds_of_media(each_ffmpeg, studio, tmp_path):
    seen = []
    each_ffmpeg.run(["-i", file_url(studio / "clip.mp4"), "-c", "copy", "-f", "mp4", file_url(tmp_path / "o")],
                    on_progress=seen.append)
    assert seen == sorted(seen)
    assert 9 < seen[-1] < 11


def test_what_ffmpeg_does_not_like_is_permanent_and_says_why(each_ffmpeg, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"garbage")
    with pytest.raises(PermanentError, match="Invalid data"):
        each_ffmpeg.run(["-i", file_url(tmp_path / "x.mp4"), "-f", "null", "-"])


def test_odd_names_are_files(ffmpeg, studio, tmp_path):
    for name in ("a:b.mp4", "-x.mp4", "%d.mp4", "a\nb.mp4", "concat:x.mp4", "\udcff.mp4"):
        path = tmp_path / name
        path.write_bytes((studio / "clip.mp4").read_bytes())
        ffmpeg.run(["-i", file_url(path), "-t", "1", "-c", "copy", "-f", "null", "-"])
    assert len(list(tmp_path.iterdir())) == 6


def test_a_hanging_run_is_ended_when_nothing_moves(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "KILL_SECONDS", 0.5)
    hangs = stand_in(f"echo $$ > {tmp_path}/pid; trap '' TERM; exec sleep 1000", stall_seconds=0.5)
    began_at = time.monotonic()
    with pytest.raises(TemporaryError, match="no progress"):
        hangs.run([])
    assert time.monotonic() - began_at < 0.5 + room.KILL_SECONDS + 2
    assert not alive(int((tmp_path / "pid").read_text()))


def test_ffmpeg_waiting_for_a_fifo_is_ended(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "KILL_SECONDS", 0.5)
    os.mkfifo(tmp_path / "fifo.ts")
    ffmpeg = Ffmpeg(EditConfig(stall_seconds=0.5), stop)
    with pytest.raises(TemporaryError, match="no progress"):
        ffmpeg.run(["-i", file_url(tmp_path / "fifo.ts"), "-f", "null", "-"])


def test_a_run_over_its_deadline_is_ended_even_if_it_moves(stop):
    ffmpeg = Ffmpeg(EditConfig(deadline_seconds=0.7), stop)
    with pytest.raises(TemporaryError, match="longer than"):
        ffmpeg.run(["-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null", "-"])


def test_stop_ends_a_run_within_seconds(ffmpeg, stop):
    threading.Timer(0.5, stop.set).start()
    began_at = time.monotonic()
    with pytest.raises(Stopped):
        ffmpeg.run(["-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null", "-"])
    assert time.monotonic() - began_at < 4
    with pytest.raises(Stopped):
        ffmpeg.run(["-version"])


def test_an_ffmpeg_that_was_halted_is_ended_without_being_killed(stand_in, tmp_path):
    halted = stand_in(f"trap 'echo > {tmp_path}/heard; exit 1' TERM; kill -STOP $$; sleep 60", stall_seconds=0.5)
    began_at = time.monotonic()
    with pytest.raises(TemporaryError, match="no progress"):
        halted.run([])
    assert (tmp_path / "heard").exists()
    assert time.monotonic() - began_at < room.KILL_SECONDS


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_a_run_ended_from_outside_is_worth_another_try(stand_in, number):
    with pytest.raises(TemporaryError, match="ended from outside"):
        stand_in(f"kill -{number} $$").run([])


@pytest.mark.parametrize(("script", "error"), [
    ("echo 'av_interleaved_write_frame(): No space left on device' >&2; exit 1", TemporaryError),
    ("echo 'x: Disk quota exceeded' >&2; exit 1", TemporaryError),
    ("echo 'x: Cannot allocate memory' >&2; exit 1", TemporaryError),
    ("echo 'x: Invalid argument' >&2; exit 1", PermanentError),
    ("exit 255", TemporaryError),
    ("echo 'Error opening input files: Operation not permitted' >&2; exit 255", PermanentError),
])
def test_exit_codes_and_words_say_whether_to_try_again(stand_in, script, error):
    with pytest.raises(error):
        stand_in(script).run([])


def test_a_flood_on_stderr_is_capped_and_its_telling_lines_are_kept(stand_in):
    script = "echo first >&2; yes nothing | head -n 200000 >&2; echo 'packet corrupt here' >&2; " \
             "yes nothing | head -n 200000 >&2; echo last >&2"
    stderr = stand_in(script).run([]).stderr
    assert len(stderr) < 100_000
    assert all(word in stderr for word in ("first", "packet corrupt here", "last"))


def test_a_process_left_behind_with_our_pipes_does_not_hold_us(stand_in, tmp_path):
    began_at = time.monotonic()
    stand_in(f"sleep 20 & echo $! > {tmp_path}/pid; exit 0").run([])
    assert time.monotonic() - began_at < 5
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_ffmpeg_dies_with_a_daemon_that_is_killed(tmp_path):
    script = (
        "import threading; from pathlib import Path; from biliupd.config import EditConfig; "
        "from biliupd.edit.ffmpeg import Ffmpeg; "
        f"Ffmpeg(EditConfig(ffmpeg=Path({str(tmp_path / 'stand-in')!r})), threading.Event()).run([])")
    (tmp_path / "stand-in").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    (tmp_path / "stand-in").chmod(0o755)
    daemon = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    child = int((tmp_path / "pid").read_text())
    assert alive(child)
    daemon.kill()
    daemon.wait()
    wait_until(lambda: not alive(child), seconds=5)


def test_ffmpeg_is_nice(stand_in):
    assert "ni=10" in stand_in("sleep 0.3; echo ni=$(cut -d ' ' -f 19 /proc/$$/stat) >&2").run([]).stderr


@pytest.mark.parametrize("splices", [True, False])
def test_files_are_fed_byte_by_byte(stand_in, tmp_path, monkeypatch, splices):
    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    (tmp_path / "b").write_bytes(os.urandom(100_000))
    (tmp_path / "empty").write_bytes(b"")
    if not splices:
        def refuse(*args, **kwargs):
            raise OSError(22, "Invalid argument")
        monkeypatch.setattr(os, "splice", refuse)
    feed = [Feed(tmp_path / "a", 3_000_000), Feed(tmp_path / "empty", 0), Feed(tmp_path / "b", 99_999)]
    stand_in(f"cat > {tmp_path}/out").run([], feed=feed)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes()[:-1]


def test_who_stops_reading_early_has_not_finished(stand_in, tmp_path):
    (tmp_path / "a").write_bytes(bytes(5_000_000))
    with pytest.raises(TemporaryError, match="before it had read all"):
        stand_in("head -c 1000 > /dev/null").run([], feed=[Feed(tmp_path / "a", 5_000_000)])


def test_a_file_that_vanishes_before_it_is_fed_is_named(stand_in, tmp_path):
    with pytest.raises(TemporaryError, match="gone"):
        stand_in("cat > /dev/null").run([], feed=[Feed(tmp_path / "gone.ts", 10)])


def test_no_ffmpeg_anywhere_asks_for_a_person(monkeypatch, tmp_path):
    def none():
        raise RuntimeError("no binary")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(NeedsPerson) as caught:
        Ffmpeg(EditConfig(), threading.Event()).run(["-version"])
    assert "install ffmpeg" in caught.value.hint


def test_ffmpeg_is_taken_from_the_setting_then_the_system_then_the_package(monkeypatch, tmp_path):
    assert find(EditConfig()) == "/usr/bin/ffmpeg"
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    with pytest.raises(NeedsPerson, match=r"edit\.ffmpeg"):
        find(EditConfig(ffmpeg=tmp_path / "mine"))
    (tmp_path / "mine").chmod(0o755)
    assert find(EditConfig(ffmpeg=tmp_path / "mine")) == str(tmp_path / "mine")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "imageio_ffmpeg" in find(EditConfig())
