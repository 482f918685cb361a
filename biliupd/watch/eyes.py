"""How the watched files look at the moment: what is there, how old it is, who writes to it, what is missing.

Runs on the watcher thread. Lists, stats, asks for leases; never writes.
"""

import math
import os
import time
from collections.abc import Callable, Mapping

from biliupd.config import WatchConfig
from biliupd.errors import BiliupdError
from biliupd.watch import listing
from biliupd.watch.listing import Entry
from biliupd.watch.roots import Root
from biliupd.watch.settle import LONGEST_PAUSE_SECONDS, Wait

STEP_SECONDS = 0.1  #: the wall clock and the steady one differ by more than before: the wall clock was set
COARSE_SECONDS = 2.0  #: FAT knows even seconds only, others whole ones
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
        wall, steady = self._now()
        age_seconds = wall - moment_ns / SECOND_NS
        if moment_ns % SECOND_NS == 0:
            age_seconds -= COARSE_SECONDS
        return max(0.0, min(age_seconds, steady - self._stepped_at))

    def moment_ns(self, seconds: float) -> int:
        """What is stamped before it is surely older than so many seconds; 0 when nothing is."""
        wall, steady = self._now()
        return 0 if steady - self._stepped_at < seconds else int((wall - seconds - COARSE_SECONDS) * SECOND_NS)

    def _now(self) -> tuple[float, float]:
        wall, steady = self._wall(), self._steady()
        if abs(wall - steady - self._ahead) > STEP_SECONDS:
            self._stepped_at = steady
        self._ahead = wall - steady
        return wall, steady


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

    def root_of(self, path: str) -> Root | None:
        """The root that a path lies in."""
        for root in self._roots.values():  # several times for each file, so without a generator
            if path.startswith(root.below) or path == root.path:
                return root
        return None

    def look(self, subject: str) -> tuple[Entry, ...] | None:
        root = self.root_of(subject)
        try:
            entry = listing.look(subject, root.path if root else None)
            if entry is not None:
                return (entry,)
            if os.path.isdir(subject) and not os.path.islink(subject):
                return listing.segments(subject, self._watch.ignore, root.path if root else None)
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
        if wait is None and (why := self._why_unfinished(entries[0].path)):
            wait = Wait(why, 10 * self._watch.limit_seconds, LONGEST_PAUSE_SECONDS)
        return wait

    def rested_before(self, root: Root, directory: str) -> int:
        """Files of a directory last changed before this moment may have settled before a scan came; 0: none."""
        return 0 if root.lags(directory) else self.ages.moment_ns(self._watch.quiet_seconds)

    def rested(self, entry: Entry, changed_ns: int) -> bool:
        """Whether a file that a scan came upon, quiet for long enough, has settled, and nobody need look again."""
        if _unusable(entry) is not None:
            return False
        if changed_ns < self.ages.moment_ns(max(LEASE_AGE_SECONDS, 10 * self._watch.limit_seconds)):
            return True
        return not listing.open_for_writing(entry.path) and not self._why_unfinished(entry.path)

    def _why_unfinished(self, path: str) -> str:
        try:
            return self._unfinished(path)
        except (OSError, BiliupdError) as error:  # it may be gone by now: the next look tells
            return str(error) or repr(error)

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
