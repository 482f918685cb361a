"""A watched root: is it there, is it still the same one, and when is it listed next?

Runs on the watcher thread. Reads the root directory, never writes.
"""

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from biliupd.watch.listing import Entry


class Sight(NamedTuple):
    """What a root looks like at the moment."""

    identity: tuple[int, int]  #: device and inode: another file system mounted there has another one
    real: str  #: its path without symbolic links
    empty: bool


def examine(path: str) -> Sight:
    """Look at a root. Raises OSError when it is not there or cannot be listed."""
    real = os.path.realpath(path)
    info = os.stat(real)
    with os.scandir(real) as items:
        empty = next(items, None) is None
    return Sight((info.st_dev, info.st_ino), real, empty)


class Scan:
    """A listing under way."""

    def __init__(self, entries: Iterator[Entry], cause: str, unreadable: list[str]) -> None:
        self.entries = entries
        self.cause = cause
        self.unreadable = unreadable
        self.found: list[Entry] = []
        self.began_at = time.perf_counter()


class Root:
    """State of one root. Times are the watcher's monotonic ones, in seconds."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sight: Sight | None = None  # as it was when it was last good
        self.online = False
        self.told = ""  # what on_root was told last
        self.unwatched = False  # it can be listed, but the kernel takes no watch
        self.wanted: str | None = "start"  # cause of the listing that is due, if one is
        self.not_before = 0.0  # a listing waits until then
        self.again_at: float | None = None  # a second listing after an overflow of the kernel's queue
        self.next_at = float("inf")  # the next listing by the timer
        self.retry_seconds = 0.0
        self.scan: Scan | None = None

    def want(self, cause: str) -> None:
        """A listing is due; the first cause stands."""
        self.wanted = self.wanted or cause

    def holds(self, path: str) -> bool:
        """Whether a path is the root or below it."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")

    def sees(self, sight: Sight) -> bool:
        """Whether it is still the directory it was, by the same way."""
        return self.sight is not None and (self.sight.identity, self.sight.real) == (sight.identity, sight.real)

    def judge(self) -> tuple[Sight | None, str]:
        """How the root looks, and why it cannot be used ("" if it can)."""
        try:
            sight = examine(self.path)
        except OSError as error:
            return None, error.strerror or str(error)
        if self.sight is not None and sight.identity != self.sight.identity and sight.empty:
            # An unmounted share leaves an empty directory of another identity in its place.
            return sight, "is empty and not the directory it was; is its file system mounted?"
        return sight, ""
