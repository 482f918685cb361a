"""Fixtures for every room."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import wait_until


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    """A part that does not end when it is closed fails the test that started it."""
    before = set(threading.enumerate())
    yield

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]

    try:
        wait_until(lambda: not left(), seconds=5)
    except AssertionError:
        pytest.fail(f"threads left behind: {left()}")
