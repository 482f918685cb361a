import errno
import os
import random
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlite_utils import Database

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, Damaged, ailment, connect, copy, file_system, write
from biliupd.errors import PermanentError, TemporaryError

DESIGNED = {
    "streamers": "id name platform url check_interval auto_upload status created_at updated_at",
    "tasks": "id streamer_id pid status started_at stopped_at",
    "videos": "id streamer_id task_id title file_path file_size duration bvid uploaded_at created_at path parent_path",
    "users": "id username password_hash created_at",
    "sessions": "id user_id token expires_at created_at",
    "submissions": "id bvid",
    "uploads": "video_id",
    "accounts": "name",
    "moves": "id old new at",
}


@pytest.mark.parametrize("table", DESIGNED)
def test_the_tables_of_the_design_are_there(catalog, table):
    assert set(DESIGNED[table].split()) <= set(catalog.db[table].columns_dict)


def test_a_second_opening_changes_nothing(catalog):
    before = list(catalog.db.query("select * from _sqlite_migrations"))
    assert before == list(Catalog(catalog.path).db.query("select * from _sqlite_migrations"))


def test_wal_foreign_keys_and_full_sync_hold_on_every_threads_own_connection(catalog):
    seen = []

    def look():
        db = catalog.db
        pragmas = ("journal_mode", "foreign_keys", "synchronous")
        seen.append((id(db), [db.execute(f"pragma {name}").fetchone()[0] for name in pragmas]))

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [found for _, found in seen] == [["wal", 1, 2]] * 3
    with pytest.raises(sqlite3.IntegrityError):
        catalog.db["sessions"].insert({"user_id": 7, "token": "t", "expires_at": "", "created_at": ""})


def test_a_newer_database_is_refused_and_left_as_it_is(catalog):
    catalog.db["_sqlite_migrations"].insert({"migration_set": "biliupd", "name": "of_tomorrow", "applied_at": ""})
    catalog.db.conn.close()
    before = catalog.path.read_bytes()
    with pytest.raises(PermanentError, match=r"newer biliupd.*of_tomorrow"):
        Catalog(catalog.path)
    assert catalog.path.read_bytes() == before


def test_a_file_that_is_no_database_is_named_with_a_remedy(tmp_path):
    (tmp_path / "catalog.db").write_text("not a database, " * 100)
    with pytest.raises(PermanentError, match=r"catalog\.db") as caught:
        Catalog(tmp_path / "catalog.db")
    assert "backup" in caught.value.hint


def test_threads_that_write_at_once_lose_nothing(catalog):
    def add(prefix):
        for n in range(50):
            records.notice(catalog.db, f"{prefix}{n}", "x")

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records.notices(catalog.db)) == 200


def test_a_database_that_stays_busy_is_a_temporary_error_and_keeps_nothing(catalog):
    other = Database(sqlite3.connect(catalog.path, timeout=0))
    catalog.db.conn.execute("pragma busy_timeout = 50")
    other.conn.execute("begin immediate")
    with pytest.raises(TemporaryError, match="cannot be written"):
        records.notice(catalog.db, "a", "x")
    other.conn.rollback()
    records.notice(catalog.db, "b", "x")
    assert [notice["key"] for notice in records.notices(catalog.db)] == ["b"]


def test_a_failing_block_leaves_no_half_of_it(catalog):
    def half():
        with write(catalog.db):
            catalog.db["notices"].insert({"key": "half", "text": "x", "since": ""})
            raise ValueError

    with pytest.raises(ValueError):
        half()
    assert records.notices(catalog.db) == []
    assert not catalog.db.conn.in_transaction


def test_a_full_disk_is_a_temporary_error_that_names_file_and_remedy_and_what_was_there_stays(catalog):
    records.notice(catalog.db, "before", "x")
    (pages,) = catalog.db.execute("pragma page_count").fetchone()
    catalog.db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(TemporaryError, match=r"cannot be written: .*catalog\.db: the disk is full") as caught:
        records.notice(catalog.db, "large", "x" * 100_000)
    assert caught.value.hint
    assert not catalog.db.conn.in_transaction
    catalog.db.execute("pragma max_page_count = 100000")
    records.notice(catalog.db, "after", "x")
    assert [notice["key"] for notice in records.notices(catalog.db)] == ["before", "after"]
    assert ailment(catalog.path, thorough=True) == ""


def test_damage_met_by_any_thread_is_known_to_the_catalog_and_no_error_to_try_again(catalog):
    for n in range(300):
        records.notice(catalog.db, f"{n}", "x" * 500)
    catalog.db.execute("pragma wal_checkpoint(truncate)")
    assert catalog.trouble() == ""
    size = catalog.path.stat().st_size
    with catalog.path.open("r+b") as file:
        file.seek(size // 2)
        file.write(random.Random(1).randbytes(size // 2))
    raised = []

    def look():
        for ask in (records.notices, lambda db: list(db.execute("select * from notices")), lambda db: records.notice(
            db, "299", "y")):
            try:
                ask(catalog.db)
            except Damaged as error:
                raised.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(raised) == 3
    assert "is damaged" in catalog.trouble()


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_file_that_was_deleted_or_replaced_is_noticed(catalog, ending):
    path = Path(f"{catalog.path}{ending}")
    assert catalog.trouble() == ""
    content = path.read_bytes()
    path.rename(f"{path}.away")
    assert "was deleted or replaced" in catalog.trouble()
    path.write_bytes(content)
    assert "was deleted or replaced" in catalog.trouble()


def test_a_kill_in_a_transaction_or_a_checkpoint_loses_nothing_that_was_acknowledged(tmp_path):
    """A child writes and checkpoints as fast as it can and says how far it is; SIGKILL comes at any moment."""
    path, chance = tmp_path / "catalog.db", random.Random(3)
    Catalog(path).close()
    for kill in range(12):
        read, told = os.pipe()
        child = os.fork()
        if child == 0:
            db = connect(path)
            for n in range(100_000):
                with write(db):
                    db.execute("insert into notices values (?, ?, '')", [f"{kill}:{n}", "x" * 3000])
                os.write(told, b".")
                db.execute("pragma wal_checkpoint(truncate)" if n % 3 == 0 else "select 1")
            os._exit(0)
        os.close(told)
        seen = 0
        for _ in range(chance.randrange(1, 40)):
            seen += len(os.read(read, 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen += len(os.read(read, 1_000_000))
        os.close(read)
        db = connect(path)
        (count,) = db.execute("select count(*) from notices where key like ?", [f"{kill}:%"]).fetchone()
        assert count in (seen, seen + 1)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.conn.close()


MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /mnt/nas rw - nfs4 nas:/export rw
31 30 8:1 / /mnt/nas/disk rw - xfs /dev/sda1 rw
32 22 0:51 / /mnt/with\040space rw shared:7 - cifs //nas/x rw
33 22 0:52 / /mnt/home rw - fuse.sshfs me@host: rw
34 22 8:2 / /mnt/over rw - nfs nas:/x rw
35 34 8:3 / /mnt/over rw - ext4 /dev/sdb rw
a line that is none
""".replace("\\\\", "\\")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data", "ext4"), ("/mnt/nas", "nfs4"), ("/mnt/nas/a/b", "nfs4"), ("/mnt/nas2", "ext4"),
        ("/mnt/nas/disk/a", "xfs"), ("/mnt/with space/a", "cifs"), ("/mnt/home/me", "fuse.sshfs"),
        ("/mnt/over/a", "ext4"), ("/", "ext4"),
    ],
)  # fmt: skip
def test_the_file_system_under_a_path_is_that_of_its_nearest_mount(path, kind):
    assert file_system(path, MOUNTS.splitlines()) == kind


def test_on_a_network_file_system_the_catalog_does_without_a_log(tmp_path, monkeypatch):
    monkeypatch.setattr("biliupd.catalog.database.on_network", lambda directory: "nfs4")
    catalog = Catalog(tmp_path / "catalog.db")
    records.notice(catalog.db, "a", "x")
    assert catalog.db.execute("pragma journal_mode").fetchone() == ("delete",)
    assert sorted(os.listdir(tmp_path)) == ["catalog.db"]
    assert catalog.trouble() == ""
    copy(catalog.path, tmp_path / "copy.db")
    assert ailment(tmp_path / "copy.db") == ""


def test_a_connection_that_finds_the_disk_read_only_is_trouble_and_is_not_kept(tmp_path, monkeypatch):
    """As root, nothing but a mount is read-only: here it is access(2) and chmod(2) that say so."""
    catalog = Catalog(tmp_path / "catalog.db")
    catalog.close()

    def refuse(*args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(os, "access", lambda *args: False)
        with pytest.raises(TemporaryError, match="it is read-only"):
            catalog.db.execute("select 1")
        os.chmod(catalog.path, 0o644)
        disk.setattr(os, "chmod", refuse)
        with pytest.raises(TemporaryError, match="it is read-only"):
            catalog.db.execute("select 1")
    with write(catalog.db):
        records.streamer_id(catalog.db, "ann")
    catalog.close()


def test_those_who_cannot_wait_have_connections_of_their_own(tmp_path):
    catalog = Catalog(tmp_path / "catalog.db")
    hasty = catalog.with_patience(0.05)
    assert hasty.db is not catalog.db
    other = connect(catalog.path)
    with write(other), pytest.raises(TemporaryError, match="locked"):
        records.notice(hasty.db, "a", "text")
    records.notice(hasty.db, "a", "text")
    assert [one["key"] for one in records.notices(catalog.db)] == ["a"]
    assert [one.db.execute("pragma busy_timeout").fetchone() for one in (catalog, hasty)] == [(30000,), (50,)]
    hasty._on_damage("page 3")
    assert "page 3" in catalog.trouble()
