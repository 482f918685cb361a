"""Recordings as a browser is given them."""

import subprocess
from pathlib import Path

import pytest

from biliupd.config import EditConfig
from biliupd.edit import play
from biliupd.edit.play import MOST, mp4
from biliupd.errors import BiliupdError, PermanentError, TemporaryError


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with a keyframe every second: as flv, mkv, HLS, and cut off in the middle."""
    folder = tmp_path_factory.mktemp("play")
    source = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:duration=12", "-f", "lavfi", "-i", "sine=duration=12"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *coded, str(folder / "whole.flv")], check=True)
    for name, options in (("whole.mkv", []), ("list.m3u8", ["-hls_time", "2", "-hls_list_size", "0"]),
                          ("fmp4.m3u8", ["-hls_time", "2", "-hls_list_size", "0", "-hls_segment_type", "fmp4"])):
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(folder / "whole.flv"), "-c", "copy", *options,
                        str(folder / name)], check=True, cwd=folder)
    raw = (folder / "whole.flv").read_bytes()
    (folder / "growing.flv").write_bytes(raw[: len(raw) * 2 // 3 + 7])
    return folder


def seconds_of(content: bytes, folder: Path) -> float:
    """How long it plays, decoded to its end."""
    made = folder / "made.mp4"
    made.write_bytes(content)
    said = subprocess.run(["ffmpeg", "-v", "info", "-i", str(made), "-f", "null", "-"], check=True, capture_output=True,
                          text=True).stderr
    hours, minutes, seconds = said.rpartition("time=")[2].split()[0].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@pytest.mark.parametrize(("name", "start", "at_least", "at_most"), [
    ("whole.flv", 0, 11.8, 12.3), ("whole.flv", 7.5, 4.4, 5.4), ("whole.mkv", 10, 1.8, 3.1),
    ("growing.flv", 0, 6, 10), ("growing.flv", 5, 2, 5), ("list.m3u8", 0, 11.8, 12.3), ("list.m3u8", 7, 4.9, 6.4),
    ("fmp4.m3u8", 5, 6.9, 8.3),
])  # fmt: skip
def test_it_plays_from_where_it_is_asked_for(recordings, tmp_path, name, start, at_least, at_most):
    content = b"".join(mp4(EditConfig(), recordings / name, start))
    assert content[4:8] == b"ftyp"
    assert b"moof" in content
    assert at_least <= seconds_of(content, tmp_path) <= at_most


def test_what_holds_no_media_is_refused_with_its_name(recordings, tmp_path):
    (tmp_path / "text.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "evil.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n../../etc/passwd\n#EXT-X-ENDLIST\n")
    for name in ("text.mp4", "evil.m3u8", "absent.flv"):
        with pytest.raises(BiliupdError):
            next(iter(mp4(EditConfig(), tmp_path / name)))
    with pytest.raises(PermanentError, match="shorter than 99 s"):
        next(iter(mp4(EditConfig(), recordings / "list.m3u8", 99)))


def test_closing_it_ends_ffmpeg_and_frees_its_place(recordings, monkeypatch):
    children = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            children.append(self)

    monkeypatch.setattr(play.subprocess, "Popen", Noted)
    playing = [mp4(EditConfig(), recordings / "whole.flv") for _ in range(MOST)]
    for one in playing:
        assert next(one)
    with pytest.raises(TemporaryError, match="being played already"):
        next(mp4(EditConfig(), recordings / "whole.flv"))
    for one in playing:
        one.close()
    assert all(child.poll() is not None for child in children)
    again = mp4(EditConfig(), recordings / "list.m3u8")
    assert next(again)
    again.close()
    assert children[-1].stdin.closed
    assert children[-1].stdout.closed
