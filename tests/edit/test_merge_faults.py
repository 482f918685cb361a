"""What may befall a merge from outside: the source stays, nothing half-made is left, and another try works."""

import errno
import os
import resource
import signal
import threading

import pytest
from studio_tools import listing

from biliupd.config import EditConfig
from biliupd.edit import ffmpeg as ffmpeg_room
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.merge import merge
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, TemporaryError

SLOW = "echo $$ > {pid}; exec ffmpeg -re \"$@\""  # reads no faster than a player would


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(show):
    """A playlist; at the end of the test it and its segments are what they were."""
    playlist = show()
    before = contents(playlist.parent)
    yield playlist
    assert contents(playlist.parent) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ffmpeg_ended_in_the_middle_is_not_believed_though_its_file_may_be_whole(
    stand_in, ffmpeg, source, tmp_path, number
):
    slow = stand_in(SLOW.format(pid=tmp_path / "pid"))

    def end(seconds):
        if seconds > 0.5:
            os.kill(int((tmp_path / "pid").read_text()), number)

    with pytest.raises(TemporaryError, match="ended from outside"):
        merge(source, tmp_path / "out.mp4", slow, on_progress=end)
    assert listing(tmp_path) == ["pid", "show", "stand-in"]
    assert merge(source, tmp_path / "out.mp4", ffmpeg).duration_seconds == pytest.approx(30, abs=0.1)


def test_an_ffmpeg_halted_in_the_middle_is_ended(stand_in, source, tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg_room, "KILL_SECONDS", 1.0)
    slow = stand_in(SLOW.format(pid=tmp_path / "pid"), stall_seconds=1.0)

    def halt(seconds):
        if seconds > 0.5:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)

    with pytest.raises(TemporaryError, match="no progress"):
        merge(source, tmp_path / "out.mp4", slow, on_progress=halt)
    assert listing(tmp_path) == ["pid", "show", "stand-in"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_full_disk_is_temporary_and_leaves_nothing(stand_in, ffmpeg, source, tmp_path):
    """/dev/full answers each write as a full disk does, whoever asks."""
    full = stand_in('for last; do :; done; ln -sf /dev/full "${last#file:}"; exec ffmpeg "$@"')
    with pytest.raises(TemporaryError, match="no space") as caught:
        merge(source, tmp_path / "out.mp4", full)
    assert caught.value.retry_after_seconds == 60
    assert listing(tmp_path) == ["show", "stand-in"]
    assert merge(source, tmp_path / "out.mp4", ffmpeg).size_bytes > 0


def test_a_file_system_whose_files_may_not_grow_so_large_leaves_nothing(ffmpeg, source, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(BiliupdError):
            merge(source, tmp_path / "out.mp4", ffmpeg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listing(tmp_path) == ["show"]


@pytest.mark.parametrize(("number", "reason"), [
    (errno.ENOSPC, "no space"), (errno.EDQUOT, "no space"), (errno.EIO, "Input/output error"),
    (errno.EROFS, "Read-only"),
])
def test_trouble_at_the_very_end_is_temporary_and_leaves_nothing(
    ffmpeg, source, tmp_path, monkeypatch, number, reason
):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "link", refuse)
        with pytest.raises(TemporaryError, match=reason):
            merge(source, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


def test_what_the_disk_says_while_the_file_grows_is_heard(stand_in, source, tmp_path, monkeypatch):
    """The kernel tells of a lost page once, to whoever syncs next."""
    def fail(file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr("biliupd.edit.merge.SYNC_SECONDS", 0.01)
    with pytest.raises(TemporaryError, match="Input/output error"):
        merge(source, tmp_path / "out.mp4", stand_in('ffmpeg "$@"; code=$?; sleep 0.1; exit $code'))
    assert listing(tmp_path) == ["show", "stand-in"]


@pytest.mark.parametrize(("script", "raised"), [
    ("cat > /dev/null; exit 0", PermanentError), ("cat > /dev/null; exit 1", PermanentError),
    ("exit 0", TemporaryError), ("yes words | head -c 3000000 >&2; exit 1", BiliupdError), ("exit 127", BiliupdError),
    ("cat > /dev/null; for last; do :; done; [ \"$last\" = - ] || echo text > \"${last#file:}\"", PermanentError),
])
def test_an_ffmpeg_that_does_not_do_its_work_leaves_nothing(stand_in, source, tmp_path, script, raised):
    with pytest.raises(raised) as caught:
        merge(source, tmp_path / "out.mp4", stand_in(script))
    assert len(str(caught.value)) < 1000
    assert listing(tmp_path) == ["show", "stand-in"]


def test_an_ffmpeg_that_vanished_waits_for_a_person(source, tmp_path):
    gone = Ffmpeg(EditConfig(ffmpeg=tmp_path / "ffmpeg"), threading.Event())
    with pytest.raises(NeedsPerson):
        merge(source, tmp_path / "out.mp4", gone)
    assert listing(tmp_path) == ["show"]


def test_a_directory_that_is_gone_is_temporary(ffmpeg, source, tmp_path):
    with pytest.raises(TemporaryError, match="No such file"):
        merge(source, tmp_path / "gone" / "out.mp4", ffmpeg)


def test_thousands_of_segments_are_looked_through_to_the_one_that_is_missing(ffmpeg, show, tmp_path):
    playlist = show()
    first = playlist.parent / "000.ts"
    for n in range(3000):
        os.link(first, playlist.parent / f"x{n}.ts")
    playlist.write_text("#EXTM3U\n" + "".join(f"#EXTINF:2.0,\nx{n}.ts\n" for n in range(3001)) + "#EXT-X-ENDLIST\n")
    with pytest.raises(TemporaryError, match=r"x3000\.ts"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
