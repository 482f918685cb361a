"""A limit of bytes per second that uploads share."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until

from biliupd.errors import Stopped
from biliupd.publish.line import named
from biliupd.publish.throttle import Throttle
from biliupd.publish.upos import upload

NEVER = threading.Event()


def take_for(throttle, seconds, count):
    """How many bytes one thread gets in that time."""
    until, taken = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        throttle.take(count, NEVER)
        taken += count
    return taken


def test_threads_share_the_limit_evenly():
    throttle = Throttle(lambda: 400_000)
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda _: take_for(throttle, 2, 8_000), range(3)))
    assert 600_000 < sum(taken) < 1_150_000, "2 s, and half a second of burst"
    assert max(taken) - min(taken) <= 0.15 * sum(taken)


def test_a_small_taker_is_not_starved_by_a_greedy_one():
    throttle = Throttle(lambda: 200_000)
    throttle.take(150_000, NEVER)  # the burst is gone
    over, waits = threading.Event(), []

    def greedy():
        while not over.is_set():
            throttle.take(20_000, over)

    thread = threading.Thread(target=greedy)
    thread.start()
    for _ in range(5):
        began = time.monotonic()
        throttle.take(1000, NEVER)
        waits.append(time.monotonic() - began)
    over.set()
    thread.join()
    assert max(waits) < 0.4, "one block of the other, and its own"


def test_the_limit_changes_while_somebody_waits():
    limit = [1000.0]
    throttle = Throttle(lambda: limit[0])
    began = time.monotonic()
    thread = threading.Thread(target=throttle.take, args=(1_000_000, NEVER))
    thread.start()
    limit[0] = 0
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - began < 2.5
    limit[0] = 1000
    wait_until(throttle.limits, seconds=2)
    throttle.take(500, NEVER)
    began = time.monotonic()
    throttle.take(300, NEVER)
    assert time.monotonic() - began > 0.2


def test_whoever_is_told_to_end_leaves_at_once_and_gives_its_place_back():
    throttle = Throttle(lambda: 100_000)
    throttle.take(50_000, NEVER)
    over = threading.Event()
    thread = threading.Thread(target=throttle.take, args=(10_000_000, over))
    thread.start()
    wait_until(lambda: throttle._reserved > 10_000_000)
    behind = threading.Thread(target=throttle.take, args=(10_000, NEVER))
    behind.start()
    over.set()
    thread.join(0.5)
    assert not thread.is_alive()
    behind.join(2)
    assert not behind.is_alive(), "not behind ten million bytes any more"


def test_no_more_than_half_a_second_is_saved_up():
    throttle = Throttle(lambda: 1_000_000)
    throttle.take(1, NEVER)
    assert not NEVER.wait(1.2)
    began = time.monotonic()
    for _ in range(10):
        throttle.take(100_000, NEVER)
    assert time.monotonic() - began == pytest.approx(0.5, abs=0.15)


def test_without_a_limit_it_costs_next_to_nothing():
    asked = []
    throttle = Throttle(lambda: asked.append(1) or 0)
    began = time.process_time()
    for _ in range(40_000):  # 10 GiB
        throttle.take(throttle.piece(262_144), NEVER)
    assert time.process_time() - began < 0.5
    assert len(asked) < 5


@pytest.mark.parametrize("limit", [-5, float("inf"), float("nan")])
def test_a_limit_that_is_none_does_not_limit(limit):
    throttle = Throttle(lambda: limit)
    throttle.take(1 << 40, NEVER)
    assert not throttle.limits()


def test_pieces_are_an_eighth_of_a_second_but_not_crumbs():
    assert Throttle(lambda: 800_000).piece(262_144) == 100_000
    assert Throttle(lambda: 100).piece(262_144) == 4096
    assert Throttle(lambda: 1 << 30).piece(262_144) == 262_144


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "half a megabyte.mp4"
    path.write_bytes(os.urandom(512 * 1024))
    return path


def test_two_uploads_stay_below_the_limit_together(bilibili, member, path):
    throttle = Throttle(lambda: 512 * 1024)

    def send(_):
        return upload(path, member, [named("tx")], stop=threading.Event(), throttle=throttle)

    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(send, range(2)))
    seconds = time.monotonic() - began
    assert {one.filename for one in done} == set(bilibili.filenames)
    assert 1.3 < seconds < 3.5, "1 MiB at half a MiB per second, the first quarter at once"


def test_waiting_for_the_throttle_is_not_being_late(bilibili, member_with, path, monkeypatch):
    monkeypatch.setattr("biliupd.publish.transfer.LEAST_BYTES_PER_SECOND", 1 << 30)
    member = member_with(timeout_seconds=0.1, part_attempts=1)
    done = upload(path, member, [named("tx")], stop=threading.Event(), throttle=Throttle(lambda: 256 * 1024))
    assert bilibili.filenames == [done.filename]
    assert len(bilibili.chunks_seen) == 8


def test_a_stop_ends_the_wait_for_the_throttle(bilibili, member, path):
    stop = threading.Event()
    began = []

    def look(progress):
        began.append(time.monotonic())
        stop.set()

    with pytest.raises(Stopped):
        upload(path, member, [named("tx")], stop=stop, throttle=Throttle(lambda: 100), on_progress=look)
    assert time.monotonic() - began[0] < 1
