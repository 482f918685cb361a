"""What a watcher is given in the tests: it takes what it is told, as the real catalog does."""

import os
import threading
from collections import Counter
from pathlib import Path

from biliupd.config import WatchConfig
from biliupd.watch.listing import Entry
from biliupd.watch.outbox import BATCH
from biliupd.watch.settle import Settled
from biliupd.watch.watcher import Watcher


class Catalog:
    """Takes what the watcher tells, as the real catalog does: it knows what is new, changed or gone."""

    quiet_seconds = 0.3

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: dict[str, tuple[int, int]] = {}
        self.settled: list[Settled] = []
        self.growing: list[str] = []
        self.gone: list[str] = []
        self.unseen: list[str] = []  # known, but not in a complete scan
        self.listings: list[tuple[Path, int, bool]] = []
        self.roots: list[tuple[str, str]] = []
        self.whole: dict[str, str] = {}  # what is missing of a file at rest
        self.failures = 0  # so many calls fail
        self.failed = 0

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            self.failed += 1
            raise RuntimeError("database is locked")

    def on_settled(self, items: list[Settled]) -> None:
        with self.lock:
            self._fail()
            assert 0 < len(items) <= BATCH
            for item in items:
                self.settled.append(item)
                if item.growing:
                    self.growing.append(item.path)
                    continue
                if not item.entries:
                    self.gone.append(item.path)
                    self.known = {path: form for path, form in self.known.items()
                                  if path != item.path and not path.startswith(item.path + "/")}
                self.known |= {entry.path: (entry.size_bytes, entry.mtime_ns) for entry in item.entries}

    def on_scan(self, root: Path) -> "Survey":
        return Survey(self, root)

    def on_root(self, root: Path, text: str) -> None:
        with self.lock:
            self.roots.append((root.name, text))

    def unfinished(self, path: str) -> str:
        return self.whole.get(path, "")

    def watcher(self, *roots: Path, **settings) -> Watcher:
        """One that tells this catalog."""
        watch = WatchConfig(**{"quiet_seconds": self.quiet_seconds, "limit_seconds": 60.0, **settings})
        return Watcher(watch, roots, on_settled=self.on_settled, on_scan=self.on_scan, on_root=self.on_root,
                       unfinished=self.unfinished)

    def has(self, *paths: Path) -> bool:
        with self.lock:
            return all(str(path) in self.known for path in paths)

    def subjects(self) -> list[str]:
        with self.lock:
            return [item.path for item in self.settled]


    def told_twice(self) -> list[Settled]:
        """What was told again though nothing of it had changed: a file that rests before its first byte came may be."""
        with self.lock:
            return [item for item, times in Counter(self.settled).items() if times > 1]


class Survey:
    """Takes one scan; at its end it says which known files were not seen."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        self.catalog, self.root, self.files = catalog, root, set[str]()

    def look(self, directory: str, entries: list[Entry]) -> list[Entry]:
        with self.catalog.lock:
            self.catalog._fail()
            assert all(os.path.dirname(entry.path) == directory for entry in entries)
            self.files.update(entry.path for entry in entries)
            known = self.catalog.known
            return [entry for entry in entries if known.get(entry.path) != (entry.size_bytes, entry.mtime_ns)]

    def end(self, complete: bool) -> None:
        with self.catalog.lock:
            self.catalog._fail()
            self.catalog.listings.append((self.root, len(self.files), complete))
            if complete:
                for path in [path for path in self.catalog.known if path.startswith(f"{self.root}/")]:
                    if path not in self.files:
                        self.catalog.unseen.append(path)
