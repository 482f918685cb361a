"""No answer of Bilibili's makes biliupd hammer: requests are counted over a day, for every code of the table."""

import json
import os
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from support import another

from biliupd.catalog import records
from biliupd.config import PublishConfig
from biliupd.errors import Cooling, TemporaryError
from biliupd.publish.manners import DAY, HOUR, Standing, StandingFile
from biliupd.publish.member import LATER, LOGIN, RISK
from biliupd.rehearsal.bilibili_faults import FOR_EVER

POLITE = {"retry_seconds": 30, "lookup_seconds": 120, "submit_interval_seconds": 60, "submits_per_hour": 5,
          "submits_per_day": 30, "attempts": 8}  # fmt: skip
OTHERS = (-3, -400, -403, -404, 10003, 10009, 16025, 20042, 21001, 21005, 21012, 21015, 21058, 21103, 21111, 21138,
          21150, 21160, 21171, 21590, 99999)  # fmt: skip
LOUD = sorted({*RISK, *LOGIN, *LATER})
CASES = [(code, route) for code in LOUD for route in ("preupload", "submit", "view")]
CASES += [(code, route) for code in (-352, -101, -500, 21070) for route in ("nav", "archives")]
CASES += [(code, "submit") for code in OTHERS] + [(code, "preupload") for code in (-400, -403, 99999)]
STEP_SECONDS = 1800.0


def a_day(bench):
    """Every turn of every worker for a day, half an hour at a time, two turns each time: 96 of them."""
    for _ in range(int(DAY / STEP_SECONDS)):
        for _ in range(2):
            bench.pipeline.account_turn()
            bench.pipeline.upload_turn()
            bench.pipeline.submit_turn()
        bench.pass_time(STEP_SECONDS)


@pytest.fixture
def small(make_bench):
    """A bench with one ready file that needs no ffmpeg."""
    bench = make_bench(**POLITE)
    bench.catalog.db.execute("pragma synchronous = off")  # a day has many writes
    path = bench.drop / "a.mp4"
    path.write_bytes(os.urandom(1000))
    bench.ready(path)
    return bench


@pytest.mark.parametrize(("code", "route"), CASES)
def test_a_day_of_the_same_refusal_is_a_day_of_few_requests(small, code, route):
    """Less often than the turns, even where nothing but patience helps: a review that nobody wants to speak of."""
    small.bilibili.refuse(route, code, "no", times=100_000)
    if route == "archives":
        small.bilibili.drop("submit", times=100_000)
    a_day(small)
    asked = small.asked(route)
    assert 1 <= asked <= 60, f"{asked} requests"
    assert small.asked("submit") <= 30
    if code in RISK and route in ("preupload", "submit"):
        assert asked <= 24 * HOUR / RISK[code][0]
        assert records.account_row(small.catalog.db, "main")["state"] == "cooling"
    assert len(small.bilibili.requests) <= 500


@pytest.mark.parametrize(("status", "body"), [(412, b"<html>"), (429, b""), (502, b"<html>"), (503, b""), (404, b"")])
@pytest.mark.parametrize("route", ["preupload", "submit", "view"])
def test_neither_do_answers_that_are_no_envelope(small, status, body, route):
    small.bilibili.fail(route, status, body, times=100_000)
    a_day(small)
    assert 1 <= small.asked(route) <= 60


@pytest.mark.parametrize("route", ["refresh", "auth_code"])
def test_a_renewal_that_is_refused_is_not_asked_for_again_at_once(small, route):
    """Though keeping a login alive writes its file first, which looks as if somebody had brought a new one."""
    small.bilibili.ask_for_refresh()
    small.bilibili.refuse(route, -3, "no", times=100_000)
    if route == "auth_code":
        small.bilibili.refuse("info", -101, "the token is worth nothing", times=100_000)
    for _ in range(10):
        small.pipeline.account_turn()
    assert small.asked(route) == 1
    assert len(small.bilibili.requests) <= 5
    small.bilibili.heal()
    small.bilibili.write_cookies(small.cookies)  # a new login is looked at at once
    small.pipeline.account_turn()
    assert records.account_row(small.catalog.db, "main")["state"] == "ok"


def test_a_cooling_account_is_left_alone_by_everything_and_over_a_restart(small):
    small.bilibili.refuse("preupload", 601, "too fast")
    small.pipeline.upload_turn()
    asked = len(small.bilibili.requests)
    small.restart()
    for _ in range(10):
        small.pipeline.account_turn()
        small.pipeline.upload_turn()
        small.pipeline.submit_turn()
    assert len(small.bilibili.requests) == asked
    (row,) = small.catalog.db.query("select * from videos")
    assert "601" in row["waits_for"]
    assert row["attempts"] == 0
    small.pass_time(2 * HOUR)
    small.pipeline.upload_turn()
    assert records.account_row(small.catalog.db, "main")["state"] == "ok"
    small.everything(lambda: small.submission()["state"] == "published" if small.asked("submit") else False)


def warned(times, seconds=3600.0, at=1000.0):
    standing = Standing()
    for _ in range(times):
        standing = standing.warned_by(Cooling("no", retry_after_seconds=seconds), at)
        at = standing.until + 1
    return standing


def test_each_warning_keeps_it_quiet_for_twice_as_long_up_to_a_day():
    for times, hours in enumerate((1, 2, 4, 8, 16, 24, 24), 1):
        standing = warned(times)
        assert hours <= standing.quiet_seconds(standing.warned) / HOUR <= hours * 1.11


def test_warnings_of_requests_that_were_under_way_together_are_one():
    one = warned(1)
    assert one.warned_by(Cooling("no", retry_after_seconds=3600), one.warned + 1) is one


def test_a_submission_that_is_accepted_or_a_quiet_week_forgives():
    after = warned(3)
    assert after.accepted(after.until + 1).strikes == 0
    assert after.accepted(after.until - 1).strikes == 3
    later = after.warned_by(Cooling("no", retry_after_seconds=3600), after.warned + 8 * DAY)
    assert later.strikes == 1


def test_the_pace_of_submissions():
    publish = PublishConfig(submit_interval_seconds=60, submits_per_hour=3, submits_per_day=4)
    start, standing = 1e9, Standing().submitted(1e9)
    assert standing.pause_seconds(publish, start + 10) == 50
    assert standing.pause_seconds(publish, start + 60) == 0
    standing = standing.submitted(start + 100).submitted(start + 200)
    assert standing.pause_seconds(publish, start + 300) == HOUR - 300
    standing = standing.submitted(start + HOUR + 1)
    assert standing.pause_seconds(publish, start + 2 * HOUR + 5) == DAY - 2 * HOUR - 5
    assert standing.pause_seconds(publish, start + DAY + HOUR) == 0
    assert standing.pause_seconds(publish, start - 2 * DAY) == 0, "a clock set back does not stop it"


def test_two_programs_do_not_submit_at_the_same_time(tmp_path):
    cookies, publish = tmp_path / "cookies.json", PublishConfig(submit_interval_seconds=0)
    with ExitStack() as stack:
        stack.enter_context(StandingFile(cookies).submitting(publish))
        with pytest.raises(TemporaryError, match="under way"):
            stack.enter_context(StandingFile(cookies).submitting(publish))
    with StandingFile(cookies).submitting(publish):
        pass


def test_the_standing_is_private_whole_and_survives_rubbish(tmp_path):
    file = StandingFile(tmp_path / "cookies.json")
    with pytest.raises(Cooling), file.warned():
        raise Cooling("-352 no", hint="do this", retry_after_seconds=3600)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.path.read_text())["hint"] == "do this"
    assert StandingFile(tmp_path / "cookies.json").read().quiet_seconds(time.time()) > 3500
    for rubbish in (b"", b"[]", b"{}", b'{"submits": 1}', b"\xff", b'{"submits": [], "nonsense": 1}',
                    b'{"submits": [], "until": null}', b'{"submits": [], "strikes": Infinity}'):
        file.path.write_bytes(rubbish)
        assert replace(StandingFile(tmp_path / "cookies.json").read()) == Standing()


def test_a_clock_set_back_by_months_does_not_make_it_quiet_for_months():
    error, now = Cooling("-352", retry_after_seconds=3600), time.time()
    ahead = Standing().warned_by(error, now + 100 * DAY)
    assert ahead.quiet_seconds(now) == 0
    warned = ahead.warned_by(error, now)
    assert 0 < warned.quiet_seconds(now) <= 1.1 * DAY
    assert warned.accepted(now) == warned
    assert ahead.accepted(now).strikes == 0


def test_where_nothing_can_be_written_it_is_kept_in_mind(tmp_path):
    cookies = tmp_path / "gone" / "cookies.json"
    file = StandingFile(cookies)
    with pytest.raises(Cooling), file.warned():
        raise Cooling("no", retry_after_seconds=3600)
    assert file.read().strikes == 1


def test_a_new_login_that_could_not_be_checked_at_once_is_not_taken_for_the_missing_one(bench, video):
    kept = bench.cookies.read_bytes()
    bench.cookies.unlink()
    id = bench.ready(another(video, bench.drop / "a.mp4"))
    bench.pipeline.upload_turn()
    assert "No such file" in bench.video(id)["waits_for"]
    bench.cookies.write_bytes(kept)
    bench.bilibili.fail("nav", 502, times=FOR_EVER)
    for _ in range(2):
        bench.pipeline.apply(bench.config)
        bench.pipeline.upload_turn()
        assert "could not be checked" in bench.video(id)["waits_for"] or "502" in bench.video(id)["waits_for"]
