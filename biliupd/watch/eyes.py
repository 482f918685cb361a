"""How the watched files look at the moment: what is there, how old it is, who writes to it, what is missing.

Runs on the watcher thread. Lists, stats, asks for leases; never writes.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping

from biliupd.config import WatchConfig
from biliupd.watch import listing
from biliupd.watch.listing import Entry
from biliupd.watch.roots import Root
from biliupd.watch.settle import LONGEST_PAUSE_SECONDS, Wait

STEP_SECONDS = 0.1  #: the wall clock and the steady one differ by more than before: the wall clock was set
SECOND_NS = 1_000_000_000
LEASE_AGE_SECONDS = 3600.0  #: nobody is asked about files that did not change for longer
UNREADABLE_SECONDS = 10.0  #: between two tries to read a file at rest that may not be read


class Ages:
    """How old a moment of the wall clock is, in spite of steps of that clock.

    `wall` and `steady` give seconds: of the clock that stamps files, and of one that never steps.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()
        self._stepped_at = -math.inf

    def seconds(self, moment_ns: int) -> float:
        """Since a moment; 0 when it lies in the future, and never more than since the clock was last set."""
        wall, steady = self._wall(), self._steady()
        ahead = wall - steady
        if abs(ahead - self._ahead) > STEP_SECONDS:
            self._stepped_at = steady
        self._ahead = ahead
        age_seconds = wall - moment_ns / SECOND_NS
        if moment_ns % SECOND_NS == 0:
            age_seconds -= 2.0  # FAT knows even seconds only, others whole ones
        return max(0.0, min(age_seconds, steady - self._stepped_at))


class WatcherEyes:
    """`Eyes` for the settler and for scans, over the watcher's roots."""

    def __init__(self, watch: WatchConfig, roots: Mapping[str, Root], unfinished: Callable[[str], str]) -> None:
        self.ages = Ages()
        self._roots = roots
        self._unfinished = unfinished
        self.apply(watch)

    def apply(self, watch: WatchConfig) -> None:
        """Other settings hold from now on."""
        self._watch = watch
        self.ignored = functools.partial(listing.ignored, extra=tuple(watch.ignore))

    def root_of(self, path: str) -> Root | None:
        """The root that a path lies in."""
        return next((root for root in self._roots.values() if root.holds(path)), None)

    def look(self, subject: str) -> tuple[Entry, ...] | None:
        root = self.root_of(subject)
        try:
            entry = listing.look(subject, root.path if root else None)
            if entry is not None:
                return (entry,)
            if os.path.isdir(subject) and not os.path.islink(subject):
                return listing.segments(subject, self.ignored, root.path if root else None)
        except OSError:
            return None
        return ()

    def quiet_seconds(self, subject: str) -> float:
        lags = self._lags(subject)
        return self._watch.network_quiet_seconds if lags else self._watch.quiet_seconds

    def told(self, subject: str) -> bool:
        root = self.root_of(subject)
        return root is not None and root.told_of(subject)

    def age_seconds(self, entries: tuple[Entry, ...]) -> float | None:
        """Only of a single file on this machine: a directory changes without its files, a cache shows old times."""
        if len(entries) != 1 or listing.is_segment(entries[0].path) or self._lags(entries[0].path):
            return None
        return self.ages.seconds(max(entries[0].mtime_ns, entries[0].ctime_ns))

    def is_open(self, entries: tuple[Entry, ...]) -> bool:
        """Of many segments only the youngest can still be open. A lease tells only of writers on this machine."""
        if not entries or self._is_remote(entries[0].path):
            return False
        youngest = entries if len(entries) < 4 else sorted(entries, key=lambda entry: entry.mtime_ns)[-3:]
        return any(listing.open_for_writing(entry.path) for entry in youngest)

    def unfinished(self, entries: tuple[Entry, ...]) -> Wait | None:
        if len(entries) != 1 or listing.is_segment(entries[0].path):
            return None
        wait = _unusable(entries[0])
        if wait is None and (why := self._unfinished(entries[0].path)):
            wait = Wait(why, 10 * self._watch.limit_seconds, LONGEST_PAUSE_SECONDS)
        return wait

    def rested(self, entries: tuple[Entry, ...]) -> bool:
        """Whether files that a scan came upon settled before, so that nobody need look at them again."""
        age_seconds = self.ages.seconds(max(max(entry.mtime_ns, entry.ctime_ns) for entry in entries))
        if age_seconds <= self._watch.quiet_seconds or self._lags(entries[0].path):
            return False
        if age_seconds > max(LEASE_AGE_SECONDS, 10 * self._watch.limit_seconds):
            return len(entries) > 1 or _unusable(entries[0]) is None
        return not self.is_open(entries) and self.unfinished(entries) is None

    def _lags(self, path: str) -> bool:
        root = self.root_of(path)
        return root is not None and root.lags(path)

    def _is_remote(self, path: str) -> bool:
        root = self.root_of(path)
        return root is not None and root.is_remote(path)


def _unusable(entry: Entry) -> Wait | None:
    if entry.size_bytes == 0:
        return Wait("it is empty", math.inf, LONGEST_PAUSE_SECONDS)
    if not os.access(entry.path, os.R_OK):
        return Wait("it may not be read", math.inf, UNREADABLE_SECONDS)
    return None
