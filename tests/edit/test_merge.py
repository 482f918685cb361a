"""A show in 15 segments of 2 s becomes one mp4, or there is a reason and nothing is left behind."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading

import pytest
from studio_tools import edit, listing, make, may_mount, packets

from biliupd.config import EditConfig
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.media import probe
from biliupd.edit.merge import merge, plan, remove_source
from biliupd.errors import PermanentError, Stopped, TemporaryError


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_segments_become_one_whole_mp4(each_ffmpeg, show, tmp_path, kind):
    playlist, seen = show(kind), []
    merged = merge(playlist, tmp_path / "out.mp4", each_ffmpeg, on_progress=seen.append)
    assert merged.path == tmp_path / "out.mp4"
    assert merged.size_bytes == merged.path.stat().st_size
    assert merged.duration_seconds == pytest.approx(30, abs=0.1)
    assert packets(merged.path)[0] == 750
    assert packets(merged.path)[1] in range(1290, 1295)
    assert 29 < seen[-1] < 31
    assert listing(tmp_path) == ["out.mp4", "show"]
    assert plan(playlist).ended


def test_a_plan_names_what_will_be_joined(show):
    found = plan(show("fmp4"))
    assert [segment.name for segment in found.runs[0].segments] == [f"{n:03d}.m4s" for n in range(15)]
    assert (found.runs[0].init.path.name, len(found.runs)) == ("init.mp4", 1)
    assert found.duration_seconds == pytest.approx(30, abs=0.1)


def test_a_playlist_without_its_end_is_merged_whole(each_ffmpeg, show, tmp_path):
    playlist = show()
    edit(playlist, "#EXT-X-ENDLIST", "")
    assert not plan(playlist).ended
    assert merge(playlist, tmp_path / "out.mp4", each_ffmpeg).duration_seconds == pytest.approx(30, abs=0.1)


def test_bom_crlf_comments_and_repeated_lines_do_no_harm(ffmpeg, show, tmp_path):
    playlist = show()
    edit(playlist, "004.ts\n", "004.ts\n#EXTINF:2.0,\n004.ts\n# a remark\n#EXT-X-FOO:1\n\n")
    playlist.write_bytes(b"\xef\xbb\xbf" + playlist.read_bytes().replace(b"\n", b"\r\n"))
    assert merge(playlist, tmp_path / "out.mp4", ffmpeg).duration_seconds == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_a_lost_stretch_that_is_marked_leaves_no_hole(each_ffmpeg, show, tmp_path, kind):
    playlist = show(kind)
    suffix = "ts" if kind == "ts" else "m4s"
    text = re.sub(rf"#EXTINF:[\d.]+,\n00[56]\.{suffix}\n", "", playlist.read_text())
    text = re.sub(rf"(#EXTINF:[\d.]+,\n007\.{suffix})", r"#EXT-X-DISCONTINUITY\n\1", text)
    text = re.sub(rf"(#EXTINF:[\d.]+,\n)(011\.{suffix})", r"\1#EXT-X-GAP\n\2", text)
    playlist.write_text(text)
    (playlist.parent / f"011.{suffix}").unlink()
    assert [len(run.segments) for run in plan(playlist).runs] == [5, 4, 3]
    merged = merge(playlist, tmp_path / "out.mp4", each_ffmpeg)
    assert merged.duration_seconds == pytest.approx(24, abs=0.3)
    assert packets(merged.path)[0] == 600
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_timestamps_that_begin_anew_are_joined(each_ffmpeg, show, tmp_path):
    first, second = show(name="first"), show(name="second")
    for segment in second.parent.glob("*.ts"):
        segment.rename(first.parent / f"b{segment.name}")
    again = second.read_text().split("#EXT-X-MEDIA-SEQUENCE:0\n")[1].replace(",\n", ",\nb")
    edit(first, "#EXT-X-ENDLIST", "#EXT-X-DISCONTINUITY\n" + again)
    merged = merge(first, tmp_path / "out.mp4", each_ffmpeg)
    assert merged.duration_seconds == pytest.approx(60, abs=0.3)
    assert packets(merged.path)[0] == 1500


def test_a_packet_counter_that_begins_anew_in_each_segment_does_no_harm(each_ffmpeg, show, tmp_path):
    playlist = show()
    for segment in playlist.parent.glob("*.ts"):
        raw, count = bytearray(segment.read_bytes()), {}
        for start in range(0, len(raw), 188):
            pid = (raw[start + 1] & 31, raw[start + 2])
            count[pid] = count.get(pid, 0) + (raw[start + 3] >> 4 & 1)  # only packets with a payload are counted
            raw[start + 3] = raw[start + 3] & 0xF0 | count[pid] & 15
        segment.write_bytes(raw)
    merged = merge(playlist, tmp_path / "out.mp4", each_ffmpeg)
    assert merged.duration_seconds == pytest.approx(30, abs=0.2)
    assert packets(merged.path)[0] == 750


def test_another_codec_after_a_break_is_not_joined(ffmpeg, show, tmp_path):
    playlist = show()
    make("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-t", "2", "-c:v", "mpeg2video", "-f", "mpegts",
         str(playlist.parent / "014.ts"))
    edit(playlist, "#EXTINF:2.000000,\n014.ts", "#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\n014.ts")
    with pytest.raises(PermanentError, match=r"codecs change.*014\.ts"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


@pytest.mark.parametrize("missing", [["000.ts"], ["007.ts"], ["014.ts"], [f"{n:03d}.ts" for n in range(15)]])
def test_a_missing_segment_is_waited_for_by_name(ffmpeg, show, tmp_path, missing):
    playlist = show()
    for name in missing:
        (playlist.parent / name).unlink()
    with pytest.raises(TemporaryError, match=rf"waits for segment '{missing[0]}'"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_random(path):
    path.write_bytes(os.urandom(188 * 200))


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:10_000])


def spoil_zeros(path):
    raw = path.read_bytes()
    path.write_bytes(raw[:len(raw) // 2] + bytes(len(raw) - len(raw) // 2))


def spoil_fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("kind", ["ts", "m4s"])
@pytest.mark.parametrize("spoil", [spoil_empty, spoil_random, spoil_cut, spoil_zeros, spoil_fifo])
def test_a_spoilt_segment_is_refused(ffmpeg, show, tmp_path, kind, spoil):
    if (kind, spoil) == ("m4s", spoil_zeros):
        spoil = spoil_cut  # zeros inside mdat cannot be told from media
    playlist = show("ts" if kind == "ts" else "fmp4")
    spoil(playlist.parent / f"007.{kind}")
    with pytest.raises(PermanentError, match=rf"007\.{kind}"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


@pytest.mark.parametrize("name", [
    "{outside}", "../secret.ts", "sub/../../secret.ts", "..%2fsecret.ts", "file://{outside}", "file:{outside}",
    "link.ts", "a\\b.ts", "{server}/x.ts", "//127.0.0.1/x.ts", "data:video/mp2t;base64,R0==", "concat:000.ts|001.ts",
    "subfile,,start,0,end,0,,:{outside}", "\x00.ts",
])
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_there_is_read(ffmpeg, show, tmp_path, server, name):
    playlist, outside = show(), tmp_path / "secret.ts"
    shutil.copy(playlist.parent / "000.ts", outside)
    os.utime(outside, (1, 1))
    (playlist.parent / "link.ts").symlink_to(outside)
    edit(playlist, "\n007.ts", "\n" + name.format(outside=outside, server=server.url))
    for refuses in (lambda: merge(playlist, tmp_path / "out.mp4", ffmpeg), lambda: plan(playlist, "merge")):
        with pytest.raises(PermanentError, match=r"line 20\b"):
            refuses()
    if name != "link.ts":  # of a link only the link itself would go
        with pytest.raises(PermanentError, match=r"line 20\b"):
            remove_source(playlist)
    assert (outside.stat().st_atime, server.requests) == (1, [])
    assert listing(tmp_path) == ["secret.ts", "show"]


@pytest.mark.parametrize("line", [
    '#EXT-X-KEY:METHOD=AES-128,URI="{server}/key"', '#EXT-X-MAP:URI="{server}/init.mp4"',
    '#EXT-X-MAP:URI="/etc/passwd"', '#EXT-X-MAP:URI="init.mp4",BYTERANGE="1@"', "#EXT-X-I-FRAMES-ONLY",
    '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="key"', '#EXT-X-KEY:METHOD=AES-128,URI="key",IV=1',
    '#EXT-X-KEY:METHOD=AES-128,URI="key",KEYFORMAT="com.apple.streamingkeydelivery"',
    '#EXT-X-KEY:METHOD=AES-128,URI="..%2Fkey"', "#EXT-X-KEY:METHOD=AES-128",
])
def test_a_tag_that_is_not_for_local_media_is_refused_by_its_line(ffmpeg, show, tmp_path, server, line):
    playlist = show()
    edit(playlist, "#EXT-X-MEDIA-SEQUENCE:0", line.format(server=server.url))
    with pytest.raises(PermanentError, match="line 4"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert server.requests == []


@pytest.mark.parametrize(("raw", "reason"), [
    (b"", "line 1"), (b"<html>", "line 1"), (os.urandom(5000) + b"\xff", "UTF-8"), (b"#EXTM3U\n", "no segment"),
    (b"#EXTM3U\n000.ts\n", "line 2"), (b"#EXTM3U\n#EXTINF:nan,\n000.ts\n", "line 2"),
    (b"#EXTM3U\n" + b"#" * (17 << 20), "larger than"), (b"#EXTM3U\n" + b"".join(
        b"#EXTINF:2,\n%d.ts\n" % n for n in range(100_001)), "more than"),
], ids=["empty", "page", "binary", "nothing", "bare", "nan", "huge", "many"])
def test_what_is_no_playlist_is_refused(tmp_path, raw, reason):
    (tmp_path / "index.m3u8").write_bytes(raw)
    with pytest.raises(PermanentError, match=reason):
        plan(tmp_path / "index.m3u8")


def test_a_pipe_in_the_place_of_a_playlist_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "index.m3u8")
    with pytest.raises(PermanentError, match="no regular file"):
        plan(tmp_path / "index.m3u8")


def test_a_merge_may_be_repeated_after_its_end(each_ffmpeg, show, tmp_path):
    playlist, output = show(), tmp_path / "out.mp4"
    (tmp_path / f".{'0' * 20}.part").write_bytes(b"of somebody else")
    first = merge(playlist, output, each_ffmpeg)
    inode = output.stat().st_ino
    assert merge(playlist, output, each_ffmpeg) == first
    assert output.stat().st_ino == inode


def test_a_link_that_lies_in_wait_for_the_merge_is_not_followed(ffmpeg, show, tmp_path):
    playlist, output, secret = show(), tmp_path / "out.mp4", tmp_path / "secret"
    secret.write_bytes(b"secret")
    text = playlist.read_text()
    head, tail = text.rsplit("#EXTINF", 1)
    playlist.write_text(f"{head}#EXT-X-DISCONTINUITY\n#EXTINF{tail}")  # two runs, joined by a list
    stem = "." + hashlib.sha256(b"out.mp4").hexdigest()[:20]
    for name in (".part", ".list.part", ".0.part", ".1.part"):
        (tmp_path / f"{stem}{name}").symlink_to(secret)
    modes: set[int] = set()
    run = ffmpeg.run

    def seen(args, **kwargs):
        folders = [path for path in tmp_path.glob(".*.part") if path.is_dir() and not path.is_symlink()]
        modes.update(path.stat().st_mode & 0o777 for path in folders)
        return run(args, **kwargs)

    ffmpeg.run = seen
    merge(playlist, output, ffmpeg)
    assert modes == {0o700}
    assert secret.read_bytes() == b"secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "secret", "show"]


def test_a_merge_that_was_killed_between_its_last_two_steps_leaves_no_second_name(
    ffmpeg, show, tmp_path, monkeypatch
):
    playlist, output = show(), tmp_path / "out.mp4"
    with monkeypatch.context() as killed:
        killed.setattr("biliupd.edit.merge._remove_leftovers", lambda directory, stem: None)
        first = merge(playlist, output, ffmpeg)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    assert merge(playlist, output, ffmpeg) == first
    assert list(tmp_path.glob(".*.part")) == []


def test_a_foreign_file_is_never_replaced(ffmpeg, show, studio, tmp_path):
    playlist, output = show(), tmp_path / "out.mp4"
    for content in (b"mine", (studio / "clip.mp4").read_bytes()):
        output.write_bytes(content)
        with pytest.raises(PermanentError, match="there already"):
            merge(playlist, output, ffmpeg)
        assert output.read_bytes() == content
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_a_foreign_file_that_comes_meanwhile_is_not_replaced(stop, show, tmp_path, monkeypatch):
    output = tmp_path / "out.mp4"

    class Slow(Ffmpeg):
        def run(self, args, **kwargs):
            finished = super().run(args, **kwargs)
            output.write_bytes(b"mine")
            return finished

    with pytest.raises(PermanentError, match="there already"):
        merge(show(), output, Slow(EditConfig(), stop))
    assert output.read_bytes() == b"mine"
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_a_file_system_without_hard_links_will_do(ffmpeg, show, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    merged = merge(show(), tmp_path / "out.mp4", ffmpeg)
    assert probe(merged.path, ffmpeg).duration_seconds == pytest.approx(30, abs=0.1)
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_a_very_long_name_will_do(ffmpeg, show, tmp_path):
    output = tmp_path / ("长" * 83 + ".mp4")
    assert merge(show(), output, ffmpeg).path == output


def test_stop_in_the_middle_leaves_nothing_behind(stop, stand_in, show, tmp_path):
    lingers = stand_in('/usr/bin/ffmpeg "$@"; exec sleep 60')  # so that it is not over before the stop is seen
    began = []
    with pytest.raises(Stopped):
        merge(show(), tmp_path / "out.mp4", lingers,
              on_progress=lambda seconds: (began.extend(tmp_path.glob(".*.part")), stop.set()))
    assert began
    assert listing(tmp_path) == ["show", "stand-in"]


def test_too_short_a_merge_is_not_believed(ffmpeg, show, tmp_path):
    playlist = show()
    playlist.write_text(playlist.read_text().replace("#EXTINF:2.000000", "#EXTINF:3.0"))
    with pytest.raises(PermanentError, match=r"30\.0 s long, its segments 45\.0 s"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]


if may_mount():
    def test_without_space_nothing_is_left_and_it_works_once_there_is_room(ffmpeg, show, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(small)], check=True)
        try:
            (small / "filler").write_bytes(bytes(4_500_000))
            playlist = show()
            with pytest.raises(TemporaryError, match="no space"):
                merge(playlist, small / "out.mp4", ffmpeg)
            assert listing(small) == ["filler"]
            (small / "filler").unlink()
            assert merge(playlist, small / "out.mp4", ffmpeg).size_bytes > 0
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_space_that_runs_out_meanwhile_is_temporary(ffmpeg, show, tmp_path, monkeypatch):
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=True)
        try:
            monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 40}))
            with pytest.raises(TemporaryError, match="space"):
                merge(show(), small / "out.mp4", ffmpeg)
            assert listing(small) == []
        finally:
            subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_sources_are_removed_and_nothing_else(show, kind):
    playlist = show(kind)
    (playlist.parent / "chat.xml").write_text("mine")
    remove_source(playlist)
    remove_source(playlist)
    assert listing(playlist.parent) == ["chat.xml"]


@pytest.mark.parametrize("kind", ["playlist", "folder"])
def test_what_comes_while_it_is_merged_is_merged_too_and_what_comes_later_stays(
    ffmpeg, show, tmp_path, monkeypatch, kind
):
    playlist = show()
    folder, last = playlist.parent, playlist.parent / "014.ts"
    source = playlist if kind == "playlist" else folder
    text, media, run = playlist.read_text(), last.read_bytes(), ffmpeg.run
    playlist.write_text(text.replace("\n014.ts", "\n013.ts"))  # a line that comes again is left out
    for path in [last, *([playlist, *sorted(folder.glob("*.ts"))[:11]] if kind == "folder" else [])]:
        path.unlink()

    def more_comes(args, **kwargs):
        finished = run(args, **kwargs)
        if not last.exists() and args[-1].endswith(".part"):
            last.write_bytes(media)
            if kind == "playlist":
                playlist.write_text(text)
        return finished

    monkeypatch.setattr(ffmpeg, "run", more_comes)
    output = tmp_path / "out.mp4"
    with pytest.raises(TemporaryError, match="changed while it was merged"):
        merge(source, output, ffmpeg)
    assert listing(tmp_path) == ["show"]
    assert packets(merge(source, output, ffmpeg).path)[0] == 50 * (15 if kind == "playlist" else 4)
    later = folder / "015.ts"
    later.write_bytes(media)
    if kind == "playlist":
        playlist.write_text(f"{text}#EXTINF:2,\n015.ts\n")
    remove_source(source, until_ns=output.stat().st_mtime_ns)
    assert later.exists()
    assert last.exists() == playlist.exists() == (kind == "playlist")


def test_an_emptied_directory_goes_with_its_sources(show, tmp_path):
    playlist = show()
    (playlist.parent / "003.ts").unlink()
    remove_source(playlist)
    remove_source(playlist)
    assert listing(tmp_path) == []


@pytest.fixture
def server():
    """Counts who asks; nobody should."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            self.send_error(404)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
