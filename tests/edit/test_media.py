"""What a file says about itself, and files that lie."""

import os
import shutil
import struct

import pytest
from studio_tools import make

from biliupd.edit.media import boxes, probe, unfinished
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


def box(kind, size):
    return struct.pack(">I4s", size, kind) + bytes(size - 8)


@pytest.mark.parametrize(("raw", "reason"), [
    (b"", "empty"), (bytes(4096), "its beginning is not written yet"), (b"x", ""), (b"\x47" + bytes(187), ""),
    (box(b"ftyp", 24), "its index (moov) is missing"), (box(b"ftyp", 24)[:12], "its 'ftyp' box at 0 ends at 24"),
    (box(b"ftyp", 24) + box(b"moov", 40) + box(b"mdat", 80)[:60], "its 'mdat' box at 64 ends at 144, the file at 124"),
    (box(b"ftyp", 24) + box(b"mdat", 80), "its index (moov) is missing"),
    (box(b"ftyp", 24) + box(b"mdat", 80) + bytes(500), "its index (moov) is missing"),
    (box(b"ftyp", 24) + struct.pack(">I4sQ", 1, b"mdat", 1 << 33) + bytes(500), "its 'mdat' box at 24 ends at"),
    (box(b"ftyp", 24) + struct.pack(">I4s", 0, b"mdat") + bytes(500), "its index (moov) is missing"),
    (box(b"ftyp", 24) + box(b"moov", 40) + bytes(5), "its boxes end at 64, the file at 69"),
    (box(b"ftyp", 24) + box(b"moov", 40) + box(b"mdat", 80), ""), (box(b"mdat", 80) + box(b"moov", 40), ""),
    (box(b"ftyp", 24) + box(b"moov", 40) + box(b"mdat", 80) + bytes(3), ""),
    (box(b"ftyp", 24) + box(b"moov", 40) + box(b"moof", 30) + box(b"mdat", 80), ""),
    (box(b"ftyp", 24) + box(b"moov", 40) + box(b"moof", 30) + box(b"mdat", 80)[:20], "its 'mdat' box at 94"),
])
def test_the_structure_tells_what_is_not_whole(tmp_path, raw, reason):
    (tmp_path / "x.mp4").write_bytes(raw)
    found = unfinished(tmp_path / "x.mp4")
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_whole_files_and_what_is_no_file_at_all_are_not_unfinished(studio, tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    here = [tmp_path / name for name in ("fifo.mp4", "dir.mp4", "loop.mp4", "gone.mp4", "gone/x.mp4", "x" * 300)]
    whole = [studio / name for name in ("clip.mp4", "fast.mp4", "clip.flv", "clip.mkv", "show-ts/000.ts",
                                             "show-fmp4/000.m4s", "show-fmp4/init.mp4")]
    assert {path.name: unfinished(path) for path in here + whole if unfinished(path)} == {}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.53, 0.999])
def test_a_copy_in_progress_is_unfinished_wherever_the_index_lies(studio, tmp_path, share):
    for name in ("clip.mp4", "fast.mp4"):
        raw = (studio / name).read_bytes()
        (tmp_path / name).write_bytes(raw[:int(len(raw) * share)])
        assert unfinished(tmp_path / name)
