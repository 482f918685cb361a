"""The settler's rules, without a file system."""

import pytest

from biliupd.watch.listing import Entry
from biliupd.watch.settle import MANY_ENTRIES, Settled, Settler, subject_of

QUIET, LIMIT = 5.0, 20.0


def entry(path: str, size: int = 1, mtime: int = 1, inode: int = 1) -> Entry:
    return Entry(path, size, mtime, 0, inode, 1)


class Disk:
    """How paths look; counts the looks."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[Entry, ...] | None] = {}
        self.open: set[str] = set()
        self.looks = 0

    def look(self, subject: str) -> tuple[Entry, ...] | None:
        self.looks += 1
        return self.files.get(subject, ())

    def is_open(self, entries: tuple[Entry, ...]) -> bool:
        return any(found.path in self.open for found in entries)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def settler(disk: Disk) -> Settler:
    return Settler(QUIET, LIMIT, disk.look, disk.is_open)


def run(settler: Settler, start: float, end: float, step: float = 0.5) -> list[tuple[float, Settled]]:
    """Turn the settler through a stretch of time; (when, what) for each report."""
    found: list[tuple[float, Settled]] = []
    now = start
    while now <= end:
        found += [(now, item) for item in settler.turn(now)]
        now += step
    return found


def test_a_file_settles_after_its_quiet_time(settler, disk):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    assert run(settler, 100, 104.5) == []
    assert settler.turn(105) == [Settled("a", (entry("a"),), False)]
    assert (len(settler), settler.next_at()) == (0, None)


def test_an_event_begins_the_quiet_time_anew(settler, disk):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    settler.turn(100)
    settler.note("a", 104)
    assert [now for now, _ in run(settler, 104, 120)] == [109]


@pytest.mark.parametrize("change", [{"size": 2}, {"mtime": 2}, {"inode": 2}])
def test_a_change_without_any_event_is_seen(settler, disk, change):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    settler.turn(100)
    disk.files["a"] = (entry("a", **change),)
    assert run(settler, 100.5, 120) == [(110, Settled("a", disk.files["a"], False))]


def test_a_new_ctime_alone_is_no_change(settler, disk):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    settler.turn(100)
    disk.files["a"] = (entry("a")._replace(ctime_ns=99),)
    assert [now for now, _ in run(settler, 100.5, 120)] == [105]


def test_what_changes_all_the_while_is_reported_at_every_limit(settler, disk):
    reports = []
    for now in range(100, 165):
        disk.files["a"] = (entry("a", size=now),)
        settler.note("a", now)
        reports += [(now, item.growing) for item in settler.turn(now)]
    assert reports == [(120, True), (140, True), (160, True)]
    assert [(now, item.growing) for now, item in run(settler, 165, 200)] == [(169, False)]


def test_growth_without_events_is_reported_too(settler, disk):
    settler.note("a", 100)
    reports = []
    for now in range(100, 145):
        disk.files["a"] = (entry("a", size=now),)
        reports += [(now, item.growing) for item in settler.turn(now)]
    assert reports == [(120, True), (140, True)]


def test_a_file_somebody_holds_open_only_grows(settler, disk):
    disk.files["a"] = (entry("a"),)
    disk.open.add("a")
    settler.note("a", 100)
    assert [(now, item.growing) for now, item in run(settler, 100, 130)] == [(120, True)]
    disk.open.clear()
    assert [item.growing for _, item in run(settler, 130.5, 140)] == [False]


def test_what_is_gone_settles_as_gone(settler, disk):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    settler.turn(100)
    del disk.files["a"]
    settler.note("a", 101)
    assert run(settler, 101, 110) == [(106, Settled("a", (), False))]


def test_what_is_gone_is_never_reported_as_growing(settler):
    reports = []
    for now in range(100, 145):
        settler.note("a", now)
        reports += settler.turn(now)
    assert reports == []


def test_what_cannot_be_looked_at_waits(settler, disk):
    disk.files["a"] = None
    settler.note("a", 100)
    assert run(settler, 100, 200) == []
    disk.files["a"] = (entry("a"),)
    assert [item.growing for _, item in run(settler, 200.5, 212)] == [False]


def test_a_directory_of_many_segments_is_not_listed_for_each_of_them(settler, disk):
    segments = [entry(f"d/{n}.ts") for n in range(MANY_ENTRIES + 1)]
    disk.files["d"] = tuple(segments)
    for now in range(100, 110):
        settler.note("d", now)
        settler.turn(now)
    assert disk.looks <= 2
    assert [(now, item.growing) for now, item in run(settler, 110, 130)] == [(114, False)]


def test_reports_come_in_bounded_batches_and_none_is_lost(settler, disk):
    for n in range(25):
        disk.files[str(n)] = (entry(str(n)),)
        settler.note(str(n), 100)
    assert settler.turn(100) == []
    sizes = [len(settler.turn(105, at_most=10)) for _ in range(4)]
    assert sizes == [10, 10, 5, 0]


def test_a_forgotten_path_is_not_reported(settler, disk):
    for name in ("x/a", "y/b"):
        disk.files[name] = (entry(name),)
        settler.note(name, 100)
    settler.forget(lambda subject: subject.startswith("x/"))
    assert [item.path for _, item in run(settler, 100, 110)] == ["y/b"]


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("/r/a.mp4", "/r/a.mp4"),
        ("/r/d/a.flv", "/r/d/a.flv"),
        ("/r/d/1.ts", "/r/d"),
        ("/r/d/1.M4S", "/r/d"),
        ("/r/d/index.m3u8", "/r/d"),
        ("/r/d/init.mp4", "/r/d"),
        ("/r/1.ts", "/r/1.ts"),
        ("/r/index.m3u8", "/r/index.m3u8"),
    ],
)
def test_segments_settle_with_their_directory_unless_it_is_a_root(path, subject):
    assert subject_of(path, {"/r"}) == subject
