"""Uploading a file, whatever the way does to it."""

import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest
from support import wait_until

from biliupd.errors import Cooling, NeedsPerson, PermanentError, Stopped, TemporaryError
from biliupd.publish.line import named
from biliupd.publish.upos import upload

LINE = named("tx")


@pytest.fixture
def send(member):
    def send(path, member=member, **options):
        return upload(path, member, [LINE], **{"stop": threading.Event(), **options})

    return send


def same(bilibili, done, path):
    stored = bilibili.objects.get(done.filename)
    return stored.completed and bilibili.sha256(done.filename) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_arrives_byte_by_byte_in_parts(bilibili, send, clip):
    done = send(clip)
    assert same(bilibili, done, clip)
    assert (done.size_bytes, done.line, done.cid) == (
        clip.stat().st_size, "tx", bilibili.objects.get(done.filename).biz_id)
    assert sorted(bilibili.chunks_seen) == [1, 2, 3, 4, 5]
    routes = [request.route for request in bilibili.requests]
    assert (routes[0], routes[1], routes[-1]) == ("preupload", "init", "complete")
    query = bilibili.requests[0].query
    assert (query["name"], query["size"], query["upcdn"]) == (clip.name, str(clip.stat().st_size), "tx")


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 131072])
def test_the_edges_of_parts(bilibili, send, tmp_path, size):
    path = tmp_path / "edge.flv"
    path.write_bytes(os.urandom(size))
    assert same(bilibili, send(path), path)
    assert len(bilibili.chunks_seen) == -(-size // 65536)


def test_parts_larger_than_a_block_keep_their_order(bilibili, send, tmp_path):
    bilibili.chunk_size_bytes = 700_001
    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(3_000_000))
    assert same(bilibili, send(path), path)


def test_each_thread_keeps_its_connection(bilibili, member_with, send, tmp_path):
    path = tmp_path / "many.mp4"
    path.write_bytes(os.urandom(65536 * 20))
    opened = []
    answer = bilibili._server.process_request
    bilibili._server.process_request = lambda *arguments: (opened.append(1), answer(*arguments))
    send(path, member_with(parallel_parts=2))
    assert len(bilibili.chunks_seen) == 20
    assert len(opened) == 3, "one for preupload, two for the parts, of which one begins and completes"


def test_as_many_parts_at_a_time_as_the_server_says_bounded_by_the_setting(bilibili, member_with, send, tmp_path):
    """The server says 3."""
    path = tmp_path / "many.mp4"
    path.write_bytes(os.urandom(65536 * 8))
    for parallel, expected in ((1, 1), (2, 2), (4, 3)):
        bilibili.stall("put", 0.3, times=8)
        before = len(bilibili.requests)
        send(path, member_with(parallel_parts=parallel))
        puts = [(put.at.timestamp(), put.at.timestamp() + put.seconds)
                for put in bilibili.requests[before:] if put.route == "put"]
        most = max(sum(1 for begin, end in puts if begin <= moment < end) for moment, _ in puts)
        assert most == expected


def test_a_dropped_connection_costs_that_part_only(bilibili, send, member_with, clip):
    bilibili.drop_connection(on_chunk=3, times=1)
    done = send(clip, member_with(parallel_parts=1))
    assert bilibili.chunks_seen == [1, 2, 3, 3, 4, 5]
    assert same(bilibili, done, clip)


@pytest.mark.parametrize("status", [500, 502, 504, 429, 408])
def test_a_part_that_is_refused_for_now_is_sent_again(bilibili, send, clip, status):
    bilibili.fail("put", status, times=3)
    assert same(bilibili, send(clip), clip)
    assert len(bilibili.chunks_seen) == 8


def test_a_part_that_fails_every_time_ends_the_upload_for_now(bilibili, member_with, send, clip):
    bilibili.fail("put", 500, times=99)
    with pytest.raises(TemporaryError, match=r"part \d failed 3 times.*HTTP 500"):
        send(clip, member_with(part_attempts=3))
    assert len(bilibili.chunks_seen) <= 9


@pytest.mark.parametrize("route", ["init", "put", "complete"])
def test_a_reset_or_an_error_anywhere_is_tried_again(bilibili, send, clip, route):
    bilibili.drop(route)
    bilibili.fail(route, 500)
    assert same(bilibili, send(clip), clip)
    assert len([request for request in bilibili.requests if request.route == "preupload"]) == 1


def test_a_lost_answer_to_complete_is_asked_for_again(bilibili, send, clip):
    bilibili.lose_answer("complete")
    assert same(bilibili, send(clip), clip)


def test_an_expired_ticket_costs_a_new_one_and_the_file_from_its_start(bilibili, member_with, send, clip):
    bilibili.chunk_retry_delay = 0.01
    seen = threading.Event()
    log = bilibili._server.log

    def expire_after_the_second_part(request):
        log(request)
        if request.route == "put" and request.query["partNumber"] == "2" and not seen.is_set():
            seen.set()
            bilibili.expire_tickets()

    bilibili._server.log = expire_after_the_second_part
    done = send(clip, member_with(parallel_parts=1))
    assert same(bilibili, done, clip)
    assert bilibili.chunks_seen == [1, 2, 3, 1, 2, 3, 4, 5]
    assert len([request for request in bilibili.requests if request.route == "preupload"]) == 2


def test_tickets_that_are_never_accepted_are_given_up(bilibili, send, clip):
    bilibili.fail("put", 403, times=99)
    with pytest.raises(TemporaryError, match="3 tickets in vain"):
        send(clip)
    assert len([request for request in bilibili.requests if request.route == "preupload"]) == 3


def test_a_forgotten_upload_id_begins_anew(bilibili, send, clip):
    bilibili.fail("complete", 404)
    assert same(bilibili, send(clip), clip)


def test_a_complete_that_is_not_ok_is_repeated_then_the_file_is_sent_again(bilibili, member_with, send, clip):
    bilibili.fail("complete", 200, {"OK": 0})
    assert same(bilibili, send(clip), clip)
    assert len(bilibili.chunks_seen) == 5
    bilibili.fail("complete", 200, {"OK": 0}, times=4)
    assert same(bilibili, send(clip, member_with(part_attempts=1)), clip)
    assert len(bilibili.chunks_seen) == 15


def test_missing_parts_at_the_end_send_the_file_again(bilibili, send, clip):
    bilibili.fail("complete", 500, {"error": "PART_COUNT_ERR_GOT_4_EXPECT_5"})
    assert same(bilibili, send(clip), clip)
    assert len(bilibili.chunks_seen) == 10


def test_risk_control_at_upos_has_the_account_keep_quiet(bilibili, send, clip):
    bilibili.fail("put", 412, times=99)
    with pytest.raises(Cooling) as caught:
        send(clip)
    assert caught.value.retry_after_seconds >= 1800
    assert len(bilibili.chunks_seen) <= 3, "none of those under way is sent again"


def test_a_refusal_nobody_knows_is_permanent(bilibili, send, clip):
    bilibili.fail("put", 400)
    with pytest.raises(PermanentError, match="HTTP 400"):
        send(clip)


@pytest.mark.parametrize(("status", "body", "kind", "seconds"), [
    (406, {"OK": 0, "code": 406, "message": "uploading too fast"}, TemporaryError, 3600),
    (406, b"slow down", TemporaryError, 3600), (503, b"", TemporaryError, 0),
    (200, {"OK": 0, "code": 601, "message": "x"}, NeedsPerson, 3600),
    (400, {"OK": 0, "code": 601, "message": "x", "detail": {"v_voucher": "v"}}, NeedsPerson, 10800),
    (200, b"<html>", TemporaryError, 0), (200, {"OK": 1}, TemporaryError, 0),
    (200, {"OK": 1, "endpoint": "//x", "upos_uri": "upos://a/../b", "auth": "a", "chunk_size": 1, "biz_id": 1},
     TemporaryError, 0),
    (200, {"OK": 1, "endpoint": "//x", "upos_uri": "upos://a/b", "auth": "a\r\nb", "chunk_size": 1, "biz_id": 1},
     TemporaryError, 0),
])  # fmt: skip
def test_what_preupload_refuses(bilibili, send, clip, status, body, kind, seconds):
    bilibili.fail("preupload", status, body)
    with pytest.raises(kind) as caught:
        send(clip)
    if seconds:
        assert caught.value.retry_after_seconds >= seconds
    else:
        assert (type(caught.value), caught.value.retry_after_seconds) == (TemporaryError, 0)
    assert bilibili.chunks_seen == []


def test_dead_cookies_at_preupload_need_a_person(bilibili, send, clip):
    bilibili.fail("preupload", 200, b"<html>please log in</html>")
    bilibili.expire_login()
    with pytest.raises(NeedsPerson, match="-101"):
        send(clip)


def test_progress_never_goes_back_and_ends_with_everything(bilibili, member_with, send, clip):
    bilibili.slow(400_000)
    bilibili.drop_connection(on_chunk=2, times=2)
    seen, threads = [], set()

    def on_progress(progress):
        seen.append(progress)
        threads.add(threading.current_thread())

    send(clip, member_with(parallel_parts=1), on_progress=on_progress)
    sent = [progress.sent_bytes for progress in seen]
    assert sent == sorted(sent)
    assert len(set(sent)) > 3
    assert {(progress.total_bytes, progress.line) for progress in seen} == {(clip.stat().st_size, "tx")}
    assert sent[-1] == clip.stat().st_size
    assert threads == {threading.current_thread()}


def test_progress_tells_the_rate_and_the_time_left(bilibili, member_with, send, tmp_path):
    path = tmp_path / "long.mp4"
    path.write_bytes(bytes(65536 * 12))
    bilibili.slow(300_000)
    seen = []
    send(path, member_with(parallel_parts=1), on_progress=seen.append)
    middle = [progress for progress in seen if 0.4 < progress.sent_bytes / progress.total_bytes < 0.8]
    assert middle
    for progress in middle:
        assert 100_000 < progress.bytes_per_second < 600_000, "about 300,000, give or take what a buffer holds"
        left = progress.total_bytes - progress.sent_bytes
        assert progress.eta_seconds == pytest.approx(left / progress.bytes_per_second)
    assert seen[0].eta_seconds is None
    assert seen[-1].eta_seconds == 0


@pytest.mark.parametrize("callback", ["on_progress", "on_session"])
def test_what_a_callback_raises_ends_the_upload(bilibili, send, clip, callback):
    def broken(value):
        raise ZeroDivisionError

    bilibili.stall("put", 1, times=9)
    with pytest.raises(ZeroDivisionError):
        send(clip, **{callback: broken})
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("upload")], seconds=1)
    assert bilibili.filenames == []


@pytest.mark.parametrize("where", ["preupload", "init", "put", "complete", "body", "pause"])
def test_stop_ends_an_upload_within_a_second_wherever_it_is(bilibili, send, clip, where):
    if where == "body":
        bilibili.slow(1000)
    elif where == "pause":
        bilibili.chunk_retry_delay = 30
        bilibili.fail("put", 500, times=99)
    else:
        bilibili.stall(where, 4, times=9)
    stop, caught, left = threading.Event(), [], []

    def run():
        try:
            send(clip, stop=stop)
        except Stopped:
            caught.append(time.monotonic())
            left.extend(thread for thread in threading.enumerate() if thread.name.startswith("upload"))

    thread = threading.Thread(target=run)
    thread.start()
    if where == "pause":
        wait_until(lambda: len([request for request in bilibili.requests if request.status == 500]) == 3)
    else:
        wait_until(lambda: {"body": "put"}.get(where, where) in bilibili.under_way)
    stop.set()
    began = time.monotonic()
    thread.join(10)
    assert caught
    assert caught[0] - began < 1.2
    assert where == "preupload" or not left, "only a request made by requests cannot be cut short"
    bilibili.slow(0)


def test_a_stop_that_comes_first_sends_nothing(bilibili, send, clip):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        send(clip, stop=stop)
    assert bilibili.requests == []


@pytest.mark.parametrize("change", ["grown", "touched", "replaced", "gone", "shorter"])
def test_a_file_that_changes_meanwhile_is_not_completed(bilibili, member_with, send, clip, change):
    def meddle(progress):
        if change == "grown":
            with clip.open("ab") as file:
                file.write(b"more")
        elif change == "touched":
            os.utime(clip, ns=(1, 1))
        elif change == "replaced":
            other = clip.with_name("other")
            other.write_bytes(clip.read_bytes())
            os.replace(other, clip)
        elif change == "gone":
            clip.unlink(missing_ok=True)
        else:
            os.truncate(clip, 10)

    bilibili.slow(200_000)
    with pytest.raises(TemporaryError, match="changed while it was uploaded"):
        send(clip, member_with(parallel_parts=1), on_progress=meddle)
    assert bilibili.filenames == []


def test_an_empty_file_and_a_directory_are_permanent_and_a_missing_one_is_not(bilibili, send, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(PermanentError, match="empty"):
        send(tmp_path / "empty.mp4")
    with pytest.raises(PermanentError, match="not a regular file"):
        send(tmp_path)
    with pytest.raises(TemporaryError, match="No such file"):
        send(tmp_path / "none.mp4")
    assert bilibili.requests == []


def test_a_part_may_take_four_times_the_timeout_and_more_with_each_try(
        bilibili, member_with, send, clip, monkeypatch):
    monkeypatch.setattr("biliupd.publish.transfer.LEAST_BYTES_PER_SECOND", 1 << 30)
    bilibili.stall("put", 0.9, times=5)
    assert same(bilibili, send(clip, member_with(timeout_seconds=0.3, part_attempts=1, parallel_parts=5)), clip)
    bilibili.stall("put", 1.7)
    with pytest.raises(TemporaryError, match="failed 1 times, the last: TimeoutError"):
        send(clip, member_with(timeout_seconds=0.3, part_attempts=1))
    bilibili.stall("put", 1.7, times=2)
    assert same(bilibili, send(clip, member_with(timeout_seconds=0.3, part_attempts=2, parallel_parts=1)), clip)


def test_a_large_part_on_a_slow_line_is_not_late_while_it_comes_along(bilibili, member_with, send, tmp_path):
    """64 KiB at 16 KiB/s: four seconds, which is more than four times the timeout."""
    path = tmp_path / "whole.mp4"
    path.write_bytes(bytes(3 * 65536))
    bilibili.stall("put", 0.8, times=3)
    assert same(bilibili, send(path, member_with(timeout_seconds=0.1, part_attempts=1)), path)


MEMORY = """
import re, sys, threading
from pathlib import Path
from biliupd.config import PublishConfig
from biliupd.publish.credential import Credential
from biliupd.publish.line import named
from biliupd.publish.member import Member
from biliupd.publish.upos import upload

url, cookies, *files = sys.argv[1:]
member = Member(PublishConfig(member_url=url), Credential.load(Path(cookies)))
for file in files:
    upload(Path(file), member, [named("tx")], stop=threading.Event())
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_grows_neither_with_the_file_nor_with_its_parts(bilibili, tmp_path):
    bilibili.chunk_size_bytes = 256 * 1024
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.write_bytes(bytes(3 * 256 * 1024))
    with large.open("wb") as file:
        file.truncate(128 << 20)
    cookies = bilibili.write_cookies(tmp_path / "cookies.json")
    done = subprocess.run([sys.executable, "-c", MEMORY, bilibili.url, cookies, small, large, large], text=True,
                          capture_output=True, check=True)
    first, second, third = (int(line) for line in done.stdout.split())
    assert len(bilibili.chunks_seen) == 3 + 2 * 512
    assert second - first < 2048, "KiB for 512 parts and 128 MiB"
    assert third - second < 1024
