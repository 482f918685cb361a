import os
import uuid
from pathlib import Path

import pytest

from biliupd.catalog import records
from biliupd.catalog.database import Catalog
from biliupd.intake import Intake
from biliupd.record import broadcast as broadcast_file
from biliupd.record.broadcast import Broadcast
from biliupd.watch.listing import Entry, look, scan
from biliupd.watch.settle import Settled


def survey(intake: Intake, root: Path, complete: bool = True) -> list[Entry]:
    """A whole scan, as the watcher does it."""
    found = intake.survey(root)
    fresh = [entry for folder, here in scan(str(root), lambda name: False) for entry in found.look(folder, here)]
    found.end(complete)
    return fresh


class House:
    """A recordings directory, a drop folder, a catalog, and the intake between them."""

    def __init__(self, base: Path) -> None:
        self.recordings, self.drop = base / "recordings", base / "drop"
        self.recordings.mkdir()
        self.drop.mkdir()
        self.catalog = Catalog(base / "data" / "catalog.db")
        self.intake = Intake(self.catalog, self.recordings, [self.recordings, self.drop])

    def put(self, path: Path, content: bytes = b"media") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def settle(self, *paths: Path, growing: bool = False) -> None:
        batch = []
        for path in paths:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            entries = tuple(entry for file in files if (entry := look(str(file))) is not None)
            batch.append(Settled(str(path), entries, growing))
        self.intake.settled(batch)

    def scan(self, root: Path, complete: bool = True) -> list[str]:
        return sorted(os.path.basename(entry.path) for entry in survey(self.intake, root, complete))

    def broadcast(self, name: str = "ann/show", ended_at: str | None = None, files: int = 0) -> Path:
        directory = self.recordings / name
        directory.mkdir(parents=True, exist_ok=True)
        known = broadcast_file.read(directory)
        facts = known or Broadcast(id=uuid.uuid4().hex, streamer=name.split("/")[0], title="the title",
                                   started_at="2026-01-02T03:04:05+00:00")  # fmt: skip
        facts.ended_at = ended_at
        facts.files = [{"name": f"P{n:03}.flv", "seconds": 1.0, "bytes": 5} for n in range(1, files + 1)]
        broadcast_file.write(directory, facts)
        return directory

    def rows(self) -> dict[str, str]:
        return dict(self.catalog.db.execute("select path, state from videos order by path").fetchall())

    def video(self) -> dict:
        (row,) = self.catalog.db.query("select * from videos")
        return row


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_dropped_file_becomes_a_row(house):
    house.settle(house.put(house.drop / "sub" / "holiday.mp4"))
    row = house.video()
    assert (row["state"], row["path"], row["parent_path"], row["title"], row["kind"]) == (
        "recorded", "sub/holiday.mp4", "sub", "holiday", "file",
    )  # fmt: skip
    assert row["broadcast_id"] is None


def test_other_files_do_not(house):
    house.settle(*(house.put(house.drop / name) for name in ("a.txt", "b.jpg", "c", "d.ass")))
    assert house.rows() == {}


def test_a_growing_file_is_recording_until_it_settles(house):
    path = house.put(house.drop / "big.mp4")
    house.settle(path, growing=True)
    assert house.rows() == {"big.mp4": "recording"}
    house.settle(path)
    assert house.rows() == {"big.mp4": "recorded"}


def test_a_recording_belongs_to_its_broadcast_and_streamer(house):
    directory = house.broadcast(files=1)
    house.settle(house.put(directory / "P001.flv"))
    row = house.video()
    broadcast = records.get_broadcast(house.catalog.db, row["broadcast_id"])
    assert (broadcast["streamer"], broadcast["title"], broadcast["parts"]) == ("ann", "the title", 1)
    assert row["streamer_id"] == broadcast["streamer_id"]


def test_the_end_of_a_broadcast_reaches_its_row(house):
    directory = house.broadcast()
    house.settle(directory / "broadcast.json")
    house.broadcast(ended_at="2026-01-02T04:00:00+00:00")
    house.settle(directory / "broadcast.json")
    (ended,) = house.catalog.db.execute("select ended_at from broadcasts").fetchone()
    assert ended == "2026-01-02T04:00:00+00:00"


def test_a_playlist_and_its_segments_are_one_video(house):
    directory = house.broadcast()
    part = directory / "P001"
    for n in range(3):
        house.put(part / f"{n:06}.ts", b"x" * 10)
    house.put(part / "index.m3u8", b"#EXTM3U\n")
    house.settle(part)
    assert house.rows() == {"ann/show/P001/index.m3u8": "recording"}
    (part / "index.m3u8").write_bytes(b"#EXTM3U\n#EXT-X-ENDLIST\n")
    house.settle(part)
    row = house.video()
    assert (row["state"], row["kind"], row["file_size"], row["title"]) == ("recorded", "playlist", 30, "P001")


def test_somebody_elses_open_playlist_counts_once_it_is_quiet(house):
    part = house.drop / "show"
    house.put(part / "0.ts")
    house.put(part / "list.m3u8", b"#EXTM3U\n")
    house.settle(part)
    assert house.rows() == {"show/list.m3u8": "recorded"}


def test_the_init_section_beside_a_playlist_is_no_video(house):
    part = house.drop / "show"
    house.put(part / "list.m3u8", b"#EXTM3U\n")
    house.settle(house.put(part / "init.mp4"))
    assert house.rows() == {}


def test_what_a_merge_makes_and_leaves_is_not_taken_for_new(house):
    part = house.drop / "show"
    house.put(part / "0.ts")
    house.settle(house.put(part / "list.m3u8", b"#EXTM3U\n").parent)
    row = house.video()
    output = house.put(house.drop / "show.mp4")
    house.catalog.db["videos"].update(row["id"], {"output_path": str(output)})
    house.settle(output)
    assert list(house.rows()) == ["show/list.m3u8"]
    facts = {"file_path": str(output), "path": "show.mp4", "merged_from": row["file_path"], "output_path": None}
    house.catalog.db["videos"].update(row["id"], facts)
    house.settle(part)
    house.scan(house.drop)
    assert list(house.rows()) == ["show.mp4"]


def test_a_renamed_folder_keeps_its_rows(house):
    first = house.put(house.drop / "old" / "a.mp4")
    house.settle(first)
    id = house.video()["id"]
    (house.drop / "old").rename(house.drop / "new")
    house.settle(house.drop / "new" / "a.mp4")
    house.intake.settled([Settled(str(house.drop / "old"), (), False)])
    assert (house.video()["id"], house.rows()) == (id, {"new/a.mp4": "recorded"})


def test_a_deleted_folder_is_missing_and_its_namesake_is_not(house):
    house.settle(house.put(house.drop / "a" / "x.mp4"), house.put(house.drop / "ab" / "y.mp4"))
    (house.drop / "a" / "x.mp4").unlink()
    house.intake.settled([Settled(str(house.drop / "a"), (), False)])
    assert house.rows() == {"a/x.mp4": "missing", "ab/y.mp4": "recorded"}


def test_a_scan_returns_what_is_new_and_notes_what_is_gone(house):
    old, gone = house.put(house.drop / "old.mp4"), house.put(house.drop / "gone.mp4")
    house.settle(old, gone)
    gone.unlink()
    house.put(house.drop / "new.mp4")
    house.put(house.drop / "notes.txt")
    assert house.scan(house.drop) == ["new.mp4"]
    assert house.rows() == {"gone.mp4": "missing", "old.mp4": "recorded"}


def test_an_incomplete_scan_finds_nothing_missing(house):
    house.settle(path := house.put(house.drop / "a.mp4"))
    path.unlink()
    house.scan(house.drop, complete=False)
    assert house.rows() == {"a.mp4": "recorded"}


def test_a_directory_that_is_suddenly_empty_is_believed_only_the_second_time(house):
    files = [house.put(house.drop / f"{n}.mp4") for n in range(60)]
    house.settle(*files)
    for file in files:
        file.unlink()
    house.scan(house.drop)
    assert set(house.rows().values()) == {"recorded"}
    assert "60 of 60 known files are not there" in records.notices(house.catalog.db)[0]["text"]
    house.scan(house.drop)
    assert set(house.rows().values()) == {"missing"}
    assert records.notices(house.catalog.db) == []


def test_a_broken_broadcast_json_is_said_once_and_loses_nothing(house, caplog):
    directory = house.recordings / "ann" / "show"
    house.put(directory / "broadcast.json", b"{")
    house.settle(house.put(directory / "P001.flv"))
    assert house.rows() == {"ann/show/P001.flv": "recorded"}
    assert house.video()["broadcast_id"] is None


def test_a_symlinked_recordings_directory_works(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recordings").symlink_to(tmp_path / "disk")
    catalog = Catalog(tmp_path / "catalog.db")
    root = tmp_path / "a" / "recordings"
    directory = root / "ann" / "show"
    directory.mkdir(parents=True)
    began = "2026-01-02T03:04:05+00:00"
    broadcast_file.write(directory, Broadcast(id="b1", streamer="ann", title="t", started_at=began))
    (directory / "P001.flv").write_bytes(b"media")
    intake = Intake(catalog, root, [root])
    intake.settled([Settled(e.path, (e,), False) for e in survey(intake, root)])
    (row,) = catalog.db.query("select * from videos")
    assert (row["path"], row["broadcast_id"]) == ("ann/show/P001.flv", "b1")


NO_TEXT = os.fsdecode(b"\xff\xfe.mp4")


@pytest.mark.parametrize("name", ["a\nb.mp4", "{x}.mp4", "%s'\".mp4", "-x.mp4", "🦊.mp4", "长" * 80 + ".mp4", NO_TEXT])
def test_odd_names_are_names(house, name):
    house.settle(house.put(house.drop / name))
    assert house.rows() == {name: "recorded"}


def test_the_library_is_rebuilt_from_the_directories(house, tmp_path):
    directory = house.broadcast(ended_at="2026-01-02T04:00:00+00:00", files=1)
    house.put(directory / "P001.flv")
    fresh = Catalog(tmp_path / "data2" / "catalog.db")
    intake = Intake(fresh, house.recordings, [house.recordings, house.drop])
    intake.settled([Settled(e.path, (e,), False) for e in survey(intake, house.recordings)])
    (row,) = fresh.db.query("select v.state, b.title, s.name from videos v join broadcasts b on b.id = v.broadcast_id"
                            " join streamers s on s.id = v.streamer_id")  # fmt: skip
    assert row == {"state": "recorded", "title": "the title", "name": "ann"}
