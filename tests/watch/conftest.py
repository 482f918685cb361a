"""A watcher over real directories, and what it told."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listener import Catalog
from support import wait_until

from biliupd.watch import watcher as watching_module
from biliupd.watch.watcher import Watcher


@pytest.fixture(autouse=True)
def roots_are_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(watching_module, "IDLE_SECONDS", 0.1)


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
        watcher = catalog.watcher(*roots, **settings)
        watchers.append(watcher)
        watcher.start()
        if scanned:
            wait_until(lambda: len(catalog.listings) >= len(roots), what="the first scan")
        return watcher

    yield start
    for watcher in watchers:
        watcher.close(5)
        assert not watcher.is_alive()
