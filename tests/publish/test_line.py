"""Measuring and choosing upload lines."""

import json
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until

from biliupd.errors import NeedsPerson, Stopped, TemporaryError
from biliupd.publish.line import Lines, named, probe


def test_lines_are_ranked_by_measured_speed(bilibili, member):
    bilibili.lines = {"bda2": 0.3, "tx": 0.0, "bldsa": 0.15}
    ranked = probe(member)
    assert [one.line.name for one in ranked] == ["tx", "bldsa", "bda2"]
    assert ranked[0].line.query == "probe_version=20250923&upcdn=tx&zone=cs"
    assert ranked[1].seconds >= 0.15
    assert ranked[1].bytes_per_second == pytest.approx(104857 / ranked[1].seconds)
    assert [request.headers["content-length"] for request in bilibili.requests if request.route == "probe"] == [
        "104857"] * 3


def test_lines_are_measured_at_the_same_time_and_a_slow_one_is_not_waited_for(bilibili, member):
    bilibili.lines = {"bda2": 30, "tx": 0.2, "bldsa": 0.2, "txa": 0.2}
    began = time.monotonic()
    ranked = probe(member, deadline_seconds=1)
    assert {one.line.name for one in ranked} == {"tx", "bldsa", "txa"}
    assert time.monotonic() - began < 3
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "probe"], seconds=2)


def test_a_line_that_refuses_is_left_out(bilibili, member):
    bilibili.fail("probe", 503)
    assert len(probe(member)) == 1


def test_automatic_takes_the_fastest_and_a_name_is_taken_at_its_word(bilibili, member, member_with):
    automatic = member_with(line="auto")
    assert Lines(None).ranked(automatic)[0].name == "tx"
    before = len(bilibili.requests)
    named = member_with(line="bda2")
    assert Lines(None).ranked(named)[0].query == "probe_version=20250923&upcdn=bda2&zone=cs"
    assert len(bilibili.requests) == before


def test_when_nothing_answers_it_is_bldsa(bilibili, member_with):
    member = member_with(line="auto")
    bilibili.fail("probe", 500, times=2)
    assert Lines(None).ranked(member)[0].name == "bldsa"
    bilibili.fail("probe_list", 200, {"OK": 1, "lines": [{"os": "kodo"}, 5, {"query": 1}], "probe": None})
    assert Lines(None).ranked(member)[0].name == "bldsa"
    bilibili.close()
    assert Lines(None).ranked(member)[0].name == "bldsa"


def test_risk_control_is_not_answered_with_more_requests(bilibili, member_with):
    member = member_with(line="auto")
    bilibili.fail("probe_list", 412)
    with pytest.raises(NeedsPerson):
        Lines(None).ranked(member)[0]
    assert len(bilibili.requests) == 1


def test_a_list_that_cannot_be_had_is_temporary(bilibili, member):
    bilibili.fail("probe_list", 200, {"code": -400, "message": "x"})
    with pytest.raises(TemporaryError):
        probe(member)


@pytest.fixture
def automatic(bilibili, member_with):
    bilibili.lines = {"bda2": 0.2, "tx": 0.0, "txa": 0.4}
    return member_with(line="auto")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.json"


def names(lines):
    return [line.name for line in lines]


def asked(bilibili):
    return len([request for request in bilibili.requests if request.route == "probe_list"])


def make_older(path, seconds):
    """As if everything in the file had happened that much earlier."""
    content = json.loads(path.read_text())
    content |= {name: content[name] - seconds for name in ("tried_at", "due_at")}
    content["failed"] = {name: at - seconds for name, at in content["failed"].items()}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("name", "upcdn", "zone"), [
    ("bda2", "bda2", "cs"), ("bda", "bda", "cs"), ("tx", "tx", "cs"), ("txa", "txa", "cs"), ("bldsa", "bldsa", "cs"),
    ("alia", "alia", "cs"), ("cs-bda2", "bda2", "cs"), ("cs-qn", "qn", "cs"), ("sz-ws", "ws", "sz"), ("TX", "tx", "cs"),
    ("jd-alia", "jd-alia", "cs"), ("a&b", "a%26b", "cs"),
])  # fmt: skip
def test_the_names_biliup_uses(name, upcdn, zone):
    assert named(name).query == f"probe_version=20250923&upcdn={upcdn}&zone={zone}"


def test_a_line_of_the_setting_stays_the_only_one(bilibili, member_with):
    assert names(Lines(None).ranked(member_with(line="cs-txa"))) == ["txa"]
    assert bilibili.requests == []


def test_the_ranking_is_remembered_for_an_hour_and_over_a_restart(bilibili, automatic, path):
    assert names(Lines(path).ranked(automatic)) == ["tx", "bda2", "txa"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make_older(path, 3500)
    lines = Lines(path)
    assert names(lines.ranked(automatic)) == names(lines.ranked(automatic)) == ["tx", "bda2", "txa"]
    assert lines.ranked(automatic)[0].query == "probe_version=20250923&upcdn=tx&zone=cs"
    assert asked(bilibili) == 1
    make_older(path, 200)
    bilibili.lines = {"bda2": 0.0, "tx": 0.3}
    assert names(Lines(path).ranked(automatic)) == ["bda2", "tx"]
    assert asked(bilibili) == 2


def test_a_clock_that_was_set_back_has_them_measured_anew(bilibili, automatic, path):
    Lines(path).ranked(automatic)
    make_older(path, -86400)
    Lines(path).ranked(automatic)
    assert asked(bilibili) == 2


def test_a_line_that_failed_stands_last_for_an_hour(bilibili, automatic, path):
    lines = Lines(path)
    first, second, third = lines.ranked(automatic)
    lines.failed(second)
    assert lines.ranked(automatic) == [first, third, second]
    lines.failed(first)
    assert lines.ranked(automatic) == [third, second, first], "the latest failure very last"
    assert Lines(path).ranked(automatic) == [third, second, first]
    assert asked(bilibili) == 1, "they were measured just now"
    make_older(path, 3601)
    assert Lines(path).ranked(automatic) == [first, second, third]


def test_when_the_best_fails_they_are_measured_anew(bilibili, automatic, path):
    first = Lines(path).ranked(automatic)[0]
    make_older(path, 301)
    lines = Lines(path)
    lines.failed(lines.ranked(automatic)[1])
    lines.ranked(automatic)
    assert asked(bilibili) == 1
    lines.failed(first)
    assert names(lines.ranked(automatic)) == ["txa", "bda2", "tx"]
    assert asked(bilibili) == 2


def test_an_older_ranking_is_better_than_none(bilibili, automatic, path):
    Lines(path).ranked(automatic)
    make_older(path, 7200)
    bilibili.fail("probe_list", 503)
    lines = Lines(path)
    assert names(lines.ranked(automatic)) == ["tx", "bda2", "txa"]
    assert names(lines.ranked(automatic)) == ["tx", "bda2", "txa"]
    assert asked(bilibili) == 2, "not asked at every upload while it does not answer"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version":1}', '{"lines":[5],"failed":{}}'])
def test_a_file_that_cannot_be_read_is_as_none(bilibili, automatic, path, text):
    path.write_text(text)
    assert names(Lines(path).ranked(automatic)) == ["tx", "bda2", "txa"]
    assert names(Lines(path).ranked(automatic)) == ["tx", "bda2", "txa"]
    assert asked(bilibili) == 1


def test_a_place_that_cannot_be_written_costs_only_the_memory(bilibili, automatic, tmp_path):
    lines = Lines(tmp_path / "none" / "lines.json")
    assert names(lines.ranked(automatic)) == names(lines.ranked(automatic)) == ["tx", "bda2", "txa"]
    assert asked(bilibili) == 1


def test_one_measures_for_all(bilibili, automatic):
    lines = Lines(None)
    with ThreadPoolExecutor(8) as pool:
        assert {tuple(names(one)) for one in pool.map(lambda _: lines.ranked(automatic), range(8))} == {
            ("tx", "bda2", "txa")}
    assert asked(bilibili) == 1


def test_nobody_waits_longer_than_the_deadline(bilibili, automatic, monkeypatch):
    monkeypatch.setattr("biliupd.publish.line.DEADLINE_SECONDS", 1.5)
    bilibili.stall("probe_list", 2.5)
    lines = Lines(None)
    began = time.monotonic()
    assert names(lines.ranked(automatic)) == ["bldsa"]
    assert 1.4 < time.monotonic() - began < 2.2
    wait_until(lambda: len(lines.ranked(automatic)) > 1)
    assert asked(bilibili) == 1, "what comes late is taken, too"


def test_a_stop_ends_the_wait(bilibili, automatic):
    bilibili.stall("probe_list", 2)
    stop = threading.Event()
    began = time.monotonic()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        Lines(None).ranked(automatic, stop)
    assert time.monotonic() - began < 1


def test_what_needs_a_person_is_raised_and_not_remembered(bilibili, automatic):
    lines = Lines(None)
    bilibili.fail("probe_list", 412)
    with pytest.raises(NeedsPerson):
        lines.ranked(automatic)
    assert names(lines.ranked(automatic)) == ["tx", "bda2", "txa"]
