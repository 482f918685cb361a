"""Which rows changed, told by number."""

import random
import threading

import pytest

from biliupd.catalog import changes, library, records, streamers, submissions, tasks
from biliupd.catalog.changes import Change
from biliupd.catalog.database import Catalog, connect, write
from biliupd.catalog.states import Stage, State


def notice(db, key, text="text"):
    records.notice(db, key, text)


def test_each_row_is_told_once_with_its_last_change_whoever_wrote_it(catalog):
    db = catalog.db
    before = changes.latest(db)
    notice(db, "a")
    notice(db, "b")
    other = connect(catalog.path)
    records.streamer_id(other, "ann")
    other.conn.close()
    notice(db, "a", "other")
    notice(db, "b", "")
    found = changes.since(db, before)
    assert [(kind, row) for kind, row, _ in found] == [("streamer", 1), ("notice", "a"), ("notice", "b")]
    assert found[-1].seq == changes.latest(db)
    assert changes.since(db, found[1].seq) == [found[-1]]
    assert changes.since(db, changes.latest(db)) == []


def test_what_was_rolled_back_never_changed(catalog):
    before = changes.latest(catalog.db)
    catalog.db.conn.execute("begin immediate")
    notice(catalog.db, "a")
    assert changes.latest(catalog.db) == before + 1
    catalog.db.conn.rollback()
    assert changes.latest(catalog.db) == before


def test_who_was_away_too_long_or_looks_at_another_catalog_is_told_so(catalog):
    db = catalog.db
    for number in range(30):
        notice(db, f"n{number}")
    last = changes.latest(db)
    assert changes.since(db, last + 1) is None
    assert changes.since(db, 0, most=29) is None
    assert len(changes.since(db, 0, most=30)) == 30
    changes.prune(db, keep=10)
    assert changes.since(db, last - 11) is None
    assert [seq for *_, seq in changes.since(db, last - 10)] == list(range(last - 9, last + 1))
    changes.prune(db, keep=0)
    assert changes.latest(db) == last, "numbers go on although nothing is kept"
    assert changes.since(db, last) == []
    assert changes.since(db, last - 1) is None
    notice(db, "more")
    assert changes.since(db, last) == [Change("notice", "more", last + 1)]


def test_a_reading_is_one_state_however_much_is_written_meanwhile(catalog):
    stop = threading.Event()

    def write_on():
        mine = Catalog(catalog.path)
        for number in range(10_000):
            if stop.is_set():
                break
            with write(mine.db):
                notice(mine.db, "number", str(number))
                records.account(mine.db, "number", "ok", str(number))
        mine.close()

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        seen = set()
        while len(seen) < 30:
            with changes.reading(catalog.db) as seq:
                (told,) = catalog.db.execute("select max(text) from notices").fetchone()
                if told is None:
                    continue
                with changes.reading(catalog.db) as again:
                    assert again == seq
                assert catalog.db.execute("select reason from accounts").fetchone() == (told,)
                assert changes.latest(catalog.db) == seq
                seen.add(seq)
    finally:
        stop.set()
        thread.join()
    assert not catalog.db.conn.in_transaction


@pytest.fixture
def full(catalog):
    """Streamers, their tasks, and videos of two submissions, one of them a part."""
    db = catalog.db
    records.keep_streamers(db, [
        {"name": name, "platform": "twitch", "url": f"https://twitch.tv/{name}", "check_interval": 60, "auto_upload": 1}
        for name in ("ann", "bob", "Cid_x")
    ])  # fmt: skip
    for number in range(30):
        records.task_started(db, f"t{number}", 1 + number % 2, f"b{number}", 1, f"2026-01-01T00:00:{number:02}")
        if number < 28:
            records.task_stopped(db, f"t{number}", "over", "2026-01-02")
    facts = dict.fromkeys(("title", "cover_url", "live_id", "file"), "")
    records.broadcast(db, {**facts, "id": "b3", "streamer_id": 1, "parts": 1, "directory": "/r/b3", "title": "the show",
                           "started_at": "2026-01-01", "ended_at": None})  # fmt: skip
    with write(db):
        db.execute("insert into submissions (key, broadcast_id, state, since, created_at) values"
                   " ('broadcast:b3', 'b3', 'collecting', '', ''), ('file:9', null, 'published', '', '')")
        for number in range(300):
            db.execute(
                "insert into videos (title, file_path, root, path, parent_path, kind, file_size, mtime_ns, inode,"
                " device, state, since, created_at, submission_id) values (?, ?, '/r', '', '', 'file', 10, 0, 0, 0, ?,"
                " '', '', ?)",
                [f"video {number}", f"/r/{number}", list(State)[number % 10], 1 if number < 3 else None])
        db.execute("insert into uploads (video_id, bytes_total, bytes_sent, started_at) values (1, 25, 5, '')")
        db.execute("insert into uploads (video_id, bytes_total, bytes_sent, started_at, finished_at)"
                   " values (2, 10, 10, '', 'then')")
    return db


@pytest.mark.parametrize(("asked", "names"), [
    ({}, ["ann", "bob", "Cid_x"]), ({"descending": True}, ["Cid_x", "bob", "ann"]), ({"text": "_X"}, ["Cid_x"]),
    ({"text": "tv/B"}, ["bob"]), ({"text": "%"}, []), ({"status": "live"}, []),
    ({"source": "yaml", "limit": 1}, ["ann"]), ({"mode": "paused"}, []),
    ({"sort": "priority", "descending": True}, ["bob", "Cid_x", "ann"]),
    ({"sort": "created_at", "offset": 2}, ["Cid_x"]),
])  # fmt: skip
def test_streamers_come_in_pages(full, asked, names):
    full.execute("update streamers set settings = '{\"priority\": 5}' where name = 'bob'")
    full.execute("update streamers set settings = '{\"priority\": -5}' where name = 'ann'")
    found, total = streamers.page(full, **asked)
    assert [row["name"] for row in found] == names
    assert total == (3 if {"limit", "offset"} & set(asked) else len(names))


def test_a_streamer_that_is_no_longer_wanted_is_not_told_of(full):
    records.keep_streamers(full, [])
    assert streamers.page(full) == ([], 0)
    assert streamers.some(full, [1, 2]) == streamers.named(full, ["ann"]) == []
    assert streamers.counts(full) == {}


def test_tasks_come_newest_first_and_those_of_now_with_the_last_that_ended(full):
    found, total = tasks.page(full, limit=2, offset=1)
    assert [row["id"] for row in found] == ["t28", "t27"]
    assert total == 30
    assert tasks.page(full, status="recording", streamer_id=1)[1] == 1
    assert [row["id"] for row in tasks.running(full)] == ["t29", "t28"]
    assert [row["id"] for row in tasks.current(full, ended=2)] == ["t29", "t28", "t27", "t26"]
    (row,) = tasks.some(full, ["t3", "nothing"])
    assert (row["streamer"], row["title"]) == ("bob", "the show")
    assert tasks.of_broadcasts(full, ["b3", "b29"]) == ["t29", "t3"]
    assert tasks.streamers_of(full, ["t3", "t5"]) == [2]


def test_submissions_come_with_the_sums_of_their_parts(full):
    found, total = submissions.page(full)
    assert total == 2
    assert [row["id"] for row in found] == [2, 1]
    one = found[1]
    assert (one["parts"], one["parts_uploaded"], one["bytes_total"], one["bytes_sent"]) == (3, 1, 45, 15)
    assert (one["streamer"], one["show"]) == ("ann", "the show")
    assert (found[0]["parts"], found[0]["bytes_total"], found[0]["show"]) == (0, 0, "")
    assert submissions.page(full, "SHOW")[0] == [one]
    assert submissions.page(full, states=[Stage.PUBLISHED, Stage.HELD])[0] == [found[0]]
    assert submissions.page(full, "%")[1] == 0
    assert submissions.showing(full, [1, 2, 9], []) == submissions.showing(full, [], ["b3"]) == [1]
    assert [row["id"] for row in submissions.current(full, newest=1)] == [2, 1]
    assert [row["id"] for row in submissions.current(full, newest=1, most=0)] == [2]


def test_the_library_of_now_is_what_came_last_and_what_is_at_work(full):
    found = library.current(full, newest=5, most=3)
    assert [row["id"] for row in found[:5]] == [299, 298, 297, 296, 295]
    states = [row["state"] for row in found[5:]]
    assert {state: states.count(state) for state in set(states)} == {
        "recording": 3, "editing": 3, "uploading": 2, "held": 2}  # fmt: skip
    mixed = random.sample(found, len(found))
    assert library.some(full, [row["id"] for row in mixed]) == mixed
    assert library.some(full, [1])[0]["bytes_sent"] == 5
    assert library.total(full) == 270


@pytest.mark.parametrize(("ask", "not_through"), [
    (lambda db: changes.since(db, 1), "videos"), (lambda db: library.some(db, [1, 2]), "videos"),
    (lambda db: tasks.running(db), "tasks"), (lambda db: submissions.some(db, [1]), "videos"),
    (lambda db: submissions.showing(db, [1], ["b3"]), "videos"), (lambda db: submissions.current(db), "videos"),
    (lambda db: tasks.page(db), "streamers"), (lambda db: library.of_submission(db, 1), "videos"),
    (lambda db: library.page(db, library.Wanted(broadcast="b3")), "uploads"),
])  # fmt: skip
def test_no_question_reads_a_whole_table_that_grows(full, ask, not_through):
    asked: list[str] = []
    full.conn.set_trace_callback(asked.append)
    ask(full)
    full.conn.set_trace_callback(None)
    plans = [row[3] for text in asked if text.startswith("select")
             for row in full.execute(f"explain query plan {text}").fetchall()]  # fmt: skip
    short = {"videos": "v", "tasks": "t", "streamers": "s", "uploads": "u"}[not_through]
    scans = [step for step in plans if step.startswith("SCAN") and "USING" not in step]
    assert plans
    assert not {f"SCAN {not_through}", f"SCAN {short}"} & set(scans), plans
