import sqlite3
import threading

import pytest
from sqlite_utils import Database

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, write
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
