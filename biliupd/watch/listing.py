"""What lies in a directory, as values.

Runs on the watcher thread. Touches watched directories: lists, stats, and for a moment opens a file for reading to ask
the kernel for a lease; never writes. Paths are absolute and in the form of `os.fsdecode`: bytes that are no UTF-8
appear as surrogates.
"""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from biliupd.foreign import FIRST, LAST, ignored

SEGMENT_SUFFIXES = (".ts", ".m4s", ".m3u8")  #: media segments and playlists: they belong to their directory
INIT_NAME = "init.mp4"  #: the init section of fMP4 segments, which belongs to them

_SEGMENT_LAST = frozenset("sS8")


class Entry(NamedTuple):
    """A regular file. Times in nanoseconds since 1970, by the clock of the file system."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def is_segment(path: str) -> bool:
    """Whether a name belongs to its directory rather than being a thing of its own."""
    if path[-1:] in _SEGMENT_LAST and path.lower().endswith(SEGMENT_SUFFIXES):
        return True
    return path.endswith(INIT_NAME) and os.path.basename(path) == INIT_NAME


def scan(
    root: str, extra: Sequence[str] = (), unreadable: Callable[[str, OSError], None] | None = None
) -> Iterator[tuple[str, list[Entry]]]:
    """Every directory at and below `root`, in no order, each read whole, with the regular files directly in it.

    Ignored names are left out, `extra` as in `ignored`. Directories behind symbolic links are not entered; a link to a
    file counts when the file is inside `root`.
    `unreadable(path, error)` is called for each directory or file that could not be looked at: the listing is then not
    complete. What vanishes meanwhile is left out and is no error.
    """
    real_root = os.path.realpath(root)
    directories = [root]
    # What follows is done 100,000 times: no calls that can be spared, and this is twice as fast as Entry(...).
    new, regular, folder, link, kind = tuple.__new__, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFMT(0o177777)
    first, last = FIRST, LAST
    while directories:
        directory = directories.pop()
        found: list[Entry] = []
        keep = found.append
        try:
            with os.scandir(directory) as items:
                for item in items:
                    name = item.name
                    if (name[0] in first or name[-1] in last or extra) and ignored(name, extra):
                        continue
                    try:
                        info = item.stat(follow_symlinks=False)
                        what = info.st_mode & kind
                        if what == regular:
                            keep(new(Entry, (
                                item.path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)))
                        elif what == folder:
                            directories.append(item.path)
                        elif what == link and (linked := _linked(item.path, real_root)) is not None:
                            keep(linked)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        if unreadable is not None:
                            unreadable(item.path, error)
        except OSError as error:
            if unreadable is not None and (directory == root or not isinstance(error, FileNotFoundError)):
                unreadable(directory, error)
                continue
        yield directory, found


def _linked(path: str, real_root: str) -> Entry | None:
    """The file behind a symbolic link, when it is one and inside the root."""
    target = os.path.realpath(path)
    if not target.startswith(real_root.rstrip("/") + "/"):
        return None
    try:
        info = os.stat(target, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    return Entry(path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)


def look(path: str, root: str | None = None) -> Entry | None:
    """The regular file at `path`; None when there is none.

    A symbolic link counts as in `scan` when `root` is given, else not at all. Raises OSError when one cannot tell, for
    instance because a directory on the way may not be searched.
    """
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(info.st_mode):
        return _linked(path, os.path.realpath(root)) if root is not None else None
    if not stat.S_ISREG(info.st_mode):
        return None
    return Entry(path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)


def segments(directory: str, extra: Sequence[str] = (), root: str | None = None) -> tuple[Entry, ...]:
    """Segments, playlists and init section directly in a directory, by path; empty when it is gone.

    Links to files count as in `look`. Raises OSError when one cannot tell.
    """
    found = []
    try:
        with os.scandir(directory) as items:
            for item in items:
                if not is_segment(item.name) or ignored(item.name, extra):
                    continue
                if (entry := look(item.path, root)) is not None:
                    found.append(entry)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(found))


def open_for_writing(path: str) -> bool:
    """Whether a process on this machine has the file open or mapped for writing; False when one cannot tell.

    A read lease (fcntl(2)) is granted only while nobody writes. It needs the file's owner or CAP_LEASE and a local
    file system. A writer that opens the file in the microseconds the lease lasts is held up by the kernel, and we are
    signalled: SIGURG, which does nothing by default, instead of SIGIO, which would end the process.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(file)  # which gives the lease back, too
    return False
