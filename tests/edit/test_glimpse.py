"""The newest picture of recordings that still grow. What is recorded turns from red to blue."""

import os
import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from studio_tools import BUNDLED, make

from biliupd.config import EditConfig
from biliupd.edit import glimpse as room
from biliupd.edit.glimpse import DEADLINE_SECONDS, HEIGHT, WIDTH, glimpse
from biliupd.errors import PermanentError, TemporaryError

CONFIG = EditConfig(ffmpeg=Path(BUNDLED))
TURN = ("color=red:s=640x480:r=10:d=2[a];color=blue:s=640x480:r=10:d=2[b];[a][b]concat,"
        "drawbox=y=ih/2:h=ih/2:c=white:t=fill,noise=alls=20:allf=t")  # noise: keyframes are large
FLV_HEAD_BYTES = 13


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Four seconds with a keyframe every second, in every form that recorders write, and some that others do."""
    folder = tmp_path_factory.mktemp("glimpse")
    source = ["-f", "lavfi", "-i", TURN, "-f", "lavfi", "-i", "sine=duration=4"]
    fast = ["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest"]
    make(*source, "-c:v", "libx264", "-g", "10", "-b:v", "2M", *fast, str(folder / "film.flv"))
    make(*source, "-c:v", "libx265", "-x265-params", "keyint=10:log-level=none", *fast, str(folder / "hevc.flv"))
    copy = ["-i", str(folder / "film.flv"), "-c", "copy"]
    make(*copy, str(folder / "film.ts"))
    make(*copy, "-movflags", "frag_keyframe+empty_moov+default_base_moof", str(folder / "film.mp4"))
    make(*copy, "-vn", str(folder / "sound.flv"))
    make(*copy, "-vn", str(folder / "sound.ts"))
    for kind in ("mpegts", "fmp4"):
        (folder / kind).mkdir()
        subprocess.run([BUNDLED, "-v", "error", *copy, "-f", "hls", "-hls_time", "1", "-hls_list_size", "0",
                        "-hls_segment_type", kind, "index.m3u8"], check=True, cwd=folder / kind)  # fmt: skip
    return folder


def shown(picture: bytes) -> str:
    """The colour of a picture's upper half; torn, when its lower half is not as white as it should be."""
    raw = subprocess.run([BUNDLED, "-v", "error", "-f", "mjpeg", "-i", "pipe:0", "-vf", "scale=1:6:flags=area",
                          "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], input=picture, check=True, capture_output=True)
    rows = list(struct.iter_unpack("3B", raw.stdout))
    seen = ["red" if red > 200 and blue < 60 else "blue" if blue > 200 and red < 60 else "other"
            for red, _, blue in rows[:2]]  # fmt: skip
    whole = min(min(rows[-2]), min(rows[-1])) > 200 and seen[0] == seen[1]
    return seen[0] if whole else "torn"


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height (JPEG, SOF0)."""
    height, width = struct.unpack(">HH", re.search(rb"\xff\xc0...(....)", picture, re.DOTALL)[1])
    return width, height


def keyframes(flv: bytes) -> list[tuple[int, int]]:
    """Where the keyframes of a legacy FLV begin and end, without the number behind them."""
    at, found = FLV_HEAD_BYTES, []
    while at < len(flv):
        end = at + 11 + int.from_bytes(flv[at + 1 : at + 4])
        if flv[at] == 9 and flv[at + 11 : at + 13] == b"\x17\x01":
            found.append((at, end))
        at = end + 4
    return found


@pytest.mark.parametrize("name", ["film.flv", "hevc.flv", "film.ts", "film.mp4", "mpegts/index.m3u8",
                                  "fmp4/index.m3u8"])
@pytest.mark.parametrize("program", [None, Path(BUNDLED)], ids=["system", "bundled"])
def test_the_newest_picture_is_shown_whatever_it_is_recorded_as(films, name, program):
    picture = glimpse(EditConfig(ffmpeg=program), films / name)
    assert shown(picture) == "blue"
    assert size_of(picture) == (360, HEIGHT)  # 640x480, as it was
    assert len(picture) < 60_000


def test_an_flv_shows_its_last_whole_keyframe_wherever_it_is_cut(films, tmp_path):
    content, path = (films / "film.flv").read_bytes(), tmp_path / "P001.flv.part"
    marks = keyframes(content)
    assert len(marks) == 4
    third, fourth = marks[2:]
    for cut, colour in (
        (third[0], "red"), (third[0] + 5, "red"), (sum(third) // 2, "red"), (third[1] - 1, "red"), (third[1], "blue"),
        (third[1] + 2, "blue"), (third[1] + 9, "blue"), (sum(fourth) // 2, "blue"), (len(content) - 1, "blue"),
    ):  # fmt: skip
        path.write_bytes(content[:cut])
        assert shown(glimpse(CONFIG, path)) == colour, cut


def test_a_ts_and_a_fragmented_mp4_may_end_in_the_middle_of_a_keyframe(films, tmp_path):
    for name in ("film.ts", "film.mp4"):
        content, path, seen = (films / name).read_bytes(), tmp_path / name, []
        for part in (30, 70, 82, 84, 86, 88, 97):  # the third keyframe lies between 83 and 88
            path.write_bytes(content[: len(content) * part // 100])
            seen.append(shown(glimpse(CONFIG, path)))
        turn = seen.index("blue")
        assert seen == ["red"] * turn + ["blue"] * (len(seen) - turn), name
        assert turn


def test_of_a_playlist_that_grows_what_is_listed_and_there_is_shown(films, tmp_path):
    for kind, suffix in (("mpegts", "ts"), ("fmp4", "m4s")):
        folder = tmp_path / kind
        folder.mkdir()
        for file in (films / kind).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        playlist, lines = folder / "index.m3u8", (films / kind / "index.m3u8").read_text().splitlines()
        until = lines.index(f"index1.{suffix}") + 1
        playlist.write_text("\n".join(lines[:until]))
        assert shown(glimpse(CONFIG, playlist)) == "red"
        playlist.write_text("\n".join([*lines[:-1], "#EXTINF:1.0,", f"index9.{suffix}"]))  # lost
        (folder / f"index3.{suffix}").write_bytes(b"")
        assert shown(glimpse(CONFIG, playlist)) == "blue"
        (tmp_path / f"{kind}.m3u8").write_text(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{kind}/index.m3u8\n")
        assert shown(glimpse(CONFIG, tmp_path / f"{kind}.m3u8")) == "blue"


def test_of_a_segment_without_a_keyframe_the_one_before_is_shown(films, tmp_path):
    segment = (films / "mpegts" / "index3.ts").read_bytes()
    (tmp_path / "1.ts").write_bytes(segment)
    (tmp_path / "2.ts").write_bytes(segment[: 188 * 3] + segment[-188 * 200 :])  # its tables, and its last packets
    (tmp_path / "index.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n1.ts\n#EXTINF:1,\n2.ts\n")
    assert shown(glimpse(CONFIG, tmp_path / "index.m3u8")) == "blue"


def test_without_room_for_a_temporary_file_there_is_no_picture_now(films, tmp_path, monkeypatch):
    monkeypatch.setattr(room.tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(TemporaryError):
        glimpse(CONFIG, films / "film.flv")


def test_other_forms_of_a_tag_are_understood(films, tmp_path):
    """Enhanced H.264, HEVC under the number that Chinese sites gave it, and headers that come again."""
    enhanced, path = films / "hevc.flv", tmp_path / "other.flv"
    assert b"\x90hvc1" in enhanced.read_bytes()

    def rewritten(source: bytes, change) -> bytes:
        made, at, headers = [source[:FLV_HEAD_BYTES]], FLV_HEAD_BYTES, []
        while at < len(source):
            end = at + 11 + int.from_bytes(source[at + 1 : at + 4])
            body = change(source[at + 11 : end]) if source[at] == 9 else source[at + 11 : end]
            tag = source[at : at + 1] + len(body).to_bytes(3) + source[at + 4 : at + 11] + body
            again = headers if source[at] == 9 else []
            headers = again or [tag] if source[at] == 9 else headers
            for one in (*again[:1], tag):
                made += [one, len(one).to_bytes(4)]
            at = end + 4
        return b"".join(made)

    def legacy(body: bytes) -> bytes:
        kind = body[0] & 15
        rest = body[5:] if kind != 3 else bytes(3) + body[5:]
        return bytes([body[0] & 0x70 | 12, 0 if kind == 0 else 1]) + (bytes(3) if kind == 0 else b"") + rest

    def with_name(body: bytes) -> bytes:
        return bytes([0x80 | body[0] & 0x70 | body[1]]) + b"avc1" + (body[5:] if body[1] == 0 else body[2:])

    for source, change in ((enhanced, legacy), (films / "film.flv", with_name)):
        path.write_bytes(rewritten(source.read_bytes(), change))
        assert shown(glimpse(CONFIG, path)) == "blue"


def test_what_holds_no_picture_is_told_so(films, tmp_path):
    content = (films / "film.flv").read_bytes()
    for name, bytes_of in {
        "empty.flv": b"", "empty.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n", "text.flv": b"FLV" + b"\0" * 5000,
        "garbage.flv": os.urandom(300_000), "head.flv": content[:FLV_HEAD_BYTES], "short.flv": content[:9],
        "headers.flv": content[: keyframes(content)[0][0]], "packets.ts": (b"G" + b"\xff" * 187) * 400,
        "tag.flv": content[:FLV_HEAD_BYTES] + b"\x09\0\0\x02" + bytes(7) + b"\x17\0" + b"\0\0\0\x0d",
        "untrue.flv": content[:FLV_HEAD_BYTES] + b"\x09\0\0\x07" + bytes(7) + b"\x17\x01" + bytes(5) + b"\0\0\0\x12",
        "start.mp4": (films / "film.mp4").read_bytes()[:900], "sound.flv": (films / "sound.flv").read_bytes(),
        "sound.ts": (films / "sound.ts").read_bytes(),
        "nothing.flv": content[:FLV_HEAD_BYTES] + b"\x09\0\0\0" + bytes(7) + b"\x17\x01\0\0",  # behind an empty tag
        "untrue.mp4": b"\0\0\0\x08ftyp\0\0\0\x08moof\0\0\0\x08mdat\xff\xff\xff\xffmoov" + bytes(200),
        **{f"{n}.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}\n".encode() for n, name in
           enumerate(("http://127.0.0.1/1.m3u8", "/etc/passwd", "../1.m3u8", "a\0b", "a%00b"))},
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_bytes(bytes_of)
        with pytest.raises(PermanentError):
            glimpse(CONFIG, path)
    with pytest.raises(TemporaryError):
        glimpse(CONFIG, tmp_path / "absent.flv")
    os.mkfifo(tmp_path / "fifo.flv")
    with pytest.raises(PermanentError):
        glimpse(CONFIG, tmp_path / "fifo.flv")


def read_bytes() -> int:
    """What this process has read so far, from wherever."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


@pytest.mark.parametrize("hole", ["a hole", "tags"])
def test_of_a_recording_of_many_gigabytes_little_is_read(films, tmp_path, hole):
    content, path = (films / "film.flv").read_bytes(), tmp_path / "long.flv"
    last = keyframes(content)[-1][0]
    with open(path, "wb") as file:
        file.write(content)
        if hole == "tags":  # 60 MiB without a keyframe
            sound = b"\x08\x10\0\0" + bytes(7) + b"\xaf\x01" + bytes(0x0FFFFE) + (0x10000B).to_bytes(4)
            file.seek(20 << 30)
            file.write(content[last:] + sound * 60)
        else:
            file.seek((20 << 30) + 4321)
            file.write(content[FLV_HEAD_BYTES:])
    before = read_bytes()
    assert shown(glimpse(CONFIG, path)) == "blue"
    assert read_bytes() - before < 8 << 20


def test_an_ffmpeg_that_hangs_and_a_search_without_end_take_no_longer_than_they_may(films, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "DEADLINE_SECONDS", 0.5)
    assert DEADLINE_SECONDS == 10
    program, place = tmp_path / "ffmpeg", tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(room.tempfile, "tempdir", str(place))
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(TemporaryError):
        glimpse(EditConfig(ffmpeg=program), films / "film.flv")
    nothing = tmp_path / "nothing.flv"
    nothing.write_bytes((films / "film.flv").read_bytes()[:FLV_HEAD_BYTES] + b"\x09\xff\xff\xff" * (24 << 18))
    monkeypatch.setattr(room, "DEADLINE_SECONDS", 0.0)
    with pytest.raises(TemporaryError, match="not found in time"):
        glimpse(CONFIG, nothing)
    assert time.monotonic() - began < 5
    assert not list(place.iterdir())


def test_a_tall_picture_stays_tall_a_small_one_small_and_a_stretched_one_stretched(tmp_path):
    for name, size, more, wanted in (
        ("tall", "360x640", [], (152, HEIGHT)), ("small", "160x90", [], (160, 90)),
        ("stretched", "640x720", ["-vf", "setsar=2"], (WIDTH, HEIGHT)),
    ):  # fmt: skip
        path = tmp_path / f"{name}.ts"
        make("-f", "lavfi", "-i", f"testsrc2=s={size}:d=1:r=5", *more, "-c:v", "libx264", "-preset", "ultrafast",
             str(path))
        assert size_of(glimpse(CONFIG, path)) == wanted
