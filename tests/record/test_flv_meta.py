"""The head of an FLV file: what servers say, and our own with its index."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import complaints, probe_seconds, run_ffmpeg, tags_of

from biliupd.record.flv.meta import DEEPEST, LEAST_DISTANCE_MS, MOST_ENTRIES, OPENING_BYTES, FileMeta, metadata, opening
from biliupd.record.flv.part import FlvPart, last_tags
from biliupd.record.flv.repair import Repair
from biliupd.record.flv.salvage import salvage_flv
from biliupd.record.flv.tags import AUDIO, SCRIPT, VIDEO, Tag, is_keyframe, look_at

KNOWN = bytes.fromhex(
    "02 00 0a 6f 6e 4d 65 74 61 44 61 74 61 08 00 00 00 03 00 08 64 75 72 61 74 69 6f 6e 00 40 29 00 00 00 00 00 00"
    "00 06 73 74 65 72 65 6f 01 01 00 07 65 6e 63 6f 64 65 72 02 00 01 78 00 00 09")


def test_the_bytes_of_the_rules_are_read() -> None:
    assert metadata(KNOWN) == {"duration": 12.5, "stereo": True, "encoder": "x"}


def test_an_object_and_a_null_after_it_are_read_as_well() -> None:
    body = KNOWN[:13] + b"\x03" + KNOWN[18:] + b"\x05"
    assert metadata(body) == {"duration": 12.5, "stereo": True, "encoder": "x"}


@given(st.integers(0, len(KNOWN)), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_broken_metadata_never_raise(cut: int, garbage: bytes) -> None:
    assert isinstance(metadata(KNOWN[:cut] + garbage), dict)


def test_nested_metadata_end_somewhere() -> None:
    found, depth = metadata(KNOWN[:13] + b"\x03\x00\x01a" * 5000), 0
    while found:
        found, depth = found["a"], depth + 1
    assert depth <= DEEPEST


def test_what_a_server_says_is_taken_only_when_it_is_credible() -> None:
    meta = FileMeta()
    meta.source({"width": 1280.0, "height": 1e9, "framerate": 0.0, "stereo": True, "encoder": "x"})
    assert meta.facts == {"width": 1280.0, "stereo": 1.0}


@pytest.mark.parametrize("count", [0, 1, 100, MOST_ENTRIES, 3 * MOST_ENTRIES, 20_000])
def test_the_head_never_changes_its_length_and_reads_back(count: int) -> None:
    meta = FileMeta()
    for number in range(count):
        meta.keyframe(number * 1000, OPENING_BYTES + number * 500_000)
    head = opening(meta, 12_500, 99)
    assert len(head) == OPENING_BYTES
    assert head[53:61] == struct.pack(">d", 12.5)
    distances = [b - a for (a, _), (b, _) in zip(meta.entries, meta.entries[1:], strict=False)]
    assert all(distance >= LEAST_DISTANCE_MS for distance in distances)
    assert len(meta.entries) <= MOST_ENTRIES
    assert not count or len(meta.entries) >= min(count / 2, MOST_ENTRIES / 2)
    again = FileMeta.of_file(head)
    assert again is not None
    assert again.entries == meta.entries
    said = metadata(head[24:-4])
    assert said["filesize"] == 99
    assert said["hasKeyframes"] is bool(count)


def test_a_head_that_is_not_ours_is_none() -> None:
    assert FileMeta.of_file(b"FLV\x01" + bytes(OPENING_BYTES)) is None


def record(directory: Path, raw: bytes, *, syncs: bool = True) -> FlvPart:
    part = FlvPart(directory, 1, {"width": 160.0, "height": 120.0})
    stage, tags = Repair(), tags_of(raw)
    for start in range(0, len(tags), 100):
        events = stage.feed(tags[start: start + 100])
        part.write([event for event in events if isinstance(event, Tag)])
        if syncs:
            part.sync()
    part.write([event for event in stage.flush() if isinstance(event, Tag)])
    return part


def seek(path: Path, seconds: float) -> float:
    """The time at which ffmpeg finds itself after seeking by the file's index."""
    argv = ["ffprobe", "-v", "error", "-read_intervals", f"{seconds}%+#1", "-select_streams", "v", "-show_entries",
            "packet=pts_time", "-of", "csv=p=0", f"file:{path}"]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return float(found.split()[0].strip(","))


def test_a_finished_file_has_an_index_that_players_seek_by(media: Path, tmp_path: Path) -> None:
    assert record(tmp_path, (media / "clip.flv").read_bytes()).finish()
    made = tmp_path / "P001.flv"
    raw = made.read_bytes()
    meta = FileMeta.of_file(raw[:OPENING_BYTES])
    assert meta is not None
    assert [round(time / 1000) for time, _ in meta.entries] == [0, 2, 4, 6, 8, 10]
    for time, place in meta.entries:
        tag = tags_of(raw[place:])[0]
        assert is_keyframe(tag)
        assert tag.timestamp == time
    said = metadata(raw[24: OPENING_BYTES - 4])
    assert (said["videocodecid"], said["audiocodecid"], said["width"]) == (7, 10, 160)
    assert said["filesize"] == len(raw)
    assert probe_seconds(made) == pytest.approx(12, abs=0.2)
    assert 5.5 <= seek(made, 6.5) <= 6.5
    assert complaints(made) == ""


def test_h_a_file_whose_recorder_was_killed_can_be_seeked_in_at_once_and_is_made_whole(
        media: Path, tmp_path: Path) -> None:
    part = record(tmp_path, (media / "clip.flv").read_bytes())
    path = tmp_path / "P001.flv.part"
    with path.open("ab") as torn:
        torn.write(b"\x09\x00\x40\x00half a tag")
    assert probe_seconds(path) == pytest.approx(12, abs=1.6)  # up to the last sync
    assert 5.5 <= seek(path, 6.5) <= 6.5
    text, seconds, size = salvage_flv(path)
    assert text.startswith("ended after 12.0 s, 14 torn bytes")
    made = tmp_path / "P001.flv"
    whole = FileMeta.of_file(made.read_bytes()[:OPENING_BYTES])
    assert whole is not None
    assert [round(time / 1000) for time, _ in whole.entries] == [0, 2, 4, 6, 8, 10]
    assert (seconds, size) == (part.seconds, made.stat().st_size)
    assert complaints(made) == ""


@pytest.mark.parametrize("damage", [b"", b"\xff" * 4000], ids=["never synced", "index torn"])
def test_salvage_finds_the_index_by_itself(media: Path, tmp_path: Path, damage: bytes) -> None:
    record(tmp_path, (media / "clip.flv").read_bytes(), syncs=bool(damage))
    path = tmp_path / "P001.flv.part"
    if damage:
        with path.open("r+b") as file:
            file.seek(600)
            file.write(damage)
    _, seconds, _ = salvage_flv(path)
    assert seconds == pytest.approx(12, abs=0.1)
    made = tmp_path / "P001.flv"
    assert complaints(made) == ""
    meta = FileMeta.of_file(made.read_bytes()[:OPENING_BYTES])
    if meta is not None:  # a head that can be read no more is left alone
        assert [round(time / 1000) for time, _ in meta.entries] == [0, 2, 4, 6, 8, 10]


def test_m_the_output_of_the_output_is_identical(media: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    record(tmp_path / "one", (media / "clip.flv").read_bytes()).finish()
    once = (tmp_path / "one" / "P001.flv").read_bytes()
    record(tmp_path / "two", once, syncs=False).finish()
    assert (tmp_path / "two" / "P001.flv").read_bytes() == once


def test_codecs_of_the_enhanced_form_are_named_by_their_fourcc() -> None:
    meta = FileMeta()
    for tag in (Tag(VIDEO, 0, b"\x90hvc1record"), Tag(AUDIO, 0, b"\xaf\x00\x12\x10")):
        meta.header(tag, look_at(tag))
    assert meta.facts["videocodecid"] == 0x68766331
    assert meta.facts["audiocodecid"] == 10


def test_the_last_tags_of_a_file_are_found_from_its_end(media: Path, tmp_path: Path) -> None:
    record(tmp_path, (media / "clip.flv").read_bytes()).finish()
    found = last_tags(tmp_path, [{"name": "P001.flv"}])
    tags = [tag for tag in tags_of((tmp_path / "P001.flv").read_bytes()) if tag.type != SCRIPT]
    assert found == tags[-len(found):] != []
    assert last_tags(tmp_path, [{"name": "P009.flv"}]) == last_tags(tmp_path, []) == []


def test_another_tool_reads_the_file_without_a_complaint(media: Path, tmp_path: Path) -> None:
    record(tmp_path, (media / "clip.flv").read_bytes()).finish()
    run_ffmpeg("-i", tmp_path / "P001.flv", "-c", "copy", tmp_path / "made.mp4")
    assert probe_seconds(tmp_path / "made.mp4") == pytest.approx(12, abs=0.2)
