"""watchdog, held at arm's length: events of one directory and all below it, put into one callable.

The handler runs on watchdog's own threads and only sorts by name and hands on: an exception in it would end the
dispatching thread for good, and waiting in it would pile up events in memory. Touches the directory only to see whether
the kernel tells of it: its times are set to what they are, or a hidden file is opened.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

from biliupd.foreign import ignored

# Without "modified" and "attrib": one write, one event, and the kernel's queue overflows twice as soon. A file that is
# being written is looked at again anyway until it is quiet, and "closed" or a scan finds what was appended later.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, FileDeletedEvent,
    DirCreatedEvent, DirMovedEvent, DirDeletedEvent, DirAttribEvent,
]
CANARY = ".biliupd-watch"  #: opened and closed where the directory is somebody else's
_CANARY = CANARY.encode()
_FULL = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EMFILE})

logging.getLogger("watchdog").setLevel(logging.ERROR)  # an overflow is told by whoever owns the watcher


class Event(NamedTuple):
    """Something happened to a path. `path` begins with `root`, whatever symbolic links lead there."""

    root: str
    path: str
    gone: bool
    directory: bool


class Observing:
    """The events of one root.

    `real` is its path without symbolic links; `sink` takes each event and must not wait; `lost(root)` is told when
    events are missing. Raises OSError when the kernel takes no watch on the root, or gives no (more) inotify instance.
    """

    def __init__(
        self, root: str, real: str, ignore: tuple[str, ...], sink: Callable[[Event], None], lost: Callable[[str], None]
    ) -> None:
        self._real = real
        self._instance = _Instance(os.fsencode(real), ignore, lambda: lost(root))
        self._observer = _Observer(self._instance)
        self._handler = _Handler(root, real, ignore, sink, lost)
        self._touched_at: float | None = None  # and nothing was heard since
        self._canary: int | None = None
        self._observer.start()
        try:
            self._observer.schedule(self._handler, real, recursive=True, event_filter=_EVENTS)
        except OSError:
            self.close(5.0)
            raise

    def is_alive(self) -> bool:
        """Whether its threads are: the one that reads from the kernel, the one that sorts, the one that hands on."""
        emitters = self._observer.emitters
        return self._observer.is_alive() and self._instance.is_alive() and bool(emitters) and all(
            emitter.is_alive() for emitter in emitters)

    def touch(self) -> None:
        """Make the kernel tell something, without a change that anybody sees; where that is forbidden, do nothing."""
        at = time.monotonic()
        try:
            info = os.stat(self._real)
            os.utime(self._real, ns=(info.st_atime_ns, info.st_mtime_ns))
        except PermissionError:  # the directory is somebody else's
            try:
                self._open_canary()
            except OSError:
                return
        except OSError:
            return
        if self._touched_at is None:
            self._touched_at = at

    def deaf_seconds(self) -> float:
        """How long nothing was heard since a touch; 0: something was, and be it another event."""
        if self._touched_at is not None and self._handler.heard_at >= self._touched_at:
            self._touched_at = None
        return 0.0 if self._touched_at is None else time.monotonic() - self._touched_at

    def missing(self, directories: int) -> str:
        """Why fewer than these directories are watched; "" if all are."""
        refused = dict(self._instance.refused)  # its thread goes on
        if any(number in _FULL for number in refused.values()):
            return limit_reached("watches")
        if refused:
            return f"{len(refused)} directories may not be watched, among them {os.fsdecode(next(iter(refused)))!a}"
        watches = self._instance.watches()
        return f"{directories - watches} of {directories} directories lack a watch" if watches < directories else ""

    def close(self, deadline_seconds: float) -> None:
        """End its threads; waits for the dispatching one at most this long."""
        self._observer.stop()
        self._observer.join(deadline_seconds)
        if self._canary is not None:
            os.close(self._canary)
            self._canary = None
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._real, CANARY))

    def _open_canary(self) -> None:
        file = os.open(os.path.join(self._real, CANARY), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # The old one is closed, which is told; the new one stays open, so that the name is known to be ours.
        if self._canary is not None:
            os.close(self._canary)
        self._canary = file


def limit_reached(what: str) -> str:
    """What the operator has to do about the kernel's limit of watches or instances."""
    limits = {}
    for name in (f"fs.inotify.max_user_{what}", f"user.max_inotify_{what}"):  # a container may have less than the host
        with contextlib.suppress(OSError, ValueError), open(f"/proc/sys/{name.replace('.', '/')}") as file:
            limits[name] = int(file.read())
    if not limits:
        return f"the kernel gives no more inotify {what}; raise fs.inotify.max_user_{what}"
    name = min(limits, key=lambda name: limits[name])
    return f"the kernel gives no more inotify {what}; raise it: sysctl {name}={2 * limits[name]} (is {limits[name]})"


class _Instance(InotifyFD):
    """An inotify instance that knows what it was refused, says when events were lost, and keeps names to itself that
    nobody wants."""

    def __init__(self, root: bytes, ignore: tuple[str, ...], lost: Callable[[], None]) -> None:
        super().__init__()
        self._root, self._ignore, self._lost = root, ignore, lost
        self.refused: dict[bytes, int] = {}

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        if path == self._root:
            mask = Mask(mask | InotifyConstants.IN_ATTRIB)  # `touch` needs that, and only of the root
        elif _is_ignored(os.fsdecode(path[len(self._root):]), self._ignore):
            raise PermissionError(errno.EPERM, "not wanted")  # watchdog goes on with the next one
        try:
            # As in watchdog, but for a warning when the callback is there already: nested directories made in one go
            # are added twice, and its text holds the path of every watch there is.
            with self._lock:
                watch = self._get_or_create_watch(path, mask)
                if watch.wd == -1:  # no right to read the directory, of which watchdog says nothing
                    del self._watch_for_wd[watch.wd]
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                watch.callbacks[id_] = callback
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.refused[path] = error.errno or 0
            raise
        self.refused.pop(path, None)
        return watch.wd

    def handle_event(self, event: InotifyEvent) -> None:
        if event.name and not event.is_directory:
            if event.is_attrib or (event.name != _CANARY and ignored(os.fsdecode(event.name), self._ignore)):
                return
            # watchdog looks for the other half of a move among all events that wait, and holds up every event for half
            # a second when there is none. For files both halves say all there is to know; directories keep their watch.
            if event.is_moved_from:
                event = InotifyEvent(event.wd, Mask(InotifyConstants.IN_DELETE), 0, event.name)
            elif event.is_moved_to:
                event = InotifyEvent(event.wd, Mask(InotifyConstants.IN_CREATE), 0, event.name)
        super().handle_event(event)
        if event.is_queue_overflow:  # now all watches are placed anew: a scan from now on misses nothing
            self._lost()

    def watches(self) -> int:
        """How many the kernel keeps."""
        try:
            with open(f"/proc/self/fdinfo/{self._inotify_fd}", "rb") as file:
                return sum(line.startswith(b"inotify wd:") for line in file)
        except OSError:
            return 0


class _Observer(InotifyObserver):
    def __init__(self, instance: InotifyFD) -> None:
        self._inotify_fd = instance
        instance.start()
        BaseObserver.__init__(self, InotifyEmitter, inotify_fd=instance)


class _Handler(FileSystemEventHandler):
    def __init__(
        self, root: str, real: str, ignore: tuple[str, ...], sink: Callable[[Event], None], lost: Callable[[str], None]
    ) -> None:
        self._root, self._real, self._ignore, self._sink, self._lost = root, real, ignore, sink, lost
        self.heard_at = 0.0

    def dispatch(self, event: FileSystemEvent) -> None:
        try:
            self.heard_at = time.monotonic()
            if event.event_type == "moved":
                self._hand_on(event.src_path, True, event.is_directory)
                self._hand_on(event.dest_path, False, event.is_directory)
            elif event.event_type != "attrib":
                self._hand_on(event.src_path, event.event_type == "deleted", event.is_directory)
        except Exception:  # noqa: BLE001  whatever it was, the dispatching thread must live on: the scan finds the file
            self._lost(self._root)

    def _hand_on(self, path: bytes | str, gone: bool, directory: bool) -> None:
        path = os.fsdecode(path)
        below = path[len(self._real):]
        if not path.startswith(self._real) or _is_ignored(below, self._ignore):
            return
        self._sink(Event(self._root, self._root + below, gone, directory))


def _is_ignored(below: str, extra: tuple[str, ...]) -> bool:
    """Of a path relative to its root."""
    return any(ignored(part, extra) for part in below.split("/") if part)
