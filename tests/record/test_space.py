"""Who records when places or space are short, and how long the space lasts: pure, but for the size of a disk."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from biliupd.config import RecordConfig
from biliupd.record.places import Places, Runner, Verdict, read_queue
from biliupd.record.space import Load, Space, seconds_left

GIB = 1 << 30
NOW = datetime(2026, 1, 1, 20, 0, tzinfo=UTC)
FLV = Load(8e6, 5 * GIB, merged=False)  # a megabyte a second
HLS = Load(8e6, 5 * GIB, merged=True)


@pytest.mark.parametrize(("free", "loads", "unmerged", "seconds"), [
    (10 * GIB, [], 0, math.inf),
    (10 * GIB, [Load(0, 0, merged=False)], 0, math.inf),
    (GIB + 3600 * 10**6, [FLV], 0, 3600),
    (GIB + 3600 * 10**6, [FLV, FLV], 0, 1800),
    (GIB + 3600 * 10**6, [FLV], 1800 * 10**6, 1800),
    (6 * GIB + 3600 * 10**6, [HLS], 0, 1800),  # what lies there is needed once more, and so is each byte that comes
    (GIB // 2, [FLV], 0, 0),
])
def test_how_long_the_space_lasts(free: int, loads: list[Load], unmerged: int, seconds: float) -> None:
    assert seconds_left(free, GIB, loads, unmerged) == pytest.approx(seconds)


def test_nothing_new_begins_before_the_limit_and_only_twice_as_much_is_enough_again() -> None:
    space, reserve = Space(), 120 * 10**6
    seen = []
    enough, again = GIB + reserve, 2 * GIB + reserve
    for free in (enough, enough - 1, GIB - 1, GIB, 2 * GIB, again - 1, again, 2 * GIB):
        space.look(free, GIB, [FLV])
        seen.append((space.short, space.below))
    assert seen == [(False, False), (True, False), (True, True), (True, False), (True, False), (True, False),
                    (False, False), (False, False)]


def test_the_forecast_is_said_once_anew_when_it_changes_much_and_taken_back_late() -> None:
    space = Space()
    texts = []
    for minutes_passed, hours_left in ((0, 3.1), (1, 2.9), (2, 2.88), (3, 2.87), (60, 1.0), (61, 3.2), (62, 3.8)):
        free = GIB + int(hours_left * 3600 * 10**6)
        space.forecast(free, GIB, [FLV], 0, 3.0, NOW + timedelta(minutes=minutes_passed))
        texts.append(space.warning)
    assert texts[0] == texts[-1] == ""
    assert texts[1] == texts[2] == texts[3]
    assert len(set(texts)) == 4  # none, 2.9 h, 1 h, 3.2 h
    assert f"{(NOW + timedelta(minutes=1, hours=2.9)).astimezone():%H:%M}" in texts[1]
    space.forecast(0, GIB, [FLV], 0, 0.0, NOW)
    assert space.warning == "", "0 hours: never"


class Disk:
    """Places on a disk of a size that a test says, with recordings that begin and end at once."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, **record: object) -> None:
        self.free = 100 * GIB
        self.notices: dict[str, str] = {}
        self.base, self.now, self.unmerged = base, 1000.0, 0
        monkeypatch.setattr("biliupd.record.places.shutil.disk_usage", lambda path: SimpleNamespace(free=self.free))
        self.places = Places(RecordConfig(**{"least_free": GIB, **record}),  # type: ignore[arg-type]
                             base / "recordings", base, self.hear, lambda running: self.unmerged)
        self.runners: dict[str, Runner] = {}
        self.places.prioritise({})

    def hear(self, told: tuple[str, str]) -> None:
        self.notices[told[0]] = told[1]
        if not told[1]:
            del self.notices[told[0]]

    def live(self, *names: str) -> list[str]:
        """They are live with an address at hand; who of them records now."""
        for name in names:
            since = f"2026-01-01T00:00:{len(self.runners):02}+00:00"
            if name not in self.runners and self.places.admit(name, since, self.running, self.now):
                self.runners[name] = Runner(name, name, since, False, FLV)
        return list(self.runners)

    def turn(self, seconds: float = 60.0) -> Verdict:
        """One turn; who has to end does."""
        self.now += seconds
        verdict = self.places.turn(self.running, self.now)
        if verdict.stop:
            runner = self.runners.pop(verdict.stop[0])
            self.places.put_in(runner.streamer, runner.began)
        return verdict

    @property
    def running(self) -> list[Runner]:
        return list(self.runners.values())

    @property
    def queue(self) -> list[str]:
        return [one["streamer"] for one in read_queue(self.base)]


def test_further_streamers_wait_by_priority_and_then_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch, most=2)
    disk.places.prioritise({"a": 5, "b": 5, "c": 0, "d": 0, "e": 3})
    assert disk.live("a", "b", "c", "d", "e") == ["a", "b"]
    disk.turn()
    assert disk.queue == ["e", "c", "d"]
    assert disk.notices["place:c"] == "c is live and waits: 2 of 2 recordings run, its priority is 0"
    assert not disk.places.wants("c"), "an address would only grow old"
    del disk.runners["a"]
    assert disk.turn().offers == ["e"]
    assert disk.places.wants("e")
    assert disk.live("c") == ["b"], "the place is kept for the first"
    assert disk.live("e") == ["b", "e"]
    assert disk.turn().offers == []
    disk.places.leave("c")
    assert disk.queue == ["d"]
    assert set(disk.notices) == {"place:d"}
    disk.places.prioritise({"a": 5, "b": 5})
    assert (disk.queue, disk.notices) == ([], {})
    assert not (tmp_path / "queue").exists()


def test_who_does_not_take_the_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch, most=1)
    disk.places.prioritise({"a": 0, "b": 2, "c": 1})
    disk.live("c", "b", "a")
    disk.runners.clear()
    assert disk.turn(1).offers == ["b"]
    assert disk.live("a") == []
    assert disk.turn(31).offers == []
    assert disk.live("a") == ["a"]
    assert disk.turn(30).stop == ("a", "waited"), "it has a higher priority all the same"


def test_a_higher_priority_takes_the_place_of_the_lowest_which_waits(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch, most=2)
    disk.places.prioritise({"a": 0, "b": 0, "c": 0, "vip": 1, "more": 9})
    assert disk.live("a", "b", "c") == ["a", "b"]
    assert disk.turn().stop is None, "the same priority takes nobody's place"
    disk.live("vip")
    verdict = disk.turn(1)
    assert verdict.stop == ("b", "waited"), "of equals the one that began last"
    assert disk.turn(1).offers == ["vip"]
    assert disk.live("vip", "b", "c") == ["a", "vip"]
    disk.live("more")
    assert disk.turn(1).stop == ("a", "waited")
    assert disk.turn(1).offers == ["more"]
    assert disk.live("more") == ["vip", "more"]
    assert disk.queue == ["a", "b", "c"]
    disk.places.apply(RecordConfig(most=1, least_free=GIB))
    assert disk.turn(1).stop == ("vip", "waited"), "a limit that is lowered holds"
    assert disk.turn(1).stop is None
    disk.places.apply(RecordConfig(most=0, least_free=GIB))
    assert disk.turn(61).offers == ["vip", "a", "b", "c"]


def test_nobody_is_stopped_before_the_priorities_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    disk.live("high", "low")
    before = Places(RecordConfig(most=1), tmp_path, tmp_path, disk.hear, lambda running: 0)
    assert before.turn(disk.running, 1000.0).stop is None
    before.prioritise({"high": 0, "low": -1})
    assert before.turn(disk.running, 1001.0).stop == ("low", "waited")


def test_short_of_space_the_order_is_warn_and_clean_then_refuse_then_end_the_lowest_then_recover(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    disk.places.prioritise({"low": 0, "low2": 0, "high": 1, "vip": 2})
    disk.live("low", "low2", "high")
    assert disk.turn() == Verdict(None, [], False)
    disk.free = GIB + 2 * 3600 * 3 * 10**6
    assert disk.turn() == Verdict(None, [], True)
    assert "what is being recorded fills that by" in disk.notices["space"]
    disk.free = GIB + 300 * 10**6  # less than two minutes of three recordings
    assert disk.turn() == Verdict(None, [], True)
    assert disk.live("low3") == ["low", "low2", "high"]
    assert "low3 is not recorded: too little is free in" in disk.notices["space:low3"]
    assert "from 2.0 GiB on it is" in disk.notices["space:low3"]
    disk.live("vip")
    assert disk.turn(1).stop == ("low2", "no_space"), "a start that matters more takes a place"
    assert disk.turn(1).offers == ["vip"]
    assert disk.live("low3", "vip") == ["low", "high", "vip"]
    assert disk.turn(1) == Verdict(None, [], False), "and nobody else"
    disk.free = GIB - 1
    assert [disk.turn(5).stop for _ in range(4)] == [
        ("low", "no_space"), ("high", "no_space"), ("vip", "no_space"), None]
    assert disk.turn(60).pressure, "there may be something to clean"
    disk.free = 2 * GIB - 1
    assert disk.turn(60).offers == []
    disk.free = 2 * GIB
    assert disk.turn(60).offers == ["vip", "high", "low", "low2", "low3"]
    assert disk.live("vip", "high", "low", "low2", "low3") == ["vip", "high", "low", "low2", "low3"]
    disk.free = 100 * GIB
    disk.turn()
    assert disk.notices == {}
    assert disk.queue == []


def test_what_waits_to_be_merged_counts_in_the_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    disk.live("a")
    disk.free = GIB + 5 * 3600 * 10**6
    disk.turn()
    assert disk.notices == {}
    disk.unmerged = 3 * 3600 * 10**6
    disk.turn()
    assert "10.1 GiB that merging will take" in disk.notices["space"]


def test_the_end_of_the_disk_that_a_recorder_met_counts_though_the_disk_says_otherwise(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    disk.free = GIB + 1
    disk.places.is_full()
    assert disk.live("a") == []
    disk.free = 2 * GIB
    assert disk.turn().offers == ["a"]
    assert disk.live("a") == ["a"]


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"streamer": "a"}]', "[" * 100_000])
def test_a_queue_that_cannot_be_read_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "queue").write_text(text)
    assert read_queue(tmp_path) == []
