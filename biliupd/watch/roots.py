"""A watched root: is it there, is it still the same one, how is it observed, and when is it scanned next?

Runs on the watcher thread. Reads the root directory; all it changes is what `Observing.touch` says.
"""

import errno
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from loguru import logger

from biliupd.config import WatchConfig
from biliupd.watch.listing import Entry
from biliupd.watch.mounts import Mount, remote, under
from biliupd.watch.observing import Event, Observing, limit_reached

CANARY_SECONDS = 15.0  #: between two touches of a root, whose event shows that its observer hears
DEAF_SECONDS = 10.0  #: not heard for so long: the observer is built anew
_FULL = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Survey(Protocol):
    """Takes one scan of a root, directory by directory."""

    def look(self, directory: str, entries: list[Entry]) -> list[Entry]:
        """All regular files directly in a directory (absolute path) -> those that are new or changed."""

    def end(self, complete: bool) -> None:
        """The scan is over; `complete` False: something could not be listed, so nothing counts as gone."""


class Sight(NamedTuple):
    """What a root looks like at the moment."""

    identity: tuple[int, int]  #: device and inode: another file system mounted there has another one
    real: str  #: its path without symbolic links
    empty: bool
    mount: str  #: where the file system it lies on is mounted
    remote: str  #: the kind of that file system when others write to it, too
    remote_below: tuple[str, ...]  #: where such ones are mounted below it, with a slash at the end
    below: str  #: the kind of the first of these


def examine(path: str, mounts: tuple[Mount, ...] = ()) -> Sight:
    """Look at a root. Raises OSError when it is not there or cannot be listed."""
    real = os.path.realpath(path)
    info = os.stat(real)
    with os.scandir(real) as items:
        empty = next(items, None) is None
    kind, below = remote(real, mounts)
    points = tuple(os.path.join(point, "") for point in below)
    return Sight((info.st_dev, info.st_ino), real, empty, under(real, mounts).point, kind, points,
                 next(iter(below.values()), ""))


class Scan:
    """A scan under way."""

    def __init__(
        self, entries: Iterator[tuple[str, list[Entry]]], cause: str, unreadable: list[str], survey: Survey
    ) -> None:
        self.entries = entries
        self.cause = cause
        self.unreadable = unreadable
        self.survey = survey
        self.directories = self.files = 0
        self.began_at = time.perf_counter()


class Root:
    """State of one root. Times are the watcher's monotonic ones, in seconds."""

    def __init__(self, path: str, sink: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        self.path = path
        self.online = False
        self.told = ""  # what on_root was told last
        self.wanted: str | None = "start"  # cause of the scan that is due, if one is
        self.not_before = 0.0  # a scan waits until then
        self.next_at = math.inf  # the next scan by the timer
        self.retry_seconds = 0.0
        self.unreadable: list[str] = []  # what could not be listed the last time
        self.scan: Scan | None = None
        self.stale = False  # the settings changed: observe it anew
        self.sight: Sight | None = None  # as it was when it was last good
        self._first: tuple[int, int] | None = None  # the identity it had when it was used first
        self.below = os.path.join(path, "")
        self._sink, self._lost = sink, lost
        self._observing: Observing | None = None
        self._polled = False
        self._observer = "auto"  # as the settings say
        self._trouble = ""  # why events do not tell of all of it
        self._suspect = False  # watches seemed to be missing once
        self._rewatch_at = 0.0
        self._touch_at = 0.0

    def want(self, cause: str) -> None:
        """A scan is due; the first cause stands."""
        self.wanted = self.wanted or cause

    def holds(self, path: str) -> bool:
        """Whether a path is the root or below it."""
        return path.startswith(self.below) or path == self.path

    def told_of(self, path: str) -> bool:
        """Whether events tell of a path's changes."""
        return self._observing is not None and not self._trouble and not self.lags(path)

    def lags(self, path: str) -> bool:
        """Whether the network's quiet time holds for a path."""
        return self._polled or self.is_remote(path)

    def is_remote(self, path: str) -> bool:
        """Whether others than this machine write to the file system of a path."""
        sight = self.sight
        if sight is None or not (sight.remote or sight.remote_below):
            return False
        return bool(sight.remote) or (sight.real + path[len(self.path):]).startswith(sight.remote_below)

    def is_watched(self) -> bool:
        """Whether its observer is alive, if it has one."""
        return self._polled or bool(self._trouble) or (self._observing is not None and self._observing.is_alive())

    def observed(self) -> str:
        """How changes are noticed, and why: native, "polled: ...", or "partly: ...": natively, but polled as well."""
        sight = self.sight
        if sight is None or not self.online:
            return ""
        if self._polled:
            return "polled: " + (f"its file system is {sight.remote}" if self._observer == "auto" else "it is set so")
        if self._trouble:
            return f"partly: {self._trouble}"
        if self._is_mixed():
            return f"partly: {sight.below} is mounted at {sight.remote_below[0]!a}"
        return "native"

    def trouble(self) -> str:
        """What is to be told of a root that is there; "" when all is well."""
        return f"unwatched in part: {self._trouble}" if self._trouble else ""

    def _is_mixed(self) -> bool:
        return self._observer == "auto" and self.sight is not None and bool(self.sight.remote_below)

    # Is it there?

    def judge(self, mounts: tuple[Mount, ...], others: Iterable["Root"]) -> tuple[Sight | None, str]:
        """How the root looks, and why it cannot be used ("" if it can). `others` come before this one."""
        try:
            sight = examine(self.path, mounts)
        except OSError as error:
            return None, error.strerror or str(error)
        for other in others:
            if other.online and other.sight is not None and _overlap(sight.real, other.sight.real):
                return sight, f"is really {sight.real!a}, and overlaps {other.path!a}: watched folders stay apart"
        old = self.sight
        if old is None:
            return sight, ""
        if sight.identity != old.identity and sight.empty:
            # An unmounted share leaves an empty directory of another identity in its place.
            return sight, "is empty and not the directory it was; is its file system mounted?"
        if sight.real == old.real and len(sight.mount) < len(old.mount) and sight.identity != self._first:
            return sight, f"nothing is mounted at {old.mount!a} any more; restart biliupd if that is meant"
        return sight, ""

    def sees(self, sight: Sight) -> bool:
        """Whether it is still the directory it was, by the same way, on such a file system."""
        return self.sight is not None and self.sight._replace(empty=sight.empty) == sight

    # How is it observed?

    def settle_in(self, sight: Sight, watch: WatchConfig) -> None:
        """Use the root as it looks now: observe what can be observed. Raises OSError when the root itself cannot."""
        cause = "returned" if not self.online else "observer" if self.sees(sight) else "replaced"
        self.close(1.0)
        self._observer, self._trouble = watch.observer, ""
        self._polled = watch.observer == "polling" or (watch.observer == "auto" and bool(sight.remote))
        if not self._polled:
            self._watch(sight.real, watch)
        self.sight, self.scan = sight, None
        self._first = self._first or sight.identity
        self.want(cause)
        self.online = True
        self.stale, self._suspect, self._touch_at = False, False, 0.0

    def _watch(self, real: str, watch: WatchConfig) -> None:
        try:
            self._observing = Observing(self.path, real, tuple(watch.ignore), self._sink, self._lost)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._trouble = limit_reached("watches" if error.errno == errno.ENOSPC else "instances")

    def is_well(self, now: float) -> bool:
        """Whether its observer lives and hears; it is touched from time to time."""
        if self._polled or self._observing is None:
            return True
        if not self._observing.is_alive():
            logger.warning("the observer of {!a} died; it is built anew", self.path)
            return False
        if self._observing.deaf_seconds() > DEAF_SECONDS:
            logger.warning("the observer of {!a} hears nothing; it is built anew", self.path)
            return False
        if now >= self._touch_at:
            self._touch_at = now + CANARY_SECONDS
            self._observing.touch()
        return True

    def before_scan(self, now: float, watch: WatchConfig) -> None:
        """A scan begins: what is not watched is tried once more, so that the scan finds what came until then."""
        if self.sight is None or not self._trouble or now < self._rewatch_at:
            return
        began_at = time.perf_counter()
        self.close(1.0)
        try:
            self._watch(self.sight.real, watch)
        except OSError as error:
            self._trouble = error.strerror or str(error)
        self._rewatch_at = now + max(watch.polling_seconds, 20 * (time.perf_counter() - began_at))

    def after_scan(self, now: float, scan: Scan, took_seconds: float, watch: WatchConfig) -> None:
        """A scan is over: when is the next one, and are all directories it found watched?"""
        self.retry_seconds = 0.0
        # Scan after scan: four fifths of the time stay for the rest, unless files would settle meanwhile, unseen.
        self.not_before = now + max(took_seconds, min(4 * took_seconds, watch.quiet_seconds / 2))
        if self._observing is not None:
            missing = self._observing.missing(scan.directories)
            if missing and not self._suspect:  # a directory made at this moment is watched in the next one
                self._suspect = True
                self.want("unwatched")
                self.not_before = max(self.not_before, now + 1.0)
            elif missing and not self._trouble:
                self._trouble = missing
            elif not missing:
                self._suspect, self._trouble = False, ""
        self.unreadable = scan.unreadable
        often = self._polled or self._trouble or scan.unreadable or self._is_mixed()
        self.next_at = now + (min(watch.rescan_seconds, watch.polling_seconds) if often else watch.rescan_seconds)

    def close(self, deadline_seconds: float) -> None:
        """No observer any more; waits for its thread at most this long."""
        observing, self._observing = self._observing, None
        if observing is not None:
            observing.close(deadline_seconds)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(os.path.join(other, "")) or other.startswith(os.path.join(one, ""))
