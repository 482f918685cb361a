"""What a file says about itself, and files that lie."""

import os
import shutil

import pytest
from studio_tools import make

from biliupd.edit.media import boxes, probe
from biliupd.errors import PermanentError


@pytest.mark.parametrize("name", ["clip.mp4", "clip.flv", "clip.mkv", "fast.mp4"])
def test_a_file_says_what_it_holds(each_ffmpeg, studio, name):
    found = probe(studio / name, each_ffmpeg)
    assert (found.width, found.height, found.video_codec, found.audio_codec) == (320, 240, "h264", "aac")
    assert found.duration_seconds == pytest.approx(10, abs=0.1)
    assert found.bitrate == pytest.approx((studio / name).stat().st_size * 8 / 10, rel=0.2)


def test_sound_alone_is_media(each_ffmpeg, studio, tmp_path):
    make("-i", str(studio / "clip.mp4"), "-vn", "-c", "copy", str(tmp_path / "a.m4a"))
    found = probe(tmp_path / "a.m4a", each_ffmpeg)
    assert (found.width, found.video_codec, found.audio_codec) == (0, "", "aac")


def test_a_recording_cut_off_is_measured(each_ffmpeg, studio, tmp_path):
    make("-i", str(studio / "clip.mp4"), "-c", "copy", "-f", "matroska", "-live", "1", str(tmp_path / "x.mkv"))
    found = probe(tmp_path / "x.mkv", each_ffmpeg)
    assert found.duration_seconds == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("name", ["fast.mp4", "clip.mp4"])
def test_an_mp4_cut_short_is_refused(each_ffmpeg, studio, tmp_path, name):
    raw = (studio / name).read_bytes()
    (tmp_path / "x.mp4").write_bytes(raw[:len(raw) * 53 // 100])
    with pytest.raises(PermanentError, match=r"x\.mp4"):
        probe(tmp_path / "x.mp4", each_ffmpeg)


def test_what_cannot_be_opened_is_refused_by_name(ffmpeg, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello\n" * 1000)
    (tmp_path / "random.ts").write_bytes(os.urandom(100_000))
    (tmp_path / "dir.mp4").mkdir()
    os.mkfifo(tmp_path / "fifo.mp4")
    for name in ("empty.mp4", "text.mp4", "random.ts", "dir.mp4", "fifo.mp4", "missing.mp4"):
        with pytest.raises(PermanentError, match=name):
            probe(tmp_path / name, ffmpeg)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
                                  "ffconcat version 1.0\nfile '{}'\n"])
def test_a_list_that_calls_itself_mp4_opens_nothing(each_ffmpeg, studio, tmp_path, text):
    secret = tmp_path / "secret.ts"
    shutil.copy(studio / "show-ts" / "000.ts", secret)
    os.utime(secret, (1, 1))  # the time of the last look, too: it stays so while nobody reads
    (tmp_path / "evil.mp4").write_text(text.format(secret))
    with pytest.raises(PermanentError, match=r"evil\.mp4"):
        probe(tmp_path / "evil.mp4", each_ffmpeg)
    assert secret.stat().st_atime == 1


def test_boxes_are_walked_to_the_end(studio):
    raw = (studio / "clip.mp4").read_bytes()
    found = list(boxes(lambda at, count: raw[at:at + count], 0, len(raw)))
    assert found[0][:3] == (b"ftyp", 0, 8)
    assert [box.start for box in found[1:]] + [len(raw)] == [box.end for box in found]
