"""watchdog, held at arm's length: events of some directories, put into one callable.

The handler runs on watchdog's own threads and only sorts by name and hands on: an exception in it would end the
dispatching thread for good, and waiting in it would pile up events in memory. Reads directories, never writes.
"""

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from biliupd.config import WatchConfig
from biliupd.watch.listing import ignored

# Without "modified": one write, one event, and the kernel's queue overflows twice as soon. A file that is being written
# is looked at again and again anyway until it is quiet, and "closed" or a scan finds what was appended later.
_NATIVE_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, FileDeletedEvent,
    DirCreatedEvent, DirMovedEvent, DirDeletedEvent,
]
_POLLING_EVENTS: list[type[FileSystemEvent]] = [*_NATIVE_EVENTS, FileModifiedEvent]


class Event(NamedTuple):
    """Something happened to a path. `path` begins with `root`, whatever symbolic links lead there."""

    root: str
    path: str
    gone: bool
    directory: bool


class Observing:
    """One observer. `sink` takes each event and must not wait; `lost(root)` is told when events of a root are missing,
    with "" for those of all roots: the kernel's queue has overflowed.

    Raises OSError when the kernel gives no (more) inotify instance.
    """

    def __init__(self, watch: WatchConfig, sink: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        self._ignore = tuple(watch.ignore)
        self._sink = sink
        self._lost = lost
        self._events = _NATIVE_EVENTS if watch.observer != "polling" else _POLLING_EVENTS
        self._watches: dict[str, ObservedWatch] = {}
        self.observer: BaseObserver = (
            InotifyObserver() if watch.observer != "polling" else PollingObserver(timeout=watch.polling_seconds))
        self._overflow = _OverflowNotice(lost)
        for name in _OverflowNotice.LOGGERS:
            logging.getLogger(name).addHandler(self._overflow)
        self.observer.start()

    def add(self, root: str, real: str) -> None:
        """Watch a directory and all below it; `real` is its path without symbolic links. Raises OSError."""
        self.drop(root)
        handler = _Handler(root, real, self._ignore, self._sink, self._lost)
        self._watches[root] = self.observer.schedule(handler, real, recursive=True, event_filter=self._events)

    def drop(self, root: str) -> None:
        """Stop watching it; nothing happens if it is not watched."""
        watch = self._watches.pop(root, None)
        if watch is not None and watch in {emitter.watch for emitter in self.observer.emitters}:
            self.observer.unschedule(watch)

    def sees(self, root: str) -> bool:
        """Whether the thread that reads this root's events is alive."""
        watch = self._watches.get(root)
        return any(emitter.watch == watch and emitter.is_alive() for emitter in self.observer.emitters)

    def is_alive(self) -> bool:
        """Whether the dispatching thread is alive, and the one that reads from the kernel."""
        reader = getattr(self.observer, "_inotify_fd", None)  # no public way leads there (watchdog 7.1)
        return self.observer.is_alive() and (reader is None or reader.is_alive())

    def close(self, deadline_seconds: float) -> None:
        """End its threads; waits for the dispatching one at most this long."""
        for name in _OverflowNotice.LOGGERS:
            logging.getLogger(name).removeHandler(self._overflow)
        self.observer.stop()
        self.observer.join(deadline_seconds)


class _Handler(FileSystemEventHandler):
    def __init__(
        self, root: str, real: str, ignore: tuple[str, ...], sink: Callable[[Event], None], lost: Callable[[str], None]
    ) -> None:
        self._root, self._real, self._ignore, self._sink, self._lost = root, real, ignore, sink, lost

    def dispatch(self, event: FileSystemEvent) -> None:
        try:
            if event.event_type == "moved":
                self._hand_on(event.src_path, True, event.is_directory)
                self._hand_on(event.dest_path, False, event.is_directory)
            else:
                self._hand_on(event.src_path, event.event_type == "deleted", event.is_directory)
        except Exception:  # noqa: BLE001  whatever it was, the dispatching thread must live on: the scan finds the file
            self._lost(self._root)

    def _hand_on(self, path: bytes | str, gone: bool, directory: bool) -> None:
        path = os.fsdecode(path)
        below = path[len(self._real):]
        if not path.startswith(self._real) or any(ignored(part, self._ignore) for part in below.split("/") if part):
            return
        self._sink(Event(self._root, self._root + below, gone, directory))


class _OverflowNotice(logging.Handler):
    """watchdog says only in its log that the kernel's event queue overflowed (and drops more events then)."""

    LOGGERS = ("watchdog.observers.inotify_c", "watchdog.observers.inotify")

    def __init__(self, lost: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._lost = lost

    def emit(self, record: logging.LogRecord) -> None:
        self._lost("")
