"""Every video gets a picture."""

import pytest
from studio_tools import make

from biliupd.edit.cover import DEFAULT, make_cover
from biliupd.edit.media import probe
from biliupd.errors import Stopped


def size(path, ffmpeg, tmp_path):
    """Pixels of a JPEG, by way of a container that probe opens."""
    make("-f", "image2pipe", "-c:v", "mjpeg", "-i", f"file:{path}", "-c", "copy", str(tmp_path / "size.mkv"))
    found = probe(tmp_path / "size.mkv", ffmpeg)
    return found.width, found.height, found.video_codec


def brightness(path, tmp_path):
    make("-i", f"file:{path}", "-vf", "scale=1:1", "-pix_fmt", "gray", "-f", "rawvideo", str(tmp_path / "grey"))
    return (tmp_path / "grey").read_bytes()[0]


def test_a_video_gets_a_frame_of_its_own(each_ffmpeg, studio, tmp_path):
    output = tmp_path / "50%d: cover.jpg"
    output.write_bytes(b"an old one")
    assert make_cover(studio / "clip.mp4", output, each_ffmpeg, duration_seconds=10)
    assert size(output, each_ffmpeg, tmp_path) == (1146, 717, "mjpeg")
    assert output.read_bytes() != DEFAULT.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_video_that_is_black_at_first_gets_a_later_frame(each_ffmpeg, tmp_path):
    make("-f", "lavfi", "-i", "color=black:size=320x240:rate=25:duration=6", "-f", "lavfi", "-i",
         "testsrc2=size=320x240:rate=25:duration=4", "-filter_complex", "concat", "-c:v", "libx264", "-g", "25",
         "-pix_fmt", "yuv420p", str(tmp_path / "v.mp4"))
    assert make_cover(tmp_path / "v.mp4", tmp_path / "c.jpg", each_ffmpeg, duration_seconds=10)
    assert brightness(tmp_path / "c.jpg", tmp_path) > 40


@pytest.mark.parametrize("length", [0.1, 1.0])
def test_a_very_short_video_gets_a_frame_too(each_ffmpeg, studio, tmp_path, length):
    make("-i", str(studio / "clip.mp4"), "-t", str(length), "-c:v", "libx264", "-an", str(tmp_path / "v.mp4"))
    assert make_cover(tmp_path / "v.mp4", tmp_path / "c.jpg", each_ffmpeg, duration_seconds=length)


def test_garbage_gets_the_default_picture(each_ffmpeg, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"garbage")
    assert not make_cover(tmp_path / "v.mp4", tmp_path / "c.jpg", each_ffmpeg, duration_seconds=10)
    assert (tmp_path / "c.jpg").read_bytes() == DEFAULT.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jpg", "v.mp4"]


def test_sound_alone_gets_the_default_picture(ffmpeg, studio, tmp_path):
    make("-i", str(studio / "clip.mp4"), "-vn", "-c", "copy", str(tmp_path / "a.m4a"))
    assert not make_cover(tmp_path / "a.m4a", tmp_path / "c.jpg", ffmpeg, duration_seconds=10)


def test_stop_is_not_hidden_behind_the_default_picture(ffmpeg, stop, studio, tmp_path):
    stop.set()
    with pytest.raises(Stopped):
        make_cover(studio / "clip.mp4", tmp_path / "c.jpg", ffmpeg, duration_seconds=10)
    assert list(tmp_path.iterdir()) == []


def test_the_default_picture_has_the_right_form(ffmpeg, tmp_path):
    assert size(DEFAULT, ffmpeg, tmp_path) == (1146, 717, "mjpeg")
    assert DEFAULT.stat().st_size <= 30_000
