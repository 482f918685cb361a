"""Watch directories and say which paths have settled.

Runs on the thread `watcher`; watchdog's threads only fill its bounded queue. Touches the watched directories: lists,
stats, never writes (what `Observing.touch` does, nobody sees). Does not know what a video is: its callables do.

Events are hints, the full scan is the truth. It runs at the start, when events were lost, when a root comes back, and
every `rescan_seconds`, in small steps between which events are taken. A root that vanished or was replaced by an empty
directory is offline, and never reported as an empty listing nor as deleted files.
"""

import itertools
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from biliupd.config import WatchConfig
from biliupd.watch import listing, mounts
from biliupd.watch.eyes import WatcherEyes
from biliupd.watch.listing import Entry
from biliupd.watch.observing import Event
from biliupd.watch.outbox import BATCH, LONGEST_RETRY_SECONDS, Outbox
from biliupd.watch.roots import Root, Scan, Survey
from biliupd.watch.settle import Settled, Settler, only_init, subject_of

STEP_SECONDS = 0.02  #: a scan stops after this long to take events
GATHER_SECONDS = 0.01  #: settled paths of so long go out in one batch
IDLE_SECONDS = 1.0  #: between two turns when nothing happens
SOON_SECONDS = 0.25  #: the same while a scan or a batch waits for its time
CHECK_SECONDS = 2.0  #: between two looks at the roots and at the observers


class WatchStatus(NamedTuple):
    """What the watcher is doing."""

    watching: bool  #: every root that is there is observed or polled
    suspended: bool
    roots: dict[str, str]  #: why each is "offline: ..." or "unwatched in part: ..."; "" when all is well
    observed: dict[str, str]  #: how each is: native, "polled: why", "partly: why"; "" while it is offline
    waiting: int  #: events in the queue
    settling: int  #: paths that may be changing
    waits: dict[str, str]  #: of those, the ones at rest that are not taken yet, and why
    held_back: int  #: settled paths that on_settled has not taken yet
    last_scan_at: datetime | None
    last_scan_seconds: float
    last_scan_entries: int
    rescans: dict[str, int]  #: finished scans by cause: start, overflow, timer, asked, returned, replaced, ...


class Watcher:
    """The watched roots, their events and scans.

    `on_settled` takes batches of settled paths. `on_scan(root)` is called when a scan begins and gives the `Survey`
    that takes it; the entries it calls new or changed then settle as if there had been events. `on_root(root, text)`
    is called on a change only: "offline: why", "unwatched in part: why", or "" when all is well (again). All are
    called on the watcher thread; when one raises, its call (or the whole scan) is repeated later with growing pauses.
    `unfinished(path)` may say why a file at rest is not whole yet; it is then taken after ten times `limit_seconds`.
    """

    def __init__(
        self, watch: WatchConfig, roots: Sequence[Path], *,
        on_settled: Callable[[list[Settled]], None],
        on_scan: Callable[[Path], Survey],
        on_root: Callable[[Path, str], None],
        unfinished: Callable[[str], str] = lambda path: "",
    ) -> None:
        self.stop = threading.Event()
        self._on_scan, self._on_root = on_scan, on_root
        self._watch = watch
        self._roots: dict[str, Root] = {}
        self._add_roots(roots)
        self._asked: deque[Callable[[], None]] = deque()  # what other threads want done on the watcher thread
        self._suspended = self._asleep = False
        self._wake = threading.Event()
        self._queue: queue.Queue[Event] = queue.Queue(watch.queue_size)
        self._queued: set[Event] = set()  # what is in the queue, so that nothing waits there twice
        self._lost: set[str] = set()  # roots of which events found the queue full,
        self._overflowed: set[str] = set()  # or got lost on the way there
        self._eyes = WatcherEyes(watch, self._roots, unfinished)
        self._settler = Settler(watch.limit_seconds, self._eyes)
        self._gone_directories: set[str] = set()
        self._branches: deque[str] = deque()  # new directories to list
        self._branch: Iterator[tuple[str, list[Entry]]] | None = None
        self._outbox = Outbox(on_settled)
        self._mounts: tuple[mounts.Mount, ...] = ()
        self._check_at = 0.0
        self._last_scan: tuple[datetime | None, float, int] = (None, 0.0, 0)
        self._rescans: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    # What others call

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, deadline_seconds: float) -> None:
        """Stop watching and wait for the thread at most this long."""
        self.stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(deadline_seconds)
        if not self._thread.is_alive():
            self._close_observers(deadline_seconds)

    def apply(self, watch: WatchConfig, roots: Sequence[Path]) -> None:
        """Use other settings and roots from the next turn on: new roots are scanned, dropped ones forgotten."""
        self._ask(lambda: self._change(watch, roots))

    def suspend(self) -> None:
        """Stop watching; what happens until `resume` is found by the scan then."""
        self._suspended = True
        self._wake.set()

    def resume(self) -> None:
        """Watch again and scan all."""
        self._suspended = False
        self._wake.set()

    def rescan(self) -> None:
        """Scan all roots soon."""
        self._ask(lambda: self._want("asked"))

    def status(self) -> WatchStatus:
        """What it is doing now; may be called on any thread."""
        roots = list(self._roots.values())
        return WatchStatus(
            not self._asleep and all(root.is_watched() for root in roots if root.online), self._suspended,
            {root.path: root.told for root in roots}, {root.path: root.observed() for root in roots},
            self._queue.qsize(), len(self._settler), dict(self._settler.waits), len(self._outbox), *self._last_scan,
            dict(self._rescans))

    def is_alive(self) -> bool:
        """Whether its thread is. Observers that die are built anew; meanwhile, scans find what they miss."""
        return self._thread.is_alive()

    # The thread

    def _run(self) -> None:
        pause_seconds = 1.0
        try:
            while not self.stop.is_set():
                self._wake.clear()
                try:
                    busy = self.turn(time.monotonic())
                    pause_seconds = 1.0
                except Exception:  # noqa: BLE001  the top of the thread's turn
                    logger.exception("the watcher's turn failed; all roots are scanned again")
                    self._want("failed")
                    self.stop.wait(pause_seconds)
                    pause_seconds = min(pause_seconds * 2, LONGEST_RETRY_SECONDS)
                    continue
                if not busy:
                    self._wake.wait(self._idle_seconds(time.monotonic()))
        finally:
            self._close_observers(5.0)

    def _idle_seconds(self, now: float) -> float:
        if self._suspended:
            return IDLE_SECONDS
        if self._outbox or any(root.wanted and root.online for root in self._roots.values()):
            return SOON_SECONDS
        due_at = self._settler.next_at()
        return IDLE_SECONDS if due_at is None else min(max(due_at - now, GATHER_SECONDS), IDLE_SECONDS)

    def turn(self, now: float) -> bool:
        """Do what is due at `now`, any clock that never steps back; True: there is more to do at once."""
        while self._asked:
            self._asked.popleft()()
        if self._suspended:
            self._sleep()
            return False
        self._asleep = False
        if now >= self._check_at:
            self._check(now)
        self._take_losses()
        busy = self._take_events(now)
        busy |= self._list_branches(now)
        busy |= self._scan_roots(now)
        self._collect(now)
        busy |= self._outbox.turn(now)
        return busy

    def _ask(self, action: Callable[[], None]) -> None:
        self._asked.append(action)
        self._wake.set()

    def _add_roots(self, roots: Sequence[Path]) -> None:
        """In the order of the settings: of two that overlap the first one stays."""
        old = dict(self._roots)
        self._roots.clear()
        for path in map(os.path.abspath, roots):
            self._roots[path] = old.pop(path) if path in old else Root(path, self._sink, self._lose)
        for root in old.values():
            self._forget(root)
            self._tell(root, "")

    def _change(self, watch: WatchConfig, roots: Sequence[Path]) -> None:
        self._add_roots(roots)
        old, self._watch = self._watch, watch
        self._eyes.apply(watch)
        self._settler.limit_seconds = watch.limit_seconds
        if (old.observer, old.polling_seconds, old.queue_size, old.ignore) != (
                watch.observer, watch.polling_seconds, watch.queue_size, watch.ignore):
            self._close_observers(5.0)
            self._queue, self._queued = queue.Queue(watch.queue_size), set()
            for root in self._roots.values():
                root.stale = True
            self._want("asked")
        self._check_at = 0.0

    def _sleep(self) -> None:
        """Suspended: no observer, nothing under way; every root is scanned after `resume`."""
        if self._asleep:
            return
        self._asleep = True
        for root in self._roots.values():
            self._forget(root)
            root.wanted, root.not_before = "asked", 0.0
        self._branches.clear()
        self._branch = None
        self._check_at = 0.0

    # Events

    def _sink(self, event: Event) -> None:
        """On watchdog's thread: never waits."""
        if event in self._queued:
            return
        self._queued.add(event)
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._queued.discard(event)
            self._lost.add(event.root)
        self._wake.set()

    def _lose(self, root: str) -> None:
        """On watchdog's thread: the kernel, or watchdog, has lost events of this root."""
        self._overflowed.add(root)
        self._wake.set()

    def _take_losses(self) -> None:
        while self._overflowed:
            path = self._overflowed.pop()
            self._lost.add(path)
            if path in self._roots and self._roots[path].wanted is None:
                logger.warning("events of {!a} were lost, it is scanned; a larger fs.inotify.max_queued_events helps",
                               path)
        while self._lost:
            root = self._roots.get(self._lost.pop())
            if root is not None:
                root.want("overflow")

    def _take_events(self, now: float) -> bool:
        for _ in range(1000):
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return False
            self._queued.discard(event)
            root = self._roots.get(event.root)
            if root is None or not root.online:
                continue
            if event.path == root.path:
                self._check_at = 0.0
            elif event.directory and event.gone:
                self._gone_directories.add(event.path)
                self._settler.note(event.path, now)
            elif event.directory:
                self._branches.append(event.path)
            else:
                subject = subject_of(event.path, self._roots)
                if event.gone or subject == event.path:
                    self._settler.note(event.path, now, timed=True)
                if subject != event.path:
                    self._settler.note(subject, now)
        return True

    def _list_branches(self, now: float) -> bool:
        """Note what lies in new directories: their files may have come before the kernel watched them."""
        until = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < until:
            if self._branch is None:
                if not self._branches:
                    return False
                self._branch = listing.scan(self._branches.popleft(), self._watch.ignore)
            for _, entries in self._branch:
                self._find([entry for entry in entries if self._eyes.root_of(entry.path) is not None], now)
                if time.perf_counter() > until:
                    return True
            self._branch = None
        return True

    # Scans

    def _want(self, cause: str) -> None:
        for root in self._roots.values():
            root.want(cause)

    def _scan_roots(self, now: float) -> bool:
        for root in self._roots.values():
            if not root.online:
                continue
            if root.scan is None and now >= root.next_at:
                root.want("timer")
            if root.scan is None and root.wanted and now >= root.not_before:
                self._begin_scan(root, root.wanted, now)
            if root.scan is not None:
                if len(self._outbox) >= 2 * BATCH:
                    return False  # first what was found has to be taken
                self._advance(root, root.scan, now)
                return True
        return False

    def _begin_scan(self, root: Root, cause: str, now: float) -> None:
        unreadable: list[str] = []

        def complain(path: str, error: OSError) -> None:
            unreadable.append(f"{path!a}: {error.strerror}")

        root.before_scan(now, self._watch)
        self._branches = deque(path for path in self._branches if not root.holds(path))  # the scan comes there, too
        try:
            survey = self._on_scan(Path(root.path))
        except Exception as error:  # noqa: BLE001  not ours to know what it raises: the scan is repeated
            self._refused(root, cause, now, error)
            return
        root.wanted = None
        root.scan = Scan(listing.scan(root.path, self._watch.ignore, complain), cause, unreadable, survey)

    def _advance(self, root: Root, scan: Scan, now: float) -> None:
        until = time.perf_counter() + STEP_SECONDS
        try:
            for directory, entries in scan.entries:
                scan.directories += 1
                scan.files += len(entries)
                if fresh := scan.survey.look(directory, entries):
                    self._find(fresh, now, self._eyes.rested_before(root, fresh[0].path))
                if time.perf_counter() > until:
                    return
            self._examine(root, now)
            if root.scan is not scan:
                return
            scan.survey.end(not scan.unreadable)
        except Exception as error:  # noqa: BLE001  not ours to know what it raises: the scan is repeated
            self._refused(root, scan.cause, now, error)
            return
        root.scan = None
        if sorted(scan.unreadable) not in ([], sorted(root.unreadable)):  # said once, not at each scan
            logger.warning("{} of {!a} could not be listed, among them {}", len(scan.unreadable), root.path,
                           "; ".join(scan.unreadable[:3]))
        took_seconds = time.perf_counter() - scan.began_at
        root.after_scan(now, scan, took_seconds, self._watch)
        self._tell(root, root.trouble())
        self._rescans[scan.cause] += 1
        self._last_scan = (datetime.now(UTC), took_seconds, scan.files)

    def _refused(self, root: Root, cause: str, now: float, error: Exception) -> None:
        if not root.retry_seconds:
            logger.warning("the scan of {!a} was not taken, tried again later: {!r}", root.path, error)
        root.scan = None
        root.retry_seconds = min(max(1.0, root.retry_seconds * 2), LONGEST_RETRY_SECONDS)
        root.want(cause)
        root.not_before = now + root.retry_seconds

    def _find(self, entries: list[Entry], now: float, rested_before_ns: int = 0) -> None:
        """Files that a listing shows; those last changed before a moment need not show first that they rest."""
        seen: set[str] = set()
        for entry in entries:
            path = entry.path
            subject = subject_of(path, self._roots)
            if subject in seen or subject in self._settler:
                continue
            changed_ns = max(entry.mtime_ns, entry.ctime_ns)
            if subject == path:
                if changed_ns < rested_before_ns and self._eyes.rested(entry, changed_ns):
                    self._report(Settled(path, (entry,), growing=False))
                    continue
                age_seconds = self._eyes.age_seconds((entry,))
                self._settler.find(path, now, age_seconds or 0.0, timed=age_seconds is not None)
                continue
            seen.add(subject)
            files = self._eyes.look(subject) if changed_ns < rested_before_ns else None
            youngest_ns = max((max(file.mtime_ns, file.ctime_ns) for file in files), default=0) if files else 0
            if files and youngest_ns < rested_before_ns and not self._eyes.is_open(files):
                self._report(Settled(subject, files, growing=False))
            else:
                self._settler.find(subject, now)

    # Settled paths

    def _collect(self, now: float) -> None:
        """Take from the settler what is due, unless the last batch still waits to be taken."""
        if self._outbox:
            return
        found = self._settler.turn(now, BATCH)
        if any(not item.entries for item in found):
            for root in list(self._roots.values()):
                self._examine(root, now)  # the files are gone, or is it the root?
        for item in found:
            home = self._eyes.root_of(item.path)
            if home is not None and home.online:
                self._judge(item, home, now)

    def _judge(self, item: Settled, root: Root, now: float) -> None:
        there = os.path.isdir(item.path)
        if item.path in self._gone_directories and not item.growing:
            self._gone_directories.discard(item.path)
            if there:
                root.want("replaced")  # of the files that lay in it before, no event tells
        if there and not item.entries:
            return  # a directory without segments is nothing; that they are gone was said one by one
        if not there and item.entries and subject_of(item.path, self._roots) != item.path:
            self._settler.note(os.path.dirname(item.path), now)  # it came back: one with its directory
            return
        self._report(item)

    def _report(self, item: Settled) -> None:
        if only_init(item.entries):
            item = item._replace(path=item.entries[0].path)
        self._outbox.put(item)

    # Roots

    def _check(self, now: float) -> None:
        self._check_at = now + CHECK_SECONDS
        self._mounts = mounts.read()
        for root in list(self._roots.values()):
            self._examine(root, now)

    def _examine(self, root: Root, now: float) -> None:
        """Is the root there? Take it offline or put it (back) to use."""
        before = itertools.takewhile(lambda other: other is not root, self._roots.values())
        sight, why = root.judge(self._mounts, before)
        if sight is None or why:
            self._put_offline(root, why)
            return
        if root.stale or not (root.online and root.sees(sight) and root.is_well(now)):
            try:
                root.settle_in(sight, self._watch)
            except OSError as error:
                self._put_offline(root, error.strerror or str(error))
                return
        self._tell(root, root.trouble())

    def _put_offline(self, root: Root, why: str) -> None:
        self._forget(root)
        self._tell(root, f"offline: {why}")

    def _forget(self, root: Root) -> None:
        """Nothing of what is under way below this root may be reported any more."""
        if not root.online:
            return
        root.online, root.scan = False, None
        root.close(5.0)
        self._settler.forget(root.holds)
        self._outbox.forget(root.holds)

    def _tell(self, root: Root, text: str) -> None:
        if root.told == text:
            return
        try:
            self._on_root(Path(root.path), text)
        except Exception as error:  # noqa: BLE001  not ours to know what it raises: told again at the next look
            logger.warning("a change of {!a} was not taken: {!r}", root.path, error)
            return
        root.told = text
        (logger.warning if text else logger.info)("{!a} {}", root.path, text or (
            "is watched again" if root.path in self._roots else "is not to be watched any more"))

    def _close_observers(self, deadline_seconds: float) -> None:
        for root in self._roots.values():
            root.close(deadline_seconds)
