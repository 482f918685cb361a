import os
import uuid
from pathlib import Path

import pytest

from biliupd.catalog import ledgers, records, videos
from biliupd.catalog.database import Catalog
from biliupd.intake import Intake
from biliupd.record import broadcast as broadcast_file
from biliupd.record.broadcast import Broadcast
from biliupd.watch.listing import Entry, look, scan
from biliupd.watch.settle import Settled


def survey(intake: Intake, root: Path, complete: bool = True) -> list[Entry]:
    """A whole scan, as the watcher does it."""
    found = intake.survey(root)
    fresh = [entry for folder, here in scan(str(root)) for entry in found.look(folder, here)]
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
    assert (row["state"], row["kind"], row["file_size"], row["title"]) == ("recorded", "playlist", 30, "the title P001")


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


def test_the_ledger_of_a_broadcast_reaches_the_catalog_and_is_replaced_as_a_whole(house):
    directory = house.broadcast()
    facts = broadcast_file.read(directory)
    row = {"at": "2026-01-02T03:05:00+00:00", "cause": "cut", "file": "P001.flv", "media_seconds_at": 5.5, "seconds": 2,
           "detail": ""}  # fmt: skip
    odd = {"at": None, "cause": 7, "seconds": float("nan"), "media_seconds_at": 10**400, "detail": [1]}
    for ledger, lost in (([row, odd], 2.0), ([{**row, "seconds": 3.0}], 3.0), ([], 10**400), ([], 0.5)):
        facts.ledger, facts.figures.lost_seconds, facts.figures.gaps = ledger, lost, len(ledger)
        broadcast_file.write(directory, facts)
        house.settle(directory / "broadcast.json")
        kept = ledgers.of(house.catalog.db, facts.id)
        assert [one["seconds"] for one in kept] == [r["seconds"] if r is not odd else 0.0 for r in ledger]
        (known,) = house.catalog.db.query("select * from broadcasts")
        assert (known["gaps"], known["lost_seconds"]) == (len(ledger), lost if lost < 10**9 else 0)
    assert ledgers.find(house.catalog.db, facts.id[:6])[0]["streamer"] == "ann"


def test_figures_that_a_recorder_writes_are_no_news_but_a_gap_and_a_part_that_settles_are(house):
    directory = house.broadcast(files=1)
    facts = broadcast_file.read(directory)
    facts.pid, facts.boot_id = os.getpid(), broadcast_file.boot_id()
    facts.pid_started = broadcast_file.process_started(os.getpid())

    def write(seconds: float) -> float:
        facts.figures.media_seconds = seconds
        broadcast_file.write(directory, facts)
        house.settle(directory / "broadcast.json")
        return house.catalog.db.execute("select media_seconds from broadcasts").fetchone()[0]

    house.intake.broadcast(directory)
    assert write(1.0) == write(2.0) == 0
    facts.figures.gaps, facts.figures.lost_seconds = 1, 2.0
    assert write(2.5) == write(2.7) == 2.5, "what is missing is news, at once"
    house.settle(house.put(directory / "P001.flv"))
    assert house.catalog.db.execute("select media_seconds from broadcasts").fetchone() == (2.7,)
    facts.files[0]["fragment"] = True
    write(3.0)
    assert house.rows() == {"ann/show/P001.flv": "ignored"}
    facts.pid = None
    assert write(4.0) == 4.0


@pytest.mark.parametrize("late", [True, False])
def test_a_fragment_is_ignored_with_the_reason_until_a_person_wants_it(house, late):
    directory = house.broadcast(files=3)

    def mark() -> None:
        facts = broadcast_file.read(directory)
        facts.files[0] |= {"seconds": 3.2, "fragment": True}
        facts.files[2] = {"name": "P003/index.m3u8", "seconds": 1.0, "bytes": 5, "fragment": True}
        broadcast_file.write(directory, facts)

    if not late:
        mark()
    house.put(directory / "P003" / "000000.ts")
    house.put(directory / "P003" / "index.m3u8", b"#EXTM3U\n#EXTINF:1,\n000000.ts\n#EXT-X-ENDLIST\n")
    house.settle(house.put(directory / "P001.flv"), house.put(directory / "P002.flv"), directory / "P003")
    if late:
        mark()
        house.settle(directory / "broadcast.json")
    names = ("P001.flv", "P002.flv", "P003/index.m3u8")
    assert house.rows() == {
        f"ann/show/{name}": state for name, state in zip(names, ("ignored", "recorded", "ignored"), strict=True)}
    db = house.catalog.db
    ((id, why),) = db.execute("select id, last_error from videos where path like '%P001.flv'").fetchall()
    assert why == "a fragment of 3.2 s; biliupd retry publishes it"
    assert videos.retry(db, id)
    house.scan(house.recordings)
    house.broadcast(ended_at="2026-01-02T04:00:00+00:00", files=3)
    mark()
    house.settle(directory / "broadcast.json", directory / "P001.flv")
    assert house.rows()["ann/show/P001.flv"] == "recorded"


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


def test_pieces_taken_for_videos_before_their_playlist_came_step_back(house):
    part = house.drop / "show"
    pieces = [house.put(part / f"{n}.ts") for n in range(3)]
    house.settle(*pieces)
    assert set(house.rows().values()) == {"recorded"}
    house.put(part / "list.m3u8", b"#EXTM3U\n")
    house.settle(part)
    assert house.rows() == {f"show/{n}.ts": "ignored" for n in range(3)} | {"show/list.m3u8": "recorded"}
    assert house.scan(house.drop) == []
    (why,) = house.catalog.db.execute("select distinct last_error from videos where state = 'ignored'").fetchall()
    assert why == ("a segment of list.m3u8",)


def test_at_the_top_of_a_watched_folder_only_what_a_playlist_lists_belongs_to_it(house):
    listing = house.put(house.drop / "show.m3u8", b"#EXTM3U\n#EXTINF:1,\na%20b.ts\n#EXT-X-ENDLIST\n")
    house.settle(listing, house.put(house.drop / "a b.ts"), house.put(house.drop / "other.ts"))
    assert house.rows() == {"other.ts": "recorded", "show.m3u8": "recorded"}
    assert [row["title"] for row in house.catalog.db.query("select title from videos order by path")] == [
        "other", "show",
    ]  # fmt: skip


def test_a_pipe_called_like_a_playlist_has_no_segments(house):
    os.mkfifo(house.drop / "x.m3u8")
    (house.drop / "d").mkdir()
    (house.drop / "d" / "y.m3u8").mkdir()
    house.settle(house.put(house.drop / "a.ts"), house.put(house.drop / "d" / "b.ts"))
    assert set(house.rows()) == {"a.ts", "d/b.ts"}


def test_a_folder_of_numbered_segments_without_a_playlist_is_one_video(house):
    folder = house.drop / "show"
    for n in range(12):
        house.put(folder / f"seg-{n}.ts", b"x" * 10)
    house.settle(folder)
    row = house.video()
    assert (row["path"], row["kind"], row["file_size"], row["title"]) == ("show", "folder", 120, "show")
    house.scan(house.drop)
    house.settle(folder)
    assert house.rows() == {"show": "recorded"}
    folder.rename(house.drop / "renamed")
    house.settle(house.drop / "renamed")
    house.intake.settled([Settled(str(folder), (), False)])
    assert (house.video()["id"], house.rows()) == (row["id"], {"renamed": "recorded"})


@pytest.mark.parametrize(("first", "init"), [("init.mp4", "init.mp4"), ("00.m4s", "init.mp4"), ("00.m4s", "init.m4i")])
def test_the_init_section_of_numbered_segments_belongs_to_them(house, first, init):
    """In whatever order the folder was listed."""
    names = sorted([init, *(f"{n:02}.m4s" for n in range(12))], key=lambda name: name != first)
    paths = [house.put(house.drop / "show" / name) for name in names]
    entries = tuple(entry for path in paths if (entry := look(str(path))) is not None)
    house.intake.settled([Settled(str(house.drop / "show"), entries, False)])
    assert house.rows() == {"show": "recorded"}


@pytest.mark.parametrize("names", [[f"P{n}.ts" for n in range(1, 4)], [f"{n}.mp4" for n in range(12)]])
def test_a_few_or_other_numbered_files_are_videos_of_their_own(house, names):
    paths = [house.put(house.drop / "trip" / name) for name in names]
    house.settle(*paths)
    assert len(house.rows()) == len(names)


def test_a_master_playlist_is_the_video_and_the_playlists_it_names_are_not(house):
    folder = house.drop / "show"
    house.put(folder / "v" / "720.m3u8", b"#EXTM3U\n#EXTINF:1,\n0.ts\n#EXT-X-ENDLIST\n")
    house.put(folder / "v" / "0.ts")
    house.put(folder / "master.m3u8", b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\nv/720.m3u8\n")
    house.settle(folder / "v", folder / "master.m3u8")
    assert house.rows() == {"show/master.m3u8": "recorded"}
    assert house.scan(house.drop) == []


def test_a_merged_folder_may_come_again_once_its_segments_were_removed(house):
    part = house.drop / "show"
    house.put(part / "0.ts")
    house.settle(house.put(part / "list.m3u8", b"#EXTM3U\n").parent)
    output = house.put(house.drop / "show.mp4")
    facts = {"file_path": str(output), "path": "show.mp4", "merged_from": house.video()["file_path"], "source_gone": 1}
    facts["inode"] = output.stat().st_ino
    house.catalog.db["videos"].update(1, facts)
    house.settle(part)
    assert house.rows() == {"show.mp4": "recorded", "show/list.m3u8": "recorded"}


def test_a_broadcast_json_is_read_again_only_when_it_changed(house, monkeypatch):
    directory = house.broadcast(files=1)
    house.settle(house.put(directory / "P001.flv"), directory / "broadcast.json")
    read: list[Path] = []
    monkeypatch.setattr("biliupd.intake.broadcast_file.read", lambda path: read.append(path) or None)
    house.scan(house.recordings)
    assert read == []
    os.utime(directory / "broadcast.json", (1, 1))
    house.scan(house.recordings)
    assert read == [directory]


@pytest.mark.parametrize("name", ["clip.yaml", "clip.mp4.yml"])
def test_a_sidecar_that_comes_changes_or_goes_is_read_again(house, name):
    house.settle(house.put(house.drop / "clip.mp4"), house.put(house.drop / "clip2.mp4"))

    def asked() -> list[str]:
        found = house.catalog.db.execute("select path from videos where sidecar = '?'").fetchall()
        house.catalog.db.execute("update videos set sidecar = 'as it was' where sidecar = '?'")
        return [path for (path,) in found]

    house.catalog.db.execute("update videos set waits_for = 'upload is off', retry_at = '9999'")
    sidecar = house.put(house.drop / name, b"title: x")
    house.settle(sidecar)
    assert house.catalog.db.execute("select waits_for, retry_at from videos order by id").fetchall() == [
        (None, None), ("upload is off", "9999"),
    ]  # fmt: skip
    assert asked() == ["clip.mp4"]
    house.scan(house.drop)
    assert asked() == ["clip.mp4"], "it is not the one that was read"
    sidecar.unlink()
    house.scan(house.drop)
    assert asked() == ["clip.mp4"]
    house.catalog.db.execute("update videos set sidecar = ''")
    house.scan(house.drop)
    assert asked() == []


def test_a_sidecar_of_a_folder_speaks_of_all_in_it(house):
    house.settle(house.put(house.drop / "trip" / "a.mp4"), house.put(house.drop / "trip" / "sub" / "b.mp4"),
                 house.put(house.drop / "trip2" / "c.mp4"))  # fmt: skip
    house.settle(house.put(house.drop / "trip.yaml", b"title: x"))
    found = house.catalog.db.execute("select path from videos where sidecar = '?' order by path").fetchall()
    assert found == [("trip/a.mp4",), ("trip/sub/b.mp4",)]
