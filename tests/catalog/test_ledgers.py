"""Which broadcasts a word means, and what is still to be merged."""

import pytest

from biliupd.catalog import ledgers, records, sync
from biliupd.catalog.sync import Changes, Found


def broadcast(db, id, streamer="ann", started_at="2026-01-01T00:00:00+00:00"):
    facts = dict.fromkeys(("title", "cover_url", "live_id", "file"), "")
    records.broadcast(db, {**facts, "id": id, "streamer_id": records.streamer_id(db, streamer), "parts": 1,
                           "directory": f"/r/{streamer}/{id}", "started_at": started_at, "ended_at": None})  # fmt: skip


@pytest.mark.parametrize(("word", "ids"), [
    ("ab12", ["ab12"]), ("ab", ["ab12", "ab13"]), ("AB13", ["ab13"]), ("ann", ["ab13"]), ("fade", ["fade1"]),
    ("cafe", ["99"]), ("/r/bob/fade1", ["fade1"]), ("nobody", []), ("", []), ("\ud800", []), ("%", []),
])  # fmt: skip
def test_a_broadcast_is_known_by_the_beginning_of_its_id_by_its_folder_or_its_streamer(catalog, word, ids):
    db = catalog.db
    broadcast(db, "ab12")
    broadcast(db, "ab13", started_at="2026-01-02T00:00:00+00:00")
    broadcast(db, "fade1", "bob", "2026-01-03T00:00:00+00:00")
    broadcast(db, "99", "cafe", "2025-01-03T00:00:00+00:00")
    assert [row["id"] for row in ledgers.find(db, word)] == ids
    assert [row["id"] for row in ledgers.latest(db, 2)] == ["fade1", "ab13"]


def test_rows_that_are_the_same_are_not_written_again(catalog):
    db = catalog.db
    broadcast(db, "b1")
    row = {"at": "x", "cause": "cut", "file": "", "media_seconds_at": 1.0, "seconds": 2.0, "detail": ""}
    ledgers.keep(db, "b1", [row])
    before = db.conn.total_changes
    ledgers.keep(db, "b1", [row])
    assert db.conn.total_changes == before
    ledgers.keep(db, "b1", [row, row])
    assert len(ledgers.of(db, "b1")) == 2
    records.forget_broadcast(db, "b1")
    assert db.execute("select count(*) from ledger").fetchone() == (0,)


def test_what_is_to_be_merged_is_counted_without_files_and_what_is_recorded_now(catalog):
    db = catalog.db
    broadcast(db, "b1")
    broadcast(db, "b2")
    sync.apply(db, Changes(added=[
        Found("/r/a/P001/index.m3u8", "/r", "playlist", 100, 1, 1, 1, False, "", "b1"),
        Found("/r/b/P001/index.m3u8", "/r", "playlist", 10, 1, 2, 1, True, "", "b2"),
        Found("/r/c.flv", "/r", "file", 1000, 1, 3, 1, False, "", "b1"),
        Found("/drop/d", "/drop", "folder", 1000, 1, 4, 1),
    ]))  # fmt: skip
    assert ledgers.unmerged_bytes(db, "/r", []) == 110
    assert ledgers.unmerged_bytes(db, "/r", ["b2"]) == 100
