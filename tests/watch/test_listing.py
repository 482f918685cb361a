"""Names that are left out, and what a listing finds."""

import os
import socket

import pytest

from biliupd.foreign import ignored
from biliupd.watch.listing import look, open_for_writing, scan, segments


@pytest.mark.parametrize("name", [
    ".x.mp4.AbCdEf", "x.mp4.part", "x.partial", "X.CRDOWNLOAD", "x.filepart", "x.tmp", "~$x.mp4", ".~tmp~", "._x.mp4",
    "X.PART",
    "x.mp4.aria2", "x.!qB", "x.download", "@EADIR", "THUMBS.DB", "System Volume Information", "@Recycle",
    ".DS_Store", "Thumbs.db", "@eaDir", ".stversions", ".rsync-partial", ".syncthing.x.mp4.tmp", "~syncthing~x.mp4.tmp",
    "#recycle", "$RECYCLE.BIN", "lost+found",
])
def test_temporary_and_foreign_names_are_ignored(name):
    assert ignored(name)


@pytest.mark.parametrize("name", ["x.mp4", "part.mp4", "x.part.mp4", "~x.mp4", "1.ts", "-x", "tmp", "x\udcff.mp4"])
def test_ordinary_names_are_not_ignored(name):
    assert not ignored(name)


def test_further_patterns_can_be_given():
    assert ignored("x.BAK", ["*.bak", "raw"])
    assert ignored("raw", ["*.bak", "raw"])
    assert not ignored("raw.mp4", ["*.bak", "raw"])


def names(root, **kwargs):
    listed = scan(str(root), **kwargs)
    return sorted(os.path.relpath(entry.path, root) for _, found in listed for entry in found)


def test_a_scan_finds_regular_files_only_and_enters_no_link(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d" / "e").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.mp4").write_text("x")
    for name in ("a.mp4", "d/b.mp4", "d/e/c\n'\"{x}%s.mp4", "d/x.part"):
        (root / name).write_text("x")
    os.mkfifo(root / "fifo.mp4")
    (root / "dir.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s.mp4"))
        (root / "inside.mp4").symlink_to(root / "a.mp4")
        (root / "outside.mp4").symlink_to(outside / "secret.mp4")
        (root / "dangling.mp4").symlink_to(root / "none")
        (root / "loop").symlink_to(root)
        (root / "linked").symlink_to(outside)
        (root / "self.mp4").symlink_to(root / "self.mp4")
        (root / ".hidden").mkdir()
        (root / ".hidden" / "x.mp4").write_text("x")
        assert names(root) == ["a.mp4", "d/b.mp4", "d/e/c\n'\"{x}%s.mp4", "inside.mp4"]


def test_a_scan_leaves_out_further_patterns(tmp_path):
    for name in ("a.mp4", "a.bak", "raw/b.mp4", "1.ts"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(tmp_path, extra=["*.bak", "RAW"]) == ["1.ts", "a.mp4"]
    assert segments(str(tmp_path), ["1.*"]) == ()


def test_names_that_are_no_utf8_survive(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    with open(raw, "wb") as file:
        file.write(b"abc")
    ((_, (entry,)),) = scan(str(tmp_path))
    assert (os.fsencode(entry.path), entry.size_bytes) == (raw, 3)
    assert look(entry.path) == entry


def test_what_cannot_be_listed_is_told(tmp_path):
    complaints = []
    missing = tmp_path / "gone"
    assert list(scan(str(missing), (), lambda path, error: complaints.append((path, error.errno)))) == []
    assert complaints == [(str(missing), 2)]


def test_looking_at_a_file_agrees_with_the_scan(tmp_path):
    (tmp_path / "a.mp4").write_text("x")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    ((_, found),) = scan(str(tmp_path))
    assert len(found) == 2
    for entry in found:
        assert look(entry.path, str(tmp_path)) == entry
    assert look(str(tmp_path / "link.mp4")) is None
    assert look(str(tmp_path)) is None
    assert look(str(tmp_path / "a.mp4" / "x")) is None


def test_one_cannot_tell_is_not_gone(tmp_path):
    with pytest.raises(OSError):
        look(str(tmp_path / ("x" * 300)))


def test_segments_are_those_directly_in_the_directory(tmp_path):
    for name in ("2.ts", "1.m4s", "index.m3u8", "init.mp4", "other.mp4", ".x.ts", "3.ts.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub.ts").mkdir()
    found = [os.path.basename(entry.path) for entry in segments(str(tmp_path))]
    assert found == ["1.m4s", "2.ts", "index.m3u8", "init.mp4"]
    assert segments(str(tmp_path / "none")) == ()


def test_a_writer_is_noticed_and_a_reader_is_not(tmp_path):
    path = tmp_path / "a.mp4"
    with path.open("wb") as writer:
        writer.write(b"x")
        writer.flush()
        assert open_for_writing(str(path))
    with path.open("rb"):
        assert not open_for_writing(str(path))
    assert not open_for_writing(str(tmp_path / "none"))
