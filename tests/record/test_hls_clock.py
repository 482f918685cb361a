"""What is missing without a word of the playlist: by the clocks of segments, and what they were made of."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_support import run_ffmpeg

from biliupd.record.container import TS_RATE, TS_WRAP, Clock, alike, clock, form, glance, same_form
from biliupd.record.hls.clock import Timeline
from biliupd.record.playlist import Segment

DAY = 86400.0
USUAL = [(2, 0), (4, 2), (6, 4)]  # when a segment of two seconds came, and when it begins by its own clock


def steps(times: list[tuple[float, float]], *, ticking: bool, dated: bool, wrap_at: float = 0.0,
          known: frozenset[int] = frozenset()) -> list[tuple[float, bool]]:
    timeline, found = Timeline(), []
    for number, (now, begin) in enumerate(times):
        segment = Segment(number, f"{number}.ts", 2.0, date=DAY + begin if dated else None, dated=dated)
        ticks = int((begin - wrap_at) * TS_RATE) % TS_WRAP
        step = timeline.add(segment, Clock(0xE0, ticks, TS_RATE) if ticking else None, now, known=number in known)
        found.append((round(step.missing_seconds, 1), step.is_set))
    return found


@pytest.mark.parametrize("clocks", [{"ticking": True, "dated": False}, {"ticking": False, "dated": True},
                                    {"ticking": True, "dated": True},
                                    {"ticking": True, "dated": False, "wrap_at": 5.0}])
@pytest.mark.parametrize(("times", "expected"), [
    ([(8, 6), (10, 8)], (0, False)),
    ([(8.9, 6.4), (10, 8)], (0, False)),  # a little late, and a longer segment before it
    ([(12, 10), (14, 12)], (4, False)),   # two segments later, it is two segments further
    ([(8, 10), (10, 12)], (0, True)),     # it cannot be: somebody set the clock
    ([(10, 5000), (12, 5002)], (2, True)),  # both: not more than real time is missing
    ([(8, 1), (10, 3)], (0, True)),
])
def test_a_clock_that_went_on_means_missing_media_and_one_that_jumped_was_set(
        clocks: dict[str, bool], times: list[tuple[float, float]], expected: tuple[float, bool]) -> None:
    found = steps([*USUAL, *times], **clocks)  # type: ignore[arg-type]
    assert found == [(0, False)] * 3 + [expected, (0, False)]


def test_a_window_that_comes_at_once_and_one_that_comes_late_are_told_apart_from_a_loss() -> None:
    window = [(1.0, float(begin)) for begin in range(0, 12, 2)]
    late = [(60.0, float(begin)) for begin in range(12, 20, 2)]
    assert steps([*window, *late], ticking=True, dated=False) == [(0, False)] * 10


def test_what_the_playlist_has_said_already_is_not_counted_again() -> None:
    assert steps([*USUAL, (14, 12), (16, 14)], ticking=True, dated=True, known=frozenset({3})) == [(0, False)] * 5


def test_durations_that_are_never_true_are_not_believed_for_long() -> None:
    found = steps([(4 * n, 4 * n) for n in range(20)], ticking=True, dated=False)
    assert [place for place, step in enumerate(found) if step != (0, False)] == [1, 2]


def test_clocks_of_different_things_say_nothing() -> None:
    assert Clock(0xE0, 5, TS_RATE).since(Clock(0xC0, 1, TS_RATE)) is None
    assert Clock(1, 2000, 1000).since(Clock(1, 500, 1000)) == 1.5


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_real_segments_say_when_they_begin(media: Path, kind: str) -> None:
    paths = sorted((media / kind).glob("*.ts" if kind == "ts" else "*.m4s"))
    init = (media / "fmp4" / "init.mp4").read_bytes() if kind == "fmp4" else b""
    clocks = [clock(path.read_bytes(), init) for path in paths]
    assert all(clocks)
    since = [late.since(early) for early, late in pairwise(clocks)]  # type: ignore[union-attr, arg-type]
    assert since == [pytest.approx(1.0, abs=0.05)] * 11


def test_a_glance_shows_whatever_changes_a_form_and_nothing_else(media: Path, tmp_path: Path) -> None:
    run_ffmpeg("-i", media / "other.flv", "-c", "copy", tmp_path / "size.ts")
    run_ffmpeg("-i", media / "clip.flv", "-t", 1, "-c", "copy", "-an", tmp_path / "mute.ts")
    run_ffmpeg("-i", media / "clip.flv", "-t", 1, "-c:v", "mpeg2video", "-c:a", "copy", tmp_path / "codec.ts")
    bodies = [path.read_bytes() for path in sorted((media / "ts").glob("*.ts"))]
    first = glance(bodies[0])
    assert all(first)
    assert all(alike(glance(body), first) for body in bodies)
    for name in ("size", "mute", "codec"):
        body = (tmp_path / f"{name}.ts").read_bytes()
        assert not alike(glance(body), first)
        assert not same_form(form(body), form(bodies[0]))


@given(st.binary(max_size=600), st.lists(st.integers(0, 187), max_size=12))
def test_no_bytes_make_a_clock_or_a_glance_raise(body: bytes, places: list[int]) -> None:
    packets = bytearray((b"\x47\x40\0\x10\0\0\1" + body).ljust(188 * 4, b"\xe0"))
    for place in places:
        packets[place] = 0x30
    for found in (body[:len(body) // 188 * 188], bytes(packets), b"\0\0\0\x10moof" + b"tfhd" + body + b"tfdt" + body):
        clock(found, body + b"trak" + body + b"tkhdmdhd" + body)
        glance(found)
