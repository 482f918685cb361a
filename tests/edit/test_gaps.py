"""What becomes of segments that are missing or damaged, and what is not believed of a merge."""

import os
import shutil

import pytest
from studio_tools import edit, listing, make, packets

from biliupd.edit import media
from biliupd.edit.merge import Gap, merge, plan
from biliupd.errors import PermanentError, TemporaryError


def gone(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def noise(path):
    path.write_bytes(os.urandom(188 * 200))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def torn(path):
    path.write_bytes(path.read_bytes()[:100 * 188 + 50])


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_what_is_left_is_merged_and_each_gap_is_noted(each_ffmpeg, show, tmp_path, kind):
    playlist = show(kind)
    suffix = "ts" if kind == "ts" else "m4s"
    for name, spoil in (("000", gone), ("004", empty), ("005", noise), ("009", fifo), ("014", gone)):
        spoil(playlist.parent / f"{name}.{suffix}")
    merged = merge(playlist, tmp_path / "out.mp4", each_ffmpeg, gaps="merge")
    assert packets(merged.path)[0] == 500
    assert merged.duration_seconds == pytest.approx(20, abs=0.3)
    assert [(gap.segment[:3], gap.at_seconds, gap.seconds) for gap in merged.gaps] == [
        ("000", 0, 2), ("004", pytest.approx(6), 2), ("005", pytest.approx(6), 2), ("009", pytest.approx(12), 2),
        ("014", pytest.approx(20), 2)]  # fmt: skip
    assert ["waits for" in gap.cause for gap in merged.gaps] == [True, False, False, False, True]
    assert merge(playlist, tmp_path / "out.mp4", each_ffmpeg, gaps="merge") == merged
    assert listing(tmp_path) == ["out.mp4", "show"]


def test_gaps_that_the_playlist_marks_itself_are_no_gaps_of_the_merge(ffmpeg, show, tmp_path):
    playlist = show()
    edit(playlist, "\n004.ts", "\n#EXT-X-GAP\n004.ts")
    gone(playlist.parent / "004.ts")
    for gaps in ("refuse", "merge"):
        merged = merge(playlist, tmp_path / f"{gaps}.mp4", ffmpeg, gaps=gaps)
        assert (merged.gaps, merged.duration_seconds) == ((), pytest.approx(28, abs=0.2))


@pytest.mark.parametrize("spoil", [gone, empty, noise])
def test_without_any_segment_there_is_no_merge(ffmpeg, show, tmp_path, spoil):
    playlist = show()
    for segment in playlist.parent.glob("*.ts"):
        spoil(segment)
    with pytest.raises(PermanentError, match=r"none of its segments.*000\.ts"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    assert listing(tmp_path) == ["show"]


def test_without_its_init_section_no_segment_is_of_use(ffmpeg, show, tmp_path):
    playlist = show("fmp4")
    gone(playlist.parent / "init.mp4")
    with pytest.raises(TemporaryError, match=r"waits for segment 'init\.mp4'"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    with pytest.raises(PermanentError, match="none of its segments"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge")


def test_a_torn_segment_is_used_up_to_its_last_packet(ffmpeg, show, tmp_path):
    playlist = show()
    torn(playlist.parent / "007.ts")
    merged = merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    (gap,) = merged.gaps
    assert (gap.segment, gap.seconds > 0.5) == ("007.ts", True)
    assert "cut short" in gap.cause
    assert gap.at_seconds == pytest.approx(16 - gap.seconds, abs=0.1)
    assert merged.duration_seconds == pytest.approx(30 - gap.seconds, abs=0.1)
    assert 700 < packets(merged.path)[0] < 740


def spoil_sound(path):
    """Destroys sound inside whole packets (PID 0x101), so that nothing shows before ffmpeg puts it into the mp4."""
    raw = bytearray(path.read_bytes())
    for start in range(0, len(raw), 188):
        if raw[start + 1] & 31 == 1 and raw[start + 2] == 1 and not raw[start + 1] & 64:
            raw[start + 30:start + 188] = bytes(158)
    path.write_bytes(raw)


def test_a_segment_that_only_ffmpeg_finds_damaged_is_named(ffmpeg, show, tmp_path):
    playlist = show()
    for n in (*range(0, 5), *range(10, 15)):
        edit(playlist, f"#EXTINF:2.000000,\n{n:03d}.ts\n", "")
    spoil_sound(playlist.parent / "007.ts")
    with pytest.raises(PermanentError, match=r"segment '007\.ts' is damaged: ffmpeg failed"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]
    gone(playlist.parent / "005.ts")
    gone(playlist.parent / "008.ts")
    merged = merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    assert [(gap.segment, gap.at_seconds) for gap in merged.gaps] == [("005.ts", 0), ("007.ts", 2), ("008.ts", 2)]
    assert merged.duration_seconds == pytest.approx(4, abs=0.2)
    assert merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge") == merged


@pytest.fixture(scope="session")
def holed(studio, tmp_path_factory):
    """A playlist that hides what it lacks: 4 s of 30 are missing inside whole segments, and the timestamps go on."""
    path = tmp_path_factory.mktemp("holed") / "show"
    shutil.copytree(studio / "show-ts", path)
    (path / "005.ts").write_bytes((path / "005.ts").read_bytes()[:188 * 20])
    (path / "006.ts").write_bytes((b"\x47\x1f\xff\x10" + bytes(184)) * 20)  # null packets
    return path / "index.m3u8"


def test_a_hole_between_packets_is_seen_in_the_result(each_ffmpeg, holed, tmp_path):
    with pytest.raises(PermanentError, match=r"damaged at 1\d\.\d s, in segment '005\.ts': no packet for"):
        merge(holed, tmp_path / "out.mp4", each_ffmpeg)
    assert listing(tmp_path) == []
    merged = merge(holed, tmp_path / "out.mp4", each_ffmpeg, gaps="merge")
    (gap,) = merged.gaps
    assert (gap.segment, gap.at_seconds, gap.seconds) == ("005.ts", pytest.approx(10, abs=0.6), pytest.approx(4, abs=1))
    assert merge(holed, tmp_path / "out.mp4", each_ffmpeg, gaps="merge") == merged


@pytest.fixture(scope="module")
def pauses(studio, tmp_path_factory):
    """The clip with a pause of 3 s from second 4 on, in its timestamps."""
    path = tmp_path_factory.mktemp("pauses") / "pauses.mp4"
    later = "setts=ts=TS+gte(TS*TB\\,4)*3/TB"
    make("-i", str(studio / "clip.mp4"), "-c", "copy", "-bsf:v", later, "-bsf:a", later, str(path))
    return path


@pytest.mark.parametrize(("maps", "limit", "expected"), [
    (("0:v", "0:a"), 2, [(4, 3)]), (("0:v",), 2, [(4, 3)]), (("0:a",), 2, [(4, 3)]), (("0:v", "0:a"), 4, []),
    (("0:v", "1:a"), 2, []), (("1:v", "0:a"), 2, []), (("1:v", "1:a"), 2, []),
])
def test_a_hole_is_where_all_streams_pause(studio, pauses, tmp_path, maps, limit, expected):
    make("-i", str(pauses), "-i", str(studio / "clip.mp4"), "-c", "copy",
         *(text for which in maps for text in ("-map", which)), str(tmp_path / "x.mp4"))
    found = media.holes(tmp_path / "x.mp4", limit)
    assert found == [(pytest.approx(at, abs=0.1), pytest.approx(length, abs=0.1)) for at, length in expected]


@pytest.fixture
def dead_end(show):
    """An fMP4 show whose last segment is whole boxes full of zeros."""
    playlist = show("fmp4")
    path = playlist.parent / "014.m4s"
    raw = bytearray(path.read_bytes())
    start = raw.index(b"mdat") + 4
    raw[start:] = bytes(len(raw) - start)
    path.write_bytes(raw)
    return playlist


def test_a_merge_whose_end_does_not_decode_is_not_believed(ffmpeg, dead_end, tmp_path):
    with pytest.raises(PermanentError, match=r"damaged at 30\.\d s, in segment '014\.m4s'"):
        merge(dead_end, tmp_path / "out.mp4", ffmpeg)
    assert listing(tmp_path) == ["show"]
    merged = merge(dead_end, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    assert [(gap.segment, gap.at_seconds) for gap in merged.gaps] == [("014.m4s", pytest.approx(30, abs=0.1))]


def test_a_merge_that_decodes_nowhere_is_never_believed(ffmpeg, show, tmp_path):
    playlist = show("fmp4")
    for path in playlist.parent.glob("*.m4s"):
        raw = bytearray(path.read_bytes())
        start = raw.index(b"mdat") + 4
        raw[start:] = bytes(len(raw) - start)
        path.write_bytes(raw)
    with pytest.raises(PermanentError, match=r"does not decode|lacks"):
        merge(playlist, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    assert listing(tmp_path) == ["show"]


def test_an_ffmpeg_without_the_decoder_can_merge_all_the_same(stand_in, show, tmp_path):
    without = stand_in("case \"$*\" in *-sseof*) echo 'Decoder (codec h264) not found for input stream #0:0' >&2; "
                       'exit 1;; esac; exec ffmpeg "$@"')
    assert merge(show(), tmp_path / "out.mp4", without).duration_seconds == pytest.approx(30, abs=0.1)


def test_a_merge_that_lost_a_stream_is_not_believed(stand_in, show, tmp_path):
    deaf = stand_in("for a do shift; [ \"$a\" = '0:a:0?' ] && a='0:a:9?'; set -- \"$@\" \"$a\"; done\n"
                    'exec ffmpeg "$@"')
    with pytest.raises(PermanentError, match="the merge lacks aac"):
        merge(show(), tmp_path / "out.mp4", deaf)
    assert listing(tmp_path) == ["show", "stand-in"]


def test_a_stream_that_begins_in_the_middle_of_pictures_is_merged(ffmpeg, show, tmp_path):
    """Recorders come in where they come in: the first second cannot be shown, and that is no damage."""
    playlist = show()
    path = playlist.parent / "000.ts"
    raw = path.read_bytes()
    path.write_bytes(raw[:3 * 188] + raw[len(raw) // 376 * 188:])
    assert merge(playlist, tmp_path / "out.mp4", ffmpeg).gaps == ()


def test_an_own_merge_that_was_damaged_since_is_made_again(ffmpeg, show, tmp_path):
    playlist, output = show(), tmp_path / "out.mp4"
    first = merge(playlist, output, ffmpeg)
    with open(output, "r+b") as file:
        file.seek(first.size_bytes // 2)
        file.write(bytes(first.size_bytes // 4))
    assert merge(playlist, output, ffmpeg) == first


def test_gaps_stand_in_the_order_of_time(show):
    playlist = show()
    torn(playlist.parent / "002.ts")
    gone(playlist.parent / "004.ts")
    found = plan(playlist, "merge")
    assert [len(run.segments) for run in found.runs] == [3, 1, 10]
    assert found.gaps == [Gap("004.ts", 8, 2, "waits for segment '004.ts' (line 14)")]
