"""Tags and bytes; the letters are those of the test vectors of the recording rules."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import tags_of

from biliupd.record.flv.tags import (
    AUDIO,
    FILE_HEADER,
    SCRIPT,
    START,
    VIDEO,
    Parser,
    Role,
    Tag,
    is_end,
    is_header,
    is_keyframe,
    look_at,
    tag_bytes,
)

AVC_RECORD = bytes.fromhex(
    "0142c01fffe100166742c01fda014016e840000003004000000c83c60ca801000468ce3c80")
BODIES = {
    "avc header": (VIDEO, bytes.fromhex("1700000000") + AVC_RECORD, Role.HEADER),
    "avc keyframe": (VIDEO, bytes.fromhex("1701000000") + b"\0\0\0\x01e", Role.KEYFRAME),
    "avc inter frame": (VIDEO, bytes.fromhex("2701000000") + b"\0\0\0\x01a", Role.MEDIA),
    "avc end": (VIDEO, bytes.fromhex("1702000000"), Role.END),
    "avc without a picture": (VIDEO, bytes.fromhex("1701000000"), Role.EMPTY),
    "hevc header, legacy": (VIDEO, bytes.fromhex("1c00000000") + b"record", Role.HEADER),
    "hevc keyframe, legacy": (VIDEO, bytes.fromhex("1c01000000") + b"\0\0\0\x01e", Role.KEYFRAME),
    "hevc header": (VIDEO, bytes.fromhex("9068766331") + b"record", Role.HEADER),
    "hevc keyframe": (VIDEO, bytes.fromhex("9168766331000000") + b"picture", Role.KEYFRAME),
    "hevc inter frame": (VIDEO, bytes.fromhex("a368766331") + b"picture", Role.MEDIA),
    "hevc end": (VIDEO, bytes.fromhex("9268766331"), Role.END),
    "av1 keyframe behind ModEx": (VIDEO, bytes.fromhex("97 02 000001 01") + b"av01" + b"picture", Role.KEYFRAME),
    "command frame": (VIDEO, bytes.fromhex("5200"), Role.EMPTY),
    "aac header": (AUDIO, bytes.fromhex("af001210"), Role.HEADER),
    "aac frame": (AUDIO, bytes.fromhex("af0121"), Role.MEDIA),
    "mp3 frame": (AUDIO, bytes.fromhex("2f21"), Role.MEDIA),
    "opus header": (AUDIO, bytes.fromhex("90") + b"Opus" + b"head", Role.HEADER),
    "opus frame": (AUDIO, bytes.fromhex("91") + b"Opus" + b"frame", Role.MEDIA),
    "empty": (AUDIO, b"", Role.EMPTY),
    "ModEx that ends too early": (VIDEO, bytes.fromhex("97ff"), Role.EMPTY),
}


@pytest.mark.parametrize("name", BODIES)
def test_each_kind_of_body_is_told_apart(name: str) -> None:
    kind, body, role = BODIES[name]
    tag = Tag(kind, 0, body)
    assert look_at(tag).role is role
    assert (is_header(tag), is_keyframe(tag), is_end(tag)) == (
        role is Role.HEADER, role is Role.KEYFRAME, role is Role.END)


def test_s_one_codec_has_one_identity_in_its_legacy_and_its_enhanced_form() -> None:
    legacy, enhanced = (look_at(Tag(VIDEO, 0, BODIES[name][1])) for name in ("hevc header, legacy", "hevc header"))
    assert legacy == enhanced
    assert legacy != look_at(Tag(VIDEO, 0, bytes.fromhex("9068766331") + b"other"))


@given(st.sampled_from([AUDIO, VIDEO, SCRIPT]), st.binary(max_size=40))
def test_no_body_makes_it_raise(kind: int, body: bytes) -> None:
    assert look_at(Tag(kind, 0, body)).role in Role


@pytest.mark.parametrize(("time", "header"), [
    (0x00FFFFFF, "08000002ffffff00000000"),
    (0x01000000, "0800000200000001000000"),
    (0x7FFFFFFF, "08000002ffffff7f000000"),
    (0xFFFFFFFF, "08000002ffffffff000000"),
])
def test_times_of_32_bits_have_their_high_byte_last(time: int, header: str) -> None:
    tag = Tag(AUDIO, time, b"ab")
    assert tag.header.hex() == header
    assert tags_of(tag_bytes([tag])) == [tag]


@st.composite
def streams(draw: st.DrawFn) -> list[Tag]:
    sizes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=12))
    seed = draw(st.integers(0, 1 << 30))
    generator = random.Random(seed)
    return [Tag(generator.choice((AUDIO, VIDEO)), generator.randrange(1 << 32), generator.randbytes(size))
            for size in sizes]


@given(streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_pieces_give_the_same_tags(tags: list[Tag], data: st.DataObject) -> None:
    raw = FILE_HEADER + tag_bytes(tags)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    parser, found = Parser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += parser.feed(raw[start:stop])
    assert found + parser.flush() == tags
    assert parser.garbage_bytes == 0


@given(streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_cut_keeps_every_whole_tag(tags: list[Tag], data: st.DataObject) -> None:
    raw = FILE_HEADER + tag_bytes(tags)
    cut = data.draw(st.integers(len(FILE_HEADER), len(raw)))
    whole = [n for n in range(len(tags) + 1) if len(FILE_HEADER) + len(tag_bytes(tags[:n])) <= cut][-1]
    found = tags_of(raw[:cut])
    assert found[:whole] == tags[:whole]
    assert len(found) <= whole + 1  # the last may lack its back pointer


@given(streams(), streams(), st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_j_garbage_between_two_tags_costs_neither_of_them(before: list[Tag], after: list[Tag], garbage: bytes) -> None:
    found = tags_of(FILE_HEADER + tag_bytes(before) + garbage + tag_bytes(after))
    assert found[:len(before)] == before
    assert found[-len(after):] == after


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_garbage_alone_never_raises(garbage: bytes) -> None:
    parser = Parser()
    found = parser.feed(garbage) + parser.flush()
    assert sum(len(tag.body) + 11 for tag in found) <= len(garbage)


def test_j_garbage_that_looks_like_tag_headers_is_no_tag() -> None:
    tags = [Tag(VIDEO, 40 * n, bytes([0x27, 1, 0, 0, 0]) + b"x" * 200) for n in range(4)]
    garbage = b"".join(Tag(kind, 5, b"").header[:1] + b"\0\0\x20" + b"\0" * 7 for kind in (8, 9, 18)) * 31
    parser = Parser()
    found = parser.feed(FILE_HEADER + tag_bytes(tags[:2]) + garbage + tag_bytes(tags[2:])) + parser.flush()
    assert found == tags
    assert parser.garbage_bytes == len(garbage)


def test_a_stream_whose_back_pointers_are_all_wrong_is_read_nevertheless() -> None:
    tags = [Tag(AUDIO, n, b"\xaf\x01frame") for n in range(5)]
    raw = FILE_HEADER + b"".join(tag.header + tag.body + b"\0\0\0\0" for tag in tags)
    assert tags_of(raw)[:4] == tags[:4]


def test_a_torn_tag_does_not_swallow_the_next() -> None:
    first, torn, after = (Tag(VIDEO, n, b"\x27\x01\0\0\0" + bytes([n]) * 500) for n in range(3))
    raw = FILE_HEADER + tag_bytes([first]) + tag_bytes([torn])[:200] + tag_bytes([after, after])
    assert tags_of(raw) == [first, after, after]


def test_a_second_file_header_marks_a_new_stream() -> None:
    tag = Tag(AUDIO, 1, b"\xaf\x01frame")
    found = tags_of(FILE_HEADER + tag_bytes([tag]) + FILE_HEADER + tag_bytes([tag]))
    assert [t.type for t in found] == [AUDIO, START, AUDIO]


def test_a_stream_without_a_file_header_is_accepted() -> None:
    tags = [Tag(AUDIO, n, b"\xaf\x01frame") for n in range(3)]
    assert tags_of(tag_bytes(tags)) == tags


def test_bytes_that_never_make_sense_are_counted_and_not_kept() -> None:
    parser = Parser()
    for _ in range(20):
        assert parser.feed(b"<html>" * 20_000) == []
    assert parser.lost_bytes > 1 << 20
    assert parser.lost_bytes - parser.garbage_bytes < 100
