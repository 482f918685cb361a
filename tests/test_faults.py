"""Everything Bilibili can do to an upload and a submission, and what a good client does then (§7.5 of the protocol).

Each case: the fault, how many times parts, tickets and submits may be sent at most, and whether it goes on by itself.
In every case the bytes arrive as they are, there is one archive at the end, and the file is kept.
"""

import hashlib
import os
from collections.abc import Callable

import pytest
from support import another

from biliupd.catalog import records
from biliupd.catalog.states import State
from biliupd.errors import Stopped
from biliupd.rehearsal.bilibili_faults import FOR_EVER

CHUNK = 64 * 1024
PARTS = 5
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
EXPIRED = {"X-Upos-Auth": "AUTH_TS_GT_5DAY AUTH=1 Now=2 DURATION=432001"}


@pytest.fixture
def wired(make_bench, tmp_path):
    """A bench with one ready file of five parts, and quick retries."""
    (tmp_path / "cover.jpg").write_bytes(JPEG)
    bench = make_bench(part_attempts=3, attempts=6, timeout_seconds=2, template={"cover": str(tmp_path / "cover.jpg")})
    bench.bilibili.chunk_size_bytes, bench.bilibili.chunk_retry_delay = CHUNK, 0.01
    path = bench.drop / "show.mp4"
    path.write_bytes(os.urandom((PARTS - 1) * CHUNK + 777))
    bench.id = bench.ready(path)
    return bench


def check(bench, *, puts: int, tickets: int, submits: int = 1) -> None:
    (archive,) = bench.bilibili.archives
    (part,) = archive.parts
    path = bench.drop / "show.mp4"
    assert bench.bilibili.sha256(part.filename) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(bench.bilibili.chunks_seen) <= puts
    assert bench.asked("preupload") <= tickets
    assert bench.asked("submit") <= submits


def through(fault: Callable, **limits: int):
    return pytest.param(fault, limits)


@pytest.mark.parametrize(("fault", "limits"), [
    # that part only, the same bytes
    through(lambda b: b.fail("put", 500), puts=PARTS + 1, tickets=1),
    through(lambda b: b.fail("put", 504, times=2), puts=PARTS + 2, tickets=1),
    through(lambda b: b.drop_connection(on_chunk=3), puts=PARTS + 1, tickets=1),
    through(lambda b: b.drop("put"), puts=PARTS + 1, tickets=1),
    through(lambda b: b.lose_answer("put"), puts=PARTS + 1, tickets=1),
    through(lambda b: b.slow(CHUNK * 4), puts=PARTS, tickets=1),
    through(lambda b: b.hang_up(), puts=PARTS + 1, tickets=1),
    through(lambda b: b.cut_handshake(), puts=PARTS, tickets=1),
    # a new ticket and the file from its start
    through(lambda b: b.fail("put", 403, b"Forbidden", headers=EXPIRED, part=2), puts=2 * PARTS, tickets=2),
    through(lambda b: b.fail("put", 403, part=4), puts=2 * PARTS, tickets=2),
    through(lambda b: b.fail("put", 404), puts=2 * PARTS, tickets=2),
    # completing: asked again; for good not OK: the file again
    through(lambda b: b.fail("complete", 500), puts=PARTS, tickets=1),
    through(lambda b: b.fail("complete", 200, {"OK": 0}), puts=PARTS, tickets=1),
    through(lambda b: b.fail("complete", 200, {"OK": 0}, times=6), puts=2 * PARTS, tickets=2),
    through(lambda b: b.lose_answer("complete"), puts=PARTS, tickets=1),
    through(lambda b: b.never_end("complete"), puts=PARTS, tickets=1),
    # preupload: a while, then again
    through(lambda b: b.fail("preupload", 503), puts=PARTS, tickets=2),
    through(lambda b: b.drop("preupload"), puts=PARTS, tickets=2),
    through(lambda b: b.fail("preupload", 200, b"<html>"), puts=PARTS, tickets=2),
    through(lambda b: b.fail("init", 502), puts=PARTS, tickets=1),
    # a submit without an answer: one archive, found by looking
    through(lambda b: b.lose_submit_answer(), puts=PARTS, tickets=1),
    through(lambda b: b.spoil_answer("submit", 502), puts=PARTS, tickets=1),
    through(lambda b: b.spoil_answer("submit", 200), puts=PARTS, tickets=1),
    through(lambda b: b.drop("submit"), puts=PARTS, tickets=1, submits=2),
    through(lambda b: b.refuse("submit", 21070, "wait"), puts=PARTS, tickets=1, submits=2),
    through(lambda b: b.refuse("submit", -503), puts=PARTS, tickets=1, submits=2),
    through(lambda b: b.delay_listing(0.5) or b.lose_submit_answer(), puts=PARTS, tickets=1, submits=6),
    # around them
    through(lambda b: b.fail("cover", 502), puts=PARTS, tickets=1),
    through(lambda b: b.fail("archives", 502) or b.lose_submit_answer(), puts=PARTS, tickets=1),
    through(lambda b: b.delay_view(0.3), puts=PARTS, tickets=1),
    through(lambda b: b.refuse("view", -500, times=2), puts=PARTS, tickets=1),
    through(lambda b: b.ask_for_refresh(), puts=PARTS, tickets=1),
])
def test_it_goes_on_by_itself(wired, fault, limits):
    fault(wired.bilibili)

    def done() -> bool:
        wired.pass_time(60)  # what has to wait politely need not wait here
        return wired.state(wired.id) == State.PUBLISHED

    wired.everything(done)
    check(wired, **limits)


@pytest.mark.parametrize(("route", "fault"), [
    ("preupload", lambda b: b.fail("preupload", 406, {"code": 406, "message": "uploading too fast"}, FOR_EVER)),
    ("preupload", lambda b: b.refuse("preupload", 601, "too fast", FOR_EVER)),
    ("preupload", lambda b: b.refuse("preupload", 601, "too fast", FOR_EVER, status=406)),
    ("preupload", lambda b: b.refuse("preupload", 601, "captcha", FOR_EVER, voucher="voucher_1")),
    ("preupload", lambda b: b.refuse("preupload", 77, "captcha", FOR_EVER, voucher_header="voucher_1")),
    ("preupload", lambda b: b.intercept("preupload", FOR_EVER)),
    ("put", lambda b: b.intercept("put", FOR_EVER)),
    ("submit", lambda b: b.refuse("submit", 601, "too fast", FOR_EVER)),
    ("submit", lambda b: b.refuse("submit", 601, "captcha", FOR_EVER, content={"v_voucher": "voucher_1"})),
    ("submit", lambda b: b.refuse("submit", 21566, "too often", FOR_EVER)),
    ("submit", lambda b: b.refuse("submit", 21564, "too often", FOR_EVER)),
    ("submit", lambda b: b.refuse("submit", 137022, "too often", FOR_EVER)),
    ("submit", lambda b: b.intercept("submit", FOR_EVER)),
    ("nav", lambda b: b.refuse("nav", -352, "risk", FOR_EVER)),
    ("cover", lambda b: b.refuse("cover", -412, "risk", FOR_EVER)),
    ("view", lambda b: b.intercept("view", FOR_EVER)),
])
def test_the_account_keeps_quiet_and_nothing_is_lost(wired, route, fault):
    fault(wired.bilibili)
    wired.everything(lambda: (records.account_row(wired.catalog.db, "main") or {}).get("state") == "cooling")
    asked = len(wired.bilibili.requests)
    for _ in range(10):
        for turn in (wired.pipeline.account_turn, wired.pipeline.upload_turn, wired.pipeline.submit_turn):
            turn()
    assert len(wired.bilibili.requests) == asked
    assert wired.asked(route) <= 3, "parts under way at the same time, at most"
    assert wired.video(wired.id)["attempts"] == 0
    assert (wired.drop / "show.mp4").exists()
    wired.bilibili.heal()

    def done() -> bool:
        wired.pass_time(24 * 3600)
        return wired.state(wired.id) == State.PUBLISHED

    wired.everything(done)
    check(wired, puts=2 * PARTS, tickets=3, submits=2)


@pytest.mark.parametrize("route", ["preupload", "cover", "submit", "view"])
def test_a_login_that_ends_anywhere_waits_for_new_cookies_and_goes_on_with_them(wired, route):
    wired.bilibili.refuse(route, -101, "not logged in", FOR_EVER)
    wired.everything(lambda: (records.account_row(wired.catalog.db, "main") or {}).get("state") == "waiting")
    wired.bilibili.heal()
    wired.bilibili.expire_login()
    wired.bilibili.write_cookies(wired.cookies)

    def done() -> bool:
        wired.pass_time(60)  # rows look at their account once a minute
        return wired.state(wired.id) == State.PUBLISHED

    wired.everything(done)
    check(wired, puts=PARTS, tickets=2, submits=2)


def test_a_line_that_fails_is_left_for_the_next_one(make_bench, video):
    bench = make_bench(part_attempts=2, line="auto")
    bench.bilibili.chunk_retry_delay = 0.01
    bench.bilibili.lines = {"tx": 0.0, "bda2": 0.1}
    bench.bilibili.fail("put", 504, times=FOR_EVER, line="tx")
    id = bench.add(another(video, bench.drop / "a.mp4"))
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    (row,) = bench.catalog.db.query("select * from uploads")
    assert row["line"] == "bda2"
    second = bench.add(another(video, bench.drop / "b.mp4"))
    before = len([request for request in bench.bilibili.requests if request.route == "put"])
    bench.everything(lambda: bench.state(second) == State.PUBLISHED)
    assert len([request for request in bench.bilibili.requests if request.route == "put"]) == before + 1


def test_an_endpoint_that_is_gone_is_left_and_the_parts_that_arrived_stay(make_bench):
    bench = make_bench(part_attempts=2, parallel_parts=1)
    bench.bilibili.chunk_size_bytes, bench.bilibili.chunk_retry_delay = CHUNK, 0.01
    other = bench.bilibili.add_endpoint()
    bench.bilibili.endpoints = [other, *[one for one in bench.bilibili.endpoints if one != other]]
    bench.bilibili.fail("put", 503, times=FOR_EVER, endpoint=other, skip=2)
    path = bench.drop / "show.mp4"
    path.write_bytes(os.urandom(4 * CHUNK + 5))
    bench.id = bench.ready(path)
    bench.everything(lambda: bench.state(bench.id) == State.PUBLISHED)
    check(bench, puts=PARTS + 2, tickets=1)


def test_a_kill_between_complete_and_submit_submits_with_what_is_there(wired):
    wired.pipeline.upload_turn()
    assert wired.state(wired.id) == State.UPLOADED
    wired.restart()
    wired.everything(lambda: wired.state(wired.id) == State.PUBLISHED)
    check(wired, puts=PARTS, tickets=1)


def test_a_kill_in_mid_file_goes_on_with_the_missing_parts(wired, monkeypatch):
    """What a SIGKILL leaves: a claimed row, and what was written down by then. The file has 5 parts, 3 are there."""
    wired.bilibili.fail("put", 500, times=FOR_EVER, part=4)
    wired.bilibili.fail("put", 500, times=FOR_EVER, part=5)

    def killed(*_: object) -> None:
        if len([one for one in wired.bilibili.requests if one.route == "put" and one.status == 200]) == 3:
            raise Stopped("killed")

    monkeypatch.setattr("biliupd.pipeline.uploading.Uploading._on_progress", killed)
    wired.pipeline.upload_turn()
    monkeypatch.undo()
    wired.bilibili.heal()
    wired.restart()
    before = len(wired.bilibili.chunks_seen)
    wired.everything(lambda: wired.state(wired.id) == State.PUBLISHED)
    assert sorted(wired.bilibili.chunks_seen[before:]) == [4, 5]
    assert wired.asked("preupload") == 1
