"""The repair stage; the letters and T numbers are those of the test vectors of the recording rules."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import complaints, tags_of

from biliupd.record.flv.meta import OPENING_BYTES, FileMeta, opening
from biliupd.record.flv.repair import Gap, NewFile, Repair
from biliupd.record.flv.tags import (
    AUDIO,
    SCRIPT,
    START,
    VIDEO,
    Role,
    Tag,
    is_header,
    is_keyframe,
    look_at,
    tag_bytes,
)

AVC = Tag(VIDEO, 0, b"\x17\0\0\0\0record A")
AVC_B = Tag(VIDEO, 0, b"\x17\0\0\0\0record B")
AAC = Tag(AUDIO, 0, b"\xaf\x00\x12\x10")
AAC_B = Tag(AUDIO, 0, b"\xaf\x00\x11\x90")
END = Tag(VIDEO, 0, b"\x17\x02\0\0\0")


def key(time: int, size: int = 20) -> Tag:
    return Tag(VIDEO, time, b"\x17\x01\0\0\0" + b"k" * size)


def inter(time: int, size: int = 10) -> Tag:
    return Tag(VIDEO, time, b"\x27\x01\0\0\0" + b"i" * size)


def audio(time: int) -> Tag:
    return Tag(AUDIO, time, b"\xaf\x01frame")


def stream(seconds: float, start: int = 0, gop: int = 1000) -> list[Tag]:
    """25 pictures and about 43 audio frames a second, in order of time."""
    tags = [key(t) if t % gop == 0 else inter(t) for t in range(0, int(seconds * 1000), 40)]
    tags += [audio(t) for t in range(0, int(seconds * 1000), 23)]
    return [tag._replace(timestamp=(tag.timestamp + start) % (1 << 32))
            for tag in sorted(tags, key=lambda tag: (tag.timestamp, -tag.type))]


class Result:
    """The files that come out, and the rows of the ledger."""

    def __init__(self, events: list[Tag | NewFile | Gap]) -> None:
        self.files: list[list[Tag]] = []
        self.causes: list[str] = []
        self.gaps: list[Gap] = []
        for event in events:
            if isinstance(event, NewFile):
                self.files.append([])
                self.causes.append(event.cause)
            elif isinstance(event, Gap):
                self.gaps.append(event)
            else:
                self.files[-1].append(event)

    def media(self, number: int = 0) -> list[Tag]:
        return [tag for tag in self.files[number] if look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]

    def all_media(self) -> list[Tag]:
        return [tag for number in range(len(self.files)) for tag in self.media(number)]


def repair(*connections: list[Tag], size: int = 0, seconds: float = 0) -> Result:
    stage, events = Repair(size, seconds), []
    for number, tags in enumerate(connections):
        if number:
            events += stage.reconnected()
        events += stage.feed(tags) + stage.flush()
    return Result(events)


def steps(tags: list[Tag]) -> list[int]:
    return [b.timestamp - a.timestamp for a, b in pairwise(tags)]


def made(text: str) -> list[Tag]:
    """`V5000 A5003 | V99`: the first video tag of each group is a keyframe."""
    tags = [AVC, AAC]
    for group in text.split("|"):
        first = True
        for kind, time in re.findall(r"([VA])(\d+)", group):
            if kind == "A":
                tags.append(audio(int(time)))
            else:
                tags.append(key(int(time)) if first else inter(int(time)))
                first = False
    return tags


@pytest.mark.parametrize(("given_times", "expected", "holes"), [
    ("V5000 A5003 A5026 V5033 A5049 V5066 | V35099 A35102 A35125 V35132 | V5165 A5168 A5191 V5198",
     "V0 A3 A26 V33 A49 V66 V99 A102 A125 V132 V165 A168 A191 V198", [30.0, -30.0]),
    ("A1000 V990 A1023 V1023", "A10 V0 A33 V33", []),
    ("A1000 A990 V1010 V1043", "A0 A0 V10 V43", []),
    ("V0 A0 A23 V33 | V466 A470 A493 V499", "V0 A0 A23 V33 V466 A470 A493 V499", []),
    ("V0 A0 A23 V33 A46 | V20 A69 V100", "V0 A0 A23 V33 A46 V33 A69 V100", []),
    ("V0 V40 V80 | V581 V621 | V661", "V0 V40 V80 V120 V160 V200", [0.461]),
], ids=["T1", "T2", "T2b", "T3", "T4", "T5"])
def test_times_are_those_of_the_rules(given_times: str, expected: str, holes: list[float]) -> None:
    result = repair(made(given_times))
    assert " ".join(f"{'V' if t.type == VIDEO else 'A'}{t.timestamp}" for t in result.media()) == expected
    assert [gap.seconds for gap in result.gaps if gap.cause == "jump"] == holes
    again = repair([AVC, AAC, *result.media()])
    assert again.media() == result.media()


def test_a_jumps_there_and_back_are_closed_and_reported() -> None:
    source = stream(2) + stream(2, 32_000) + stream(2, 4_000)
    result = repair([AVC, AAC, *source])
    assert len(result.files) == 1
    assert [tag.body for tag in result.media()] == [tag.body for tag in source]
    assert all(-50 <= step <= 50 for step in steps(result.media()))
    assert [(gap.cause, round(gap.seconds or 0)) for gap in result.gaps] == [("jump", 30), ("jump", -30)]


def test_d_a_repeated_header_is_not_written_again() -> None:
    result = repair([AVC, AAC, *stream(1), AVC._replace(timestamp=1000), AAC, *stream(1, 1000)])
    assert len(result.files) == 1
    assert [tag for tag in result.files[0] if is_header(tag)] == [AVC, AAC]


@pytest.mark.parametrize(("changed", "expected"), [(AVC_B, [AVC_B, AAC]), (AAC_B, [AVC, AAC_B])], ids=["e", "f"])
def test_e_f_another_header_begins_a_file_that_starts_at_zero(changed: Tag, expected: list[Tag]) -> None:
    result = repair([AVC, AAC, *stream(2), changed, *stream(2, 2000)])
    assert result.causes == ["", "codec-change"]
    for number, headers in enumerate(([AVC, AAC], expected)):
        assert result.files[number][:2] == headers
        assert min(tag.timestamp for tag in result.media(number)) == 0
    assert [t.body for t in result.all_media()] == [t.body for t in stream(2) * 2]


def test_g_a_file_cut_anywhere_never_raises_and_keeps_all_whole_tags(media: Path, tmp_path: Path) -> None:
    raw = (media / "clip.flv").read_bytes()
    raw = raw[:len(raw) // 5]
    whole = [tag for tag in tags_of(raw) if look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]
    for cut in range(0, len(raw), 397):
        kept = repair(tags_of(raw[:cut])).all_media()
        assert [tag.body for tag in kept] == [tag.body for tag in whole[:len(kept)]]
        assert len(tag_bytes(kept)) >= cut - 2500 - max(len(tag.body) for tag in whole)
    for number, cut in enumerate((len(raw) // 3, len(raw) // 2 + 5)):
        path = tmp_path / f"{number}.flv"
        path.write_bytes(opening(FileMeta()) + tag_bytes(repair(tags_of(raw[:cut])).files[0]))
        assert complaints(path) == ""


def test_k_a_stream_without_keyframes_does_not_pile_up() -> None:
    stage = Repair()
    stage.feed([AVC, AAC, key(0)])
    written = 0
    for n in range(1, 9000):
        written += sum(isinstance(event, Tag) for event in stage.feed([inter(n * 66, 5000)]))
    assert written > 8900


@pytest.mark.parametrize("start", [(1 << 24) - 3000, (1 << 32) - 3000], ids=["2^24", "2^32"])
@pytest.mark.parametrize("lossy", [False, True], ids=["whole clock", "24 bits"])
def test_l_a_clock_that_wraps_goes_on(start: int, lossy: bool) -> None:
    source = stream(6, start)
    if lossy:
        source = [tag._replace(timestamp=tag.timestamp % (1 << 24)) for tag in source]
    result = repair([AVC, AAC, *source])
    assert len(result.media()) == len(source)
    assert all(0 <= step <= 50 for step in steps(result.media()))


def test_m_its_own_output_passes_unchanged(media: Path) -> None:
    once = repair(tags_of((media / "clip.flv").read_bytes())).files[0]
    assert repair([Tag(SCRIPT, 0, b"\x02"), *once]).files == [once]


def test_n_a_script_tag_in_midstream_goes_and_moves_nothing() -> None:
    plain = repair([AVC, AAC, *stream(3)])
    source = stream(3)
    source.insert(70, Tag(SCRIPT, 5_000_000, b"\x02\0\x0aonTextData"))
    assert repair([AVC, AAC, *source]).files == plain.files


def test_o_after_a_reconnect_the_same_file_goes_on_with_a_gap() -> None:
    result = repair([AVC, AAC, *stream(2)], [AVC, AAC, inter(500), *stream(2, 9_000)])
    assert len(result.files) == 1
    last = max(tag.timestamp for tag in repair([AVC, AAC, *stream(2)]).media())
    assert result.gaps == [Gap("gap", None, last)]
    joined = result.media()[len(stream(2))]
    assert is_keyframe(joined)
    assert joined.timestamp == last + 23  # where the next frame of sound would have been
    assert [tag.body for tag in result.media()] == [tag.body for tag in stream(2) * 2]


def test_a_file_header_in_midstream_is_a_reconnect() -> None:
    result = repair([AVC, AAC, *stream(2), Tag(START, 0, b""), AVC_B, AAC, *stream(2)])
    assert result.causes == ["", "codec-change"]
    assert result.gaps == [Gap("gap", None, 0)]


@pytest.mark.parametrize(("size", "seconds"), [(OPENING_BYTES + 20_000, 0.0), (0, 4.0), (OPENING_BYTES + 15_000, 3.0)])
def test_p_a_split_loses_nothing_and_keeps_below_the_limit(size: int, seconds: float) -> None:
    source = stream(40)
    result = repair([AVC, AAC, *source], size=size, seconds=seconds)
    assert len(result.files) > 2
    assert [tag.body for tag in result.all_media()] == [tag.body for tag in source]
    for number, tags in enumerate(result.files):
        assert tags[:2] == [AVC, AAC]
        assert is_keyframe(result.media(number)[0])
        assert result.media(number)[0].timestamp == 0
        assert not size or OPENING_BYTES + len(tag_bytes(tags)) <= size
        assert not seconds or max(tag.timestamp for tag in tags) <= seconds * 1000
    assert set(result.causes[1:]) == {"limit-split"}


def test_a_stream_without_keyframes_is_split_at_twice_the_limit() -> None:
    source = [key(0), *(inter(40 * n, 1000) for n in range(1, 100))]
    result = repair([AVC, *source], size=OPENING_BYTES)
    assert [tag.body for tag in result.all_media()] == [tag.body for tag in source]
    assert all(len(tag_bytes(tags)) <= OPENING_BYTES + 2_000 for tags in result.files)


def test_q_after_an_end_tag_the_next_media_make_a_new_file() -> None:
    result = repair([AVC, AAC, *stream(2), END, AVC, AAC, *stream(2), END])
    assert result.causes == ["", "end-tag"]
    assert all(len(result.media(number)) == len(stream(2)) for number in (0, 1))


def test_r_headers_there_and_back_without_media_do_not_split() -> None:
    assert len(repair([AVC, AAC, *stream(1), AVC_B, AVC, *stream(1, 1000)]).files) == 1
    assert len(repair([AVC, AVC_B, AVC, AAC, *stream(1)]).files) == 1


def test_a_header_that_comes_at_the_very_end_makes_no_empty_file() -> None:
    assert len(repair([AVC, AAC, *stream(1), AVC_B]).files) == 1


def test_pictures_before_the_first_keyframe_are_dropped_and_sound_is_kept() -> None:
    result = repair([AVC, AAC, inter(0), audio(5), inter(40), audio(28), key(80), audio(51)])
    assert [tag.body for tag in result.media()] == [tag.body for tag in (audio(5), audio(28), key(80), audio(51))]


def test_a_stream_of_sound_only_is_recorded() -> None:
    source = [audio(23 * n) for n in range(600)]
    result = repair([AAC, *source])
    assert len(result.files) == 1
    assert [tag.body for tag in result.media()] == [tag.body for tag in source]


def test_media_without_a_sequence_header_are_not_written() -> None:
    bodies = [tag.body for tag in repair([AVC, *stream(2)]).media()]
    assert bodies == [tag.body for tag in stream(2) if tag.type == VIDEO]


def test_one_picture_a_second_is_not_squeezed() -> None:
    result = repair([AVC, *(key(1000 * n) for n in range(10))])
    assert [tag.timestamp for tag in result.media()] == [1000 * n for n in range(10)]
    assert result.gaps == []


def test_sound_that_runs_far_ahead_does_not_shift_the_clock() -> None:
    late = sorted([*(t for t in stream(6) if t.type == VIDEO),
                   *(t._replace(timestamp=t.timestamp + 700) for t in stream(6) if t.type == AUDIO)],
                  key=lambda t: t.timestamp - (700 if t.type == AUDIO else 0))
    result = repair([AVC, AAC, *late])
    assert [tag.timestamp for tag in result.media()] == [tag.timestamp for tag in late]


ANYTHING = st.sampled_from([AVC, AVC_B, AAC, AAC_B, END, Tag(START, 0, b""), key(0), inter(0), audio(0)])


@given(st.lists(st.tuples(ANYTHING, st.integers(-700, 40_000)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_each_file_is_well_formed(script: list[tuple[Tag, int]]) -> None:
    time, source = 0, []
    for number, (tag, step) in enumerate(script):
        time = max(0, time + (step if abs(step) > 600 else step % 50))
        is_media = look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)
        source.append(Tag(tag.type, time, tag.body + bytes([number])) if is_media else tag)
    result = repair(source, size=OPENING_BYTES + 3000, seconds=60)
    for number, tags in enumerate(result.files):
        media = result.media(number)
        assert media
        kinds = {tag.type for tag in tags if is_header(tag)}
        assert {tag.type for tag in media} <= kinds
        for kind in (VIDEO, AUDIO):
            assert all(step >= 0 for step in steps([tag for tag in media if tag.type == kind]))
    wanted = [tag.body for tag in source if look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]
    places = [wanted.index(tag.body) for tag in result.all_media()]
    assert places == sorted(set(places))  # nothing twice, nothing out of order
