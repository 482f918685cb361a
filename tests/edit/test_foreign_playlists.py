"""Playlists as other tools write them: encrypted, in one file, with variants, with odd names."""

import os
import secrets
import shutil
import tracemalloc

import pytest
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad
from studio_tools import edit, hls, listing, make, packets

from biliupd.edit import merge as room
from biliupd.edit.media import probe
from biliupd.edit.merge import merge, plan, remove_source
from biliupd.edit.playlist import check_name, read, spellings
from biliupd.errors import PermanentError, TemporaryError


def lock(path, key, iv):
    path.write_bytes(AES.new(key, AES.MODE_CBC, iv=iv).encrypt(pad(path.read_bytes(), 16)))


def by_number(number):
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_encrypted_segments_are_opened_with_the_keys_beside_them(each_ffmpeg, show, tmp_path, kind):
    """Three keys: one by media sequence number, one with an IV, and none in the middle."""
    playlist = show(kind)
    suffix = "ts" if kind == "ts" else "m4s"
    folder, first, second, iv = playlist.parent, secrets.token_bytes(16), secrets.token_bytes(16), os.urandom(16)
    (folder / "keys").mkdir()
    (folder / "keys" / "一.key").write_bytes(first)
    (folder / "b").write_bytes(second)
    for n in (*range(0, 5), *range(9, 15)):
        lock(folder / f"{n:03d}.{suffix}", first if n < 5 else second, by_number(256 + n) if n < 5 else iv)
    edit(playlist, "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-MEDIA-SEQUENCE:256")
    text = playlist.read_text()
    for n, line in ((0, 'METHOD=AES-128,URI="keys/%E4%B8%80.key"'), (5, "METHOD=NONE"),
                    (9, f'METHOD=AES-128,KEYFORMAT="identity",URI="b",IV=0x{iv.hex()}')):
        before = text.rindex("#EXTINF", 0, text.index(f"\n{n:03d}.{suffix}"))
        text = f"{text[:before]}#EXT-X-KEY:{line}\n{text[before:]}"
    playlist.write_text(text)
    merged = merge(playlist, tmp_path / "out.mp4", each_ffmpeg)
    assert merged.duration_seconds == pytest.approx(30, abs=0.1)
    assert packets(merged.path)[0] == 750
    remove_source(playlist)
    assert listing(tmp_path) == ["out.mp4"]


def test_what_ffmpeg_encrypted_is_opened_too(ffmpeg, studio, tmp_path):
    (tmp_path / "show").mkdir()
    (tmp_path / "show" / "a.key").write_bytes(secrets.token_bytes(16))
    (tmp_path / "info").write_text(f"a.key\n{tmp_path}/show/a.key\n")
    hls(studio, tmp_path / "show" / "list.m3u8", "-hls_key_info_file", str(tmp_path / "info"))
    merged = merge(tmp_path / "show" / "list.m3u8", tmp_path / "out.mp4", ffmpeg)
    assert packets(merged.path)[0] == 750


@pytest.mark.parametrize(("key", "raised", "reason"), [
    (None, TemporaryError, "waits for segment 'a.key'"), (b"short", PermanentError, "no key of 16 bytes"),
    (bytes(17), PermanentError, "no key of 16 bytes"), (bytes(16), PermanentError, "000.ts"),
])
def test_a_key_that_is_missing_or_wrong_is_named(ffmpeg, show, tmp_path, key, raised, reason):
    playlist = show()
    for segment in playlist.parent.glob("*.ts"):
        lock(segment, b"k" * 16, bytes(16))
    if key is not None:
        (playlist.parent / "a.key").write_bytes(key)
    edit(playlist, "#EXT-X-MEDIA-SEQUENCE:0", f'#EXT-X-KEY:METHOD=AES-128,URI="a.key",IV=0x{"0" * 32}')
    with pytest.raises(raised, match=reason):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
def test_all_segments_may_lie_in_one_file(each_ffmpeg, studio, tmp_path, kind):
    (tmp_path / "show").mkdir()
    hls(studio, tmp_path / "show" / "live.m3u8", "-hls_flags", "single_file", "-hls_segment_type", kind)
    text = (tmp_path / "show" / "live.m3u8").read_text()
    assert text.count("#EXT-X-BYTERANGE") == 15
    if kind == "fmp4":
        assert 'BYTERANGE="' in text  # of the init section
    merged = merge(tmp_path / "show" / "live.m3u8", tmp_path / "out.mp4", each_ffmpeg)
    assert packets(merged.path)[0] == 750
    remove_source(tmp_path / "show" / "live.m3u8")
    assert listing(tmp_path) == ["out.mp4"]


def test_a_byte_range_past_the_end_is_damage(show):
    playlist = show()
    size = (playlist.parent / "000.ts").stat().st_size
    edit(playlist, "000.ts", f"#EXT-X-BYTERANGE:{size}@188\n000.ts")
    with pytest.raises(PermanentError, match=r"000\.ts.*cut short"):
        plan(playlist)


def test_byte_ranges_go_on_where_the_one_before_ended(tmp_path):
    (tmp_path / "x.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:7\n#EXTINF:1,\n#EXT-X-BYTERANGE:10@5\na\n#EXTINF:1,\n#EXT-X-BYTERANGE:20\na\n"
        "#EXTINF:1,\nb\n#EXTINF:1,\n#EXT-X-BYTERANGE:3\na\n")
    listed = read(tmp_path / "x.m3u8")
    assert [(entry.segment.size_bytes, entry.segment.offset_bytes) for entry in listed.entries] == \
        [(10, 5), (20, 15), (0, 0), (3, 35)]
    assert listed.target_seconds == 7
    edit(tmp_path / "x.m3u8", "20\na", "20\nc")
    with pytest.raises(PermanentError, match="line 8: '20' is no byte range"):
        read(tmp_path / "x.m3u8")


@pytest.fixture(scope="session")
def master(studio, tmp_path_factory):
    """A master playlist with sound of its own: `v/list.m3u8` and `a/list.m3u8`."""
    path = tmp_path_factory.mktemp("master")
    for name, stream in (("v", "0:v"), ("a", "0:a")):
        (path / name).mkdir()
        make("-i", str(studio / "show.mp4"), "-map", stream, "-c", "copy", "-f", "hls", "-hls_time", "2",
             "-hls_list_size", "0", str(path / name / "list.m3u8"))
    (path / "master.m3u8").write_text(
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="g",NAME="x",URI="a/gone.m3u8"\n'
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="g",NAME="y",DEFAULT=YES,URI="a/list.m3u8"\n'
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=9,URI="http://127.0.0.1:1/i.m3u8"\n'
        "#EXT-X-STREAM-INF:BANDWIDTH=10\nlow.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=900,RESOLUTION=1x1\nhttp://127.0.0.1:1/best.m3u8\n"
        '#EXT-X-STREAM-INF:BANDWIDTH=500,AUDIO="g"\nv/list.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=600\n../../etc/x.m3u8\n')
    return path


@pytest.fixture
def variants(master, tmp_path):
    shutil.copytree(master, tmp_path / "show")
    return tmp_path / "show" / "master.m3u8"


def test_of_a_master_playlist_the_best_local_variant_is_taken_with_its_sound(each_ffmpeg, variants, tmp_path):
    merged = merge(variants, tmp_path / "out.mp4", each_ffmpeg)
    video, audio = packets(merged.path)
    assert (video, merged.duration_seconds) == (750, pytest.approx(30, abs=0.1))
    assert audio in range(1285, 1296)
    assert merge(variants, tmp_path / "out.mp4", each_ffmpeg) == merged
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_sound_that_begins_later_stays_in_step(ffmpeg, variants, tmp_path):
    (variants.parent / "a" / "list0.ts").unlink()
    edit(variants.parent / "a" / "list.m3u8", "\nlist0.ts", "\n#EXT-X-GAP\nlist0.ts")
    merged = merge(variants, tmp_path / "out.mp4", ffmpeg)
    make("-i", str(merged.path), "-map", "0:a", "-c", "copy", "-copyts", "-f", "framecrc", str(tmp_path / "crc"))
    line = next(line for line in (tmp_path / "crc").read_text().splitlines() if line.startswith("0,"))
    assert int(line.split(",")[2]) / 44100 == pytest.approx(2, abs=0.1)


def test_a_better_variant_with_a_segment_missing_is_left_for_a_whole_one(ffmpeg, variants, show, tmp_path):
    low = show(name="low")
    for path in low.parent.iterdir():
        path.rename(variants.parent / ("low.m3u8" if path.suffix == ".m3u8" else path.name))
    assert plan(variants).sound
    (variants.parent / "v" / "list3.ts").unlink()
    assert not plan(variants).sound
    assert len(plan(variants).runs[0].segments) == 15


def test_a_master_playlist_without_a_whole_variant_says_what_it_waits_for(variants):
    (variants.parent / "v" / "list3.ts").unlink()
    with pytest.raises(TemporaryError, match=r"list3\.ts"):
        plan(variants)


def test_a_master_playlist_goes_no_deeper_and_nowhere_else(variants, tmp_path):
    edit(variants, "http://127.0.0.1:1/best.m3u8", "master.m3u8")
    edit(variants, "v/list.m3u8", "/v/list.m3u8")
    with pytest.raises(PermanentError, match=r"line 8: 'master\.m3u8' is a master playlist, too"):
        plan(variants)
    edit(variants, "\nmaster.m3u8", "\nhttp://127.0.0.1:1/x")
    with pytest.raises(PermanentError, match="line 8: 'http"):
        plan(variants)


def test_sound_with_other_breaks_is_refused(variants):
    edit(variants.parent / "a" / "list.m3u8", "\nlist3.ts", "\n#EXT-X-GAP\nlist3.ts")
    with pytest.raises(PermanentError, match="other breaks"):
        plan(variants)


def test_what_a_master_playlist_was_merged_of_is_removed(variants, tmp_path):
    remove_source(variants)
    assert listing(tmp_path) == []


def test_names_may_be_encoded_have_a_query_or_lie_deeper(ffmpeg, show, tmp_path):
    playlist = show("fmp4")
    folder = playlist.parent
    (folder / "a b").mkdir()
    for old, new, written in (
        ("000.m4s", "直播 0.m4s", "%E7%9B%B4%E6%92%AD%200.m4s"), ("001.m4s", "001.m4s", "001.m4s?token=a/../b"),
        ("002.m4s", "a b/002.m4v", "a%20b/002.m4v"), ("003.m4s", "100%25.m4s", "100%25.m4s"),
        ("init.mp4", "header.m4v", "header.m4v?x=1"), ("004.m4s", "4.mp4?v=2", "4.mp4?v=2"),
    ):  # fmt: skip
        (folder / old).rename(folder / new)
        edit(playlist, old, written)
    edit(playlist, "001.m4s?token=a/../b", "001.m4s?token=a%2Fb")
    playlist = playlist.rename(folder / "直播.m3u8")
    merged = merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert packets(merged.path)[0] == 750
    remove_source(playlist)
    assert listing(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize(("name", "forms"), [
    ("a.ts", ["a.ts"]), ("a%20b.ts", ["a%20b.ts", "a b.ts"]), ("a.ts?x", ["a.ts?x", "a.ts"]), ("?x", ["?x"]),
])
def test_a_name_may_mean_several_files(name, forms):
    assert spellings(name) == forms


@pytest.mark.parametrize("name", [
    "http%3A//x/y.ts", "%2Fetc/passwd", "a/%2e%2e/%2e%2e/b", "a%5Cb", "a%00b", "FILE:x", "crypto+file:x", "\x1b[0m", "",
])
def test_a_name_in_disguise_is_refused(name):
    with pytest.raises(PermanentError, match="line 7"):
        check_name(name, 7)


def test_segments_of_sound_alone_are_merged(each_ffmpeg, studio, tmp_path):
    (tmp_path / "show").mkdir()
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n"
    for n in range(5):
        make("-ss", str(n * 2), "-t", "2", "-i", str(studio / "show.mp4"), "-vn", "-c:a", "aac", "-f", "adts",
             "-write_id3v2", "1", str(tmp_path / "show" / f"{n}.aac"))
        lines += f"#EXTINF:2.0,\n{n}.aac\n"
    (tmp_path / "show" / "sound.m3u8").write_text(lines)
    merged = merge(tmp_path / "show" / "sound.m3u8", tmp_path / "out.mp4", each_ffmpeg)
    found = probe(merged.path, each_ffmpeg)
    assert (found.video_codec, found.audio_codec) == ("", "aac")
    assert merged.duration_seconds == pytest.approx(10, abs=0.5)


def test_segments_that_are_whole_mp4_files_are_merged(ffmpeg, studio, tmp_path):
    (tmp_path / "show").mkdir()
    for n in range(3):
        make("-i", str(studio / "clip.mp4"), "-t", "2", "-c", "copy", "-movflags", "+faststart",
             str(tmp_path / "show" / f"{n}.mp4"))
    (tmp_path / "show" / "x.m3u8").write_text("#EXTM3U\n" + "".join(f"#EXTINF:2.0,\n{n}.mp4\n" for n in range(3)))
    assert merge(tmp_path / "show" / "x.m3u8", tmp_path / "out.mp4", ffmpeg).duration_seconds == \
        pytest.approx(6, abs=0.3)


def test_there_is_one_mark_for_each_set_of_segments(show, tmp_path):
    playlist = show()
    marks = {room._mark(plan(playlist))}
    edit(playlist, "#EXTINF:2.000000,\n003.ts\n", "")
    marks.add(room._mark(plan(playlist)))
    edit(playlist, "004.ts", "#EXT-X-BYTERANGE:188@0\n004.ts")
    marks.add(room._mark(plan(playlist)))
    edit(playlist, "188@0", "188@188")
    marks.add(room._mark(plan(playlist)))
    assert len(marks) == 4


def test_a_segment_of_nothing_but_boxes_is_damaged_and_costs_no_memory(tmp_path):
    (tmp_path / "index.m3u8").write_text("#EXTM3U\n#EXTINF:2,\n0.m4s\n#EXT-X-ENDLIST\n")
    (tmp_path / "0.m4s").write_bytes(b"\0\0\0\x08moof" + b"\0\0\0\x08free" * (32 << 17))
    tracemalloc.start()
    try:
        with pytest.raises(PermanentError, match="more than 100000 boxes"):
            plan(tmp_path / "index.m3u8")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20  # half of it to read the playlist
    finally:
        tracemalloc.stop()
