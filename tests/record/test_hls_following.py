"""What is taken of a reload, by numbers, paths, dates, and at last the clock."""

import pytest

from biliupd.record.hls.following import Position, follow, resume
from biliupd.record.hls.reload import plain
from biliupd.record.playlist import MediaPlaylist, parse


def window(first: int, last: int, name: str = "{}.ts", dated_from: float | None = None) -> MediaPlaylist:
    """Segments of two seconds; `dated_from` is the second (of 1970) of number 100."""
    lines = []
    for number in range(first, last + 1):
        if dated_from is not None:
            second = int(dated_from + 2 * (number - 100))
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:1970-01-01T{second // 3600:02}:{second // 60 % 60:02}:"
                         f"{second % 60:02}.000Z")
        lines.append(f"#EXTINF:2,\n{name.format(number)}")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n" + "\n".join(lines)
    found = parse(text, "http://host/live/")
    assert isinstance(found, MediaPlaylist)
    return found


def at(sequence: int, path: str | None = None, ends_at: float | None = None) -> Position:
    return Position(sequence, path or f"/live/{sequence}.ts", ends_at)


@pytest.mark.parametrize(("first", "last", "taken", "stale", "kind", "numbers", "missing"), [
    (100, 105, None, 0, "new", range(100, 106), 0),
    (102, 107, 105, 0, "new", range(106, 108), 0),
    (100, 105, 105, 0, "same", range(0), 0),
    (110, 112, 105, 0, "new", range(110, 113), 8),
    (3, 8, 107, 0, "reset", range(3, 9), 0),
    (98, 103, 109, 0, "stale", range(0), 0),  # v
    (98, 103, 109, 1, "stale", range(0), 0),
    (98, 103, 109, 2, "reset", range(98, 104), 0),
])
def test_v_a_reload_is_compared_with_the_number_taken_last(
        first: int, last: int, taken: int | None, stale: int, kind: str, numbers: range, missing: float) -> None:
    step = follow(window(first, last), at(taken) if taken is not None else None, stale)
    assert (step.kind, [s.sequence for s in step.segments], step.missing_seconds) == (kind, list(numbers), missing)


def test_an_empty_window_is_nothing_new() -> None:
    assert follow(parse("#EXTM3U\n#EXT-X-TARGETDURATION:2\n"), at(5)).kind == "same"  # type: ignore[arg-type]


def test_u_numbers_that_begin_anew_are_followed_once() -> None:
    taken, position, kinds = [], None, []
    for first, last in ((100, 105), (102, 107), (3, 8), (4, 9)):
        step = follow(window(first, last), position)
        taken += [segment.sequence for segment in step.segments]
        kinds.append(step.kind)
        position = Position.after(step.segments[-1])
    assert taken == [*range(100, 108), *range(3, 10)]
    assert kinds == ["new", "new", "reset", "new"]


@pytest.mark.parametrize(("playlist", "last", "numbers", "missing"), [
    (window(104, 106, dated_from=1000), at(101, ends_at=1004), [104, 105, 106], 4),  # two numbers, dated
    (window(104, 106, dated_from=1007), at(101, ends_at=1004), [104, 105, 106], 11),  # the dates know of a pause
    (window(104, 106, dated_from=90000 - 3600 * 5), at(101, ends_at=1004), [104, 105, 106], 4),  # and may be nonsense
])
def test_a_jump_ahead_is_as_long_as_its_dates_say(
        playlist: MediaPlaylist, last: Position, numbers: list[int], missing: float) -> None:
    step = follow(playlist, last)
    assert ([s.sequence for s in step.segments], step.missing_seconds) == (numbers, missing)


def test_newer_dates_tell_a_new_numbering_from_a_stale_answer() -> None:
    step = follow(window(98, 103, dated_from=1000), at(105, ends_at=1000))
    assert (step.kind, [s.sequence for s in step.segments], step.missing_seconds) == ("reset", [100, 101, 102, 103], 0)
    assert follow(window(98, 103, dated_from=1000), at(105, ends_at=1012)).kind == "stale"


@pytest.mark.parametrize(("sequence", "path", "expected"), [
    (104, "/live/104.ts", [105, 106, 107, 108]),       # the same numbering
    (7, "/live/106.ts", [107, 108]),                   # another numbering, the same paths
    (106, "/other/106.ts", [107, 108]),                # another host's folder
    (108, "/live/108.ts", []),
    (96, "/live/96.ts", [100, 101, 102, 103, 104, 105, 106, 107, 108]),  # slid out: three are missing
])
def test_another_address_goes_on_after_the_segment_recorded_last(
        sequence: int, path: str, expected: list[int]) -> None:
    step = resume(window(100, 108), at(sequence, path), 8.0)
    assert [segment.sequence for segment in step.segments] == expected
    assert (step.known, step.probes) == (True, 0)
    assert step.missing_seconds == (6 if sequence == 96 else 0)


def test_names_that_were_used_before_are_not_trusted_against_the_dates() -> None:
    step = resume(window(100, 108, dated_from=1000), at(104, ends_at=990), 4.0)
    assert [segment.sequence for segment in step.segments] == list(range(100, 109))
    assert step.missing_seconds == 10


def test_another_numbering_with_dates_is_joined_by_them() -> None:
    step = resume(window(100, 108, "x{}.ts", dated_from=1000), at(7, "/live/7.ts", ends_at=1008.3), 4.0)
    assert ([segment.sequence for segment in step.segments], step.missing_seconds) == ([104, 105, 106, 107, 108], 0)


@pytest.mark.parametrize(("away", "numbers", "probes", "missing"), [
    (1.0, [106, 107, 108], 3, 0),  # nothing can have come since: just looked at
    (5.0, [104, 105, 106, 107, 108], 3, 0),
    (60.0, list(range(100, 109)), 0, 40),
])
def test_nothing_in_common_is_joined_by_the_clock(
        away: float, numbers: list[int], probes: int, missing: float) -> None:
    step = resume(window(100, 108, "x{}.ts"), at(7, "/live/seven.ts"), away)
    assert ([segment.sequence for segment in step.segments], step.probes) == (numbers, probes)
    assert step.missing_seconds == missing
    assert not step.known


@pytest.mark.parametrize(("url", "expected"), [
    ("http://h/a.m3u8?_HLS_msn=5&_HLS_part=2&t=1", "http://h/a.m3u8?t=1"), ("http://h/a?_HLS_skip=YES", "http://h/a"),
    ("http://h/a?t=1&_HLS_skip=YES&u=2", "http://h/a?t=1&u=2"), ("http://h/a?t=%26", "http://h/a?t=%26")])
def test_low_latency_is_not_asked_for(url: str, expected: str) -> None:
    assert plain(url) == expected
