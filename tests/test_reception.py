"""What the front of the house does itself; the rest is asked for over HTTP in test_daemon_control."""

import shutil
import threading
import time

from support import wait_until

from biliupd.reception import Meter


def test_the_free_space_is_what_the_system_says_and_a_directory_that_is_gone_has_none(tmp_path):
    free, total = Meter().usage(tmp_path)
    assert total == shutil.disk_usage(tmp_path).total
    assert 0 < free < total
    assert Meter().usage(tmp_path / "gone") is None


def test_a_mount_that_hangs_holds_up_one_thread_and_each_who_asks_for_a_moment_only(tmp_path):
    back, asked = threading.Event(), []

    def hang(directory):
        asked.append(directory)
        back.wait()
        return 10, 7, 3

    meter, began = Meter(hang), time.monotonic()
    try:
        assert [meter.usage(tmp_path, 0.05) for _ in range(3)] == [None] * 3
        assert time.monotonic() - began < 5
        assert asked == [tmp_path]
    finally:
        back.set()
    wait_until(lambda: meter.usage(tmp_path, 5) == (3, 10))


def test_however_many_ask_at_once_each_is_told(tmp_path):
    meter, told = Meter(), []

    def ask() -> None:
        for _ in range(1000):
            told.append(meter.usage(tmp_path, 20))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(told) == 4000
    assert None not in told
