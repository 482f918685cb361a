"""What the bytes of a segment are, and whether two of them may stand in one file."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from recording_support import run_ffmpeg

from biliupd.record.container import decode_time, form, same_form, whole_init


def test_the_form_of_a_segment_tells_resolutions_and_sound_apart(media: Path, tmp_path: Path) -> None:
    run_ffmpeg("-i", media / "other.flv", "-c", "copy", tmp_path / "other.ts")
    run_ffmpeg("-i", media / "other.flv", "-c:v", "copy", "-c:a", "aac", "-ar", 22050, tmp_path / "sound.ts")
    run_ffmpeg("-i", media / "other.flv", "-c:v", "copy", "-an", tmp_path / "mute.ts")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=5", "-t", 1, "-c:v", "libx265", "-x265-params",
               "log-level=0", tmp_path / "hevc.ts")
    forms = [form((media / "ts" / "000.ts").read_bytes()), *(
        form((tmp_path / f"{name}.ts").read_bytes()) for name in ("other", "sound", "mute", "hevc"))]
    assert all(forms)
    assert not any(same_form(one, other) for n, one in enumerate(forms) for other in forms[:n])
    assert all(header for kind, header in forms[0] + forms[4])
    for number in range(12):
        assert same_form(form((media / "ts" / f"{number:03}.ts").read_bytes()), forms[0])


def test_what_is_not_known_of_a_form_is_no_difference() -> None:
    assert same_form((), ((27, b"a"),))
    assert same_form(((15, b""), (27, b"a")), ((15, b"x"), (27, b"a")))
    assert not same_form(((15, b""), (27, b"a")), ((15, b"x"), (27, b"b")))


def test_an_init_section_cut_anywhere_is_not_whole(media: Path) -> None:
    body = (media / "fmp4" / "init.mp4").read_bytes()
    assert whole_init(body)
    assert not any(whole_init(body[:length]) for length in range(len(body)))


def test_the_clock_of_fragments_goes_on(media: Path) -> None:
    times = [decode_time((media / "fmp4" / f"{number:03}.m4s").read_bytes()) for number in range(12)]
    assert None not in times
    assert times == sorted(set(times))  # type: ignore[type-var]


@given(st.binary(max_size=600), st.lists(st.integers(0, 187), max_size=12))
def test_no_bytes_make_a_look_raise(body: bytes, places: list[int]) -> None:
    packets = bytearray((b"\x47" + body).ljust(188 * 4, b"\x40"))
    for place in places:
        packets[place] = 0x10
    for found in (body, bytes(packets)):
        form(found)
        whole_init(found)
        decode_time(found)
