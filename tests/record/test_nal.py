"""What is inside H.264 pictures."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import complaints, tags_of

from biliupd.record.flv.meta import FileMeta, opening
from biliupd.record.flv.nal import Pictures, units
from biliupd.record.flv.repair import NewFile, Repair
from biliupd.record.flv.tags import VIDEO, Role, Tag, look_at, tag_bytes

CONFIG = bytes.fromhex("0142c01fffe1001667 42c01fda014016e8400000030040 00000c83c60ca8 01000468ce3c80".replace(" ", ""))
HEADER = Tag(VIDEO, 0, b"\x17\0\0\0\0" + CONFIG)


def picture(*found: bytes, key: bool = False) -> Tag:
    return Tag(VIDEO, 40, (b"\x17" if key else b"\x27") + b"\x01\0\0\0" + b"".join(
        len(one).to_bytes(4, "big") + one for one in found))


def test_filler_goes_and_the_rest_stays() -> None:
    stage = Pictures()
    assert stage.feed([HEADER]) == [HEADER]
    assert stage.feed([picture(b"\x41slice", b"\x0c\xff\xff", b"\x41more")]) == [picture(b"\x41slice", b"\x41more")]


def test_a_tag_of_nothing_but_filler_goes_whole() -> None:
    stage = Pictures()
    assert stage.feed([HEADER, picture(b"\x0c\xff\xff")]) == [HEADER]


def test_what_makes_no_sense_or_is_no_h264_passes_unchanged() -> None:
    odd = [Tag(VIDEO, 0, b"\x27\x01\0\0\0\0\0\xff\xffcut"), Tag(VIDEO, 0, b"\x1c\x01\0\0\0hevc"),
           Tag(8, 0, b"\xaf\x01a"), Tag(VIDEO, 0, b"\x17"), Tag(VIDEO, 0, b"\x90hvc1record")]
    assert Pictures().feed([HEADER, *odd]) == [HEADER, *odd]


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_the_body_is_nothing_raises_and_twice_is_as_once(body: bytes) -> None:
    once = Pictures().feed([HEADER, Tag(VIDEO, 0, b"\x17\x01\0\0\0" + body)])
    assert Pictures().feed(once) == once


def test_another_size_within_a_keyframe_begins_a_file_that_plays(media: Path, tmp_path: Path) -> None:
    """As encoders do that never send a second sequence header."""
    first, other = (tags_of((media / name).read_bytes()) for name in ("clip.flv", "other.flv"))
    config = next(tag.body[5:] for tag in other if tag.type == VIDEO and tag.body[1] == 0)
    sets = [config[8: 8 + int.from_bytes(config[6:8], "big")]]
    sets.append(config[8 + len(sets[0]) + 3:][:int.from_bytes(config[8 + len(sets[0]) + 1:][:2], "big")])
    inside = b"".join(len(one).to_bytes(4, "big") + one for one in sets)
    second = [tag._replace(timestamp=tag.timestamp + 13_000,
                           body=tag.body[:5] + inside + tag.body[5:] if tag.body[0] == 0x17 else tag.body)
              for tag in other if tag.type == VIDEO and look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]
    first = [tag for tag in first if look_at(tag).role is not Role.END]
    repair = Repair()
    events = repair.feed(Pictures().feed([*first, *second])) + repair.flush()
    assert [event.cause for event in events if isinstance(event, NewFile)] == ["", "codec-change"]
    start = max(number for number, event in enumerate(events) if isinstance(event, NewFile))
    made = tmp_path / "second.flv"
    made.write_bytes(opening(FileMeta()) + tag_bytes(event for event in events[start:] if isinstance(event, Tag)))
    assert complaints(made) == ""
    header = next(tag for tag in tags_of(made.read_bytes()) if tag.type == VIDEO)
    assert sets[0] in header.body
    assert list(units(b"", 0, 4)) == []
