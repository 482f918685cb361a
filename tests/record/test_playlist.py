"""m3u8 text ↔ values, and what is taken of a reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
