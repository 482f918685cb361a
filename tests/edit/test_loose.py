"""Folders of numbered segments without a playlist."""

import shutil

import pytest
from studio_tools import listing, make, packets

from biliupd.edit.loose import numbered
from biliupd.edit.merge import merge, remove_source
from biliupd.errors import PermanentError, TemporaryError


@pytest.mark.parametrize("names", [
    ["1.ts", "2.ts", "3.ts"], ["000.ts", "001.ts", "002.ts", "003.ts"], ["9.ts", "10.ts", "11.ts"],
    ["seg-8-v1-a1.ts", "seg-9-v1-a1.ts", "seg-10-v1-a1.ts"], ["直播_0998.TS", "直播_0999.TS", "直播_1000.TS"],
    ["v007.m4s", "v008.m4s", "v009.m4s"], ["a1.ts", "a2.ts", "a3.ts", "a4.ts", "a6.ts"],
    ["a\n1.ts", "a\n2.ts", "a\n3.ts"],
])
def test_numbered_segments_are_put_in_order(names):
    others = ["readme.txt", "cover.jpg", ".hidden.ts", "chat.xml", *(["init.mp4"] if names[0].endswith("m4s") else [])]
    assert numbered([*reversed(names), *others]) == names


@pytest.mark.parametrize("names", [
    [], ["1.ts", "2.ts"], ["a.ts", "b.ts", "c.ts"], ["1.ts", "2.ts", "3.ts", "index.m3u8"],
    ["1.ts", "2.ts", "3.ts", "bonus.mp4"], ["1.ts", "2.ts", "3.ts", "a1.ts"], ["1.ts", "2.ts", "3.ts", "4.m4s"],
    ["2024-01-01.ts", "2024-02-01.ts", "2024-02-02.ts"], ["20240101.ts", "20240301.ts", "20240315.ts"],
    ["1.ts", "01.ts", "2.ts"], ["a1.ts", "a2.ts", "b1.ts", "b2.ts"], ["1.mp4", "2.mp4", "3.mp4"],
    ["1.m4s", "2.m4s", "3.m4s"], ["1.m4s", "2.m4s", "3.m4s", "init1.mp4", "init2.mp4"],
    ["1.ts", "2.ts", "3.ts", "init.mp4"], ["1.ts", "5.ts", "9.ts"], [".1.ts", ".2.ts", ".3.ts"],
    ["1.ts", "2.ts", "3.ts", "4.ts.part", "5.ts.mp3"],
])
def test_other_folders_are_none(names):
    assert numbered(names) == []


@pytest.fixture
def loose(studio, tmp_path):
    """A function that copies segments 4 to 9 of the show, by other names, without their playlist."""

    def copy(kind="ts"):
        (tmp_path / "loose").mkdir()
        suffix = "ts" if kind == "ts" else "m4s"
        for n in range(4, 10):
            shutil.copy(studio / f"show-{kind}" / f"{n:03d}.{suffix}", tmp_path / "loose" / f"seg {n + 4}.{suffix}")
        if kind == "fmp4":
            shutil.copy(studio / "show-fmp4" / "init.mp4", tmp_path / "loose" / "the_init.mp4")
        return tmp_path / "loose"

    return copy


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_a_folder_of_segments_becomes_one_mp4_and_goes(ffmpeg, loose, tmp_path, kind):
    folder = loose(kind)
    merged = merge(folder, tmp_path / "out.mp4", ffmpeg)
    assert packets(merged.path)[0] == 300
    assert merged.duration_seconds == pytest.approx(12, abs=0.2)
    assert merge(folder, tmp_path / "out.mp4", ffmpeg) == merged
    (folder / "chat.xml").write_text("mine")
    remove_source(folder)
    assert listing(folder) == ["chat.xml"]


def test_the_folder_itself_goes_when_it_is_empty(loose, tmp_path):
    folder = loose()
    remove_source(folder, and_directory=False)
    assert listing(folder) == []
    remove_source(folder)
    remove_source(folder)
    assert listing(tmp_path) == []


def test_a_number_that_is_left_out_is_a_missing_segment(ffmpeg, loose, tmp_path):
    folder = loose()
    (folder / "seg 10.ts").unlink()
    (folder / "seg 12.ts").write_bytes(b"\x47" + bytes(187))
    with pytest.raises(TemporaryError, match=r"waits for segment 'seg 10\.ts'"):
        merge(folder, tmp_path / "out.mp4", ffmpeg)
    merged = merge(folder, tmp_path / "out.mp4", ffmpeg, gaps="merge")
    assert [(gap.segment, round(gap.at_seconds), round(gap.seconds)) for gap in merged.gaps] == \
        [("seg 10.ts", 4, 2), ("seg 12.ts", 6, 2)]
    assert packets(merged.path)[0] == 200


def test_timestamps_that_begin_anew_in_a_folder_are_joined(ffmpeg, loose, studio, tmp_path):
    folder = loose()
    for n in (14, 15):
        shutil.copy(studio / "show-ts" / f"{n - 14:03d}.ts", folder / f"seg {n}.ts")
    merged = merge(folder, tmp_path / "out.mp4", ffmpeg)
    assert packets(merged.path)[0] == 400
    assert merged.duration_seconds == pytest.approx(16, abs=0.3)


def test_a_link_in_a_folder_leads_nowhere_else(ffmpeg, loose, studio, tmp_path):
    folder = loose()
    (folder / "seg 9.ts").unlink()
    (folder / "seg 9.ts").symlink_to(studio / "show-ts" / "005.ts")
    with pytest.raises(PermanentError, match=r"'seg 9\.ts' leads out"):
        merge(folder, tmp_path / "out.mp4", ffmpeg, gaps="merge")


def test_a_folder_of_something_else_is_not_merged(ffmpeg, loose, tmp_path):
    folder = loose()
    make("-f", "lavfi", "-i", "sine", "-t", "1", str(folder / "music.mp3"))
    with pytest.raises(PermanentError, match="no folder of numbered segments"):
        merge(folder, tmp_path / "out.mp4", ffmpeg)
    assert len(listing(folder)) == 7
