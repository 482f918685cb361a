"""One daemon per data directory: a lock the kernel gives back however the daemon ends. Its file holds the pid.

What is wrong with the directory itself is said here, too, because everybody comes by here first.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from biliupd.errors import PermanentError, TemporaryError


class AlreadyRunning(PermanentError):
    """Another daemon has this data directory; `pid` is its process."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{who} runs on {path.parent} already", hint="biliupd stop ends it")
        self.pid = pid


def unusable(data_directory: Path, error: OSError) -> PermanentError:
    """That a data directory cannot be used, with the remedy."""
    hint = "set recordings.data_directory to a directory that you may write to"
    try:
        owner = data_directory.owner() if data_directory.stat().st_uid != os.geteuid() else ""
    except (OSError, KeyError):
        owner = ""
    if owner:
        hint = f"it belongs to {owner}: run biliupd as that user (sudo -u {owner} …)"
    return PermanentError(f"{data_directory} cannot be used: {error.strerror}", hint=hint)


class DataLock:
    """A context manager; entering raises AlreadyRunning, and TemporaryError for a full disk.

    Serves as python-daemon's pid file, too.
    """

    def __init__(self, data_directory: Path) -> None:
        self.path = data_directory / "biliupd.pid"
        self.unclean = False  #: once entered: whether the last one to have the lock did not end properly
        self._fd: int | None = None

    def __enter__(self) -> "DataLock":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unusable(self.path.parent, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise AlreadyRunning(self.path, _pid_in(self.path)) from error
        self.unclean = bool(os.pread(fd, 1, 0))
        mine = f"{os.getpid()}\n".encode()
        try:
            os.pwrite(fd, mine, 0)  # over what stands there: when that fails, it still says that the last one died
            os.ftruncate(fd, len(mine))
        except OSError as error:
            os.close(fd)
            raise TemporaryError(f"{self.path} cannot be written: {error.strerror}", hint="make room there") from error
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def holder(data_directory: Path) -> int | None:
    """The pid of the daemon that runs on a data directory, or None. Raises PermanentError when we may not look."""
    path = data_directory / "biliupd.pid"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise unusable(data_directory, error) from error
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(path)
    finally:
        os.close(fd)
    return None


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
