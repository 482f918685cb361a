"""The library by the time at which its files were written."""

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlite_utils import Database

from biliupd.catalog import library, records, sync
from biliupd.catalog.database import Catalog, connect, stamp
from biliupd.catalog.library import Wanted
from biliupd.catalog.schema import migrations
from biliupd.catalog.states import State
from biliupd.catalog.sync import Changes, Found

DAY = datetime(2026, 11, 1, tzinfo=UTC)
BEIJING = timezone(timedelta(hours=8))
MANY = 100_000


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def put(db: Database, *files: tuple[str, int, int | None]) -> None:
    """Rows of files as a scan finds them: path, mtime in nanoseconds, streamer."""
    first = db.execute("select coalesce(max(inode), 0) + 1 from videos").fetchone()[0]
    sync.apply(db, Changes(added=[
        Found(f"/r/{path}", "/r", "file", 1, mtime_ns, first + n, 1, False, path, None, streamer)
        for n, (path, mtime_ns, streamer) in enumerate(files)
    ]))  # fmt: skip


def titles(db: Database, wanted: Wanted = library.ALL, **how) -> list[str]:
    return [video["title"] for video in library.page(db, wanted, **how)]


def test_a_catalog_made_anew_of_the_folders_shows_the_newest_first(catalog):
    put(catalog.db, *((f"{day:02}", ns(DAY + timedelta(days=day)), None) for day in (3, 9, 1, 7, 5)))
    assert titles(catalog.db) == ["09", "07", "05", "03", "01"]
    assert titles(catalog.db, descending=False) == ["01", "03", "05", "07", "09"]
    assert titles(catalog.db, sort="created_at") == ["05", "07", "01", "09", "03"]


@pytest.mark.parametrize(("mtime_ns", "shown"), [
    (ns(DAY), "2026-11-01T00:00:00.000+00:00"), (ns(DAY) + 999_999, "2026-11-01T00:00:00.000+00:00"),
    (1, "1970-01-01T00:00:00.000+00:00"), (2**63 - 1, "2262-04-11T23:47:16.854+00:00"), (0, None), (-1, None),
])  # fmt: skip
def test_a_file_without_a_time_is_as_old_as_its_row(catalog, mtime_ns, shown):
    put(catalog.db, ("a", mtime_ns, None))
    (row,) = library.page(catalog.db)
    assert library.recorded_at(row) == (shown or row["created_at"])


def test_what_is_shown_what_is_sorted_by_and_what_is_filtered_by_are_the_same(catalog):
    db, chance = catalog.db, random.Random(7)
    put(db, *((f"{n}", chance.choice((0, -5, ns(DAY) + chance.randrange(10**12))), None) for n in range(200)))
    for id in range(1, 201):
        at = stamp(DAY + timedelta(milliseconds=chance.randrange(10**6)))
        db.execute("update videos set created_at = ? where id = ?", [at, id])
    db.conn.commit()
    found = library.page(db, limit=200)
    shown = [library.recorded_at(row) for row in found]
    assert shown == sorted(shown, reverse=True)
    assert len({row["id"] for row in found}) == 200
    for at in map(datetime.fromisoformat, shown[::20]):
        after, before = Wanted(recorded_after=at), Wanted(recorded_before=at)
        assert [library.recorded_at(row) for row in library.page(db, after, limit=200)] == [
            one for one in shown if one >= stamp(at)]  # fmt: skip
        assert library.total(db, after) + library.total(db, before) == 200


def test_files_of_the_same_moment_are_in_one_order_and_no_page_doubles_or_loses_one(catalog):
    db = catalog.db
    put(db, *((f"{n:03}", ns(DAY) if n % 3 else 0, None) for n in range(100)))
    for descending in (True, False):
        seen: list[str] = []
        for offset in range(0, 100, 7):
            seen += titles(db, descending=descending, limit=7, offset=offset)
            db.execute("update videos set state = 'ready' where id % 7 = ?", [offset % 7])  # changes no place
        assert sorted(seen) == [f"{n:03}" for n in range(100)]
    assert titles(db, limit=100) == titles(db, limit=100, descending=False)[::-1]


@pytest.mark.parametrize(("wanted", "expected"), [
    (Wanted(recorded_after=DAY + timedelta(days=1)), ["4", "3", "2", "1"]),
    (Wanted(recorded_before=DAY + timedelta(days=1)), ["0"]),
    (Wanted(recorded_after=DAY + timedelta(days=1), recorded_before=DAY + timedelta(days=3)), ["2", "1"]),
    (Wanted(recorded_after=DAY + timedelta(days=3), recorded_before=DAY + timedelta(days=3)), []),
    (Wanted(recorded_after=DAY + timedelta(days=4), recorded_before=DAY), []),
    (Wanted(recorded_after=DAY + timedelta(days=4, microseconds=1)), []),
    (Wanted(recorded_after=datetime(2026, 11, 3, 8, tzinfo=BEIJING), recorded_before=DAY.replace(day=4)), ["2"]),
    (Wanted("3", recorded_after=DAY), ["3"]), (Wanted("ann", recorded_after=DAY.replace(day=2)), ["3", "1"]),
    (Wanted(streamer="ann", recorded_before=DAY.replace(day=3)), ["1"]),
    (Wanted(streamer="nobody", recorded_after=DAY), []),
    (Wanted(states=(State.MISSING, State.HELD), recorded_after=DAY), ["5", "0"]),
    (Wanted(root="/r", recorded_after=DAY.replace(day=5)), ["4"]), (Wanted(root="/x", recorded_after=DAY), []),
    (Wanted("3", "ann", (State.RECORDED,), "/r", "", DAY, DAY.replace(day=9)), ["3"]),
])  # fmt: skip
def test_a_list_may_be_of_some_days_and_of_whatever_else_is_asked(catalog, wanted, expected):
    db = catalog.db
    ann = records.streamer_id(db, "ann")
    put(db, *((f"{n}", ns(DAY + timedelta(days=n)), ann if n % 2 else None) for n in (2, 0, 4, 1, 3, 5)))
    db.execute("update videos set state = case title when '5' then 'missing' when '0' then 'held' else state end")
    db.conn.commit()
    assert titles(db, wanted) == expected
    assert titles(db, wanted, sort="title") == sorted(expected)[::-1]
    assert library.total(db, wanted) == len(expected)
    assert titles(db, wanted, limit=1, offset=1) == expected[1:2]


def test_a_file_that_grows_comes_up_with_what_is_written_to_it(catalog):
    db = catalog.db
    put(db, ("live", ns(DAY), None), ("dropped", ns(DAY) + 5, None))
    db.execute("update videos set state = 'recording' where title = 'live'")
    (row,) = sync.rows_by_id(db, [1])
    grown = Found("/r/live", "/r", "file", 2, ns(DAY) + 9, 1, 1, True, "live")
    sync.apply(db, Changes(changed=[(row, grown)]))
    assert titles(db) == ["live", "dropped"]


def test_a_catalog_of_before_is_brought_up_to_date(tmp_path):
    path = tmp_path / "catalog.db"
    db = connect(path)
    migrations.apply(db, stop_before="by_date")
    assert "videos_recorded" not in {index.name for index in db["videos"].indexes}
    put(db, ("new", ns(DAY) + 1, None), ("old", ns(DAY), None))
    db.conn.close()
    catalog = Catalog(path)
    assert titles(catalog.db) == ["new", "old"]
    assert {"videos_recorded", "videos_of_streamer"} <= {index.name for index in catalog.db["videos"].indexes}


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Database:
    db = Catalog(tmp_path_factory.mktemp("many") / "catalog.db").db
    ann = records.streamer_id(db, "ann")
    db.execute(
        "insert into videos (title, streamer_id, file_path, root, path, parent_path, kind, file_size, mtime_ns, inode,"
        " device, state, since, created_at) with recursive n(n) as (select 0 union all select n + 1 from n limit ?)"
        " select 'show ' || n, iif(n % 5, null, ?), '/r/' || n, '/r', n, '', 'file', 1, ? + n * 7919 % 100003 * 1000,"
        " n, 1, iif(n % 20, 'published', 'held'), '', '' from n",
        [MANY, ann, ns(DAY)],
    )
    db.conn.commit()
    return db


SOME = Wanted(recorded_after=DAY, recorded_before=DAY + timedelta(milliseconds=20))


@pytest.mark.parametrize(("wanted", "rows"), [
    (library.ALL, MANY), (SOME, 20_000), (SOME._replace(states=(State.HELD,)), 1000),
    (Wanted(streamer="ann"), MANY // 5), (SOME._replace(streamer="ann"), 4000), (SOME._replace(root="/r"), 20_000),
    (Wanted(states=(State.PUBLISHED,)), 95_000), (SOME._replace(text="show 7"), 2222),
])  # fmt: skip
@pytest.mark.parametrize("descending", [True, False])
def test_no_page_by_date_is_sorted_and_the_first_costs_what_it_shows(many, wanted, rows, descending):
    asked: list[str] = []
    steps = [0]
    many.conn.set_trace_callback(asked.append)
    many.conn.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1000)
    found = library.page(many, wanted, descending=descending)
    many.conn.set_progress_handler(None, 0)
    many.conn.set_trace_callback(None)
    plan = [row[3] for row in many.execute(f"explain query plan {asked[0]}").fetchall()]
    assert len(found) == 50
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    assert steps[0] < (20 if not wanted.text else 3000), plan
    assert abs(library.total(many, wanted) - rows) < rows / 50
    times = [row["mtime_ns"] for row in found]
    assert times == sorted(times, reverse=descending)
