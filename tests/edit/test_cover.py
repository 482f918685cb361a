"""Every video gets a picture."""

import os
import shutil

import pytest
from studio_tools import make

from biliupd.edit import cover
from biliupd.edit.cover import DEFAULT, make_cover, make_thumbnail
from biliupd.edit.media import probe
from biliupd.errors import PermanentError, Stopped

JPEG = ("-f", "image2pipe", "-c:v", "mjpeg")
HOSTILE = "%{pts} %{metadata:x} 'a' : [b], c; d=\\e\\n -- $(id) 100%"


def size(path, ffmpeg, tmp_path):
    """Pixels of a JPEG, by way of a container that probe opens."""
    make(*JPEG, "-i", f"file:{path}", "-c", "copy", str(tmp_path / "size.mkv"))
    found = probe(tmp_path / "size.mkv", ffmpeg)
    return found.width, found.height, found.video_codec


def grey(path, tmp_path, width=1, height=1):
    make(*JPEG, "-i", f"file:{path}", "-vf", f"scale={width}:{height}", "-pix_fmt", "gray", "-f", "rawvideo",
         str(tmp_path / "grey"))
    return (tmp_path / "grey").read_bytes()


@pytest.fixture(scope="module")
def clips(studio, tmp_path_factory):
    """Videos that are black at first, or all the time, or have no picture at all, or are no video."""
    path = tmp_path_factory.mktemp("clips")
    make("-f", "lavfi", "-i", "color=black:size=320x240:rate=5:duration=6", "-f", "lavfi", "-i",
         "testsrc2=size=320x240:rate=5:duration=4", "-filter_complex", "concat", "-c:v", "libx264", "-g", "5",
         "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path / "late.mp4"))
    make("-i", str(path / "late.mp4"), "-t", "5", "-c", "copy", str(path / "black.mp4"))
    make("-i", str(studio / "clip.mp4"), "-vn", "-c", "copy", str(path / "sound.mp4"))
    (path / "garbage.mp4").write_bytes(b"garbage")
    return path


def test_a_video_gets_a_frame_of_its_own_and_a_small_one_of_that(each_ffmpeg, studio, tmp_path):
    output = tmp_path / "50%d: cover.jpg"
    output.write_bytes(b"an old one")
    assert make_cover(studio / "clip.mp4", output, each_ffmpeg, duration_seconds=10)
    assert size(output, each_ffmpeg, tmp_path) == (1146, 717, "mjpeg")
    assert output.read_bytes() != DEFAULT.read_bytes()
    make_thumbnail(output, tmp_path / "small.jpg", each_ffmpeg)
    assert size(tmp_path / "small.jpg", each_ffmpeg, tmp_path) == (320, 200, "mjpeg")
    assert (tmp_path / "small.jpg").stat().st_size < 20_000
    assert not list(tmp_path.glob(".*"))


def test_a_video_that_is_black_at_first_gets_a_later_frame(each_ffmpeg, clips, tmp_path):
    assert make_cover(clips / "late.mp4", tmp_path / "c.jpg", each_ffmpeg, duration_seconds=10)
    assert grey(tmp_path / "c.jpg", tmp_path)[0] > 40


@pytest.mark.parametrize("length", [0.1, 1.0])
def test_a_very_short_video_gets_a_frame_too(each_ffmpeg, studio, tmp_path, length):
    make("-i", str(studio / "clip.mp4"), "-t", str(length), "-c:v", "libx264", "-an", str(tmp_path / "v.mp4"))
    assert make_cover(tmp_path / "v.mp4", tmp_path / "c.jpg", each_ffmpeg, duration_seconds=length)


@pytest.mark.parametrize("name", ["garbage", "sound", "black", "gone"])
def test_without_anything_to_see_it_is_the_default_picture(ffmpeg, clips, tmp_path, name):
    assert not make_cover(clips / f"{name}.mp4", tmp_path / "c.jpg", ffmpeg, duration_seconds=5)
    assert (tmp_path / "c.jpg").read_bytes() == DEFAULT.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["c.jpg"]


def bright(path, tmp_path):
    """How many of 64 x 40 points are nearly white, which the picture itself has nowhere."""
    return sum(point > 180 for point in grey(path, tmp_path, 64 * 4, 40 * 4))


def test_the_title_stands_on_the_default_picture_and_is_only_text(each_ffmpeg, clips, tmp_path):
    folder = tmp_path / "it's: [a], \\=%d;"
    folder.mkdir()
    drawn = {}
    for title in ("Live", HOSTILE, "\0\n\u202e"):
        assert not make_cover(clips / "garbage.mp4", folder / "c.jpg", each_ffmpeg, duration_seconds=5, title=title)
        shutil.copy(folder / "c.jpg", tmp_path / "c.jpg")
        drawn[title] = bright(tmp_path / "c.jpg", tmp_path)
    assert size(tmp_path / "c.jpg", each_ffmpeg, tmp_path) == (1146, 717, "mjpeg")
    assert [path.name for path in folder.iterdir()] == ["c.jpg"]
    assert drawn["\0\n\u202e"] == 0 < drawn["Live"] < drawn[HOSTILE], drawn


@pytest.mark.parametrize(("title", "size", "lines"), [
    ("短", 84, ["短"]),
    ("【直播回放】某某主播 2026年11月22日 20点场", 84, ["【直播回放】某某主播", "2026年11月22日 20点场"]),
    ("直播" * 45, 54, ["直播" * 9, "直播" * 9, "直播" * 8 + "..."]),
    ("A long English title that needs three", 84, ["A long English title", "that needs three"]),
    ("x" * 50, 84, ["x" * 22, "x" * 22, "x" * 6]),
])
def test_a_title_is_laid_out_on_three_lines_at_most(title, size, lines):
    assert cover._laid_out(title) == (size, lines)


def fonts(tmp_path, monkeypatch, script):
    """Another fc-list, and nothing else on the path but ffmpeg."""
    for name in ("ffmpeg", "setpriv"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    if script:
        (tmp_path / "bin" / "fc-list").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "fc-list").chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "bin"))


@pytest.mark.parametrize("script", ["", "exit 1", "exit 0"])
def test_without_a_font_there_is_no_title_but_still_a_picture(ffmpeg, tmp_path, monkeypatch, script):
    fonts(tmp_path, monkeypatch, script)
    assert not make_cover(tmp_path / "gone", tmp_path / "c.jpg", ffmpeg, duration_seconds=5, title="直播")
    assert (tmp_path / "c.jpg").read_bytes() == DEFAULT.read_bytes()


def test_an_ffmpeg_that_cannot_draw_text_makes_a_picture_without(stand_in, tmp_path):
    cannot = stand_in("case \"$*\" in *drawtext*) echo \"No such filter: 'drawtext'\" >&2; exit 1;; esac\n"
                      'exec ffmpeg "$@"')
    assert not make_cover(tmp_path / "gone", tmp_path / "c.jpg", cannot, duration_seconds=5, title="Live")
    assert (tmp_path / "c.jpg").read_bytes() == DEFAULT.read_bytes()


def test_what_no_font_can_show_is_left_out_of_the_title(tmp_path, monkeypatch):
    fonts(tmp_path, monkeypatch, 'case "$1" in *1f600*|*2605*) ;; *) '
          "printf '200\\t0\\t/bold.ttf\\n80\\t100\\t/italic.ttf\\n80\\t0\\t/Mono.ttf\\n80\\t0\\t/plain.ttf\\n';; esac")
    assert cover._drawable(" 今晚\t😀 ★ 直播 a=b\udcff") == ("今晚 直播 a=b", "/plain.ttf")
    assert cover._drawable("😀") == ("", "")


def test_stop_is_not_hidden_behind_the_default_picture(ffmpeg, stop, studio, tmp_path):
    stop.set()
    with pytest.raises(Stopped):
        make_cover(studio / "clip.mp4", tmp_path / "c.jpg", ffmpeg, duration_seconds=10)
    assert list(tmp_path.iterdir()) == []


def test_no_small_picture_comes_from_a_cover_that_is_none(ffmpeg, clips, tmp_path):
    with pytest.raises(PermanentError):
        make_thumbnail(clips / "garbage.mp4", tmp_path / "small.jpg", ffmpeg)
    assert list(tmp_path.iterdir()) == []


def test_the_default_picture_has_the_right_form(ffmpeg, tmp_path):
    assert size(DEFAULT, ffmpeg, tmp_path) == (1146, 717, "mjpeg")
    assert DEFAULT.stat().st_size <= 30_000
