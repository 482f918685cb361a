"""The settler's rules, without a file system."""

import pytest

from biliupd.watch.listing import Entry
from biliupd.watch.settle import Settled, Settler, Wait, subject_of

QUIET, LIMIT = 5.0, 20.0


def entry(path: str, size: int = 1, mtime: int = 1, inode: int = 1) -> Entry:
    return Entry(path, size, mtime, 0, inode, 1)


class Disk:
    """How paths look; counts the looks."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[Entry, ...] | None] = {}
        self.open: set[str] = set()
        self.wait: Wait | None = None
        self.changed_at: float | None = None  # as the files' own times say
        self.hears = False
        self.now = 0.0
        self.looks = 0

    def look(self, subject: str) -> tuple[Entry, ...] | None:
        self.looks += 1
        return self.files.get(subject, ())

    def is_open(self, entries: tuple[Entry, ...]) -> bool:
        return any(found.path in self.open for found in entries)

    def quiet_seconds(self, subject: str) -> float:
        return QUIET

    def age_seconds(self, entries: tuple[Entry, ...]) -> float | None:
        return None if self.changed_at is None else max(0.0, self.now - self.changed_at)

    def told(self, subject: str) -> bool:
        return self.hears

    def unfinished(self, entries: tuple[Entry, ...]) -> Wait | None:
        return self.wait


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def settler(disk: Disk) -> Settler:
    return Settler(LIMIT, disk)


def run(settler: Settler, start: float, end: float, step: float = 0.5) -> list[tuple[float, Settled]]:
    """Turn the settler through a stretch of time; (when, what) for each report."""
    found: list[tuple[float, Settled]] = []
    now = start
    while now <= end:
        settler._eyes.now = now
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


def test_a_file_at_rest_settles_a_quiet_time_after_its_own_last_change(settler, disk):
    disk.hears, disk.changed_at = True, 98.5
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    assert [now for now, _ in run(settler, 100, 110)] == [103.5]
    assert disk.looks == 2


@pytest.mark.parametrize(("changed_at", "settles_at"), [(0.0, 102.5), (200.0, 107.5), (102.0, 107.0)])
def test_times_of_long_ago_or_of_the_future_neither_hurry_nor_delay_it_for_long(settler, disk, changed_at, settles_at):
    disk.hears, disk.changed_at = True, changed_at
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    assert [now for now, _ in run(settler, 100, 120)] == [settles_at]


def test_what_a_scan_finds_again_and_again_settles_all_the_same(settler, disk):
    disk.files["a"] = (entry("a"),)
    found = []
    for now in range(100, 112):
        settler.find("a", now)
        found += [(now, item.path) for item in settler.turn(now)]
        if found:
            break
    assert found == [(105, "a")]


def test_a_scan_that_comes_late_does_not_begin_the_quiet_time_late(settler, disk):
    disk.hears, disk.changed_at = True, 97.0
    disk.files["a"] = (entry("a"),)
    settler.find("a", 100, age_seconds=3.0)
    assert [now for now, _ in run(settler, 100, 120)] == [102]


def test_what_is_not_whole_is_looked_at_with_growing_pauses_and_taken_in_the_end(settler, disk):
    disk.wait = Wait("its end is missing", 150.0, 60.0)
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    looks = []
    for now in range(100, 300):
        before = disk.looks
        found = [item for item in settler.turn(now) if not item.growing]
        looks += [now] * (disk.looks - before)
        if found:
            break
        assert now < 105 or settler.waits == {"a": "its end is missing"}
    assert looks == [100, 105, 110, 120, 140, 180, 240, 250]
    assert (now, settler.waits) == (250, {})


def test_what_waits_and_changes_begins_anew(settler, disk):
    disk.wait = Wait("it is empty", float("inf"), 60.0)
    disk.files["a"] = (entry("a", size=0),)
    settler.note("a", 100)
    assert run(settler, 100, 1000) == []  # an empty file is not even told as growing
    disk.files["a"], disk.wait = (entry("a"),), None
    settler.note("a", 1000)
    assert [item.growing for _, item in run(settler, 1000, 1006)] == [False]
    assert settler.waits == {}


def test_a_look_that_fails_for_whatever_reason_is_repeated(settler, disk, monkeypatch):
    disk.files["a"] = (entry("a"),)
    settler.note("a", 100)
    settler.turn(100)
    look = disk.look
    monkeypatch.setattr(disk, "look", lambda subject: {}[subject])
    with pytest.raises(KeyError):
        settler.turn(105)
    monkeypatch.setattr(disk, "look", look)
    assert [item.path for _, item in run(settler, 105, 120)] == ["a"]


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


def test_a_directory_is_not_listed_for_each_event_in_it(settler, disk):
    disk.hears = True
    disk.files["d"] = tuple(entry(f"d/{n}.ts") for n in range(17))
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
