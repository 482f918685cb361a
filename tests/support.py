"""What tests of several rooms share."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

_numbers = itertools.count()


def wait_until(condition: Callable[[], object], seconds: float = 20.0, what: str = "", every: float = 0.02) -> None:
    """Look at `condition` until it holds; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(every)


def another(video: Path, path: Path) -> Path:
    """A copy of an mp4 that plays the same and has other bytes, of the same number."""
    shutil.copy(video, path)
    set_apart(path)
    return path


def set_apart(video: Path) -> None:
    """Let an mp4 end in a box that nobody reads, and that no other file has."""
    with open(video, "ab") as file:
        file.write((24).to_bytes(4, "big") + b"free" + f"{os.getpid()}-{next(_numbers)}".encode().ljust(16, b"."))


def clock_ahead(file: Path, seconds: float) -> dict[str, str]:
    """Set the clock of processes that are started with this environment, now or before (tests/clock)."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(file)
    return {"CLOCK": str(file), "PYTHONPATH": str(Path(__file__).parent / "clock")}
