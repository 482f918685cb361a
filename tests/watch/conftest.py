"""A watcher over real directories, and what it told."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import wait_until

from biliupd.config import WatchConfig
from biliupd.watch.listing import Entry
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
        self.listings: list[tuple[Path, int, bool]] = []
        self.roots: list[tuple[str, str]] = []
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
            assert 0 < len(items) <= 500
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

    def on_scanned(self, root: Path, entries: list[Entry], complete: bool) -> list[Entry]:
        with self.lock:
            self._fail()
            self.listings.append((root, len(entries), complete))
            return [entry for entry in entries if self.known.get(entry.path) != (entry.size_bytes, entry.mtime_ns)]

    def on_root(self, root: Path, text: str) -> None:
        with self.lock:
            self.roots.append((root.name, text))

    def has(self, *paths: Path) -> bool:
        with self.lock:
            return all(str(path) in self.known for path in paths)

    def subjects(self) -> list[str]:
        with self.lock:
            return [item.path for item in self.settled]


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def watching(catalog: Catalog) -> Iterator[Callable[..., Watcher]]:
    """Start a watcher and wait for its first scan of all roots that are there."""
    watchers: list[Watcher] = []

    def start(*roots: Path, scanned: bool = True, **settings) -> Watcher:
        watch = WatchConfig(**{"quiet_seconds": catalog.quiet_seconds, "limit_seconds": 60.0, **settings})
        watcher = Watcher(watch, roots, on_settled=catalog.on_settled, on_scanned=catalog.on_scanned,
                          on_root=catalog.on_root)
        watchers.append(watcher)
        watcher.start()
        if scanned:
            wait_until(lambda: len(catalog.listings) >= len(roots), what="the first scan")
        return watcher

    yield start
    for watcher in watchers:
        watcher.close(5)
        assert not watcher.is_alive()
