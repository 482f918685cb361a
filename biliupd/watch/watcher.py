"""Watch directories and say which paths have settled.

Runs on the thread `watcher`; watchdog's threads only fill its bounded queue. Touches the watched directories: lists,
stats, never writes. Does not know what a video is: its callables do.

Events are hints, the full scan is the truth. It runs at the start, when events were lost, when a root comes back, and
every `rescan_seconds`, in small steps between which events are taken. A root that vanished or was replaced by an empty
directory is offline, and never reported as an empty listing nor as deleted files.
"""

import errno
import functools
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
from biliupd.watch import listing
from biliupd.watch.listing import Entry
from biliupd.watch.observing import Event, Observing
from biliupd.watch.outbox import BATCH, LONGEST_RETRY_SECONDS, Outbox
from biliupd.watch.roots import Root, Scan
from biliupd.watch.settle import Settled, Settler, only_init, subject_of

STEP_SECONDS = 0.02  #: a scan stops after this long to take events
CHECK_SECONDS = 2.0  #: between two looks at the roots and at the observer
OBSERVER_GRACE_SECONDS = 30.0  #: a dead observer is rebuilt; only after this long the watcher counts as dead, too
LEASE_AGE_SECONDS = 3600.0  #: a scan asks only for files changed within this time whether somebody writes to them


class WatchStatus(NamedTuple):
    """What the watcher is doing."""

    watching: bool  #: the observer is alive
    suspended: bool
    observer: str  #: native or polling
    roots: dict[str, str]  #: why each is "offline: ..." or "unwatched: ..."; "" when all is well
    waiting: int  #: events in the queue
    settling: int  #: paths that may be changing
    held_back: int  #: settled paths that on_settled has not taken yet
    last_scan_at: datetime | None
    last_scan_seconds: float
    last_scan_entries: int
    rescans: dict[str, int]  #: finished scans by cause: start, overflow, timer, asked, returned, replaced, ...


class Watcher:
    """The watched roots, their events and scans.

    `on_settled` takes batches of settled paths, `on_scanned` a whole listing of a root and whether it is complete, and
    answers with the entries that are new or changed for it; these then settle as if there had been events.
    `on_root(root, text)` is called on a change only: "offline: why", or "" when the root is (back) in use. All are
    called on the watcher thread; when one raises, its call is repeated later with growing pauses.
    """

    def __init__(
        self, watch: WatchConfig, roots: Sequence[Path], *,
        on_settled: Callable[[list[Settled]], None],
        on_scanned: Callable[[Path, list[Entry], bool], list[Entry]],
        on_root: Callable[[Path, str], None],
    ) -> None:
        self.stop = threading.Event()
        self._on_scanned, self._on_root = on_scanned, on_root
        self._watch = watch
        self._ignored = functools.partial(listing.ignored, extra=watch.ignore)
        self._roots = {path: Root(path) for path in map(os.path.abspath, roots)}
        self._asked: deque[Callable[[], None]] = deque()  # what other threads want done on the watcher thread
        self._suspended = False
        self._wake = threading.Event()
        self._queue: queue.Queue[Event] = queue.Queue(watch.queue_size)
        self._queued: set[Event] = set()  # what is in the queue, so that nothing waits there twice
        self._lost: set[str] = set()  # roots of which events were lost; "" for the kernel's overflow
        self._settler = Settler(watch.quiet_seconds, watch.limit_seconds, self._look, self._is_open)
        self._gone_directories: set[str] = set()
        self._branches: deque[str] = deque()  # new directories to list
        self._branch: Iterator[Entry] | None = None
        self._outbox = Outbox(on_settled)
        self._observing: Observing | None = None
        self._observer_trouble_at: float | None = None
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
            self._close_observer(deadline_seconds)

    def apply(self, watch: WatchConfig, roots: Sequence[Path]) -> None:
        """Use other settings and roots from the next turn on: new roots are scanned, dropped ones forgotten."""
        self._ask(lambda: self._change(watch, [os.path.abspath(path) for path in roots]))

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
        observing = self._observing
        roots = {root.path: root.told for root in list(self._roots.values())}
        return WatchStatus(
            observing is not None and observing.is_alive(), self._suspended, self._watch.observer, roots,
            self._queue.qsize(), len(self._settler), len(self._outbox), *self._last_scan, dict(self._rescans))

    def is_alive(self) -> bool:
        """Whether its thread is alive, and the observer, which is rebuilt when it dies, not dead for long."""
        trouble_at = self._observer_trouble_at
        return self._thread.is_alive() and (
            trouble_at is None or time.monotonic() - trouble_at < OBSERVER_GRACE_SECONDS)

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
            self._close_observer(5.0)

    def _idle_seconds(self, now: float) -> float:
        due_at = self._settler.next_at()
        if due_at is None or self._outbox or self._suspended:
            return 0.25 if self._outbox else 1.0
        return min(max(due_at - now, 0.001), 1.0)

    def turn(self, now: float) -> bool:
        """Do what is due at `now`, any clock that never steps back; True: there is more to do at once."""
        while self._asked:
            self._asked.popleft()()
        if self._suspended:
            self._sleep()
            return False
        if now >= self._check_at:
            self._check(now)
        self._take_losses(now)
        busy = self._take_events(now)
        busy |= self._list_branches(now)
        busy |= self._scan_roots(now)
        self._collect(now)
        busy |= self._outbox.turn(now)
        return busy

    def _ask(self, action: Callable[[], None]) -> None:
        self._asked.append(action)
        self._wake.set()

    def _change(self, watch: WatchConfig, roots: list[str]) -> None:
        for path in [path for path in self._roots if path not in roots]:
            self._forget(self._roots.pop(path))
        for path in roots:
            self._roots.setdefault(path, Root(path))
        old, self._watch = self._watch, watch
        self._ignored = functools.partial(listing.ignored, extra=watch.ignore)
        self._settler.quiet_seconds, self._settler.limit_seconds = watch.quiet_seconds, watch.limit_seconds
        if (old.observer, old.polling_seconds, old.queue_size, old.ignore) != (
                watch.observer, watch.polling_seconds, watch.queue_size, watch.ignore):
            self._close_observer(5.0)
            self._queue, self._queued = queue.Queue(watch.queue_size), set()
            self._want("asked")
        self._check_at = 0.0

    def _sleep(self) -> None:
        """Suspended: no observer, nothing under way; every root is scanned after `resume`."""
        if self._observing is None:
            return
        self._close_observer(5.0)
        for root in self._roots.values():
            root.wanted, root.scan, root.not_before = "asked", None, 0.0
        self._settler.forget(lambda subject: True)
        self._outbox.forget(lambda path: True)
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
        """On watchdog's thread: events of this root, or of all (""), are missing."""
        self._lost.add(root)
        self._wake.set()

    def _take_losses(self, now: float) -> None:
        while self._lost:
            path = self._lost.pop()
            if path in self._roots:
                self._roots[path].want("overflow")
            elif path == "":
                for root in self._roots.values():
                    root.want("overflow")
                    root.again_at = now + 2.0  # watchdog places its watches anew meanwhile, and may miss a directory

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
                if event.gone:
                    self._settler.note(event.path, now)
                self._settler.note(subject_of(event.path, self._roots), now)
        return True

    def _list_branches(self, now: float) -> bool:
        """Note what lies in new directories: their files may have come before the kernel watched them."""
        until = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < until:
            if self._branch is None:
                if not self._branches:
                    return False
                self._branch = listing.scan(self._branches.popleft(), self._ignored)
            for entry in self._branch:
                if self._root_of(entry.path) is not None:
                    self._settler.note(subject_of(entry.path, self._roots), now)
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
            if root.again_at is not None and now >= root.again_at:
                root.again_at = None
                root.want("overflow")
            if root.scan is None and root.wanted and now >= root.not_before:
                unreadable: list[str] = []

                def complain(path: str, error: OSError, unreadable: list[str] = unreadable) -> None:
                    unreadable.append(f"{path!a}: {error.strerror}")

                root.scan = Scan(listing.scan(root.path, self._ignored, complain), root.wanted, unreadable)
                root.wanted = None
            if root.scan is not None:
                self._advance(root, root.scan, now)
                return True
        return False

    def _advance(self, root: Root, scan: Scan, now: float) -> None:
        until = time.perf_counter() + STEP_SECONDS
        while step := list(itertools.islice(scan.entries, 200)):
            scan.found += step
            if time.perf_counter() > until:
                return
        root.scan = None
        self._examine(root)
        if not root.online:
            return
        if scan.unreadable:
            logger.warning("{} of {!a} could not be listed, among them {}", len(scan.unreadable), root.path,
                           "; ".join(scan.unreadable[:3]))
        try:
            changed = self._on_scanned(Path(root.path), scan.found, not scan.unreadable)
        except Exception as error:  # noqa: BLE001  not ours to know what it raises: the scan is repeated
            if not root.retry_seconds:
                logger.warning("the listing of {!a} was not taken, tried again later: {!r}", root.path, error)
            root.retry_seconds = min(max(1.0, root.retry_seconds * 2), LONGEST_RETRY_SECONDS)
            root.want(scan.cause)
            root.not_before = now + root.retry_seconds
            return
        root.retry_seconds = 0.0
        took_seconds = time.perf_counter() - scan.began_at
        root.not_before = now + 4 * took_seconds  # overflow after overflow: four fifths of the time stay for the rest
        timer_seconds = self._watch.rescan_seconds
        root.next_at = now + (min(timer_seconds, self._watch.polling_seconds) if root.unwatched else timer_seconds)
        self._rescans[scan.cause] += 1
        self._last_scan = (datetime.now(UTC), took_seconds, len(scan.found))
        self._classify(changed, now)

    def _classify(self, changed: list[Entry], now: float) -> None:
        """What was last changed long ago has settled; the rest has to show it."""
        seen: set[str] = set()
        for entry in changed:
            subject = subject_of(entry.path, self._roots)
            if subject in seen:
                continue
            seen.add(subject)
            entries: tuple[Entry, ...] | None = (entry,) if subject == entry.path else self._look(subject)
            if entries and all(self._is_old(entry) for entry in entries):
                self._report(Settled(subject, entries, growing=False))
            else:
                self._settler.note(subject, now)

    def _is_old(self, entry: Entry) -> bool:
        age_seconds = time.time() - max(entry.mtime_ns, entry.ctime_ns) / 1e9
        if age_seconds <= self._watch.quiet_seconds:
            return False
        return age_seconds > LEASE_AGE_SECONDS or not listing.open_for_writing(entry.path)

    # Settled paths

    def _collect(self, now: float) -> None:
        """Take from the settler what is due, unless the last batch still waits to be taken."""
        if self._outbox:
            return
        found = self._settler.turn(now, BATCH)
        if any(not item.entries for item in found):
            for root in self._roots.values():
                self._examine(root)  # the files are gone, or is it the root?
        for item in found:
            home = self._root_of(item.path)
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

    def _look(self, subject: str) -> tuple[Entry, ...] | None:
        root = self._root_of(subject)
        try:
            if os.path.isdir(subject) and not os.path.islink(subject):
                return listing.segments(subject, self._ignored)
            entry = listing.look(subject, root.path if root else None)
        except OSError:
            return None
        return (entry,) if entry is not None else ()

    def _is_open(self, entries: tuple[Entry, ...]) -> bool:
        """Of many segments only the youngest can still be open."""
        youngest = sorted(entries, key=lambda entry: entry.mtime_ns)[-3:]
        return any(listing.open_for_writing(entry.path) for entry in youngest)

    def _root_of(self, path: str) -> Root | None:
        return next((root for root in self._roots.values() if root.holds(path)), None)

    # Roots and the observer

    def _check(self, now: float) -> None:
        self._check_at = now + CHECK_SECONDS
        self._tend_observer()
        for root in self._roots.values():
            self._examine(root)

    def _tend_observer(self) -> None:
        if self._observing is not None and not self._observing.is_alive():
            logger.warning("the observer died; it is built anew")
            self._close_observer(1.0)
            self._want("observer")
        if self._observing is None:
            try:
                self._observing = Observing(self._watch, self._sink, self._lose)
                self._observer_trouble_at = None
            except OSError as error:
                if self._observer_trouble_at is None:
                    logger.warning("no observer, only scans: {}; raise fs.inotify.max_user_instances", error)
                    self._observer_trouble_at = time.monotonic()

    def _examine(self, root: Root) -> None:
        """Is the root there? Take it offline or put it (back) to use."""
        sight, why = root.judge()
        if sight is None or why:
            self._put_offline(root, why)
            return
        if root.online and root.sees(sight) and self._observing is not None and self._observing.sees(root.path):
            return
        cause = "returned" if not root.online else "observer" if root.sees(sight) else "replaced"
        trouble = "there is no observer"
        if self._observing is not None:
            try:
                self._observing.add(root.path, sight.real)
                trouble = ""
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EMFILE, errno.ENOMEM):
                    self._put_offline(root, error.strerror or str(error))
                    return
                trouble = f"{error.strerror or error}; raise fs.inotify.max_user_watches"
        root.sight = sight
        if not (root.online and trouble and root.unwatched):  # still not watched is no news
            root.want(cause)
        root.online, root.unwatched = True, bool(trouble)
        self._tell(root, f"unwatched: {trouble}" if trouble else "")

    def _put_offline(self, root: Root, why: str) -> None:
        if root.online:
            self._forget(root)
        root.online = False
        self._tell(root, f"offline: {why}")

    def _forget(self, root: Root) -> None:
        """Nothing of what is under way below this root may be reported any more."""
        root.scan = None
        if self._observing is not None:
            self._observing.drop(root.path)
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
        (logger.warning if text else logger.info)("{!a} {}", root.path, text or "is watched again")

    def _close_observer(self, deadline_seconds: float) -> None:
        observing, self._observing = self._observing, None
        if observing is not None:
            observing.close(deadline_seconds)
