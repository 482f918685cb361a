"""Copies of the catalog, damage of every kind, and what a new one is made of. SQLite and the files are real."""

import os
import random
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from biliupd.catalog import backup, records, submissions
from biliupd.catalog.backup import heed_copy, keep, mend, rebuild, told
from biliupd.catalog.database import Catalog, ailment, connect, copy
from biliupd.catalog.schema import migrations
from biliupd.catalog.states import State, move, rows
from biliupd.errors import PermanentError, TemporaryError

COUNT = 300  #: videos of the catalog that is damaged
AT = "2026-01-01T00:00:00.000+00:00"


def fill(catalog: Catalog, count: int = COUNT) -> None:
    """A library of which every third video is published, and one is uploaded but perhaps not submitted."""
    db = catalog.db
    streamer = records.streamer_id(db, "ann")
    with db.conn:
        for n in range(1, count + 1):
            sent = n % 3 == 0
            if sent or n == 1:
                rows(db, "submissions").insert({
                    "id": n, "key": f"file:{n}", "account": "main", "since": AT, "created_at": AT, "title": f"v{n}",
                    "state": "published" if sent else "collecting", "bvid": f"BV{n}" if sent else None})  # fmt: skip
            rows(db, "videos").insert({
                "id": n, "title": f"v{n} " + "x" * 80, "file_path": f"/drop/v{n}.mp4", "root": "/drop", "kind": "file",
                "path": f"v{n}.mp4", "parent_path": "", "file_size": n, "mtime_ns": n, "inode": n, "device": 1,
                "state": "published" if sent else "uploaded" if n == 1 else "ready", "since": AT, "created_at": AT,
                "submission_id": n if sent or n == 1 else None, "bvid": f"BV{n}" if sent else None,
                "streamer_id": streamer})  # fmt: skip
            if sent or n == 1:
                rows(db, "uploads").insert({"video_id": n, "filename": f"f{n}", "bytes_total": n, "started_at": AT})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A data directory with a catalog that was closed, and a copy of it."""
    data = tmp_path_factory.mktemp("whole")
    catalog = Catalog(data / "catalog.db")
    fill(catalog)
    catalog.db.execute("pragma wal_checkpoint(truncate)")
    catalog.close()
    assert keep(data / "catalog.db", 3)
    return data


@pytest.fixture
def data(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def aside(data: Path, word: str = "corrupt") -> list[str]:
    return sorted(path.name for path in data.glob(f"catalog.db*.{word}-*"))


def videos(path: Path) -> int:
    db = connect(path, read_only=True)
    try:
        return int(db["videos"].count)
    finally:
        db.conn.close()


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_made_while_others_write_is_whole_and_only_for_its_owner(catalog, tmp_path):
    fill(catalog, 50)
    records.notice(catalog.db, "busy", "0")
    stop = threading.Event()

    def write_on() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            records.notice(catalog.db, "busy", str(n))
        catalog.close()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for n in range(5):
            copy(catalog.path, tmp_path / "new" / f"{n}.db")
    finally:
        stop.set()
        writer.join()
    seen = []
    for n in range(5):
        path = tmp_path / "new" / f"{n}.db"
        assert ailment(path, thorough=True) == ""
        assert path.stat().st_mode & 0o777 == 0o600
        assert videos(path) == 50
        seen.append(int(records.notices(connect(path))[0]["text"]))
    assert seen == sorted(seen)
    assert not list((tmp_path / "new").glob("*.part*"))


def test_a_copy_overwrites_nothing_and_says_what_is_in_the_way(catalog, tmp_path):
    (tmp_path / "there.db").write_text("mine")
    with pytest.raises(PermanentError, match="exists already"):
        copy(catalog.path, tmp_path / "there.db")
    assert (tmp_path / "there.db").read_text() == "mine"
    with pytest.raises(PermanentError, match=r"no copy .*there.db/x.db: File exists"):
        copy(catalog.path, tmp_path / "there.db" / "x.db")
    with pytest.raises(PermanentError, match="no catalog"):
        copy(tmp_path / "nowhere.db", tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()


def test_there_is_one_copy_a_day_and_the_oldest_go(data):
    path, folder = data / "catalog.db", data / "backups"
    (first,) = folder.iterdir()
    assert keep(path, 3) is None, "there is one of today"
    first.unlink()
    for day in ("20200101", "20200102", "20200103"):
        shutil.copy(path, folder / f"daily-{day}T000000Z.db")
    shutil.copy(path, folder / "catalog-20190101T000000Z.db")
    made = keep(path, 3)
    assert {one.name for one in folder.iterdir()} == {
        "catalog-20190101T000000Z.db", "daily-20200102T000000Z.db", "daily-20200103T000000Z.db", made.name}  # fmt: skip
    assert keep(path, 0) is None
    assert len(list(folder.iterdir())) == 4, "none wanted does not mean that the old ones go"


def test_a_damaged_catalog_is_not_copied(data):
    spoil_pages(data / "catalog.db")
    with pytest.raises(PermanentError, match="damaged"):
        copy(data / "catalog.db", data / "x.db")
    assert not list(data.glob("x.db*"))


def test_an_older_catalog_is_copied_before_it_is_brought_up_to_date(tmp_path):
    path = tmp_path / "catalog.db"
    db = connect(path)
    last = migrations.pending(db)[-1].name
    migrations.apply(db, stop_before=last)
    rows(db, "notices").insert({"key": "k", "text": "old", "since": AT})
    db.conn.close()
    Catalog(path)
    (kept,) = (tmp_path / "backups").iterdir()
    assert kept.name.startswith(f"before-{last}-")
    old = connect(kept, read_only=True)
    assert [one.name for one in migrations.pending(old)] == [last]
    assert records.notices(old)[0]["text"] == "old"


# -- damage ------------------------------------------------------------------------------------------------------------


def spoil_pages(path: Path, count: int = 6, seed: int = 2) -> None:
    """Random bytes in the middle of some pages, as a bad disk leaves them."""
    chance, size = random.Random(seed), path.stat().st_size
    with path.open("r+b") as file:
        for page in chance.sample(range(size // 8192, size // 4096), count):
            file.seek(page * 4096)
            file.write(chance.randbytes(2048))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 4 // 5)


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database, " * 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = [spoil_pages, cut, garbage, empty, zeros, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_lost_catalog_is_kept_aside_and_the_newest_good_copy_takes_its_place(data, damage):
    path = data / "catalog.db"
    bad = data / "backups" / "daily-99990101T000000Z.db"
    bad.write_bytes(b"a newer copy that is no good")
    before = path.read_bytes()
    damage(path)
    spoilt = path.read_bytes() if path.exists() else None
    mend(path, unclean=True)
    catalog = Catalog(path)
    assert ailment(path, thorough=True) == ""
    assert catalog.db["videos"].count == COUNT
    assert [(data / name).read_bytes() for name in aside(data)] == ([spoilt] if spoilt is not None else [])
    assert "took its place" in told(path)
    assert str(data / "backups" / "daily-2") in told(path)
    assert before != spoilt
    (note,) = data.glob("*.txt")
    note.unlink()
    assert told(path) == ""
    catalog.close()
    mend(path, unclean=True)
    assert told(path) == ""


@pytest.mark.parametrize("damage", [spoil_pages, cut])
def test_without_a_copy_it_is_made_of_what_can_still_be_read(data, damage):
    path = data / "catalog.db"
    shutil.rmtree(data / "backups")
    damage(path)
    mend(path, unclean=True)
    db = Catalog(path).db
    assert "made anew of what could be read" in told(path)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    assert db.execute("pragma foreign_key_check").fetchall() == []
    assert COUNT / 10 < db["videos"].count < COUNT
    assert records.streamer_id(db, "ann") == 1


@pytest.mark.parametrize("damage", [garbage, empty, zeros])
def test_where_nothing_can_be_read_the_library_begins_anew_and_the_operator_is_told(data, damage):
    path = data / "catalog.db"
    shutil.rmtree(data / "backups")
    (data / "covers").mkdir()
    damage(path)
    mend(path, unclean=False)
    assert Catalog(path).db["videos"].count == 0
    assert len(aside(data)) == 1
    assert "made anew from the folders" in told(path)


def test_a_whole_catalog_a_new_one_and_one_deleted_on_purpose_are_left_alone(data, tmp_path):
    path = data / "catalog.db"
    before = path.read_bytes()
    for unclean in (True, False):
        mend(path, unclean=unclean)
    assert path.read_bytes() == before
    path.unlink()
    mend(path, unclean=False)
    new = tmp_path / "new" / "catalog.db"
    new.parent.mkdir()
    mend(new, unclean=True)
    new.touch()
    mend(new, unclean=False)
    assert not path.exists()
    assert (told(path), told(new), aside(data), new.stat().st_size) == ("", "", [], 0)


def test_a_log_that_lost_its_catalog_is_kept_aside_and_not_played_into_another_one(data):
    path = data / "catalog.db"
    log = Path(f"{path}-wal")
    log.write_bytes(b"something")
    path.unlink()
    mend(path, unclean=False)
    assert Catalog(path).db["videos"].count == 0
    assert len(list(data.glob("catalog.db.corrupt-*-wal"))) == 1


def test_a_copy_of_a_newer_biliupd_is_not_used_and_a_newer_catalog_is_not_touched(data):
    path = data / "catalog.db"
    (kept,) = (data / "backups").iterdir()
    newer = connect(kept)
    newer["_sqlite_migrations"].insert({"migration_set": "biliupd", "name": "of_tomorrow", "applied_at": ""})
    newer.conn.close()
    before = kept.read_bytes()
    shutil.copy(kept, data / "newer.db")
    with pytest.raises(PermanentError, match=r"newer biliupd.*of_tomorrow"):
        rebuild(data / "newer.db")
    garbage(path)
    mend(path, unclean=False)
    assert kept.read_bytes() == before == (data / "newer.db").read_bytes()
    assert "made anew from the folders" in told(path)


def test_after_a_restore_whatever_would_be_sent_is_looked_up_first(data):
    path = data / "catalog.db"
    catalog = Catalog(path)
    began = catalog.made_at
    catalog.close()
    spoil_pages(path)
    mend(path, unclean=True)
    catalog = Catalog(path)
    assert catalog.made_at > began
    row = submissions.get(catalog.db, 1)
    assert (row["state"], row["filenames"], row["submit_started_at"]) == ("submitting", '["f1"]', AT)
    assert submissions.get(catalog.db, 3)["state"] == "published"


def test_a_copy_that_somebody_puts_in_the_catalogs_place_is_doubted_once(data):
    path = data / "catalog.db"
    (kept,) = (data / "backups").iterdir()
    shutil.copy(kept, path)
    mend(path, unclean=False)
    for doubted in (True, False):
        catalog = Catalog(path)
        began = catalog.made_at
        heed_copy(path, catalog.db)
        assert (catalog.made_at > began) is doubted
        assert submissions.get(catalog.db, 1)["state"] == "submitting"
        catalog.close()
    assert told(path).count("is a copy that somebody put there") == 1


def test_no_room_for_the_mended_one_loses_nothing(data, monkeypatch):
    path = data / "catalog.db"
    garbage(path)

    def full(part: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "put_in_place", full)
    with pytest.raises(TemporaryError, match="No space left"):
        mend(path, unclean=False)
    monkeypatch.undo()
    mend(path, unclean=True)
    assert videos(path) == COUNT
    assert len(aside(data)) == 1


# -- rebuild -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [None, spoil_pages, garbage, Path.unlink])
def test_rebuild_carries_over_what_no_folder_tells_and_forgets_what_a_scan_finds(data, damage):
    path = data / "catalog.db"
    catalog = Catalog(path)
    with catalog.db.conn:
        rows(catalog.db, "users").insert({"username": "u", "password_hash": "h", "created_at": AT})
        catalog.db.execute("update videos set pinned = 1 where id = 2")
        assert move(catalog.db, 4, State.READY, State.HELD)
    catalog.close()
    (data / "backups").joinpath("later.db").write_bytes(path.read_bytes())
    if damage:
        damage(path)
    made = rebuild(path)
    db = Catalog(path).db
    sent = COUNT // 3
    assert (made.videos, made.submissions) == (sent + 2, sent + 1)
    assert (made.unreadable > 0) == (damage in (spoil_pages, garbage))
    assert len(made.sources) == (2 if damage is spoil_pages else 1)
    assert {row["id"] for row in db.query("select id from videos where bvid is null")} == {1, 2}
    published = "select count(*) from videos where state = 'published' and bvid = 'BV' || id"
    assert db.execute(published).fetchone() == (sent,)
    assert db["users"].count == 1
    assert db["uploads"].count == sent + 1
    assert submissions.get(db, 1)["state"] == "submitting"
    assert db.execute("pragma foreign_key_check").fetchall() == []
    assert ailment(path, thorough=True) == ""
    assert len(aside(data, "before")) == (0 if damage is Path.unlink else 1)
    assert not list(data.glob("*.part*"))


def test_a_log_cut_at_any_byte_leaves_a_whole_catalog(tmp_path):
    """What a disk that lies leaves of a power cut: the file as it is, its log shorter."""
    live = Catalog(tmp_path / "live.db")
    fill(live, 40)
    chance = random.Random(5)
    log = Path(f"{live.path}-wal").read_bytes()
    for n in range(25):
        data = tmp_path / str(n)
        data.mkdir()
        shutil.copy(live.path, data / "catalog.db")
        (data / "catalog.db-wal").write_bytes(log[: chance.randrange(len(log))])
        mend(data / "catalog.db", unclean=True)
        catalog = Catalog(data / "catalog.db")
        assert catalog.db["videos"].count in range(41)
        assert catalog.db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert told(catalog.path) == ""
        catalog.close()


def test_what_sqlite_says_of_other_mistakes_stays_a_bug(catalog):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        catalog.db.execute("select * from nowhere")
