"""The file being uploaded: opened once, read in blocks, and watched for changes. Read-only."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from biliupd.errors import PermanentError, TemporaryError

BLOCK_BYTES = 256 * 1024


class Source:
    """A regular, non-empty file; raises PermanentError for anything else, TemporaryError when it cannot be opened.

    With `inside` it has to lie in that directory, wherever symbolic links lead. Several threads may read it at the same
    time.
    """

    def __init__(self, path: Path, inside: Path | None = None) -> None:
        self.path = path
        self.name = os.fsencode(path.name).decode("utf-8", "replace")
        shown = os.fsencode(path).decode("utf-8", "replace")
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise TemporaryError(f"{shown}: {error.strerror}") from error
        except ValueError as error:
            raise PermanentError(f"{shown}: cannot be a path") from error
        status = os.fstat(self._fd)
        self.size_bytes, self.mtime_ns, self.inode = status.st_size, status.st_mtime_ns, status.st_ino
        self._known = _identity(status)
        if not stat.S_ISREG(status.st_mode) or not self.size_bytes:
            os.close(self._fd)
            kind = "empty" if stat.S_ISREG(status.st_mode) else "not a regular file"
            if stat.S_ISDIR(status.st_mode):
                kind = "a directory, not a regular file; name the files in it"
            raise PermanentError(f"{shown}: {kind}", hint="there is nothing to upload")
        if inside is not None and not Path(self._real_path()).is_relative_to(os.path.realpath(inside)):
            os.close(self._fd)
            raise PermanentError(f"{shown}: leads out of the watched folder")

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _real_path(self) -> str:
        """Of what was opened: a link may have been put into its place, or taken away, a moment ago."""
        try:
            return os.readlink(f"/proc/self/fd/{self._fd}")
        except OSError:
            return os.path.realpath(self.path)

    def check(self) -> None:
        """Raise TemporaryError if the file, or what its path leads to, is no longer what was opened."""
        try:
            same = _identity(os.fstat(self._fd)) == self._known == _identity(os.stat(self.path))
        except OSError as error:
            raise TemporaryError(f"{self.path}: changed while it was uploaded: {error.strerror}") from error
        if not same:
            raise TemporaryError(f"{self.path}: changed while it was uploaded", hint="it starts anew once it rests")

    def blocks(self, start: int, size: int) -> Iterator[memoryview]:
        """Bytes from `start` on, in pieces of at most 256 KiB; the next one overwrites the one before."""
        buffer = memoryview(bytearray(min(BLOCK_BYTES, size)))
        end = start + size
        while start < end:
            try:
                count = os.preadv(self._fd, [buffer[:end - start]], start)
            except OSError as error:
                raise TemporaryError(f"{self.path}: cannot be read: {error.strerror}") from error
            if not count:
                raise TemporaryError(f"{self.path}: changed while it was uploaded: it is shorter now")
            yield buffer[:count]
            start += count


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
