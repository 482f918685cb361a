"""Measuring and choosing upload lines."""

import threading
import time

import pytest
from support import wait_until

from biliupd.errors import NeedsPerson, TemporaryError
from biliupd.publish.line import choose, probe


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
    assert choose(automatic.publish, automatic).name == "tx"
    before = len(bilibili.requests)
    named = member_with(line="bda2")
    assert choose(named.publish, named).query == "probe_version=20250923&upcdn=bda2&zone=cs"
    assert len(bilibili.requests) == before


def test_when_nothing_answers_it_is_bldsa(bilibili, member_with):
    member = member_with(line="auto")
    bilibili.fail("probe", 500, times=2)
    assert choose(member.publish, member).name == "bldsa"
    bilibili.fail("probe_list", 200, {"OK": 1, "lines": [{"os": "kodo"}, 5, {"query": 1}], "probe": None})
    assert choose(member.publish, member).name == "bldsa"
    bilibili.close()
    assert choose(member.publish, member).name == "bldsa"


def test_risk_control_is_not_answered_with_more_requests(bilibili, member_with):
    member = member_with(line="auto")
    bilibili.fail("probe_list", 412)
    with pytest.raises(NeedsPerson):
        choose(member.publish, member)
    assert len(bilibili.requests) == 1


def test_a_list_that_cannot_be_had_is_temporary(bilibili, member):
    bilibili.fail("probe_list", 200, {"code": -400, "message": "x"})
    with pytest.raises(TemporaryError):
        probe(member)
