"""m3u8 text ↔ values, and what is taken of a reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biliupd.record.hls.following import Position, follow, resume
from biliupd.record.playlist import (
    ByteRange,
    Entry,
    Key,
    Map,
    MasterPlaylist,
    MediaPlaylist,
    NotAPlaylist,
    parse,
    write,
    write_master,
)

LIVE = """\ufeff#EXTM3U\r
#EXT-X-VERSION:6\r
#EXT-X-TARGETDURATION:4\r
#EXT-X-MEDIA-SEQUENCE:1700000000000000123\r
#EXT-X-MAP:URI="init.mp4?t=1",BYTERANGE="800@0"\r
#EXTINF:3.96,live\r
a/1.m4s?token=x\r
#EXT-X-KEY:METHOD=AES-128,URI="k,1.bin",IV=0x01\r
#EXT-X-DISCONTINUITY\r
#EXTINF:4\r
2.m4s\r
#EXT-X-KEY:METHOD=NONE\r
#EXT-X-GAP\r
#EXTINF:4,\r
3.m4s\r
#EXT-X-PART:DURATION=1,URI="part.m4s"\r
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="next.m4s"\r
"""


def test_a_media_playlist_is_read_with_all_that_a_recorder_needs() -> None:
    found = parse(LIVE, "http://host/live/index.m3u8?token=1")
    assert isinstance(found, MediaPlaylist)
    assert (found.target_duration, found.media_sequence, found.ended) == (4, 1700000000000000123, False)
    first, second, third = found.segments
    assert first.uri == "http://host/live/a/1.m4s?token=x"
    assert first.path == "/live/a/1.m4s"
    assert (first.duration, first.title, first.discontinuity, first.key) == (3.96, "live", False, None)
    assert first.map == Map("http://host/live/init.mp4?t=1", ByteRange(0, 800))
    assert second.key == Key("AES-128", "http://host/live/k,1.bin", "0x01")
    assert second.discontinuity
    assert second.map == first.map
    assert (third.key, third.gap, third.sequence) == (None, True, 1700000000000000125)
    assert found.next_sequence == 1700000000000000126


def test_byte_ranges_follow_each_other_and_one_without_a_place_is_a_gap() -> None:
    text = """#EXTM3U
#EXTINF:2,
#EXT-X-BYTERANGE:100@50
all.ts
#EXTINF:2,
#EXT-X-BYTERANGE:30
all.ts
#EXTINF:2,
#EXT-X-BYTERANGE:30
other.ts
#EXT-X-ENDLIST"""
    found = parse(text)
    assert isinstance(found, MediaPlaylist)
    assert [s.byterange for s in found.segments] == [ByteRange(50, 100), ByteRange(150, 30), None]
    assert [s.gap for s in found.segments] == [False, False, True]
    assert found.segments[0].path != found.segments[1].path
    assert found.ended


def test_a_master_playlist_names_its_variants_and_their_sound() -> None:
    found = parse("""#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="x",URI="sound.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION=640x360,CODECS="avc1.4d,mp4a.40.2"
low.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=4000000,RESOLUTION=1920x1080,FRAME-RATE=60,AUDIO="aac"
high.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=4000000,RESOLUTION=1920x1080,FRAME-RATE=60
backup.m3u8
""", "http://host/x/")
    assert isinstance(found, MasterPlaylist)
    assert found.variants[0].codecs == "avc1.4d,mp4a.40.2"
    assert found.audio == {"aac": "http://host/x/sound.m3u8"}


@pytest.mark.parametrize(("text", "said"), [
    ("<!DOCTYPE html><html>", "web page"), ("", "not a playlist"), ("\x00\x01", "not a playlist"),
    ("#EXTM3U\n#EXT-X-I-FRAMES-ONLY\n", "keyframes"), ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", "no stream"),
])
def test_what_is_no_playlist_is_said_to_be_none(text: str, said: str) -> None:
    with pytest.raises(NotAPlaylist, match=said):
        parse(text)


@given(st.lists(st.sampled_from([*LIVE.splitlines(), "#EXTINF:x", "#EXT-X-MEDIA-SEQUENCE:-1", "#EXT-X-BYTERANGE:a@b",
                                 "#EXT-X-KEY:METHOD", "#EXT-X-MAP:", "#EXT-X-TARGETDURATION:1e999"]) | st.text()))
def test_lines_of_any_kind_never_raise_anything_else(lines: list[str]) -> None:
    try:
        found = parse("\n".join(["#EXTM3U", *lines]))
    except NotAPlaylist:
        return
    if isinstance(found, MediaPlaylist):
        assert all(0 <= segment.duration < 1e15 for segment in found.segments)


def test_our_own_playlist_is_read_back_as_it_was_written() -> None:
    entries = [Entry("000001.m4s", 1.92), Entry("000002.m4s", 3.6, discontinuity=True)]
    text = write(entries, init="init.mp4")
    assert text.splitlines() == [
        "#EXTM3U", "#EXT-X-VERSION:6", "#EXT-X-TARGETDURATION:4", "#EXT-X-MEDIA-SEQUENCE:0",
        '#EXT-X-MAP:URI="init.mp4"', "#EXTINF:1.920000,", "000001.m4s", "#EXT-X-DISCONTINUITY",
        "#EXTINF:3.600000,", "000002.m4s"]
    found = parse(write(entries, init="init.mp4", ended=True))
    assert isinstance(found, MediaPlaylist)
    assert found.ended
    assert [Entry(s.uri, s.duration, s.discontinuity) for s in found.segments] == entries


TWITCH = """#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DATERANGE:ID="stitched-ad-1",CLASS="twitch-stitched-ad",START-DATE="2026-01-01T00:00:02Z",DURATION=4.0
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
#EXTINF:2.000,live
7.ts
#EXTINF:2.000,Amazon
8.ts
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.000Z
#EXTINF:2.000,Amazon
9.ts
#EXTINF:2.000,live
10.ts
#EXT-X-TWITCH-PREFETCH:11.ts
"""


def media(text: str, **how: object) -> MediaPlaylist:
    found = parse(text, "http://host/live/x.m3u8?token=q%26", **how)  # type: ignore[arg-type]
    assert isinstance(found, MediaPlaylist)
    return found


def test_advertisements_are_known_by_their_dates_or_their_title_and_prefetched_lines_are_no_segments() -> None:
    assert [s.ad for s in media(TWITCH).segments] == [False, True, True, False]
    undated = "\n".join(line for line in TWITCH.splitlines() if "PROGRAM" not in line)
    assert [s.ad for s in media(undated).segments] == [False, True, True, False]
    assert [s.ad for s in media("#EXTM3U\n#EXTINF:1,\na/preroll-3.ts\n#EXTINF:1,\npreroll-x/3.ts\n").segments] == [
        True, False]


def test_dates_go_on_from_segment_to_segment() -> None:
    dates = [s.date for s in media(TWITCH).segments]
    assert [date - 1767225600 for date in dates if date is not None] == [0, 2, 4, 6]
    assert media("#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:soon\n#EXTINF:1,\na.ts\n").segments[0].date is None


def test_of_a_long_list_only_what_is_asked_for_becomes_values() -> None:
    found = media(TWITCH, since=9)
    assert [s.sequence for s in found.segments] == [9, 10]
    assert (found.next_sequence, found.length, found.window_seconds) == (11, 4, 8)
    assert found.segments == media(TWITCH).segments[2:]


def test_what_a_playlist_skips_keeps_its_numbers() -> None:
    found = media("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:5\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:1,\na.ts\n")
    assert ([s.sequence for s in found.segments], found.next_sequence) == ([8], 9)


def test_variables_are_put_in_their_places() -> None:
    text = ('#EXTM3U\n#EXT-X-DEFINE:NAME="host",VALUE="http://other"\n#EXT-X-DEFINE:QUERYPARAM="token"\n'
            '#EXT-X-DEFINE:IMPORT="path"\n#EXT-X-MAP:URI="{$host}/init"\n#EXTINF:1,\n{$host}{$path}/1.ts?t={$token}\n'
            "#EXTINF:1,\n{$nobody}.ts\n")
    first, second = media(text, variables={"path": "/p"}).segments
    assert first.uri == "http://other/p/1.ts?t=q&"
    assert first.map == Map("http://other/init")
    assert second.uri == "http://host/live/{$nobody}.ts"
    master = parse('#EXTM3U\n#EXT-X-DEFINE:NAME="path",VALUE="/p"\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{$path}/m.m3u8\n', "")
    assert isinstance(master, MasterPlaylist)
    assert (master.variants[0].uri, master.variables) == ("/p/m.m3u8", {"path": "/p"})


@pytest.mark.parametrize(("lines", "usable"), [
    (['METHOD=AES-128,URI="k"'], True), (['METHOD=SAMPLE-AES,URI="k"'], False),
    (['METHOD=SAMPLE-AES,URI="k",KEYFORMAT="com.apple.streamingkeydelivery"'], False),
    (['METHOD=AES-128,URI="k"', 'METHOD=SAMPLE-AES,URI="d",KEYFORMAT="urn:uuid:1"'], True),  # one way is enough
    (['METHOD=SAMPLE-AES,URI="k"', "METHOD=NONE"], None)])
def test_a_key_holds_until_the_next_of_its_format(lines: list[str], usable: bool | None) -> None:
    keys = "\n".join(f"#EXT-X-KEY:{line}" for line in lines)
    key = media(f"#EXTM3U\n{keys}\n#EXTINF:1,\na.ts\n").segments[0].key
    assert (key.usable if key else None) == usable


def test_our_own_master_playlist_names_pictures_and_sound_and_says_its_end() -> None:
    found = parse(write_master("video.m3u", "sound.m3u", ended=True))
    assert isinstance(found, MasterPlaylist)
    assert (found.variants[0].uri, found.audio) == ("video.m3u", {"sound": "sound.m3u"})
    assert write_master("v", "s", ended=True).endswith("#EXT-X-ENDLIST\n")
    assert "ENDLIST" not in write_master("v", "s")


@given(st.lists(st.lists(st.sampled_from([*TWITCH.splitlines(), *LIVE.splitlines(), "#EXT-X-MEDIA-SEQUENCE:2",
                                          "#EXT-X-SKIP:SKIPPED-SEGMENTS=9", "#EXT-X-ENDLIST"])), max_size=5),
       st.floats(0, 1e6), st.booleans())
def test_whatever_is_listed_no_number_is_taken_twice_without_a_reset(
        reloads: list[list[str]], away: float, elsewhere: bool) -> None:
    last: Position | None = None
    for lines in reloads:
        try:
            found = parse("\n".join(["#EXTM3U", *lines]), "http://host/")
        except NotAPlaylist:
            continue
        if not isinstance(found, MediaPlaylist):
            continue
        step = resume(found, last, away) if last and elsewhere and found.length else follow(found, last)
        numbers = [segment.sequence for segment in step.segments]
        assert numbers == sorted(set(numbers))
        assert step.missing_seconds >= 0
        assert step.probes <= len(numbers)
        if last and step.kind == "new":
            assert all(number > last.sequence for number in numbers)
        if step.segments:
            last = Position.after(step.segments[-1])
