"""More at once than anything takes: the kernel's queue, ours, the catalog. Nothing is lost, nothing grows for ever."""

import os
import queue
import threading
import time
from pathlib import Path

import pytest
from support import wait_until

from biliupd.watch import roots as roots_module
from biliupd.watch.outbox import BATCH


class Counted(queue.Queue):
    """Knows how long it has ever been."""

    longest = 0

    def _put(self, item):
        super()._put(item)
        self.longest = max(self.longest, self._qsize())


def fill(root: Path, files: int, folders: int = 50) -> list[str]:
    """So many files of one byte in so many folders, as fast as possible."""
    paths = [f"{root}/{n % folders}/{n}.mp4" for n in range(files)]
    for folder in range(min(folders, files)):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for path in paths:
        with open(path, "wb", buffering=0) as file:
            file.write(b"x")
    return paths


def told_exactly(catalog, paths) -> bool:
    with catalog.lock:
        return catalog.known.keys() == set(paths)


def test_ten_thousand_files_at_once_never_fill_more_than_the_queue_and_none_is_missing(watching, catalog, root):
    watcher = watching(root)
    watcher._queue = Counted(100)
    paths = fill(root, 10_000)
    wait_until(lambda: told_exactly(catalog, paths))
    assert watcher._queue.longest <= 100
    assert watcher.status().waiting == 0


def test_an_overflow_in_the_kernel_is_told_and_all_is_found(watching, catalog, root):
    """The thread that reads from the kernel is held up until the kernel's own queue is full."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    watcher = watching(root)
    instance = watcher._roots[str(root)]._observing._instance
    held = threading.Event()
    handle = instance.handle_event
    instance.handle_event = lambda event: (held.wait(30), handle(event))
    (root / "d").mkdir()
    (root / "d" / "first.mp4").write_bytes(b"x")
    directories = most // 4
    for n in range(directories):  # of each the kernel tells twice: made and removed
        os.mkdir(f"{root}/{n}")
        os.rmdir(f"{root}/{n}")
        os.mkdir(f"{root}/{n}")
        os.rmdir(f"{root}/{n}")
    lost = root / "new" / "lost.mp4"  # comes after the queue is full: the kernel never tells of it
    lost.parent.mkdir()
    lost.write_bytes(b"x")
    held.set()
    wait_until(lambda: catalog.has(root / "d" / "first.mp4", lost))
    assert watcher.status().rescans["overflow"] >= 1
    later = lost.with_name("later.mp4")
    later.write_bytes(b"x")
    wait_until(lambda: catalog.has(later))


def test_a_catalog_that_takes_nothing_for_long_costs_no_memory_and_no_file(watching, catalog, root):
    watcher = watching(root, queue_size=100)
    blocked = threading.Event()
    on_settled, waiting = watcher._outbox._take, []

    def take(items):
        waiting.append(len(items))
        blocked.wait(60)
        on_settled(items)

    watcher._outbox._take = take
    fill(root, 1)
    wait_until(lambda: waiting)
    before = memory()
    paths = fill(root, 20_000)
    wait_until(lambda: watcher.status().waiting == 100)
    grown = memory() - before
    blocked.set()
    wait_until(lambda: told_exactly(catalog, paths), seconds=60)
    assert grown < 20 << 20
    assert max(waiting) <= BATCH


def test_a_catalog_that_refuses_for_long_holds_up_the_scan(watching, catalog, root):
    """What has settled already and is not taken is not piled up by the scan."""
    paths = fill(root, 6 * BATCH)
    old = time.time() - 7200
    for path in paths:
        os.utime(path, (old, old))
    catalog.quiet_seconds = 0.001
    watcher = watching(root, scanned=False)
    take = watcher._outbox._take
    refusals = []

    def refuse(items):
        refusals.append(watcher.status().held_back)
        raise RuntimeError("database is locked")

    watcher._outbox._take = refuse
    watcher.rescan()
    wait_until(lambda: len(refusals) >= 2)
    began_at = time.process_time()
    wait_until(lambda: len(refusals) >= 3)
    assert time.process_time() - began_at < 0.5  # a second of waiting, not of turning
    assert max(refusals) < 5 * BATCH  # two batches and what one step of the scan brings
    watcher._outbox._take = take
    wait_until(lambda: told_exactly(catalog, paths))


def test_files_made_while_a_scan_runs_are_not_missed(watching, catalog, root):
    paths = fill(root, 2000)
    made = threading.Event()
    look = catalog.on_scan

    def on_scan(path):
        survey = look(path)
        seen = survey.look

        def slow(directory, entries):
            if len(survey.files) > 500 and not made.is_set():
                paths.extend(fill(root / "during", 300))
                for folder in range(0, 50, 7):
                    extra = root / str(folder) / "during.mp4"
                    extra.write_bytes(b"x")
                    paths.append(str(extra))
                made.set()
            return seen(directory, entries)

        survey.look = slow
        return survey

    catalog.on_scan = on_scan
    watcher = watching(root)
    wait_until(made.is_set)
    wait_until(lambda: told_exactly(catalog, paths))
    assert catalog.told_twice() == []
    assert watcher.status().settling == 0


def test_an_observer_that_hears_nothing_is_built_anew(watching, catalog, root, monkeypatch):
    monkeypatch.setattr(roots_module, "CANARY_SECONDS", 0.2)
    monkeypatch.setattr(roots_module, "DEAF_SECONDS", 0.5)
    watcher = watching(root)
    watcher._roots[str(root)]._observing._instance.handle_event = lambda event: None
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert watcher.status().rescans["observer"] >= 1
    (root / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "b.mp4"))


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_asking_whether_the_kernel_tells_changes_nothing_and_costs_no_scan(watching, root, monkeypatch, whose):
    monkeypatch.setattr(roots_module, "CANARY_SECONDS", 0.05)
    monkeypatch.setattr(roots_module, "DEAF_SECONDS", 0.5)
    heard = []
    if whose == "another's":
        def refused(*args, **kwargs):
            raise PermissionError(1, "Operation not permitted")  # a directory of another user, in which one may write

        monkeypatch.setattr(os, "utime", refused)
    watcher = watching(root)
    handler = watcher._roots[str(root)]._observing._handler
    wait_until(lambda: handler.heard_at)
    info = root.stat()
    for _ in range(3):
        at = handler.heard_at
        wait_until(lambda at=at: handler.heard_at > at)
        heard.append(handler.heard_at)
    again = root.stat()
    assert again.st_mtime_ns == info.st_mtime_ns
    assert watcher.status().rescans == {"start": 1}
    assert watcher.status().settling == 0
    watcher.close(5)
    assert list(root.iterdir()) == []


def memory() -> int:
    """Bytes of this process in RAM."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
